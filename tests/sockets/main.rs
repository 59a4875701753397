//! The layers over real sockets, with real clients: hyper's, tonic's, curl, and bytes written by hand.
#![cfg(all(feature = "axum", feature = "tonic"))]

mod bodies;
mod client;
mod complete;
mod crowd;
mod enforced;
mod grpc;
mod hang_up;
mod propagate;
mod public;
mod read_ahead;
mod server;
mod stalled;
#[path = "../../examples/stop_button.rs"]
#[allow(dead_code, reason = "its main")]
mod stop_button;

use std::future::Future;
use std::time::Duration;

use context_merge::tower::Ended;

/// Runs a test in a runtime of its own, and fails where it hangs.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await });
    // A test that failed may have left a thread.
    runtime.shutdown_background();
    result.expect("a test that does not hang")
}

#[test]
fn the_stop_button_stops_what_the_handler_has_started() {
    for version in client::VERSIONS {
        let (pages, err) = run(stop_button::press_stop(version)).unwrap();
        assert!(pages >= 1);
        assert_eq!(server::how(&err), Some(Ended::BeforeResponse), "{version:?}");
    }
}
