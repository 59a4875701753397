//! An exchange under way.

use std::mem;

use crate::{Canceller, DropGuard, Ended};

/// An exchange under way. Dropping it cancels its context, with how far it came as the cause.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Taken by the drop.
    guard: Option<DropGuard>,
    so_far: Ended,
}

impl Exchange {
    pub(super) fn new(canceller: Canceller) -> Self {
        Self { guard: Some(canceller.drop_guard()), so_far: Ended::BeforeResponse }
    }

    /// The response is there, and its body is still to come.
    pub(super) fn responded(&mut self) {
        self.so_far = Ended::InBody;
    }

    /// Runs a part of it, which may panic.
    pub(super) fn run<T>(&mut self, part: impl FnOnce() -> T) -> T {
        let so_far = mem::replace(&mut self.so_far, Ended::Panicked);
        let result = part();
        self.so_far = so_far;
        result
    }

    /// All of the response was handed on that has to be: it is complete, unless more of it fails.
    pub(super) fn is_whole(&mut self) {
        self.so_far = Ended::Complete;
    }

    pub(super) fn head_was_late(&mut self) {
        self.so_far = Ended::HeadLimit;
    }

    pub(super) fn has_failed(&mut self) {
        self.so_far = Ended::Failed;
    }

    /// Nothing more comes.
    pub(super) fn end(mut self) {
        if matches!(self.so_far, Ended::BeforeResponse | Ended::InBody) {
            self.so_far = Ended::Complete;
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.cancel_with(self.so_far);
        }
    }
}
