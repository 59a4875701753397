//! Sources that are not ours: a foreign cancellation, and any future.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cell::Cell;
use crate::context::Context;
use crate::error::{Error, Late};
use crate::fate::Deadline;
use crate::node::Node;
use crate::source::Role;
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::waiters::Waiters;

/// Somebody else's cancellation, seen as a context by [`Context::from_signal`].
///
/// It happened when it was first seen: by a look, or by a future that waits. From then on it stays, whatever `err`
/// says later. It is derived from no context, so it is born under no name: the origin is the one that its error brings
/// ([`Error::named`]).
///
/// ```
/// use context_merge::{Context, Error, Signal, merge};
/// use std::pin::Pin;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// struct Flag(Arc<AtomicBool>);
///
/// impl Signal for Flag {
///     fn err(&self) -> Option<Error> {
///         self.0.load(Ordering::Acquire).then(Error::cancelled)
///     }
///     fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
///         let flag = Arc::clone(&self.0);
///         Box::pin(async move {
///             while !flag.load(Ordering::Acquire) {
///                 tokio::task::yield_now().await;
///             }
///             Error::cancelled()
///         })
///     }
/// }
///
/// let flag = Arc::new(AtomicBool::new(false));
/// let ctx = merge(Context::background(), Context::from_signal(Flag(Arc::clone(&flag))));
/// assert!(!ctx.is_done());
/// flag.store(true, Ordering::Release);
/// assert!(ctx.is_done());
/// ```
pub trait Signal: Send + Sync + 'static {
    /// Whether it has happened, and how. Must not block: every look at a context over it asks, until that is finished,
    /// and so does cancelling what is derived from it.
    fn err(&self) -> Option<Error>;
    /// Finishes when it happens. Made once for each future that waits, and dropped with it.
    fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>>;
    /// Asked once, when the context is made.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

impl Context {
    /// A context that finishes as `signal` does, with its error. No task is spawned: a look asks the signal, and
    /// whoever waits polls its future.
    ///
    /// # Panics
    /// Whatever `signal` panics with comes out of the call that asked it: a look, a merge, a poll, or a cancel, which
    /// happens all the same. A source that was cancelled and a deadline that has passed are seen without asking. In the
    /// task of an [`on_done`](Self::on_done) it is left to the panic hook; what else finishes the context still counts.
    pub fn from_signal(signal: impl Signal) -> Context {
        let deadline = signal.deadline().map(|at| Deadline::new(at, Late::new(None)));
        let role = Role::Signal { cell: Cell::new(), signal: Box::new(signal) };
        Context::of(Node::new(role, std::iter::empty(), deadline))
    }

    /// A context that is cancelled when `event` is ready. It is the one thing in this crate that spawns a task for
    /// a context; the task, and `event` with it, is dropped when nobody can see the context any more.
    ///
    /// Where `event` panics, or its runtime is shut down, the context is never cancelled by it. Its error has no origin:
    /// [`finished_by`](Self::finished_by) tells whether it was the first.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (send, receive) = tokio::sync::oneshot::channel::<()>();
    /// let ctx = Context::until(async { receive.await.unwrap_or(()) });
    /// assert!(!ctx.is_done());
    /// send.send(()).unwrap();
    /// assert!(ctx.done().await.is_cancelled());
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn until<F: Future + Send + 'static>(event: F) -> Context {
        Self::until_error(async {
            event.await;
            Error::cancelled()
        })
    }

    /// [`until`](Self::until), with what `event` gives as the cause.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ctx = Context::until_cause(async { "the lease is lost" });
    /// assert_eq!(ctx.done().await.cause().unwrap().to_string(), "the lease is lost");
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn until_cause<F>(event: F) -> Context
    where
        F: Future<Output: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        Self::until_error(async { Error::cancelled().with_cause(event.await) })
    }

    fn until_error(event: impl Future<Output = Error> + Send + 'static) -> Context {
        let runtime = Handle::try_current().expect("Context::until needs a tokio runtime for its task");
        let shared = Arc::new(Shared { cell: Cell::new(), waiters: Waiters::new(), over: AtomicBool::new(false) });
        let task = runtime.spawn({
            let ends = Ends(Arc::clone(&shared));
            async move {
                // Bound here, so that it goes when the task does, however that ends.
                let ends = ends;
                let err = event.await;
                ends.0.cell.mark(err);
                ends.0.waiters.fire();
            }
        });
        let until = Until { shared, task: task.abort_handle() };
        Context::of(Node::new(Role::Until(Box::new(until)), std::iter::empty(), None))
    }
}

/// The node's side of an `until`; its task holds the shared half, but never the node.
pub(crate) struct Until {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    cell: Cell,
    waiters: Waiters,
    /// Set when the task is gone, before its list is let go.
    over: AtomicBool,
}

impl Until {
    pub(crate) fn cell(&self) -> &Cell {
        &self.shared.cell
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.shared.waiters
    }

    pub(crate) fn is_open(&self) -> bool {
        // Acquire: pairs with the store in `Ends::drop`, as in `Lower::is_open`.
        !self.shared.cell.is_fired() && !self.shared.over.load(Ordering::Acquire)
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task's half: once it is gone nothing can come any more.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        // Release: pairs with `Until::is_open`.
        self.0.over.store(true, Ordering::Release);
        self.0.waiters.abandon();
    }
}
