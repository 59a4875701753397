//! `Context`: what it has, and what there is to see of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Name};
use crate::source::{Set, View};
use crate::sync::now;
use crate::value::Values;

/// Until when a piece of work matters, whether it still does and why not, and for whom it is done.
///
/// A handle of four words; clones observe the same. Derivation only adds: a context is finished as soon as one of
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
    /// Makes two allocations, besides that of the conversion.
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

    /// A context without values.
    pub(crate) fn of(set: Set) -> Context {
        Context { set, values: Values::default() }
    }

    /// The same values on another set.
    #[inline]
    pub(crate) fn on(&self, set: Set) -> Context {
        Context { set, values: self.values.clone() }
    }

    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        self.set.view()
    }
}

impl From<&Context> for Context {
    #[inline]
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
            None => out.field("sources", &self.set.view().sources().count()),
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
