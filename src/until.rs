//! Any future as a source: the task that waits for it cancels a source of its own, which the context stands for.

use std::error::Error as StdError;
use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::canceller::Canceller;
use crate::context::Context;
use crate::error::Error;
use crate::source::{Resolved, Set, Source, Upstream};
use crate::sync::Arc;
use crate::waiters::Waiters;

impl Context {
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
        let source = Source::own(None, Set::Never);
        // The last of its source: when the task is gone, however it ended, nothing can come any more.
        let canceller = Canceller::new(Some(Arc::clone(&source)));
        let task = runtime.spawn(async move {
            let canceller = canceller;
            let err = event.await;
            canceller.cancel_as(err);
        });
        Context::of(Set::Source(Source::other(Until { source, task: task.abort_handle() })))
    }
}

/// Ends the task with the last context that can see it; the task holds the source, never this.
struct Until {
    source: Arc<Source>,
    task: AbortHandle,
}

impl Upstream for Until {
    fn resolve<'a>(&'a self, _: &'a Source) -> Option<Resolved<'a>> {
        self.source.resolve_marked()
    }

    fn waiters(&self) -> Option<&Waiters> {
        Some(&self.source.waiters)
    }

    fn name(&self) -> &'static str {
        "until"
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        self.task.abort();
    }
}
