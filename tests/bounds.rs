//! Rules 22 to 24 and the sizes: allocations, memory, depth, large sets.

mod support;

use std::mem::size_of;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use context_merge::{Canceller, Context, Error, any_of, merge};
use support::{Counting, CountingAlloc, allocations, bytes_held, poll};

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc;

fn live() -> (Context, Canceller) {
    Context::background().with_cancel()
}

fn count<T>(f: impl FnOnce() -> T) -> usize {
    let (made, count) = allocations(f);
    drop(made);
    count
}

/// What a small stack can run: a frame for each level would not fit.
fn on_a_small_stack(f: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(128 << 10).spawn(f).unwrap().join().unwrap();
}

#[test]
fn sizes() {
    assert!(size_of::<Context>() <= 4 * size_of::<usize>());
    assert!(size_of::<Error>() <= 2 * size_of::<usize>());
    assert!(size_of::<Option<Context>>() <= 4 * size_of::<usize>());
    assert!(size_of::<Canceller>() <= size_of::<usize>());
}

/// Rule 22: at most one allocation up to two sources, and two up to eight; rule 9: none where the inputs are equal, one is the
/// background, or one plainly contains the other.
#[test]
fn deriving_and_merging_allocate_once() {
    let (a, _keep_a) = live();
    let (b, _keep_b) = live();
    let eight: Vec<_> = (0..8).map(|_| live()).collect();
    let all = any_of(eight.iter().map(|(ctx, _)| ctx));
    let timeout = a.with_timeout(Duration::from_secs(60));
    assert_eq!(count(|| a.with_cancel()), 1);
    assert_eq!(count(|| a.with_timeout(Duration::from_secs(60))), 1);
    assert_eq!(count(|| a.with_value(7)), 1);
    assert_eq!(count(|| a.relay()), 1);
    assert_eq!(count(|| all.relay()), 1);
    assert_eq!(count(|| merge(&a, &b)), 1);
    assert_eq!(count(|| merge(&timeout, &b)), 1);
    assert_eq!(count(|| any_of(eight.iter().map(|(ctx, _)| ctx))), 2);
    // The second is what collects more than eight before they turn out to be fewer.
    assert_eq!(count(|| any_of(eight.iter().chain(&eight).map(|(ctx, _)| ctx))), 2);
    assert_eq!(count(|| merge(&all, &eight[3].0)), 0);
    assert_eq!(count(|| timeout.with_cancel()), 1);
    assert_eq!(count(|| all.with_cancel()), 17, "a gather, its set and its lists, and a link in each of eight");

    let (child, _keep_child) = a.with_cancel();
    assert_eq!(count(|| merge(&a, &a)), 0);
    assert_eq!(count(|| merge(&a, Context::background())), 0);
    assert_eq!(count(|| merge(Context::background(), &a)), 0);
    assert_eq!(count(|| merge(&child, &a)), 0);
    assert_eq!(count(|| merge(&a, &child)), 0);
    assert_eq!(count(|| merge(&a, &timeout)), 0);
    let limits = [60, 90].map(|seconds| Context::background().with_timeout(Duration::from_secs(seconds)));
    assert_eq!(count(|| merge(&limits[0], &limits[1])), 0);
    assert_eq!(count(|| merge(&limits[1], &limits[0])), 0);
    let name = Arc::<str>::from("work");
    assert_eq!(count(|| timeout.named(Arc::clone(&name))), 2, "the name, and its place among the values");
    let named = timeout.named(name);
    assert_eq!(
        count(|| (named.without_cancel().with_cancel(), named.with_timeout(Duration::ZERO))),
        2,
        "as without it"
    );
    let (named_child, _keep_named) = named.with_cancel();
    assert_eq!(count(|| merge(&named, &named_child)), 0);
    assert_eq!(count(|| any_of((0..100).map(|i| if i % 2 == 0 { &a } else { &child }))), 0);
    let both = merge(&a, &b);
    assert_eq!(count(|| any_of([&a, &b, &both])), 0);
    assert_eq!(count(|| any_of([&b, &a, &both])), 0, "in another order");
    assert_eq!(count(|| merge(&b, &both)), 0, "not the first of it");
    assert_eq!(count(|| merge(a.relay(), &a)), 2, "a relay is looked through, and not into");
    let relay = a.relay();
    let with_relay = merge(&relay, &b);
    assert_eq!(count(|| merge(&relay, &with_relay)), 0);
    assert_eq!(count(|| any_of([&relay, &b, &with_relay])), 0);
    let with_relay_last = any_of([&a, &b, &live().0.relay()]);
    assert_eq!(count(|| merge(&b, &with_relay_last)), 0);
    assert_eq!(count(|| any_of(Vec::<Context>::new())), 0);
    assert_eq!(count(|| any_of([Context::background(), Context::background()])), 0);
    assert_eq!(count(|| timeout.with_timeout(Duration::from_secs(90))), 0);
    assert_eq!(count(|| (a.without_cancel(), a.with_values_of(&b), Context::background().relay())), 0);
    let (finished, cancel) = live();
    cancel.cancel();
    assert_eq!(count(|| finished.relay()), 0);
    assert_eq!(count(|| merge(&finished, &a)), 1, "the event alone");
}

/// Observing never allocates, finished or not; but the one look that decides a context past eight sources may.
#[test]
fn observing_does_not_allocate() {
    let (a, cancel_a) = live();
    let (b, _keep_b) = live();
    let views = [
        merge(&a, &b).with_value(7),
        merge(a.relay(), &b).with_timeout(Duration::from_secs(60)),
        any_of((0..30).map(|_| live().0).chain([a.clone()])),
        b.with_timeout_cause(Duration::ZERO, "late"),
        b.with_timeout(Duration::ZERO),
    ];
    let look = |ctx: &Context| {
        allocations(|| {
            let _ = (ctx.is_done(), ctx.err(), ctx.check(), ctx.deadline(), ctx.remaining(), ctx.value::<i32>());
            let _ = views.each_ref().map(|input| ctx.finished_by(input));
        })
        .1
    };
    for ctx in &views {
        assert_eq!(look(ctx), 0);
    }
    cancel_a.cancel_with("over");
    for ctx in &views {
        assert_eq!(look(ctx), 0);
    }
}

/// A relay that nobody waits on is in no list, and has none: also where a cancel below it comes too late.
#[test]
fn an_idle_relay_stays_idle() {
    let (root, _keep) = live();
    let (_child, canceller) = root.relay().with_cancel();
    assert!(canceller.cancel());
    assert_eq!(count(|| canceller.cancel()), 0);
}

/// Rule 18, 22: `done` and `run` of what is ready allocate nothing; awaiting again neither.
#[test]
fn waiting_allocates_little() {
    let (a, cancel_a) = live();
    let ctx = merge(&a, live().0);
    let waker = std::task::Waker::noop();
    let mut cx = std::task::Context::from_waker(waker);
    assert_eq!(count(|| pin!(ctx.run(std::future::ready(1))).poll(&mut cx).is_ready()), 0);
    assert!(pin!(ctx.done()).poll(&mut cx).is_pending());
    let other = merge(&ctx, live().0);
    assert!(pin!(other.done()).poll(&mut cx).is_pending());
    let again = count(|| pin!(ctx.done()).poll(&mut cx).is_pending());
    assert!(again <= 1, "{again}: the list of one source is grown again at most");
    cancel_a.cancel();
    assert_eq!(count(|| pin!(ctx.done()).poll(&mut cx).is_ready()), 0);
}

/// Rule 22: merges made and dropped on one living root leave its memory where it was, awaited, with callbacks, or not.
#[test]
fn merges_leave_nothing_on_a_living_root() {
    let (root, _keep) = live();
    let relay = root.relay();
    let waker = Counting::new();
    let round = |i: usize| {
        let (request, _canceller) = Context::background().with_cancel();
        let ctx = merge(&request, if i % 2 == 0 { &root } else { &relay });
        match i % 4 {
            0 | 1 => assert!(poll(pin!(ctx.done()), &waker).is_pending()),
            2 => drop(ctx.on_done(|_| {})),
            _ => drop(ctx.on_done(|_| {}).stop()),
        }
    };
    (0..1_000).for_each(round);
    let before = bytes_held();
    (0..1_000_000).for_each(round);
    assert_eq!(bytes_held(), before);
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// Rule 22: relays and crowds that are gone are in no list of what they stood for.
#[test]
fn relays_and_crowds_leave_nothing_on_a_living_root() {
    let (root, _keep) = live();
    let waker = Counting::new();
    let round = |_| {
        let (relay, crowd) = (root.relay(), any_of((0..9).map(|_| live().0).chain([root.clone()])));
        assert!(poll(pin!(relay.done()), &waker).is_pending());
        assert!(poll(pin!(crowd.done()), &waker).is_pending());
    };
    (0..100).for_each(round);
    let before = bytes_held();
    (0..1_000).for_each(round);
    assert_eq!(bytes_held(), before);
}

/// The same in ten million, as the rule has it, for merges that nobody awaits.
#[test]
fn ten_million_unobserved_merges_leave_nothing() {
    let (root, _keep) = live();
    let (request, _keep_request) = live();
    let before = bytes_held();
    for _ in 0..10_000_000 {
        assert!(!merge(&request, &root).is_done());
    }
    assert_eq!(bytes_held(), before);
}

/// Rule 23 past eight sources: what is in already adds up to a gather each eighth time at most; relays of the same to nothing.
#[test]
fn merging_the_same_again_grows_little() {
    let sources: Vec<_> = (0..40).map(|_| live()).collect();
    let mut all = any_of(sources[..20].iter().map(|(ctx, _)| ctx));
    let mut relayed = sources[0].0.clone();
    let step = |all: &mut Context, relayed: &mut Context, i: usize| {
        *all = merge(&*all, &sources[i % 40].0);
        *relayed = merge(&*relayed, sources[0].0.relay());
    };
    (0..100).for_each(|i| step(&mut all, &mut relayed, i));
    let before = bytes_held();
    (0..10_000).for_each(|i| step(&mut all, &mut relayed, i));
    let gathers = 10_000 / 7 + 1;
    assert!(bytes_held() - before < gathers * 1_024, "{}", (bytes_held() - before) / gathers);
    sources[39].1.cancel_with("over");
    assert_eq!(all.err().unwrap().cause().unwrap().to_string(), "over");
}

/// Rules 9 and 23: two crowds that share what is above them share it in their union too.
#[test]
fn a_union_of_siblings_holds_once_what_they_share() {
    let grow = |all: &Context| any_of(std::iter::once(all.clone()).chain((0..9).map(|_| live().0)));
    let deep = (0..200).fold(live().0, |deep, _| grow(&deep));
    let broad = any_of((0..1_000).map(|_| live().0));
    for above in [deep, broad] {
        let (left, right) = (grow(&above), grow(&above));
        let union = || grow(&merge(&left, &right));
        drop(union());
        let before = bytes_held();
        let held = union();
        assert!(bytes_held() - before < 8 << 10, "{}", bytes_held() - before);
        drop(held);
    }
}

/// Rule 23: also at the end of a thread, when thread-locals are being dropped.
#[test]
fn a_deep_context_in_a_thread_local() {
    thread_local! {
        static DEEP: std::cell::RefCell<Context> = std::cell::RefCell::new(Context::background());
    }
    on_a_small_stack(|| {
        DEEP.set(Context::background());
        let mut ctx = Context::background();
        for _ in 0..200_000 {
            ctx = ctx.with_cancel().0;
        }
        DEEP.set(ctx);
    });
}

/// Rule 23: callbacks that each hold the canceller of the next, let go from the first on.
#[test]
fn a_chain_of_callbacks_let_go() {
    on_a_small_stack(|| {
        let (mut ctx, first) = live();
        for _ in 0..200_000 {
            let (next, canceller) = live();
            ctx.on_done(move |_| drop(canceller)).detach();
            ctx = next;
        }
        drop(first);
    });
}

/// Rule 22: a crowd that has waited and gone gives its memory back.
#[test]
fn a_million_waiters_on_one_source() {
    let (root, canceller) = live();
    let waker = Counting::new();
    let before = bytes_held();
    let mut parked: Vec<_> = (0..1_000_000).map(|_| Box::pin(root.done())).collect();
    for done in &mut parked {
        assert!(poll(done.as_mut(), &waker).is_pending());
    }
    drop(parked);
    assert!(bytes_held() - before < 4096);
    let mut parked: Vec<_> = (0..1_000_000).map(|_| Box::pin(root.done())).collect();
    for done in &mut parked {
        assert!(poll(done.as_mut(), &waker).is_pending());
    }
    canceller.cancel();
    assert_eq!(waker.woken(), 1_000_000);
    assert!(parked.iter_mut().all(|done| poll(done.as_mut(), &waker).is_ready()));
    drop(parked);
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// Rule 23: a chain of a million, with a waiter at its end, cancelled from its beginning.
#[test]
fn a_chain_of_a_million_contexts() {
    on_a_small_stack(|| {
        let (root, canceller) = Context::background().named("root").with_cancel();
        let mut ctx = root.clone();
        let mut cancellers = Vec::new();
        for i in 0..1_000_000 {
            let (child, canceller) = ctx.with_cancel();
            ctx = if i % 1000 == 0 { child.relay() } else { child };
            cancellers.push(canceller);
        }
        let waker = Counting::new();
        let mut done = Box::pin(ctx.done_owned());
        assert!(poll(done.as_mut(), &waker).is_pending());
        canceller.cancel_with("the first");
        assert_eq!(waker.woken(), 1);
        let err = ctx.err().unwrap();
        assert_eq!((err.origin(), err.cause().unwrap().to_string().as_str()), (Some("root"), "the first"));
        drop((root, ctx, done));
        drop(cancellers);
    });
}

/// Rule 23: dropped from the other end, with nothing cancelled.
#[test]
fn a_chain_dropped_from_its_end() {
    on_a_small_stack(|| {
        let mut ctx = Context::background();
        for _ in 0..1_000_000 {
            ctx = ctx.with_cancel().0;
        }
        assert!(!ctx.is_done());
        drop(ctx);
    });
}

/// Rule 23.
#[test]
fn a_million_values() {
    on_a_small_stack(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut ctx = Context::background().with_value("deepest");
        for _ in 0..1_000_000 {
            ctx = ctx.with_value(Counted(Arc::clone(&dropped)));
        }
        assert_eq!(ctx.value::<&str>(), Some(&"deepest"));
        drop(ctx);
        assert_eq!(dropped.load(Ordering::Relaxed), 1_000_000);
    });
}

/// Rule 23: a merge of merges, each with a new context, and a tree of merges.
#[test]
fn a_million_nested_merges() {
    on_a_small_stack(|| {
        let inputs: Vec<_> = (0..1_000_000).map(|_| live()).collect();
        let nested = inputs.iter().fold(Context::background(), |all, (ctx, _)| merge(all, ctx));
        inputs[3].1.cancel_with("the fourth");
        inputs[2].1.cancel_with("the third, later");
        assert_eq!(nested.err().unwrap().cause().unwrap().to_string(), "the fourth");
        drop(nested);
        let mut level: Vec<_> = inputs[10..10_010].iter().map(|(ctx, _)| ctx.clone()).collect();
        while level.len() > 1 {
            level = level.chunks(2).map(any_of).collect();
        }
        assert!(!level[0].is_done());
        inputs[5_000].1.cancel_with("in the tree");
        assert_eq!(level[0].err().unwrap().cause().unwrap().to_string(), "in the tree");
    });
}

/// Rule 23: however a set grows past eight sources, whoever awaits it registers with eight at most.
#[test]
fn awaiting_many_sources_takes_few_registrations() {
    let registered = |ctx: &Context| {
        let waker = Counting::new();
        let mut done = pin!(ctx.done());
        assert!(poll(done.as_mut(), &waker).is_pending());
        // One is ours, and one is there to compare with.
        Arc::strong_count(&waker) - 2
    };
    let ((mut chain, first), mut cancellers) = (live(), Vec::new());
    let mut union = chain.clone();
    cancellers.push(first);
    for sources in 1..40 {
        for ctx in [&chain, &union] {
            let registered = registered(ctx);
            assert!(if sources <= 8 { registered == sources } else { registered <= 8 }, "{registered} of {sources}");
        }
        let ((child, below), (other, beside)) = (chain.with_cancel(), live());
        (chain, union) = (child, merge(&union, other));
        cancellers.extend([below, beside]);
    }
}

/// Rule 23: ten thousand inputs, and what is derived from them costs no more than from one.
#[test]
fn any_of_ten_thousand() {
    let inputs: Vec<_> = (0..10_000).map(|_| live()).collect();
    let any = any_of(inputs.iter().map(|(ctx, _)| ctx));
    assert_eq!(count(|| any.with_cancel()), 1);
    let waker = Counting::new();
    let mut done = pin!(any.done());
    assert!(poll(done.as_mut(), &waker).is_pending());
    assert_eq!(Arc::strong_count(&waker), 3, "one registration, and one to compare with");
    inputs[9_999].1.cancel_with("the last");
    inputs[0].1.cancel_with("the first, later");
    assert_eq!(waker.woken(), 1);
    assert_eq!(any.err().unwrap().cause().unwrap().to_string(), "the last");
}
