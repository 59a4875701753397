//! What was called when, and whether some order of overlapping calls explains all answers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(context_merge_shuttle)]
use shuttle::thread::{self, ThreadId};
#[cfg(not(context_merge_shuttle))]
use std::thread::{self, ThreadId};

use super::{Answer, Id, Op, Why, World};

/// From this number of sources on a context is told of a cancel, and may answer late while the cancel goes on (rule 4).
const MANY: usize = if cfg!(any(context_merge_loom, context_merge_shuttle)) { 3 } else { 9 };

#[derive(Clone, Debug)]
pub struct Call {
    op: Op,
    answer: Answer,
    /// When it began and ended; of two calls that do not overlap the earlier has the smaller numbers.
    began: usize,
    ended: usize,
    /// When the call began in which this one was made, by a waker or a callback.
    within: Option<usize>,
}

/// Takes down all calls of all threads, without a lock during any.
#[derive(Default)]
pub struct Log {
    time: AtomicUsize,
    calls: Mutex<Vec<Call>>,
    /// The calls under way.
    open: Mutex<Vec<(ThreadId, usize)>>,
}

impl Log {
    pub fn record(&self, op: Op, call: impl FnOnce(&Op) -> Answer) -> Answer {
        let thread = thread::current().id();
        let began = self.time.fetch_add(1, Ordering::SeqCst);
        let within = {
            let mut open = self.open.lock().unwrap();
            let within = open.iter().rev().find(|(by, _)| *by == thread).map(|(_, began)| *began);
            open.push((thread, began));
            within
        };
        let answer = call(&op);
        self.open.lock().unwrap().retain(|(_, other)| *other != began);
        let ended = self.time.fetch_add(1, Ordering::SeqCst);
        self.calls.lock().unwrap().push(Call { op, answer, began, ended, within });
        answer
    }

    /// All calls that have ended, as they began.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls = self.calls.lock().unwrap().clone();
        calls.sort_by_key(|call| call.began);
        calls
    }
}

/// Whether there is an order of the calls, in which none comes before one that ended before it began, and the model
/// gives every answer.
///
/// # Panics
/// With the calls and the place where every order ends, if there is none.
pub fn explain(calls: &[Call]) {
    let mut search =
        Search { calls, placed: vec![false; calls.len()], won: BTreeMap::new(), furthest: (0, String::new()) };
    assert!(search.explains(World::new()), "no order explains\n{}", search.furthest.1);
}

struct Search<'a> {
    calls: &'a [Call],
    placed: Vec<bool>,
    /// The calls that cancelled something.
    won: BTreeMap<Id, usize>,
    furthest: (usize, String),
}

impl Search<'_> {
    fn explains(&mut self, mut world: World) -> bool {
        let mut looks = Vec::new();
        let mut next = self.next();
        // What only looks can be placed as soon as it agrees: that is in nobody's way.
        while let Some(look) = next.iter().copied().find(|call| self.only_looks(*call) && self.agrees(&world, *call)) {
            self.placed[look] = true;
            world = world.after(&self.calls[look].op);
            looks.push(look);
            next = self.next();
        }
        self.note(&world, &next);
        if next.is_empty() {
            return true;
        }
        for call in next {
            if !self.only_looks(call) && self.agrees(&world, call) && self.explains_with(call, &world) {
                return true;
            }
        }
        looks.into_iter().for_each(|look| self.placed[look] = false);
        false
    }

    fn explains_with(&mut self, index: usize, world: &World) -> bool {
        let call = &self.calls[index];
        let cancelled = match call.op {
            Op::Cancel { source } if call.answer == Answer::Is(true) => Some(source),
            _ => None,
        };
        self.placed[index] = true;
        self.won.extend(cancelled.map(|source| (source, index)));
        let explained = self.explains(world.clone().after(&call.op));
        if !explained {
            self.placed[index] = false;
            cancelled.map(|source| self.won.remove(&source));
        }
        explained
    }

    /// The calls that no other one has to come before.
    fn next(&self) -> Vec<usize> {
        let mut ended = usize::MAX;
        let left = (0..self.calls.len()).filter(|call| !self.placed[*call]);
        left.take_while(|call| {
            let open = self.calls[*call].began < ended;
            ended = ended.min(self.calls[*call].ended);
            open
        })
        .collect()
    }

    fn only_looks(&self, call: usize) -> bool {
        use Op::*;
        matches!(
            self.calls[call].op,
            IsDone { .. }
                | Err { .. }
                | Read { .. }
                | IsCancelled { .. }
                | FinishedBy { .. }
                | Wait { .. }
                | Poll { .. }
                | DropWaiter { .. }
                | OnDone { .. }
                | Stop { .. }
                | Detach { .. }
                | DropContext { .. }
                | DropCanceller { .. }
        )
    }

    fn agrees(&self, world: &World, index: usize) -> bool {
        let call = &self.calls[index];
        call.answer == world.answer(&call.op) || self.is_late(world, call)
    }

    /// An answer that says "not yet" though the model says otherwise, where that is right.
    fn is_late(&self, world: &World, call: &Call) -> bool {
        let Some((sources, Some(why))) = world.about(&call.op) else { return false };
        // A stop can come before the callback of a cancel that is under way, or of a deadline or a signal for which
        // nobody ran the runtime yet.
        let many = match call.op {
            Op::Stop { .. } => call.answer == Answer::Is(true),
            _ => sources >= MANY && matches!(call.answer, Answer::Is(false) | Answer::Told(None)),
        };
        let cancel = match why {
            Why::Cancelled(source) => self.won.get(&source).map(|cancel| &self.calls[*cancel]),
            Why::Deadline(_) => None,
        };
        many && match cancel {
            Some(cancel) => cancel.ended > call.began && call.within != Some(cancel.began),
            None => matches!(call.op, Op::Stop { .. }),
        }
    }

    /// Keeps what the order that came furthest could not go on with.
    fn note(&mut self, world: &World, next: &[usize]) {
        let placed = self.placed.iter().filter(|placed| **placed).count();
        if placed < self.furthest.0 || next.is_empty() {
            return;
        }
        let mut text = String::new();
        for (call, placed) in self.calls.iter().zip(&self.placed) {
            let Call { op, answer, began, ended, within } = call;
            let mark = if *placed { ' ' } else { '?' };
            let within = within.map_or(String::new(), |within| format!(" within {within}"));
            let _ = writeln!(text, "{mark} {began:>4}..{ended:<4} {op:?} -> {answer:?}{within}");
        }
        for call in next {
            let op = &self.calls[*call].op;
            let _ = writeln!(text, "next could be {op:?}, where the model says {:?}", world.answer(op));
        }
        self.furthest = (placed, text);
    }
}
