//! What a context has to say, told naively: sets as lists, time as a number, nothing lazy, nothing shared with `src/`.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part")]

pub mod programs;

/// The source of a `with_cancel`, by its number.
pub type Source = usize;
pub type Name = Option<&'static str>;

/// When an event happened: the instant, then the place among the cancels; a deadline comes before them.
pub type Moment = (u64, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Cancelled(Source),
    /// The deadline with this number.
    Deadline(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub moment: Moment,
    pub why: Why,
    pub origin: Name,
}

#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    pub at: u64,
    pub id: usize,
    pub name: Name,
}

#[derive(Clone, Debug, Default)]
pub struct Ctx {
    pub sources: Vec<(Source, Name)>,
    pub deadline: Option<Deadline>,
    pub value: Option<u32>,
    /// What it was finished by when it was made.
    pub born: Option<Outcome>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub struct World {
    pub now: u64,
    cancelled: Vec<Option<Moment>>,
    cancels: u64,
    deadlines: usize,
}

impl World {
    pub fn outcome(&self, ctx: &Ctx) -> Option<Outcome> {
        if ctx.born.is_some() {
            return ctx.born;
        }
        let deadline = ctx.deadline.filter(|deadline| deadline.at <= self.now).map(|deadline| Outcome {
            moment: (deadline.at, 0),
            why: Why::Deadline(deadline.id),
            origin: deadline.name,
        });
        let cancels = ctx.sources.iter().filter_map(|&(source, origin)| {
            self.cancelled[source].map(|moment| Outcome { moment, why: Why::Cancelled(source), origin })
        });
        // min_by_key keeps the first of equals: the earlier argument.
        deadline.into_iter().chain(cancels).min_by_key(|outcome| outcome.moment)
    }

    /// Derivation keeps the finish of the parent.
    fn child(&self, parent: &Ctx) -> Ctx {
        Ctx { born: self.outcome(parent), ..parent.clone() }
    }

    pub fn with_cancel(&mut self, parent: &Ctx) -> (Ctx, Source) {
        let mut ctx = self.child(parent);
        let source = self.cancelled.len();
        self.cancelled.push(None);
        ctx.sources.push((source, None));
        (ctx, source)
    }

    /// The child, and the number of the deadline if it is the earliest now.
    pub fn with_deadline(&mut self, parent: &Ctx, at: u64) -> (Ctx, usize) {
        let mut ctx = self.child(parent);
        let id = self.deadlines;
        self.deadlines += 1;
        if ctx.deadline.is_none_or(|known| at < known.at) {
            ctx.deadline = Some(Deadline { at, id, name: None });
        }
        (ctx, id)
    }

    pub fn named(&self, parent: &Ctx, name: &'static str) -> Ctx {
        let mut ctx = self.child(parent);
        for (_, known) in &mut ctx.sources {
            *known = known.or(Some(name));
        }
        if let Some(deadline) = &mut ctx.deadline {
            deadline.name = deadline.name.or(Some(name));
        }
        if let Some(born) = &mut ctx.born {
            born.origin = born.origin.or(Some(name));
        }
        ctx
    }

    pub fn merge(&self, inputs: &[Ctx]) -> Ctx {
        let mut ctx = Ctx { value: inputs.first().and_then(|primary| primary.value), ..Ctx::default() };
        ctx.born = inputs.iter().filter_map(|input| self.outcome(input)).min_by_key(|outcome| outcome.moment);
        ctx.deadline = inputs.iter().filter_map(|input| input.deadline).min_by_key(|deadline| deadline.at);
        for &(source, name) in inputs.iter().flat_map(|input| &input.sources) {
            if !ctx.sources.iter().any(|&(known, _)| known == source) {
                ctx.sources.push((source, name));
            }
        }
        ctx
    }

    /// Cancels the source of a context: true where that finishes it.
    pub fn cancel(&mut self, ctx: &Ctx, source: Source) -> bool {
        if self.outcome(ctx).is_some() {
            return false;
        }
        self.cancels += 1;
        self.cancelled[source] = Some((self.now, self.cancels));
        true
    }
}
