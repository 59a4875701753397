//! Programs that the compiler has to refuse, each after a twin that it takes. Stable Rust sees that they are refused; that it
//! is for the reason named, only nightly (`just refused`).
//!
//! # A value that is not `Send`
//! ```
//! let _ctx = context_merge::Context::background().with_value(std::sync::Arc::new(1));
//! ```
//! ```compile_fail,E0277
//! let _ctx = context_merge::Context::background().with_value(std::rc::Rc::new(1));
//! ```
//!
//! # A value that is `Send` and not `Sync`
//! ```
//! let _ctx = context_merge::Context::background().with_value(std::sync::Mutex::new(1));
//! ```
//! ```compile_fail,E0277
//! let _ctx = context_merge::Context::background().with_value(std::cell::Cell::new(1));
//! ```
//!
//! # A value that borrows
//! ```
//! let text = String::new();
//! let _ctx = context_merge::Context::background().with_value(text);
//! ```
//! ```compile_fail,E0597
//! let text = String::new();
//! let _ctx = context_merge::Context::background().with_value(text.as_str());
//! ```
//!
//! # A value that outlives its context
//! ```
//! let ctx = context_merge::Context::background().with_value(1);
//! let value = ctx.value::<i32>();
//! assert_eq!(value, Some(&1));
//! drop(ctx);
//! ```
//! ```compile_fail,E0505
//! let ctx = context_merge::Context::background().with_value(1);
//! let value = ctx.value::<i32>();
//! drop(ctx);
//! assert_eq!(value, Some(&1));
//! ```
//!
//! # A cancel by who only has the context
//! ```
//! let (_ctx, canceller) = context_merge::Context::background().with_cancel();
//! canceller.cancel();
//! ```
//! ```compile_fail,E0599
//! let (ctx, _canceller) = context_merge::Context::background().with_cancel();
//! ctx.cancel();
//! ```
//!
//! # A canceller in the place of its context
//! ```
//! let (ctx, _canceller) = context_merge::Context::background().with_cancel();
//! context_merge::any_of([&ctx]);
//! ```
//! ```compile_fail,E0277
//! let (_ctx, canceller) = context_merge::Context::background().with_cancel();
//! context_merge::any_of([&canceller]);
//! ```
//!
//! # `Done` that outlives its context
//! ```
//! let ctx = context_merge::Context::background();
//! let done = ctx.done_owned();
//! drop(ctx);
//! drop(done);
//! ```
//! ```compile_fail,E0505
//! let ctx = context_merge::Context::background();
//! let done = ctx.done();
//! drop(ctx);
//! drop(done);
//! ```
//!
//! # A task that borrows its context to wait
//! ```
//! # async fn with(ctx: context_merge::Context) {
//! tokio::spawn(ctx.done_owned());
//! # }
//! ```
//! ```compile_fail,E0597
//! # async fn with(ctx: context_merge::Context) {
//! tokio::spawn(ctx.done());
//! # }
//! ```
//!
//! # A task that borrows its context to run
//! ```
//! # use context_merge::FutureExt;
//! # async fn with(ctx: context_merge::Context) {
//! tokio::spawn(std::future::ready(1).with_context(&ctx));
//! # }
//! ```
//! ```compile_fail,E0597
//! # use context_merge::FutureExt;
//! # async fn with(ctx: context_merge::Context) {
//! tokio::spawn(ctx.run(std::future::ready(1)));
//! # }
//! ```
//!
//! # A callback that is not `Send`
//! ```
//! let seen = std::sync::Arc::new(());
//! context_merge::Context::background().on_done(move |_| drop(seen)).detach();
//! ```
//! ```compile_fail,E0277
//! let seen = std::rc::Rc::new(());
//! context_merge::Context::background().on_done(move |_| drop(seen)).detach();
//! ```
//!
//! # A callback that borrows
//! ```
//! let seen = String::new();
//! context_merge::Context::background().on_done(move |_| drop(seen)).detach();
//! ```
//! ```compile_fail,E0597
//! let seen = String::new();
//! let seen = &seen;
//! context_merge::Context::background().on_done(move |_| println!("{seen}")).detach();
//! ```
//!
//! # A callback that stops at once, unseen
//! ```
//! #![deny(unused_must_use)]
//! context_merge::Context::background().on_done(|_| {}).detach();
//! ```
//! ```compile_fail
//! #![deny(unused_must_use)]
//! context_merge::Context::background().on_done(|_| {});
//! ```
//!
//! # A guard that cancels at once, unseen
//! ```
//! #![deny(unused_must_use)]
//! let _guard = context_merge::Context::background().with_cancel().1.drop_guard();
//! ```
//! ```compile_fail
//! #![deny(unused_must_use)]
//! context_merge::Context::background().with_cancel().1.drop_guard();
//! ```
//!
//! # An event that no task can hold
//! ```
//! let event = std::future::ready(std::sync::Arc::new(()));
//! let _until = |()| context_merge::Context::until(event);
//! ```
//! ```compile_fail,E0277
//! let event = std::future::ready(std::rc::Rc::new(()));
//! let _until = |()| context_merge::Context::until(event);
//! ```
//!
//! # A signal that threads cannot share
//! ```
//! # use context_merge::{Error, Signal};
//! # use std::{future::Future, pin::Pin};
//! struct Flag(std::sync::Mutex<bool>);
//! impl Signal for Flag {
//!     # fn err(&self) -> Option<Error> { None }
//!     # fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> { Box::pin(std::future::pending()) }
//! }
//! ```
//! ```compile_fail,E0277
//! # use context_merge::{Error, Signal};
//! # use std::{future::Future, pin::Pin};
//! struct Flag(std::cell::Cell<bool>);
//! impl Signal for Flag {
//!     # fn err(&self) -> Option<Error> { None }
//!     # fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> { Box::pin(std::future::pending()) }
//! }
//! ```
//!
//! # A match that a third kind of error would break
//! ```
//! # use context_merge::{Error, ErrorKind};
//! match Error::cancelled().kind() {
//!     ErrorKind::Cancelled | ErrorKind::DeadlineExceeded => {}
//!     _ => {}
//! }
//! ```
//! ```compile_fail,E0004
//! # use context_merge::{Error, ErrorKind};
//! match Error::cancelled().kind() {
//!     ErrorKind::Cancelled | ErrorKind::DeadlineExceeded => {}
//! }
//! ```
