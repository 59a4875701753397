//! Many requests that wait, and one stop: how long until the last has its answer.
//!
//! A process may not have as many files open as there are requests, so each connection, of HTTP/2, carries some of them.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::server::Server;
use crate::table::{Samples, markdown, seconds};

const ROUNDS: usize = 9;
const CONNECTIONS: u64 = 10_000;
const STREAMS: u64 = 10;
const BOUNDS: [&str; 2] = ["tokens", "contexts"];

/// The samples of one measure, for each of the bounds.
type Of = [Samples; 2];

pub(crate) fn measure() -> String {
    let [mut call, mut ended, mut answered, mut cpu, mut kept] = <[Of; 5]>::default();
    for round in 0..ROUNDS {
        for turn in 0..BOUNDS.len() {
            let at = (round + turn) % BOUNDS.len();
            let stop = stop(BOUNDS[at]);
            call[at].push(stop.call.as_secs_f64());
            ended[at].push(stop.ended.as_secs_f64());
            answered[at].push(stop.answered.as_secs_f64());
            cpu[at].push(stop.cpu.as_secs_f64());
            kept[at].push(stop.kept as f64);
        }
    }
    let row = |measure: &str, of: &Of, show: fn(f64) -> String| {
        let [tokens, contexts] = of;
        [measure.into(), show(tokens.median()), show(contexts.median()), contexts.to(tokens)].to_vec()
    };
    let head = ["", "tokens", "contexts", "contexts / tokens"];
    format!(
        "{} requests parked, {STREAMS} on each of {CONNECTIONS} connections, and one stop; \
        {ROUNDS} rounds, medians (least to largest round):\n\n{}",
        CONNECTIONS * STREAMS,
        markdown(&[
            head.map(String::from).to_vec(),
            row("the cancel itself", &call, seconds),
            row("until the last handler has its answer", &ended, seconds),
            row("until the last answer is with its client", &answered, seconds),
            row("server's CPU time until then", &cpu, seconds),
            row("server's resident memory for a parked request", &kept, |bytes| format!("{bytes:.0} bytes")),
        ])
    )
}

/// What came of one stop.
struct Stop {
    /// The cancel, till it returned.
    call: Duration,
    /// From the cancel until no handler was left.
    ended: Duration,
    /// From the word to the server until no answer was missing.
    answered: Duration,
    /// What the server ran meanwhile.
    cpu: Duration,
    /// Bytes of the server's memory for each request, with its part of a connection.
    kept: u64,
}

fn stop(bounds: &str) -> Stop {
    let mut server = Server::start(bounds);
    let empty = server.resident();
    let clients = Builder::new_multi_thread().worker_threads(1).enable_io().build().expect("a runtime");
    let connections = park(&clients, server.port);
    while server.ask("parked") < CONNECTIONS * STREAMS {
        thread::sleep(Duration::from_millis(10));
    }
    // What is on its way settles.
    thread::sleep(Duration::from_millis(500));
    let kept = (server.resident() - empty) * 1_024 / (CONNECTIONS * STREAMS);
    let (begun, ran) = (Instant::now(), server.cpu());
    let call = Duration::from_nanos(server.ask("stop"));
    let last = connections.into_iter().map(|connection| clients.block_on(connection).expect("its answers")).max();
    let answered = last.map_or(Duration::ZERO, |last| last - begun);
    let cpu = server.cpu() - ran;
    Stop { call, ended: Duration::from_nanos(server.ask("last")), answered, cpu, kept }
}

/// Sends all requests; each connection tells when it had its last answer.
fn park(clients: &Runtime, port: u16) -> Vec<JoinHandle<Instant>> {
    clients.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("a connection");
            stream.set_nodelay(true).expect("a connection");
            connections.push(tokio::spawn(connection(stream)));
        }
        connections
    })
}

async fn connection(stream: TcpStream) -> Instant {
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..STREAMS {
        client = client.ready().await.expect("a stream");
        let request = Request::get("http://localhost/park").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("a stream");
        answers.push(answer);
    }
    for answer in answers {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let mut body = answer.into_body();
        while let Some(data) = body.data().await {
            data.expect("the body");
        }
    }
    let last = Instant::now();
    drop(client);
    driver.abort();
    last
}
