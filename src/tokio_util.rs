//! The `CancellationToken` of tokio-util (feature `tokio-util`): a token is a [`Signal`], so it merges with contexts
//! without a task; and [`token`] makes one that follows a context, for code that takes nothing else.
//!
//! ```
//! use context_merge::{Context, merge, tokio_util::token};
//! use std::time::Duration;
//! use tokio_util::sync::CancellationToken;
//!
//! async fn takes_a_token(stop: CancellationToken) -> &'static str {
//!     stop.run_until_cancelled(std::future::pending::<()>()).await;
//!     "stopped"
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let shutdown = CancellationToken::new();
//! let request = Context::background().with_timeout(Duration::from_secs(5));
//! let ctx = merge(&request, &shutdown);
//!
//! let (stop, _follows) = token(&ctx);
//! assert_eq!(takes_a_token(stop).await, "stopped");
//! assert!(ctx.err().unwrap().is_deadline_exceeded());
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;

use crate::{Context, Error, OnDone, Signal};
use tokio_util::sync::CancellationToken;

/// Finishes when the token is cancelled, as a cancel without a cause.
///
/// A token does not tell when its last clone is gone: who waits for it then waits on.
impl Signal for CancellationToken {
    fn err(&self) -> Option<Error> {
        self.is_cancelled().then(Error::cancelled)
    }

    fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
        let cancelled = self.clone().cancelled_owned();
        Box::pin(async {
            cancelled.await;
            Error::cancelled()
        })
    }
}

/// As [`Context::from_signal`]. Each call makes a source of its own: convert a token once, and clone the context.
impl From<CancellationToken> for Context {
    fn from(token: CancellationToken) -> Self {
        Context::from_signal(token)
    }
}

/// Of a clone of the token.
impl From<&CancellationToken> for Context {
    fn from(token: &CancellationToken) -> Self {
        Context::from(token.clone())
    }
}

/// A token that is cancelled when the context finishes, for as long as the [`OnDone`] is kept, or
/// [detached](OnDone::detach): dropping it leaves the token to itself. So give it a name: `let (token, _) =` drops it
/// at once.
///
/// The token and its children are cancelled before [`cancel`](crate::Canceller::cancel) returns; by a deadline or a
/// foreign signal on the runtime, or where [`Context::on_done`] says that it runs then. Cancelling the token does not reach the context.
///
/// ```
/// use context_merge::{Context, tokio_util::token};
///
/// let (ctx, canceller) = Context::background().with_cancel();
/// let (token, _follows) = token(&ctx);
/// let child = token.child_token();
/// canceller.cancel();
/// assert!(token.is_cancelled() && child.is_cancelled());
/// ```
///
/// # Panics
/// As [`Context::on_done`]: on a live context with a foreign signal, outside a tokio runtime; on one with a deadline, in a
/// runtime without time enabled.
pub fn token(ctx: &Context) -> (CancellationToken, OnDone) {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let on_done = ctx.on_done(move |_| cancelled.cancel());
    (token, on_done)
}
