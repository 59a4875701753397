//! The handler's side: the body of a request, of which some has been read already.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use http_body::{Body, SizeHint};
use pin_project::pin_project;

use super::shared::{Panics, Shared, Side};
use crate::tower::body::{Next, Rest};

/// The body of a request that is read ahead; made by [`ReadAheadLayer`](super::ReadAheadLayer).
///
/// Its frames, trailers, errors, size hint and end are those of the body inside, in that order, as if nobody had read ahead.
/// It may be moved to another task.
#[pin_project]
pub struct ReadAheadBody<A: Body>(#[pin] Inner<A>);

impl<A: Body> ReadAheadBody<A> {
    pub(super) fn passed(body: A) -> Self {
        Self(Inner::Passed(body))
    }

    pub(super) fn shared(shared: Arc<Shared<A>>, rest: Rest) -> Self {
        Self(Inner::Shared(Reader { shared, rest }))
    }
}

#[pin_project(project = Projected)]
enum Inner<A: Body> {
    /// There is nothing to read.
    Passed(#[pin] A),
    Shared(Reader<A>),
}

/// The handler's side.
struct Reader<A: Body> {
    shared: Arc<Shared<A>>,
    /// As of what was handed on.
    rest: Rest,
}

impl<A: Body> Reader<A> {
    fn poll_frame(&mut self, cx: &mut task::Context<'_>) -> Poll<Next<A>> {
        let Shared { limit, tasks, .. } = &*self.shared;
        tasks.register(Side::Handler, cx.waker());
        loop {
            let mut state = self.shared.lock();
            state.begun = true;
            let stopped = !state.reads_ahead(*limit);
            if let Some(came) = state.queue.pop_front() {
                state.weight = state.weight.saturating_sub(came.weight());
                let goes_on = stopped && state.reads_ahead(*limit);
                drop(state);
                self.rest = came.rest;
                if goes_on {
                    tasks.wake_each(&[Side::Ahead]);
                }
                return Poll::Ready(came.next);
            }
            drop(state);
            if !self.shared.advance(Side::Handler) {
                return Poll::Pending;
            }
        }
    }
}

impl<A: Body> Drop for Reader<A> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.dropped = true;
        let (queue, body) = (mem::take(&mut state.queue), state.left_over(self.shared.limit));
        drop(state);
        let mut panics = Panics::default();
        panics.catch(|| drop(queue));
        panics.catch(|| drop(body));
        panics.catch(|| drop(self.shared.tasks.take(Side::Handler)));
        panics.resume();
    }
}

impl<A: Body> Body for ReadAheadBody<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Next<A>> {
        match self.project().0.project() {
            Projected::Passed(body) => body.poll_frame(cx),
            Projected::Shared(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Passed(body) => body.is_end_stream(),
            Inner::Shared(reader) => reader.rest.is_end_stream,
        }
    }

    #[allow(clippy::clone_on_copy, reason = "Copy only since http-body 1.1")]
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Passed(body) => body.size_hint(),
            Inner::Shared(reader) => reader.rest.size_hint.clone(),
        }
    }
}

impl<A: Body> fmt::Debug for ReadAheadBody<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAheadBody").finish_non_exhaustive()
    }
}
