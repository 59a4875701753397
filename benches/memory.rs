use context_merge::{Context, merge};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;
fn main() {
    let (shutdown, _stop) = Context::background().with_cancel();
    let (request, _hang_up) = Context::background().with_cancel();
    let region = Region::new(ALLOCATOR);
    drop(merge(&request, &shutdown));
    let change = region.change();
    println!("merge + check + drop/ours: {} {}", change.bytes_allocated, change.allocations);
}
