//! What is derived from a context: children with a cancel, a deadline, or a list of their own; and a signal as a context.

use std::error::Error as StdError;
use std::time::Duration;

use tokio::time::Instant;

use crate::canceller::Canceller;
use crate::context::Context;
use crate::error::{DeadlineError, Name};
use crate::event::Deadline;
use crate::gather::bound;
use crate::relay::expand;
use crate::signal::{self, Signal};
use crate::source::{MAX_SOURCES, Set, Source, Sources};
use crate::sync::{Arc, now};

impl Context {
    /// A child that its [`Canceller`] can finish too.
    #[must_use]
    pub fn with_cancel(&self) -> (Context, Canceller) {
        let name = self.values.name();
        let source = match &self.set {
            Set::Never => Source::own(name, Set::Never),
            // Where only its deadline has passed, what is made below sees that by itself.
            set if !set.view().is_pending() && set.view().is_finished() => return (self.clone(), Canceller::new(None)),
            set if set.view().count() < MAX_SOURCES => Source::own(name, set.clone()),
            set => Source::own(name, bounded(set, MAX_SOURCES - 1)),
        };
        (self.on(Set::Source(Arc::clone(&source))), Canceller::new(Some(source)))
    }

    /// A child that is finished at `at`, where its parent's deadline is not as early. An instant in the past means
    /// finished at birth, but a parent that is finished already keeps its error.
    #[must_use]
    pub fn with_deadline(&self, at: impl Into<Instant>) -> Context {
        self.until_deadline(at.into(), DeadlineError::new)
    }

    /// [`with_deadline`](Self::with_deadline), with a cause for the error.
    #[must_use]
    pub fn with_deadline_cause(
        &self,
        at: impl Into<Instant>,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Context {
        let cause = cause.into();
        self.until_deadline(at.into(), |name| DeadlineError::caused_by(cause, name))
    }

    /// [`with_deadline`](Self::with_deadline) `after` from now. Zero means finished at birth; a time too long to
    /// represent means no deadline.
    #[must_use]
    pub fn with_timeout(&self, after: Duration) -> Context {
        now().checked_add(after).map_or_else(|| self.clone(), |at| self.with_deadline(at))
    }

    /// [`with_timeout`](Self::with_timeout), with a cause for the error.
    ///
    /// ```
    /// use context_merge::Context;
    /// use std::time::Duration;
    ///
    /// let ctx = Context::background().with_timeout_cause(Duration::ZERO, "the backup took too long");
    /// let err = ctx.check().unwrap_err();
    /// assert!(err.is_deadline_exceeded());
    /// assert_eq!(err.cause().unwrap().to_string(), "the backup took too long");
    /// ```
    #[must_use]
    pub fn with_timeout_cause(&self, after: Duration, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Context {
        now().checked_add(after).map_or_else(|| self.clone(), |at| self.with_deadline_cause(at, cause))
    }

    fn until_deadline(&self, at: Instant, why: impl FnOnce(Option<&Name>) -> DeadlineError) -> Context {
        if self.deadline().is_some_and(|known| known <= at) {
            return self.clone();
        }
        let deadline = Some(Deadline::new(at, why(self.values.name())));
        self.on(match self.set.only() {
            // What most deadlines are laid on.
            Some((source, None)) => Set::single(Arc::clone(source), deadline),
            _ => match self.view().event() {
                Some(event) => Set::finished(event, deadline),
                None => Set::union(self.set.view().sources().cloned(), deadline),
            },
        })
    }

    /// Observes as this one, with a reference count and a list of waiters of its own: with one for each worker or
    /// connection, cores that make, check and drop contexts below it stay off each other's cache lines.
    ///
    /// It registers with the sources above it when it is first waited on, and once for all that wait on it.
    #[must_use]
    pub fn relay(&self) -> Context {
        match &self.set {
            Set::Never => self.clone(),
            set if set.view().is_finished() => self.clone(),
            set => self.on(relayed(set)),
        }
    }

    /// A context that finishes as `signal` does, with its error. No task is spawned: a look asks the signal, and
    /// whoever waits polls its future.
    ///
    /// # Panics
    /// Whatever `signal` panics with comes out of the call that asked it: a look, a merge, a poll, or a cancel, which
    /// happens all the same. A source that was cancelled and a deadline that has passed are seen without asking. In the
    /// task of an [`on_done`](Self::on_done) it is left to the panic hook; what else finishes the context still counts.
    pub fn from_signal(signal: impl Signal) -> Context {
        let deadline = signal.deadline().map(|at| Deadline::new(at, DeadlineError::new(None)));
        Context::of(Set::union([signal::source(signal)].into_iter(), deadline))
    }
}

/// The same behind at most `most` sources.
#[cold]
fn bounded(set: &Set, most: usize) -> Set {
    let mut sources: Sources = set.view().sources().cloned().collect();
    bound(&mut sources, most);
    Set::union(sources.into_iter(), set.view().deadline().cloned())
}

/// Behind a relay, but for foreign signals (N5 in `set.rs`). Relays are seen through, so that none stands on another.
fn relayed(set: &Set) -> Set {
    if set.view().all(|source| source.as_relay().is_none() && !source.is_foreign()) {
        return Set::Source(Source::relay(set.clone()));
    }
    let deadline = set.view().deadline().cloned();
    let (mut signals, mut rest): (Sources, Sources) =
        set.view().sources().cloned().partition(|source| source.is_foreign());
    expand(&mut rest);
    bound(&mut rest, MAX_SOURCES);
    if !rest.is_empty() {
        signals.insert(0, Source::relay(Set::union(rest.into_iter(), None)));
    }
    Set::union(signals.into_iter(), deadline)
}
