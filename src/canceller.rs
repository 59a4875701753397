//! The only thing that can cancel a context.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{Error, Name};
use crate::release::Panics;
use crate::set::FIRST;
use crate::source::{Source, View};
use crate::sync::{Arc, is_unique};

/// Cancels the context that [`with_cancel`](crate::Context::with_cancel) made it with, and all that is derived from
/// or merged with that one; never a parent.
///
/// Dropping it is not a cancel ([`drop_guard`](Self::drop_guard) makes one that is). When the last clone is gone
/// nothing can be waiting for this source any more, so what was registered with it is let go.
///
/// ```
/// use context_merge::Context;
///
/// let (ctx, canceller) = Context::background().with_cancel();
/// assert!(canceller.cancel_with("no longer needed"));
/// assert!(!canceller.cancel(), "only one call can be the first");
/// assert_eq!(ctx.err().unwrap().cause().unwrap().to_string(), "no longer needed");
/// ```
pub struct Canceller {
    /// None where the context was finished before it was derived.
    source: Option<Arc<Source>>,
}

impl Canceller {
    /// The first one of a source; None is for a context that was finished already.
    #[inline]
    pub(crate) fn new(source: Option<Arc<Source>>) -> Self {
        Self { source }
    }

    /// Finishes the context. True for the one call that did it: false, and nothing is changed, where another call, a
    /// parent or the deadline was first.
    ///
    /// When it returns, every context over this source is done on every thread that synchronises with this one.
    /// Callbacks run here, and tasks are woken, in no promised order, after all contexts have become done. So do those that
    /// have not heard of a deadline or a foreign signal that was first, as where nobody drives their runtime: with its error.
    ///
    /// # Panics
    /// With the panic of a waker or a callback, after all others have been woken. So does that of a foreign signal above
    /// the source, which is asked whether it was first: where it panics, it was not.
    pub fn cancel(&self) -> bool {
        self.finish(|name| Error::cancelled().born_under(name))
    }

    /// [`cancel`](Self::cancel) with a cause, which [`Error::cause`] and `source` give to whoever asks. The cause is
    /// dropped where the call is not the first, and where nobody holds the context any more.
    pub fn cancel_with(&self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> bool {
        self.finish(|name| Error::cancelled().with_cause(cause).born_under(name))
    }

    /// [`cancel`](Self::cancel) with that error, whatever its name.
    pub(crate) fn cancel_as(&self, err: Error) -> bool {
        self.finish(|_| err)
    }

    fn finish(&self, err: impl FnOnce(Option<&Name>) -> Error) -> bool {
        let Some(source) = &self.source else { return false };
        let ctx = View::Source(source);
        let mut panics = Panics::default();
        // A foreign signal above that panics when it is asked has not been seen to happen: the cancel is first.
        let finished = panics.catch(|| ctx.is_finished()).unwrap_or(false);
        if is_unique(source) {
            panics.resume();
            return !finished && source.finish_unseen();
        }
        // Nobody may have heard the deadline or the signal that was first: so this is an event too. It is timed after that
        // one, which everything over this source is over too, and changes no verdict; but it wakes whoever still waits.
        let (first, waited) = match finished {
            false => source.mark(err(source.name())),
            true if ctx.finished_without_notify() => (false, source.mark(Error::cancelled()).1),
            true => (false, false),
        };
        let first = first && ctx.decide() == FIRST;
        if waited {
            panics.catch(|| source.waiters.notify());
        }
        if !first {
            // Whoever was first may still be on the way to the lists downstream.
            ctx.mark_downstream();
        }
        panics.resume();
        first
    }

    /// Whether this canceller is all that is left: nobody can look at its context any more, or wait for it.
    fn is_unseen(&self) -> bool {
        self.source.as_ref().is_none_or(is_unique)
    }

    /// Whether a call on this canceller or a clone was the one that finished its context.
    pub fn is_cancelled(&self) -> bool {
        self.source.as_ref().is_some_and(|source| View::Source(source).verdict() == FIRST)
    }

    /// A guard that cancels when it is dropped, also by a panic.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// drop(canceller.drop_guard());
    /// assert!(ctx.is_done());
    /// ```
    pub fn drop_guard(self) -> DropGuard {
        DropGuard { canceller: Some(self) }
    }
}

impl Clone for Canceller {
    fn clone(&self) -> Self {
        if let Some(source) = &self.source {
            source.waiters.add();
        }
        Self { source: self.source.clone() }
    }
}

impl Drop for Canceller {
    #[inline]
    fn drop(&mut self) {
        if let Some(source) = &self.source {
            source.waiters.lose();
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

/// A cause may hold anything; see [`Error`].
impl std::panic::UnwindSafe for Canceller {}
impl std::panic::RefUnwindSafe for Canceller {}

/// Cancels when it is dropped; made by [`Canceller::drop_guard`].
#[derive(Debug)]
#[must_use = "dropping the guard cancels at once"]
pub struct DropGuard {
    canceller: Option<Canceller>,
}

impl DropGuard {
    /// Gives the canceller back, without cancelling.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// let canceller = canceller.drop_guard().disarm();
    /// assert!(!ctx.is_done());
    /// assert!(canceller.cancel());
    /// ```
    pub fn disarm(mut self) -> Canceller {
        self.canceller.take().expect("only what consumes the guard takes it")
    }

    /// Cancels now, with a cause. It tells nobody whether it was the first, so where nobody holds the context any more it has
    /// nothing to do.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// canceller.drop_guard().cancel_with("no longer needed");
    /// assert_eq!(ctx.err().unwrap().cause().unwrap().to_string(), "no longer needed");
    /// ```
    ///
    /// # Panics
    /// As [`Canceller::cancel`].
    pub fn cancel_with(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) {
        if let Some(canceller) = self.take_if_seen() {
            canceller.cancel_with(cause);
        }
    }

    fn take_if_seen(&mut self) -> Option<Canceller> {
        self.canceller.take().filter(|canceller| !canceller.is_unseen())
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(canceller) = self.take_if_seen() {
            canceller.cancel();
        }
    }
}
