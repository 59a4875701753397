#[path = "../../examples/slow_server.rs"]
#[expect(dead_code, reason = "its main")]
mod example;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use context_merge::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{advance, pause, resume, timeout};

use crate::{HOUR, SECOND};
use example::{Connections, TIMEOUT};

/// A slow server on a port of its own.
async fn slow_server(
    delays: impl IntoIterator<Item = Duration, IntoIter: Send> + 'static,
) -> (SocketAddr, watch::Receiver<Connections>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, connections) = watch::channel(Connections::default());
    tokio::spawn(example::serve(listener, delays.into_iter(), sender));
    (address, connections)
}

/// Fails where the server does not come to see this in ten seconds.
async fn sees(connections: &mut watch::Receiver<Connections>, expected: Connections) {
    let seen = timeout(10 * SECOND, connections.wait_for(|seen| *seen == expected)).await.map(drop);
    assert!(seen.is_ok(), "{expected:?}, not {:?}", *connections.borrow());
}

/// Makes the clock leap; with sockets it may not stay paused, since it would then run ahead of them.
async fn leap(by: Duration) {
    pause();
    advance(by).await;
    resume();
}

#[tokio::test]
async fn a_client_that_gives_up_frees_its_connection() {
    let (server, mut connections) = slow_server([2 * HOUR; 2]).await;
    let ask = |timeout| {
        let ctx = Context::background().with_timeout(timeout);
        tokio::spawn(async move { example::ask(&ctx, server).await })
    };
    let (hasty, patient) = (ask(HOUR), ask(4 * HOUR));
    sees(&mut connections, Connections { open: 2, answered: 0, abandoned: 0 }).await;
    leap(HOUR).await;
    assert_eq!(timeout(10 * SECOND, hasty).await.unwrap().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    sees(&mut connections, Connections { open: 1, answered: 0, abandoned: 1 }).await;
    leap(2 * HOUR).await;
    assert_eq!(timeout(10 * SECOND, patient).await.unwrap().unwrap().unwrap(), "hello");
    sees(&mut connections, Connections { open: 0, answered: 1, abandoned: 1 }).await;
}

#[test]
fn the_server_is_slow_at_random_and_the_same_for_a_seed() {
    let delays = |seed| example::delays(seed).take(100).collect::<Vec<_>>();
    assert_eq!(delays(7), delays(7));
    assert_ne!(delays(7), delays(8));
    let slow = delays(7).iter().filter(|delay| **delay > TIMEOUT).count();
    assert!((20..80).contains(&slow), "{slow} of 100");
}
