//! Foreign signals: somebody else's cancellation as a source. It is asked at every look, and polled by whoever waits.

use std::future::Future;
use std::pin::Pin;

use tokio::time::Instant;

use crate::error::Error;
use crate::release::drop_foreign;
use crate::source::{Listening, Resolved, Source, Upstream};
use crate::sync::Arc;
use crate::waiters::Waiters;

/// Somebody else's cancellation, seen as a context by [`Context::from_signal`](crate::Context::from_signal).
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

/// A signal as a source.
pub(crate) fn source(signal: impl Signal) -> Arc<Source> {
    Source::other(Foreign { signal: Some(signal) })
}

struct Foreign<S: Signal> {
    /// None only while it is dropped.
    signal: Option<S>,
}

impl<S: Signal> Foreign<S> {
    fn signal(&self) -> &S {
        self.signal.as_ref().expect("taken by the drop alone")
    }
}

impl<S: Signal> Upstream for Foreign<S> {
    fn has_event(&self, source: &Source) -> bool {
        source.waiters.is_marked() || self.signal().err().map(|err| source.mark(err)).is_some()
    }

    fn resolve<'a>(&'a self, source: &'a Source) -> Option<Resolved<'a>> {
        source.resolve_marked()
    }

    fn waiters(&self) -> Option<&Waiters> {
        None
    }

    fn listen(&self) -> Option<Listening> {
        Some(self.signal().done())
    }

    fn is_foreign(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "signal"
    }
}

impl<S: Signal> Drop for Foreign<S> {
    fn drop(&mut self) {
        drop_foreign(self.signal.take());
    }
}
