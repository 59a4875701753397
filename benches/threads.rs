//! What a request costs where one and two threads serve requests under one root.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Ours, Tokens, Turns};

fn main() {
    Turns::run(|turns| {
        let (ours, tokens) = (&Ours::default(), &Tokens::default());
        let mut measure = turns.measure("request, threads on one root");
        for threads in [1, 2] {
            measure = measure
                .sized("ours", threads, move |b| {
                    b.iter_custom(|requests| serve(threads, requests, || || ours.new_request()));
                })
                .sized("ours, a relay each", threads, move |b| {
                    b.iter_custom(|requests| {
                        serve(threads, requests, || {
                            let ours = ours.relay();
                            move || ours.new_request()
                        })
                    });
                })
                .sized("new token + child token", threads, move |b| {
                    b.iter_custom(|requests| serve(threads, requests, || || tokens.new_request()));
                });
        }
        measure.run();
    });
}

/// From the first request to the last, where `threads` share `requests`: half of it for each, if nothing is in the way of
/// two.
fn serve<F: FnMut() -> bool>(threads: usize, requests: u64, worker: impl Fn() -> F + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let each = requests.div_ceil(threads as u64);
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let work = || {
            let mut request = worker();
            barrier.wait();
            let start = Instant::now();
            for _ in 0..each {
                black_box(request());
            }
            (start, Instant::now())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    let first = spans.iter().map(|span| span.0).min().expect("a thread");
    let last = spans.iter().map(|span| span.1).max().expect("a thread");
    // An odd request is one more than was asked for.
    (last - first).mul_f64(requests as f64 / (each * threads as u64) as f64)
}
