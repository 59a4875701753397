//! Which event was first, and that the answer never changes (rules 1, 2, 4 and 5).

use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use context_merge::{Canceller, Context, any_of, merge};

use crate::exploring::Bound::{Preemptions, Unbounded};
use crate::exploring::{AtomicBool, Seen, beside, cancelling, model, or_live, source, told};

/// All of `contexts`, which stand over the same sources, tell the same; and what was told earlier is still true.
fn one_story(contexts: &[Context], early: &[Option<String>]) -> String {
    let story = told(&contexts[0]).expect("finished");
    for ctx in contexts {
        assert_eq!(told(ctx).as_deref(), Some(&*story), "two contexts over the same sources tell two stories");
    }
    for told in early.iter().flatten() {
        assert_eq!(*told, story, "an answer changed");
    }
    story
}

fn lives(told: &[Option<String>]) -> String {
    told.iter().map(|told| or_live(told.as_deref())).collect::<Vec<_>>().join(" ")
}

#[test]
fn two_cancels_and_two_observers_tell_one_story() {
    model(
        Preemptions(4),
        &["a a, then a", "b b, then b", "live a, then a", "live b, then b", "live live, then a", "live live, then b"],
        |seen| {
            let (a, cancel_a) = source();
            let (b, cancel_b) = source();
            let [ab, ba] = [merge(&a, &b), merge(&b, &a)];
            let cancels = [cancelling(cancel_a, "a"), cancelling(cancel_b, "b")];
            let early = [&ab, &ba].map(told);
            assert!(cancels.into_iter().all(|cancel| cancel.join()), "each was the first of its own context");
            let story = one_story(&[ab, ba, merge(&a, &b), merge(&b, &a), any_of([&b, &a, &b])], &early);
            seen.note(format!("{}, then {story}", lives(&early)));
        },
    );
}

#[test]
fn two_cancels_and_an_observer_on_each_of_two_threads_tell_one_story() {
    model(
        Preemptions(3),
        &[
            "a a, then a",
            "a live, then a",
            "b b, then b",
            "b live, then b",
            "live a, then a",
            "live b, then b",
            "live live, then a",
            "live live, then b",
        ],
        |seen| {
            let (a, cancel_a) = source();
            let (b, cancel_b) = source();
            let [ab, ba] = [merge(&a, &b), merge(&b, &a)];
            let cancels = [cancelling(cancel_a, "a"), cancelling(cancel_b, "b")];
            let other = beside({
                let ba = ba.clone();
                move || told(&ba)
            });
            let early = [told(&ab), other.join()];
            assert!(cancels.into_iter().all(|cancel| cancel.join()));
            let story = one_story(&[ab, ba, merge(&a, &b), merge(&b, &a)], &early);
            seen.note(format!("{}, then {story}", lives(&early)));
        },
    );
}

/// What is made while both cancels run is finished at birth with what stays the first, or finishes with it.
#[test]
fn merging_while_two_cancels_run_tells_their_story() {
    model(Preemptions(3), &["made a, then a", "made b, then b", "made live, then a", "made live, then b"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let before = merge(&a, &b);
        let cancels = [cancelling(cancel_a, "a"), cancelling(cancel_b, "b")];
        let made = merge(&b, &a);
        let early = [told(&made)];
        assert!(cancels.into_iter().all(|cancel| cancel.join()));
        let story = one_story(&[made, before, merge(&a, &b), any_of([&b, &a])], &early);
        seen.note(format!("made {}, then {story}", lives(&early)));
    });
}

/// Deriving asks for the moment of the event, too: the child keeps it, and is merged by it.
#[test]
fn deriving_while_two_cancels_run_tells_their_story() {
    model(Preemptions(2), &["made a, lost", "made b, lost", "made live, lost", "made live, won"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let ab = merge(&a, &b);
        let cancels = [cancelling(cancel_a, "a"), cancelling(cancel_b, "b")];
        let (child, cancel_child) = ab.with_cancel();
        let early = [told(&child)];
        let won = cancel_child.cancel_with("child");
        let now = told(&child);
        assert_eq!(won, now.as_deref() == Some("child"));
        assert_eq!(cancel_child.is_cancelled(), won);
        assert!(cancels.into_iter().all(|cancel| cancel.join()));
        assert_eq!(told(&child), now, "an answer changed");
        let story = one_story(&[ab, merge(&b, &a)], &[]);
        assert!(won || now == Some(story), "what finished the parent first finished the child");
        seen.note(format!("made {}, {}", lives(&early), if won { "won" } else { "lost" }));
    });
}

/// One source was cancelled before anybody looked, and the first look meets the cancel of the other.
#[test]
fn the_first_look_meets_a_second_cancel() {
    model(Preemptions(4), &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let [ab, ba] = [merge(&a, &b), merge(&b, &a)];
        assert!(cancel_a.cancel_with("a"));
        let second = cancelling(cancel_b, "b");
        let (looks, lay) = second.against(|| [told(&ba), told(&merge(&b, &a))]);
        assert_eq!(looks, [Some("a".into()), Some("a".into())], "a had returned before b began");
        assert!(second.join());
        one_story(&[ab, ba, merge(&b, &a)], &looks);
        seen.note(lay);
    });
}

/// The same, where the first cancel returns while the second is under way or before: the look is asked by a thread of
/// its own, at contexts that nobody has looked at.
#[test]
fn first_looks_on_two_threads_meet_a_second_cancel() {
    model(
        Preemptions(3),
        &["before, a a", "across, a a", "across, b b", "around, b b", "across, a live", "across, b live"],
        |seen| {
            let (a, cancel_a) = source();
            let (b, cancel_b) = source();
            let [ab, ba] = [merge(&a, &b), merge(&b, &a)];
            let second = cancelling(cancel_b, "b");
            let other = beside({
                let ba = ba.clone();
                move || told(&ba)
            });
            let (won, lay) = second.against(|| cancel_a.cancel_with("a"));
            let early = [told(&ab), other.join()];
            assert!(won && second.join());
            let story = one_story(&[ab, ba, merge(&a, &b)], &early);
            match lay {
                "before" => assert_eq!(story, "a", "it had returned before the other began"),
                "after" => assert_eq!(story, "b", "it had returned before the other began"),
                _ => {}
            }
            seen.note(format!("{lay}, {}", lives(&early)));
        },
    );
}

#[test]
fn a_cancel_that_returned_before_is_first() {
    model(Preemptions(5), &["b across", "b around", "live across"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let ab = merge(&a, &b);
        let cancels = beside(move || (cancel_b.cancel_with("b"), cancel_a.cancel_with("a")));
        let (look, lay) = cancels.against(|| told(&ab));
        assert_ne!(look.as_deref(), Some("a"));
        assert_eq!(cancels.join(), (true, true));
        assert_eq!(one_story(&[ab, merge(&a, &b)], from_ref(&look)), "b");
        seen.note(format!("{} {lay}", or_live(look.as_deref())));
    });
}

#[test]
fn merging_against_cancelling_an_input() {
    model(Preemptions(5), &["live across", "over across", "over around"], |seen| {
        let (ctx, canceller) = source();
        let cancel = cancelling(canceller, "over");
        let ((merged, early), lay) = cancel.against(|| {
            let merged = merge(source().0, &ctx);
            let early = told(&merged);
            (merged, early)
        });
        assert!(cancel.join());
        assert_eq!(one_story(&[merged, ctx], from_ref(&early)), "over");
        seen.note(format!("{} {lay}", or_live(early.as_deref())));
    });
}

/// An input that finished before is the first, wherever it stands.
#[test]
fn merging_a_finished_input_with_one_being_cancelled() {
    model(Preemptions(3), &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        assert!(cancel_b.cancel_with("b"));
        let cancel = cancelling(cancel_a, "a");
        let (merged, lay) = cancel.against(|| [merge(&a, &b), merge(&b, &a), any_of([&a, &b, &source().0])]);
        for ctx in &merged {
            assert_eq!(told(ctx).as_deref(), Some("b"), "finished at birth");
        }
        assert!(cancel.join());
        one_story(&merged, &[]);
        seen.note(lay);
    });
}

/// One input is found live and the other finished, but by now the one that was live has finished, and before it.
#[test]
fn merging_while_the_inputs_finish_one_after_the_other() {
    model(Preemptions(3), &["live across", "a across", "a around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let other = source();
        let cancels = beside(move || (cancel_a.cancel_with("a"), cancel_b.cancel_with("b")));
        let (made, lay) = cancels.against(|| any_of([&a, &other.0, &b]));
        let early = told(&made);
        assert_eq!(cancels.join(), (true, true));
        assert_eq!(one_story(&[made, merge(&a, &b), merge(&b, &a)], from_ref(&early)), "a");
        seen.note(format!("{} {lay}", or_live(early.as_deref())));
    });
}

/// Two looks on each of two threads, against a cancel: done stays done, also from the one thread to the other.
fn never_undone(seen: &Seen, ctx: &Context, canceller: Canceller) {
    let cancel = cancelling(canceller, "over");
    let flag = Arc::new(AtomicBool::new(false));
    let other = beside({
        let (ctx, flag) = (ctx.clone(), Arc::clone(&flag));
        move || looks(&ctx, &flag)
    });
    let (mine, lay) = cancel.against(|| looks(ctx, &flag));
    assert!(cancel.join());
    assert_eq!(told(ctx).as_deref(), Some("over"), "the cancel has returned");
    let theirs = other.join();
    let word = |looks: [bool; 2]| match looks {
        [false, false] => "live",
        [false, true] => "turning",
        _ => "done",
    };
    seen.note(format!("{} and {} {lay}", word(mine), word(theirs)));
}

fn looks(ctx: &Context, flag: &AtomicBool) -> [bool; 2] {
    let known = flag.load(Ordering::Acquire);
    let first = ctx.is_done();
    if first {
        flag.store(true, Ordering::Release);
    }
    let second = ctx.err().is_some();
    assert!(first || !known, "done on one thread, and then not done on another");
    assert!(second || !first, "done, and then not done");
    [first, second]
}

#[test]
fn a_context_is_never_done_and_then_not() {
    model(Preemptions(3), &["turning and turning around", "done and live around", "live and done within"], |seen| {
        let (ctx, canceller) = source();
        never_undone(seen, &ctx, canceller);
    });
}

#[test]
fn a_relay_is_never_done_and_then_not() {
    model(Preemptions(3), &["turning and turning around", "done and live around", "live and done across"], |seen| {
        let (ctx, canceller) = source();
        never_undone(seen, &merge(source().0, ctx).relay(), canceller);
    });
}

#[test]
fn a_gather_is_never_done_and_then_not() {
    model(Preemptions(3), &["turning and turning around", "done and live around", "live and done across"], |seen| {
        let (ctx, canceller) = source();
        never_undone(seen, &any_of([source().0, ctx, source().0]), canceller);
    });
}

#[test]
fn one_of_two_cancels_is_the_one() {
    model(Preemptions(4), &["lost across", "lost around", "won across", "won around"], |seen| {
        let (ctx, canceller) = source();
        let merged = merge(&ctx, source().0);
        let other = beside({
            let (canceller, merged) = (canceller.clone(), merged.clone());
            move || {
                let won = canceller.cancel_with("other");
                assert!(merged.is_done() && canceller.is_cancelled(), "it has returned");
                won
            }
        });
        let (won, lay) = other.against(|| canceller.cancel_with("mine"));
        assert!(ctx.is_done() && merged.is_done() && canceller.is_cancelled(), "it has returned");
        assert_ne!(won, other.join());
        assert_eq!(one_story(&[ctx, merged], &[]), if won { "mine" } else { "other" });
        seen.note(format!("{} {lay}", if won { "won" } else { "lost" }));
    });
}

#[test]
fn a_parent_and_its_child_are_cancelled_at_once() {
    model(Unbounded, &["lost across", "lost around", "won across", "won around"], |seen| {
        let (parent, cancel_parent) = source();
        let (child, cancel_child) = parent.with_cancel();
        let other = cancelling(cancel_parent, "parent");
        let (won, lay) = other.against(|| cancel_child.cancel_with("child"));
        assert_eq!(cancel_child.is_cancelled(), won);
        assert!(other.join());
        assert_eq!(one_story(&[child.clone(), merge(&parent, &child)], &[]), if won { "child" } else { "parent" });
        assert_eq!(one_story(&[parent], &[]), "parent");
        assert_eq!(cancel_child.is_cancelled(), won);
        seen.note(format!("{} {lay}", if won { "won" } else { "lost" }));
    });
}

/// A third looks on: the child's error and `is_cancelled` tell the same, and keep to it.
#[test]
fn a_parent_and_its_child_are_cancelled_under_an_observer() {
    model(
        Preemptions(3),
        &["child, then child", "live, then child", "live, then parent", "parent, then parent"],
        |seen| {
            let (parent, cancel_parent) = source();
            let (child, cancel_child) = parent.with_cancel();
            let by_parent = cancelling(cancel_parent, "parent");
            let by_child = beside({
                let cancel_child = cancel_child.clone();
                move || cancel_child.cancel_with("child")
            });
            let cancelled = cancel_child.is_cancelled();
            let early = told(&child);
            assert!(early.as_deref() == Some("child") || !cancelled);
            let won = by_child.join();
            assert!(by_parent.join());
            let story = one_story(&[child.clone(), merge(&parent, &child)], from_ref(&early));
            assert_eq!((story == "child", cancel_child.is_cancelled()), (won, won));
            seen.note(format!("{}, then {story}", or_live(early.as_deref())));
        },
    );
}
