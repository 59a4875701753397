//! The only thing that can cancel a context.

use std::error::Error as StdError;
use std::fmt;

use crate::error::Error;
use crate::fate::OWN;
use crate::node::Node;
use crate::release::Panics;
use crate::source::Role;
use crate::sync::Ordering;

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
    node: Option<Node>,
}

impl Canceller {
    /// The first one of a source; None is for a context that was finished already.
    pub(crate) fn new(node: Option<Node>) -> Self {
        Self { node }
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
        self.finish(Error::cancelled)
    }

    /// [`cancel`](Self::cancel) with a cause, which [`Error::cause`] and `source` give to whoever asks. The cause is
    /// dropped where the call is not the first.
    pub fn cancel_with(&self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> bool {
        let cause = cause.into();
        self.finish(|| Error::cancelled().with_cause(cause))
    }

    fn finish(&self, err: impl FnOnce() -> Error) -> bool {
        let Some(node) = &self.node else { return false };
        let Role::Source { cell, waiters, name, .. } = node.role() else { return false };
        let mut panics = Panics::default();
        // A foreign signal above that panics when it is asked has not been seen to happen: the cancel is first.
        let finished = panics.catch(|| node.is_finished()).unwrap_or(false);
        // Nobody may have heard the deadline or the signal that was first: so this is an event too. It is timed after that
        // one, which everything over this source is over too, and changes no verdict; but it wakes whoever still waits.
        let too_late = finished && node.finished_by_alarm();
        let mut first = false;
        if (!finished && cell.mark(err().born_under(name.as_ref()))) || (too_late && cell.mark(Error::cancelled())) {
            first = node.decide() == OWN;
            panics.catch(|| waiters.fire());
        } else {
            // Whoever was first may still be on the way to the gathers.
            node.tell_below();
        }
        panics.resume();
        first
    }

    /// Whether a call on this canceller or a clone was the one that finished its context.
    pub fn is_cancelled(&self) -> bool {
        self.node.as_ref().is_some_and(Node::finished_itself)
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
        if let Some(Role::Source { cancellers, .. }) = self.node.as_ref().map(Node::role) {
            // Relaxed: as with a reference count, a clone is made from one that is held.
            cancellers.fetch_add(1, Ordering::Relaxed);
        }
        Self { node: self.node.clone() }
    }
}

impl Drop for Canceller {
    fn drop(&mut self) {
        let Some(node) = &self.node else { return };
        let Role::Source { cell, waiters, cancellers, .. } = node.role() else { return };
        // The last one can be cloned by nobody any more. Acquire and AcqRel: pair with each other, so that it sees the
        // registrations made before the others went. Release: pairs with `Node::is_open`.
        let last = if cancellers.load(Ordering::Acquire) == 1 {
            cancellers.store(0, Ordering::Release);
            true
        } else {
            cancellers.fetch_sub(1, Ordering::AcqRel) == 1
        };
        // No cancel is under way any more, and one that was has woken all who waited, and lets nobody in (W1).
        if last && !node.is_unique() && !cell.is_fired() {
            waiters.abandon();
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
        self.canceller.take().expect("only disarm takes it, and consumes the guard")
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(canceller) = &self.canceller {
            canceller.cancel();
        }
    }
}
