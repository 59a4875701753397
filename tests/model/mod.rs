//! What contexts have to say, told naively: pure functions from what has happened, one call after the other. Sets are
//! lists, time is a number, nothing is lazy, and nothing is shared with `src/`. Every layer of tests is judged by it.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part")]

pub mod history;
pub mod machine;
pub mod one_by_one;
pub mod overlapping;
pub mod scope;

use std::collections::BTreeMap;

/// What a context, a canceller, a waiter or a callback is known by; each kind has numbers of its own.
pub type Id = u16;

/// The context that is there from the beginning.
pub const BACKGROUND: Id = 0;

/// A call, of the crate and of the model alike. It says itself under which number its result is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Cancellable {
        of: Id,
        ctx: Id,
    },
    /// `size` cancellable children, under the numbers that follow, and `ctx` over all of them.
    Crowd {
        of: Id,
        size: Id,
        ctx: Id,
    },
    /// At so many milliseconds after the start.
    Deadline {
        of: Id,
        at: u64,
        ctx: Id,
    },
    Value {
        of: Id,
        value: u32,
        ctx: Id,
    },
    Named {
        of: Id,
        name: u8,
        ctx: Id,
    },
    Relay {
        of: Id,
        ctx: Id,
    },
    WithoutCancel {
        of: Id,
        ctx: Id,
    },
    ValuesOf {
        of: Id,
        primary: Id,
        ctx: Id,
    },
    AnyOf {
        of: Vec<Id>,
        ctx: Id,
    },
    Signal {
        ctx: Id,
    },
    DropContext {
        ctx: Id,
    },
    Cancel {
        source: Id,
    },
    DropCanceller {
        source: Id,
    },
    Raise {
        signal: Id,
    },
    Advance {
        millis: u64,
    },
    IsDone {
        ctx: Id,
    },
    Err {
        ctx: Id,
    },
    /// Its deadline and its value.
    Read {
        ctx: Id,
    },
    IsCancelled {
        source: Id,
    },
    FinishedBy {
        ctx: Id,
        input: Id,
    },
    /// Makes a future and polls it.
    Wait {
        ctx: Id,
        waiter: Id,
    },
    /// Polls with the same waker, or with another.
    Poll {
        waiter: Id,
        anew: bool,
    },
    DropWaiter {
        waiter: Id,
    },
    /// The callback looks at its own context, and at another.
    OnDone {
        ctx: Id,
        other: Id,
        callback: Id,
    },
    Stop {
        callback: Id,
    },
    Detach {
        callback: Id,
    },
}

/// What a call gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Nothing,
    Is(bool),
    /// None is not finished, or pending.
    Told(Option<Story>),
    Read {
        deadline: Option<u64>,
        value: Option<u32>,
    },
}

/// Why a context is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    pub why: Why,
    pub origin: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The source of the context with this number.
    Cancelled(Id),
    /// The deadline of the context with this number.
    Deadline(Id),
}

/// The number of a name.
pub type Name = Option<u8>;

/// The name that the errors of all signals bring.
pub const OF_SIGNALS: u8 = 3;

/// When an event happened: the instant, then the place among the cancels; a deadline comes before them.
type Moment = (u64, u64);

#[derive(Clone, Copy, Debug)]
struct Event {
    moment: Moment,
    story: Story,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: u64,
    id: Id,
    name: Name,
}

#[derive(Clone, Debug, Default)]
struct Ctx {
    /// Each with the name that it was born under.
    sources: Vec<(Id, Name)>,
    deadline: Option<Deadline>,
    value: Option<u32>,
    /// For what is made below.
    name: Name,
    /// What it was finished by when it was made.
    born: Option<Event>,
}

/// What has happened so far.
#[derive(Clone, Debug)]
pub struct World {
    now: u64,
    contexts: BTreeMap<Id, Ctx>,
    /// The contexts that cancellers finish.
    sources: BTreeMap<Id, Ctx>,
    cancelled: BTreeMap<Id, Moment>,
    waiters: BTreeMap<Id, Ctx>,
    /// With whether it was stopped.
    callbacks: BTreeMap<Id, (Ctx, bool)>,
}

impl World {
    pub fn new() -> Self {
        Self {
            now: 0,
            contexts: BTreeMap::from([(BACKGROUND, Ctx::default())]),
            sources: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            waiters: BTreeMap::new(),
            callbacks: BTreeMap::new(),
        }
    }

    /// What the call gives if it comes next.
    pub fn answer(&self, op: &Op) -> Answer {
        match op {
            Op::Cancel { source } => Answer::Is(self.event(&self.sources[source]).is_none()),
            Op::IsDone { ctx } => Answer::Is(self.event(&self.contexts[ctx]).is_some()),
            Op::Err { ctx } | Op::Wait { ctx, .. } => self.told(&self.contexts[ctx]),
            Op::Poll { waiter, .. } => self.told(&self.waiters[waiter]),
            Op::Read { ctx } => {
                let ctx = &self.contexts[ctx];
                Answer::Read { deadline: ctx.deadline.map(|deadline| deadline.at), value: ctx.value }
            }
            Op::IsCancelled { source } => {
                let event = self.event(&self.sources[source]);
                Answer::Is(event.is_some_and(|event| event.story.why == Why::Cancelled(*source)))
            }
            Op::FinishedBy { ctx, input } => {
                let [own, other] = [ctx, input].map(|ctx| self.event(&self.contexts[ctx]).map(|event| event.moment));
                Answer::Is(own.is_some() && own == other)
            }
            Op::Stop { callback } => Answer::Is(self.event(&self.callbacks[callback].0).is_none()),
            _ => Answer::Nothing,
        }
    }

    /// The world after the call.
    #[must_use]
    pub fn after(mut self, op: &Op) -> Self {
        // A handle that is dropped changes nothing, and those who look at a context then still may.
        match op {
            Op::Cancel { source } if self.event(&self.sources[source]).is_none() => self.happened(*source),
            Op::Raise { signal } => self.happened(*signal),
            Op::Advance { millis } => self.now += millis,
            Op::Wait { ctx, waiter } => drop(self.waiters.insert(*waiter, self.contexts[ctx].clone())),
            Op::DropWaiter { waiter } => drop(self.waiters.remove(waiter)),
            Op::OnDone { ctx, callback, .. } => {
                self.callbacks.insert(*callback, (self.contexts[ctx].clone(), false));
            }
            Op::Stop { callback } => {
                let stopped = self.answer(op) == Answer::Is(true);
                self.callbacks.get_mut(callback).expect("it was registered").1 = stopped;
            }
            Op::Crowd { of, size, ctx } => {
                let children: Vec<Id> = (ctx + 1..=ctx + size).collect();
                for child in &children {
                    self = self.after(&Op::Cancellable { of: *of, ctx: *child });
                }
                return self.after(&Op::AnyOf { of: children, ctx: *ctx });
            }
            _ => self.make(op),
        }
        self
    }

    fn make(&mut self, op: &Op) {
        let (id, made) = match op {
            Op::Cancellable { of, ctx } => {
                let mut child = self.child(*of);
                child.sources.push((*ctx, child.name));
                self.sources.insert(*ctx, child.clone());
                (ctx, child)
            }
            Op::Signal { ctx } => (ctx, Ctx { sources: vec![(*ctx, Some(OF_SIGNALS))], ..Ctx::default() }),
            Op::Deadline { of, at, ctx } => {
                let mut child = self.child(*of);
                if child.deadline.is_none_or(|known| *at < known.at) {
                    child.deadline = Some(Deadline { at: *at, id: *ctx, name: child.name });
                }
                (ctx, child)
            }
            Op::Named { of, name, ctx } => (ctx, Ctx { name: Some(*name), ..self.contexts[of].clone() }),
            Op::Relay { of, ctx } => (ctx, self.child(*of)),
            Op::Value { of, value, ctx } => (ctx, Ctx { value: Some(*value), ..self.contexts[of].clone() }),
            Op::WithoutCancel { of, ctx } => {
                let Ctx { value, name, .. } = self.contexts[of];
                (ctx, Ctx { value, name, ..Ctx::default() })
            }
            Op::ValuesOf { of, primary, ctx } => {
                let Ctx { value, name, .. } = self.contexts[primary];
                (ctx, Ctx { value, name, ..self.contexts[of].clone() })
            }
            Op::AnyOf { of, ctx } => (ctx, self.union(of)),
            _ => return,
        };
        self.contexts.insert(*id, made);
    }

    /// Derivation keeps the finish of the parent.
    fn child(&self, of: Id) -> Ctx {
        let parent = &self.contexts[&of];
        Ctx { born: self.event(parent), ..parent.clone() }
    }

    fn union(&self, inputs: &[Id]) -> Ctx {
        let inputs = || inputs.iter().map(|input| &self.contexts[input]);
        let mut ctx = Ctx::default();
        if let Some(primary) = inputs().next() {
            (ctx.value, ctx.name) = (primary.value, primary.name);
        }
        // min_by_key keeps the first of equals: the earlier argument.
        ctx.born = inputs().filter_map(|input| self.event(input)).min_by_key(|event| event.moment);
        ctx.deadline = inputs().filter_map(|input| input.deadline).min_by_key(|deadline| deadline.at);
        for &(source, name) in inputs().flat_map(|input| &input.sources) {
            if !ctx.sources.iter().any(|&(known, _)| known == source) {
                ctx.sources.push((source, name));
            }
        }
        ctx
    }

    fn happened(&mut self, source: Id) {
        let moment = (self.now, 1 + self.cancelled.len() as u64);
        self.cancelled.entry(source).or_insert(moment);
    }

    fn event(&self, ctx: &Ctx) -> Option<Event> {
        if ctx.born.is_some() {
            return ctx.born;
        }
        let deadline = ctx.deadline.filter(|deadline| deadline.at <= self.now).map(|deadline| Event {
            moment: (deadline.at, 0),
            story: Story { why: Why::Deadline(deadline.id), origin: deadline.name },
        });
        let cancels = ctx.sources.iter().filter_map(|&(source, origin)| {
            let moment = *self.cancelled.get(&source)?;
            Some(Event { moment, story: Story { why: Why::Cancelled(source), origin } })
        });
        deadline.into_iter().chain(cancels).min_by_key(|event| event.moment)
    }

    fn told(&self, ctx: &Ctx) -> Answer {
        Answer::Told(self.event(ctx).map(|event| event.story))
    }

    /// Whether the callback has run.
    pub fn has_run(&self, callback: Id) -> bool {
        let (ctx, stopped) = &self.callbacks[&callback];
        !stopped && self.event(ctx).is_some()
    }

    /// How many sources the context has that a call is about, and what finished it.
    pub fn about(&self, op: &Op) -> Option<(usize, Option<Why>)> {
        let ctx = match op {
            Op::IsDone { ctx } | Op::Err { ctx } | Op::Wait { ctx, .. } => self.contexts.get(ctx)?,
            Op::Poll { waiter, .. } => self.waiters.get(waiter)?,
            Op::Stop { callback } => &self.callbacks.get(callback)?.0,
            _ => return None,
        };
        Some((ctx.sources.len(), self.event(ctx).map(|event| event.story.why)))
    }
}
