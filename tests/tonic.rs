//! Errors, requests and streams of tonic, without a socket.
#![cfg(feature = "tonic")]

use context_merge::tonic::{RequestExt, StatusStreamExt};
use context_merge::{Context, Error};
use futures::stream::FusedStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use tonic::{Code, Request, Status};

#[test]
fn errors_are_statuses() {
    let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
    stop.cancel_with("SIGTERM");
    for (err, code, message) in [
        (Error::deadline_exceeded(), Code::DeadlineExceeded, "context deadline exceeded"),
        (Error::cancelled().with_cause("logged out"), Code::Cancelled, "context cancelled"),
        (shutdown.err().unwrap(), Code::Cancelled, "context cancelled"),
    ] {
        let status = Status::from(err);
        assert_eq!((status.code(), status.message()), (code, message));
        let source = std::error::Error::source(&status).unwrap();
        assert!(source.is::<Error>());
    }
}

#[test]
fn a_request_has_a_context() {
    let missing = Request::new(()).context().unwrap_err();
    assert_eq!(missing.code(), Code::Internal);
    let ctx = Request::new(()).with_context(Context::background().with_value(7)).context().unwrap();
    assert_eq!(ctx.value::<i32>(), Some(&7));
}

#[test]
fn a_stream_ends_with_a_status() {
    let (ctx, canceller) = Context::background().with_cancel();
    let items = [Ok(1), Err(Status::not_found("a row")), Ok(2)];
    let mut answers = Box::pin(stream::iter(items).chain(stream::pending()).until_done(&ctx));
    assert_eq!(answers.next().now_or_never().unwrap().unwrap().unwrap(), 1);
    assert_eq!(answers.next().now_or_never().unwrap().unwrap().unwrap_err().code(), Code::NotFound);
    assert_eq!(Stream::size_hint(answers.as_ref().get_ref()), (0, Some(2)));
    canceller.cancel();
    assert!(!answers.is_terminated());
    assert_eq!(answers.next().now_or_never().unwrap().unwrap().unwrap_err().code(), Code::Cancelled);
    assert!(answers.next().now_or_never().unwrap().is_none());
    assert!(answers.is_terminated());
}
