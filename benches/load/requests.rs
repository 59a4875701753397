//! Requests a second, the slowest of a hundred, and what the server ran for each: the three bounds in turn.

use crate::server::Server;
use crate::table::{Samples, markdown, seconds};
use crate::wrk;

const ROUNDS: usize = 9;
const SECONDS: u64 = 4;
const BOUNDS: [&str; 3] = ["none", "tokens", "contexts"];

/// The samples of one measure, for each of the bounds.
type Of = [Samples; 3];

pub(crate) fn measure() -> String {
    let [mut rate, mut p99, mut cpu, mut alone] = <[Of; 4]>::default();
    for round in 0..ROUNDS {
        for turn in 0..BOUNDS.len() {
            // Another one begins each round, so that what grows meanwhile meets all.
            let at = (round + turn) % BOUNDS.len();
            let mut server = Server::start(BOUNDS[at]);
            wrk::finish(wrk::start(server.port, 1));
            let (before, ran) = (server.ask("requests"), server.cpu());
            let said = wrk::finish(wrk::start(server.port, SECONDS));
            let (requests, ran) = (server.ask("requests") - before, server.cpu() - ran);
            rate[at].push(said.rate);
            p99[at].push(said.p99.as_secs_f64());
            cpu[at].push(ran.as_secs_f64() / requests as f64);
            alone[at].push(server.ask("alone") as f64 / 1e9);
        }
    }
    let row = |measure: &str, of: &Of, show: fn(f64) -> String| {
        let [none, tokens, contexts] = of;
        let values = of.each_ref().map(|samples| show(samples.median()));
        let ratios = [tokens.to(none), contexts.to(none), contexts.to(tokens)];
        [[measure.to_owned()].as_slice(), &values, &ratios].concat()
    };
    let head = ["", "none", "tokens", "contexts", "tokens / none", "contexts / none", "contexts / tokens"];
    format!(
        "GET / on {} connections that are kept, {ROUNDS} rounds of {SECONDS} s, medians (least to largest round):\n\n{}",
        wrk::CONNECTIONS,
        markdown(&[
            head.map(String::from).to_vec(),
            row("requests a second", &rate, |rate| format!("{rate:.0}")),
            row("p99", &p99, seconds),
            row("server's CPU time for a request", &cpu, seconds),
            row("the handler without a connection", &alone, seconds),
        ])
    )
}
