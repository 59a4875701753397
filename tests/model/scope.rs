//! From random numbers to calls that make sense.

use std::fmt;

use arbitrary::{Arbitrary, Unstructured};

use super::{BACKGROUND, Id, Op};

/// What a call is drawn from: its kind, and three operands that are taken modulo what there is.
pub type Draw = [u8; 4];

/// As many as a fuzzer gives bytes for: a length that is drawn as well would mostly be short.
#[derive(Debug)]
pub struct Draws(pub Vec<Draw>);

impl<'a> Arbitrary<'a> for Draws {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let count = bytes.len() / size_of::<Draw>();
        (0..count).map(|_| bytes.arbitrary()).collect::<Result<_, _>>().map(Draws)
    }
}

impl Draws {
    /// What is done before, and by each of three threads: the two highest bits of a kind say where it belongs.
    pub fn for_threads(&self) -> (Vec<Draw>, [Vec<Draw>; 3]) {
        let part = |place| self.0.iter().copied().filter(|[kind, ..]| kind >> 6 == place).collect();
        (part(0), [part(1), part(2), part(3)])
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Cancellable,
    Crowd,
    Deadline,
    Value,
    Named,
    Relay,
    WithoutCancel,
    ValuesOf,
    Merge,
    AnyOf,
    Signal,
    DropContext,
    Cancel,
    DropCanceller,
    Raise,
    Advance,
    IsDone,
    Err,
    IsCancelled,
    Wait,
    Poll,
    DropWaiter,
    OnDone,
    Stop,
    Detach,
}
use Kind::*;

/// How often each is drawn. All contexts are looked at after each call anyway.
#[rustfmt::skip]
const ONE_BY_ONE: &[Kind] = &[
    Cancellable, Cancellable, Cancellable, Cancellable, Crowd, Deadline, Deadline, Deadline, Value, Named, Named,
    Relay, Relay, WithoutCancel, ValuesOf, Merge, Merge, Merge, Merge, AnyOf, AnyOf, AnyOf, Signal, DropContext, Cancel,
    Cancel, Cancel, DropCanceller, Raise, Advance, Advance, Wait, Wait, Wait, Poll, DropWaiter, OnDone, OnDone, Stop, Detach,
];

/// Where calls of others overlap: no deadline is laid, since one in the past tells apart what was finished at birth,
/// and no signal is used, since it happens when it is first seen.
#[rustfmt::skip]
const OVERLAPPING: &[Kind] = &[
    Cancellable, Named, Relay, Relay, Merge, Merge, Merge, AnyOf, AnyOf, DropContext, Cancel, Cancel, Cancel, Cancel,
    Cancel, DropCanceller, Advance, IsDone, Err, Err, IsCancelled, Wait, Wait, Wait, Poll, Poll, DropWaiter, OnDone,
    OnDone, Stop, Detach,
];

/// What one thread can call something with.
#[derive(Clone)]
pub struct Scope {
    contexts: Vec<Id>,
    sources: Vec<Id>,
    signals: Vec<Id>,
    waiters: Vec<Id>,
    callbacks: Vec<Id>,
    next: Id,
    kinds: &'static [Kind],
}

impl Scope {
    pub fn new() -> Self {
        let (contexts, next) = (vec![BACKGROUND], BACKGROUND + 1);
        let [sources, signals, waiters, callbacks] = [(); 4].map(|()| Vec::new());
        Self { contexts, sources, signals, waiters, callbacks, next, kinds: ONE_BY_ONE }
    }

    /// That of a thread which starts with clones of the contexts and the cancellers; what it makes has numbers from
    /// a thousand times its own on.
    pub fn of_thread(&self, thread: usize) -> Self {
        let (contexts, sources) = (self.contexts.clone(), self.sources.clone());
        let next = 1000 * Id::try_from(thread + 1).expect("few threads");
        Self { contexts, sources, next, kinds: OVERLAPPING, ..Self::new() }
    }

    /// The calls that the numbers stand for, one after the other.
    pub fn calls(&mut self, draws: &[Draw]) -> Vec<Op> {
        let call = |draw: &Draw| {
            let op = self.call(*draw);
            self.enter(&op);
            op
        };
        draws.iter().map(call).collect()
    }

    /// The call that the numbers stand for; a new context where there is nothing to do it with.
    pub fn call(&self, [kind, operands @ ..]: Draw) -> Op {
        let kind = self.kinds[usize::from(kind) % self.kinds.len()];
        let cancellable = || Op::Cancellable { of: self.ctx(operands[0]), ctx: self.next };
        self.drawn(kind, operands).unwrap_or_else(cancellable)
    }

    fn drawn(&self, kind: Kind, [a, b, c]: [u8; 3]) -> Option<Op> {
        let (of, ctx) = (self.ctx(a), self.next);
        Some(match kind {
            Cancellable => Op::Cancellable { of, ctx },
            Crowd => Op::Crowd { of, size: Id::from(b % 20), ctx },
            Deadline => Op::Deadline { of, at: u64::from(b % 60), ctx },
            Value => Op::Value { of, value: b.into(), ctx },
            Named => Op::Named { of, name: b % 3, ctx },
            Relay => Op::Relay { of, ctx },
            WithoutCancel => Op::WithoutCancel { of, ctx },
            ValuesOf => Op::ValuesOf { of, primary: self.ctx(b), ctx },
            Merge => Op::AnyOf { of: vec![of, self.ctx(b)], ctx },
            AnyOf => Op::AnyOf { of: self.some([a, b, c]), ctx },
            Signal => Op::Signal { ctx },
            DropContext => Op::DropContext { ctx: pick(&self.contexts[1..], a)? },
            Cancel => Op::Cancel { source: pick(&self.sources, a)? },
            DropCanceller => Op::DropCanceller { source: pick(&self.sources, a)? },
            Raise => Op::Raise { signal: pick(&self.signals, a)? },
            Advance => Op::Advance { millis: u64::from(a % 15) },
            IsDone => Op::IsDone { ctx: of },
            Err => Op::Err { ctx: of },
            IsCancelled => Op::IsCancelled { source: pick(&self.sources, a)? },
            Wait => Op::Wait { ctx: of, waiter: ctx },
            Poll => Op::Poll { waiter: pick(&self.waiters, a)?, anew: b % 2 == 0 },
            DropWaiter => Op::DropWaiter { waiter: pick(&self.waiters, a)? },
            OnDone => Op::OnDone { ctx: of, other: self.ctx(b), callback: ctx },
            Stop => Op::Stop { callback: pick(&self.callbacks, a)? },
            Detach => Op::Detach { callback: pick(&self.callbacks, a)? },
        })
    }

    fn ctx(&self, operand: u8) -> Id {
        pick(&self.contexts, operand).expect("the background is never dropped")
    }

    /// A subset, by the bits.
    fn some(&self, [a, b, c]: [u8; 3]) -> Vec<Id> {
        let bits = u32::from_le_bytes([a, b, c, 0]);
        let chosen = |place: &usize| bits >> (place % 24) & 1 == 1;
        (0..self.contexts.len()).filter(chosen).map(|place| self.contexts[place]).collect()
    }

    /// Whether everything that the call needs is there, and nothing that it makes.
    pub fn allows(&self, op: &Op) -> bool {
        let ctx = |id: &Id| self.contexts.contains(id);
        let new = |id: &Id| *id >= self.next;
        match op {
            Op::Cancellable { of, ctx: made }
            | Op::Crowd { of, ctx: made, .. }
            | Op::Deadline { of, ctx: made, .. }
            | Op::Value { of, ctx: made, .. }
            | Op::Named { of, ctx: made, .. }
            | Op::Relay { of, ctx: made }
            | Op::WithoutCancel { of, ctx: made } => ctx(of) && new(made),
            Op::ValuesOf { of, primary, ctx: made } => ctx(of) && ctx(primary) && new(made),
            Op::AnyOf { of, ctx: made } => of.iter().all(ctx) && new(made),
            Op::Signal { ctx: made } => new(made),
            Op::IsDone { ctx: id } | Op::Err { ctx: id } | Op::Read { ctx: id } => ctx(id),
            Op::FinishedBy { ctx: id, input } => ctx(id) && ctx(input),
            Op::DropContext { ctx: id } => *id != BACKGROUND && ctx(id),
            Op::Cancel { source } | Op::DropCanceller { source } | Op::IsCancelled { source } => {
                self.sources.contains(source)
            }
            Op::Raise { signal } => self.signals.contains(signal),
            Op::Advance { .. } => true,
            Op::Wait { ctx: id, waiter } => ctx(id) && new(waiter),
            Op::OnDone { ctx: id, other, callback } => ctx(id) && ctx(other) && new(callback),
            Op::Poll { waiter, .. } | Op::DropWaiter { waiter } => self.waiters.contains(waiter),
            Op::Stop { callback } | Op::Detach { callback } => self.callbacks.contains(callback),
        }
    }

    /// Takes in what the call makes, and out what it ends.
    pub fn enter(&mut self, op: &Op) {
        let leaves = |ids: &mut Vec<Id>, gone: &Id| ids.retain(|id| id != gone);
        let made = match op {
            Op::DropContext { ctx } => return leaves(&mut self.contexts, ctx),
            Op::DropCanceller { source } => return leaves(&mut self.sources, source),
            Op::DropWaiter { waiter } => return leaves(&mut self.waiters, waiter),
            Op::Stop { callback } | Op::Detach { callback } => return leaves(&mut self.callbacks, callback),
            Op::Cancellable { ctx, .. } => {
                self.sources.push(*ctx);
                self.contexts.push(*ctx);
                ctx
            }
            Op::Crowd { size, ctx, .. } => {
                self.sources.extend(ctx + 1..=ctx + size);
                self.contexts.extend(*ctx..=ctx + size);
                self.next = self.next.max(ctx + size + 1);
                return;
            }
            Op::Signal { ctx } => {
                self.signals.push(*ctx);
                self.contexts.push(*ctx);
                ctx
            }
            Op::Deadline { ctx, .. }
            | Op::Value { ctx, .. }
            | Op::Named { ctx, .. }
            | Op::Relay { ctx, .. }
            | Op::WithoutCancel { ctx, .. }
            | Op::ValuesOf { ctx, .. }
            | Op::AnyOf { ctx, .. } => {
                self.contexts.push(*ctx);
                ctx
            }
            Op::Wait { waiter, .. } => {
                self.waiters.push(*waiter);
                waiter
            }
            Op::OnDone { callback, .. } => {
                self.callbacks.push(*callback);
                callback
            }
            _ => return,
        };
        self.next = self.next.max(made + 1);
    }
}

fn pick(ids: &[Id], operand: u8) -> Option<Id> {
    (!ids.is_empty()).then(|| ids[usize::from(operand) % ids.len()])
}

/// The rest follows from the calls, which stand beside it where something fails.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("next", &self.next).finish_non_exhaustive()
    }
}
