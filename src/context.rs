//! `Context`: derive and observe.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::canceller::Canceller;
use crate::error::{DeadlineError, Error, Name};
use crate::event::Deadline;
use crate::gather::bound;
use crate::relay::expand;
use crate::set::View;
use crate::signal::{self, Signal};
use crate::source::{MAX_SOURCES, Set, Source, Sources};
use crate::sync::{Arc as Shared, now};
use crate::value::Values;

/// Until when a piece of work matters, whether it still does and why not, and for whom it is done.
///
/// A handle of five words; clones observe the same. Derivation only adds: a context is finished as soon as one of
/// its sources is cancelled or its deadline is reached, with the error of the earliest of those events, and stays so.
/// Dropping a context is not a cancel.
///
/// Observing never blocks, takes no lock and never allocates (a foreign [`Signal`](crate::Signal) aside, which is
/// asked, and sets of more than eight sources, where the first look at a finish walks through all of them).
///
/// Instants are tokio's, so that a paused clock drives deadlines in tests. All cancels and looks have to be on one
/// clock: a thread outside the paused runtime reads the real one.
///
/// ```
/// use context_merge::Context;
/// use std::time::Duration;
///
/// let (ctx, canceller) = Context::background().with_cancel();
/// let child = ctx.with_timeout(Duration::from_secs(30)).with_value(7_u32);
/// assert!(child.check().is_ok());
/// canceller.cancel();
/// assert!(child.check().unwrap_err().is_cancelled());
/// assert_eq!(child.value::<u32>(), Some(&7));
/// ```
#[derive(Clone, Default)]
pub struct Context {
    pub(crate) set: Set,
    pub(crate) values: Values,
}

/// The one value of `Context::todo`.
struct Todo;

impl Context {
    /// The context of all time: never finished, no deadline, no values.
    #[must_use]
    pub fn background() -> Context {
        Context::default()
    }

    /// As [`background`](Self::background), for where the right context is still to be passed in; `{:?}` says so.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// assert!(format!("{:?}", Context::todo()).contains("todo"));
    /// ```
    #[must_use]
    pub fn todo() -> Context {
        Context { set: Set::Never, values: Values::default().with(Todo) }
    }

    /// A child that its [`Canceller`] can finish too.
    #[must_use]
    pub fn with_cancel(&self) -> (Context, Canceller) {
        let name = self.values.name();
        let source = match &self.set {
            Set::Never => Source::own(name, Set::Never),
            // Where only its deadline has passed, what is made below sees that by itself.
            set if !set.view().is_pending() && set.view().is_finished() => return (self.clone(), Canceller::new(None)),
            set if set.view().count() < MAX_SOURCES => Source::own(name, set.clone()),
            set => Source::own(name, bounded(set, MAX_SOURCES - 1)),
        };
        (self.on(Set::Source(Shared::clone(&source))), Canceller::new(Some(source)))
    }

    /// A child that is finished at `at`, where its parent's deadline is not as early. An instant in the past means
    /// finished at birth, but a parent that is finished already keeps its error.
    #[must_use]
    pub fn with_deadline(&self, at: impl Into<Instant>) -> Context {
        self.until_deadline(at.into(), DeadlineError::new)
    }

    /// [`with_deadline`](Self::with_deadline), with a cause for the error.
    #[must_use]
    pub fn with_deadline_cause(
        &self,
        at: impl Into<Instant>,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Context {
        let cause = cause.into();
        self.until_deadline(at.into(), |name| DeadlineError::caused_by(cause, name))
    }

    /// [`with_deadline`](Self::with_deadline) `after` from now. Zero means finished at birth; a time too long to
    /// represent means no deadline.
    #[must_use]
    pub fn with_timeout(&self, after: Duration) -> Context {
        now().checked_add(after).map_or_else(|| self.clone(), |at| self.with_deadline(at))
    }

    /// [`with_timeout`](Self::with_timeout), with a cause for the error.
    ///
    /// ```
    /// use context_merge::Context;
    /// use std::time::Duration;
    ///
    /// let ctx = Context::background().with_timeout_cause(Duration::ZERO, "the backup took too long");
    /// let err = ctx.check().unwrap_err();
    /// assert!(err.is_deadline_exceeded());
    /// assert_eq!(err.cause().unwrap().to_string(), "the backup took too long");
    /// ```
    #[must_use]
    pub fn with_timeout_cause(&self, after: Duration, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Context {
        now().checked_add(after).map_or_else(|| self.clone(), |at| self.with_deadline_cause(at, cause))
    }

    fn until_deadline(&self, at: Instant, why: impl FnOnce(Option<&Name>) -> DeadlineError) -> Context {
        if self.deadline().is_some_and(|known| known <= at) {
            return self.clone();
        }
        let deadline = Some(Deadline::new(at, why(self.values.name())));
        self.on(match self.set.only() {
            // What most deadlines are laid on.
            Some(only) if self.view().deadline().is_none() => Set::single(Shared::clone(only), deadline),
            _ => match self.view().event() {
                Some(event) => Set::finished(event, deadline),
                None => Set::union(self.set.sources().cloned(), deadline),
            },
        })
    }

    /// A child with one value more, keyed by its type: the nearest of a type wins.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// struct RequestId(u64);
    ///
    /// let ctx = Context::background().with_value(RequestId(1)).with_value("GET /");
    /// assert_eq!(ctx.value::<RequestId>().unwrap().0, 1);
    /// assert_eq!(ctx.with_value(RequestId(2)).value::<RequestId>().unwrap().0, 2);
    /// ```
    #[must_use]
    pub fn with_value<T: Send + Sync + 'static>(&self, value: T) -> Context {
        Context { set: self.set.clone(), values: self.values.with(value) }
    }

    /// This context with the values and the name of `primary` in the place of its own.
    #[must_use]
    pub fn with_values_of(&self, primary: &Context) -> Context {
        Context { set: self.set.clone(), values: primary.values.clone() }
    }

    /// The values and the name alone: never finished, no deadline. For work that has to outlive what started it.
    ///
    /// ```
    /// use context_merge::{Context, merge};
    ///
    /// let (shutdown, _stop) = Context::background().with_cancel();
    /// let (request, hang_up) = Context::background().with_value("request 7").with_cancel();
    /// let audit = merge(request.without_cancel(), &shutdown);
    /// hang_up.cancel();
    /// assert!(!audit.is_done());
    /// assert_eq!(audit.value::<&str>(), Some(&"request 7"));
    /// ```
    #[must_use]
    pub fn without_cancel(&self) -> Context {
        Context { set: Set::Never, values: self.values.clone() }
    }

    /// Names what is added from here on: each source and deadline that [`with_cancel`](Self::with_cancel),
    /// [`with_deadline`](Self::with_deadline) or [`with_timeout`](Self::with_timeout) makes below it, up to a nearer
    /// `named`. It is the [`origin`](Error::origin) of the error, where one of them is first.
    ///
    /// It never names what is there already, so that nobody is blamed for somebody else's event, and what was born under
    /// a name keeps it for life. The name goes with the values: a merge has that of its primary. What is not derived from
    /// a context ([`from_signal`](Self::from_signal), [`until`](Self::until)) has the name that its error brings
    /// ([`Error::named`]).
    ///
    /// Makes one allocation, besides that of the conversion.
    ///
    /// ```
    /// use context_merge::Context;
    /// use std::time::Duration;
    ///
    /// let (caller, hang_up) = Context::background().named("caller").with_cancel();
    /// let query = caller.named("db").with_timeout(Duration::ZERO);
    /// assert_eq!(query.err().unwrap().origin(), Some("db"));
    ///
    /// let query = caller.named("db").with_timeout(Duration::from_secs(5));
    /// hang_up.cancel();
    /// assert_eq!(query.err().unwrap().origin(), Some("caller"), "the database is not to blame");
    /// ```
    #[must_use]
    pub fn named(&self, name: impl Into<Arc<str>>) -> Context {
        Context { set: self.set.clone(), values: self.values.named(Name::new(name.into())) }
    }

    /// Observes as this one, with a reference count and a list of waiters of its own: with one for each worker or
    /// connection, cores that make, check and drop contexts below it stay off each other's cache lines.
    ///
    /// It registers with the sources above it when it is first waited on, and once for all that wait on it.
    #[must_use]
    pub fn relay(&self) -> Context {
        match &self.set {
            Set::Never => self.clone(),
            set if set.view().is_finished() => self.clone(),
            set => self.on(relayed(set)),
        }
    }

    /// Whether it is finished.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.view().is_finished()
    }

    /// Why it is finished; None while it is not.
    #[inline]
    pub fn err(&self) -> Option<Error> {
        self.view().err()
    }

    /// [`err`](Self::err) for `?`, in loops that have no await.
    ///
    /// ```
    /// use context_merge::{Context, Error};
    ///
    /// fn sum(ctx: &Context, numbers: &[u64]) -> Result<u64, Error> {
    ///     let mut sum = 0;
    ///     for number in numbers {
    ///         ctx.check()?;
    ///         sum += number;
    ///     }
    ///     Ok(sum)
    /// }
    /// assert_eq!(sum(&Context::background(), &[1, 2, 3]).unwrap(), 6);
    /// ```
    #[inline]
    pub fn check(&self) -> Result<(), Error> {
        self.err().map_or(Ok(()), Err)
    }

    /// Whether the event that finished this context is the one that finished `input`: which input it was, told without
    /// strings. False while either is not finished. Deadlines of one instant count as one.
    ///
    /// ```
    /// use context_merge::{Context, merge};
    ///
    /// let (shutdown, stop) = Context::background().with_cancel();
    /// let (request, _hang_up) = Context::background().with_cancel();
    /// let ctx = merge(&request, &shutdown).with_cancel().0;
    /// assert!(!ctx.finished_by(&shutdown));
    /// stop.cancel();
    /// assert!(ctx.finished_by(&shutdown));
    /// assert!(!ctx.finished_by(&request));
    /// ```
    pub fn finished_by(&self, input: &Context) -> bool {
        // Times tell events apart, but for deadlines: each cancel has a number of its own among those of its instant.
        let at = |ctx: &Context| ctx.view().event().map(|(timestamp, _)| timestamp);
        at(self).is_some_and(|own| at(input) == Some(own))
    }

    /// The earliest deadline of all that it is made of; the same after the finish.
    pub fn deadline(&self) -> Option<Instant> {
        self.view().deadline().map(|deadline| deadline.at)
    }

    /// How long until the deadline: zero once it has passed, None where there is none.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline().map(|at| at.saturating_duration_since(now()))
    }

    /// The nearest value of this type.
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.values.nearest()
    }

    /// A context that finishes as `signal` does, with its error. No task is spawned: a look asks the signal, and
    /// whoever waits polls its future.
    ///
    /// # Panics
    /// Whatever `signal` panics with comes out of the call that asked it: a look, a merge, a poll, or a cancel, which
    /// happens all the same. A source that was cancelled and a deadline that has passed are seen without asking. In the
    /// task of an [`on_done`](Self::on_done) it is left to the panic hook; what else finishes the context still counts.
    pub fn from_signal(signal: impl Signal) -> Context {
        let deadline = signal.deadline().map(|at| Deadline::new(at, DeadlineError::new(None)));
        Context::of(Set::union([signal::source(signal)].into_iter(), deadline))
    }

    /// A context without values.
    pub(crate) fn of(set: Set) -> Context {
        Context { set, values: Values::default() }
    }

    /// The same values on another set.
    #[inline]
    fn on(&self, set: Set) -> Context {
        Context { set, values: self.values.clone() }
    }

    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        self.set.view()
    }
}

/// The same behind at most `most` sources.
#[cold]
fn bounded(set: &Set, most: usize) -> Set {
    let mut sources: Sources = set.sources().cloned().collect();
    bound(&mut sources, most);
    Set::union(sources.into_iter(), set.view().deadline().cloned())
}

/// Behind a relay, but for foreign signals (N5 in `set.rs`). Relays are seen through, so that none stands on another.
fn relayed(set: &Set) -> Set {
    if set.all(|source| source.as_relay().is_none() && !source.is_foreign()) {
        return Set::Source(Source::relay(set.clone()));
    }
    let deadline = set.view().deadline().cloned();
    let (mut signals, mut rest): (Sources, Sources) = set.sources().cloned().partition(|source| source.is_foreign());
    expand(&mut rest);
    bound(&mut rest, MAX_SOURCES);
    if !rest.is_empty() {
        signals.insert(0, Source::relay(Set::union(rest.into_iter(), None)));
    }
    Set::union(signals.into_iter(), deadline)
}

impl From<&Context> for Context {
    fn from(ctx: &Context) -> Context {
        ctx.clone()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.set.is_never() && self.values.ends_in::<Todo>() {
            return f.write_str("Context(todo)");
        }
        let mut out = f.debug_struct("Context");
        match self.err() {
            Some(err) => out.field("err", &err),
            None => out.field("sources", &self.set.sources().count()),
        };
        if let Some(remaining) = self.remaining() {
            out.field("remaining", &remaining);
        }
        if let Some(name) = self.values.name() {
            out.field("name", &name.as_str());
        }
        out.field("values", &self.values.len()).finish()
    }
}

/// Values, causes and signals may hold anything; a panic leaves none of our own state half-changed.
impl std::panic::UnwindSafe for Context {}
impl std::panic::RefUnwindSafe for Context {}
