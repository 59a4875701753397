//! The hottest operations, one by one, so often: `hot OPERATION TIMES`. For a profiler, and for `just bench-check`.

use std::hint::black_box;

use harness::Ours;

fn main() {
    let mut args = std::env::args().skip(1);
    let (operation, times) = (args.next().expect("an operation"), args.next().expect("how often"));
    let times = times.parse().expect("a number of times");
    let ours = Ours::default();
    match operation.as_str() {
        "merge" => repeat(times, || ours.merge()),
        "new_request" => repeat(times, || ours.new_request_with_timeout()),
        "ended" => repeat(times, || ours.new_request_ended()),
        "exchange" => repeat(times, || ours.exchange()),
        "check" => repeat(times, || ours.check()),
        "await" => repeat(times, || ours.await_again()),
        "run" => repeat(times, || ours.run_ready()),
        _ => panic!("no operation {operation}"),
    }
}

fn repeat<T>(times: u64, operation: impl Fn() -> T) {
    for _ in 0..times {
        black_box(operation());
    }
}
