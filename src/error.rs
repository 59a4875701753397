//! Why a context finished.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use crate::release::drop_foreign;

type Cause = Box<dyn StdError + Send + Sync>;

/// A name for what happens. One word, because an `Error` has only two.
#[derive(Clone)]
pub(crate) struct Name(Arc<Arc<str>>);

impl Name {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self(Arc::new(name))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn same(a: Option<&Self>, b: Option<&Self>) -> bool {
        a.map(|name| Arc::as_ptr(&name.0)) == b.map(|name| Arc::as_ptr(&name.0))
    }
}

/// In which of the two ways a context finished.
///
/// ```
/// use context_merge::{Error, ErrorKind};
///
/// assert_eq!(Error::cancelled().kind(), ErrorKind::Cancelled);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody cancelled it.
    Cancelled,
    /// Its deadline was reached.
    DeadlineExceeded,
}

struct Reason {
    kind: ErrorKind,
    cause: Option<Cause>,
}

impl Drop for Reason {
    fn drop(&mut self) {
        drop_foreign(self.cause.take());
    }
}

/// One for all deadlines without a cause, so that reaching one allocates nothing.
static DEADLINE_EXCEEDED: LazyLock<Arc<Reason>> =
    LazyLock::new(|| Arc::new(Reason { kind: ErrorKind::DeadlineExceeded, cause: None }));

/// Why a context finished: cancelled or past its deadline, with the cause that was given and the name that the source
/// or deadline was born under.
///
/// It has no `PartialEq`: a cause cannot be compared, and two errors of one kind and origin need not be of one event.
/// Compare what is meant, [`kind`](Self::kind) or [`origin`](Self::origin); whether it was the same event
/// [`Context::finished_by`](crate::Context::finished_by) tells.
///
/// Two words; cloning it shares the cause. Displayed it reads `context cancelled` or `context deadline exceeded`,
/// followed by ` (origin)` where there is one. The cause is also its [`source`](StdError::source).
///
/// ```
/// use context_merge::Context;
///
/// let (ctx, canceller) = Context::background().named("backup").with_cancel();
/// canceller.cancel_with("the disk is full");
/// let err = ctx.err().unwrap();
/// assert_eq!(err.to_string(), "context cancelled (backup)");
/// assert_eq!(err.cause().unwrap().to_string(), "the disk is full");
/// ```
#[derive(Clone)]
pub struct Error {
    /// None is a cancel without a cause.
    reason: Option<Arc<Reason>>,
    origin: Option<Name>,
}

impl Error {
    /// A cancel without cause or origin, for a [`Signal`](crate::Signal) of your own.
    pub fn cancelled() -> Self {
        Self { reason: None, origin: None }
    }

    /// A deadline without cause or origin, for a [`Signal`](crate::Signal) of your own.
    pub fn deadline_exceeded() -> Self {
        Self { reason: Some(Arc::clone(&DEADLINE_EXCEEDED)), origin: None }
    }

    /// The same error with `cause` in the place of any cause it had.
    ///
    /// ```
    /// use context_merge::Error;
    ///
    /// let err = Error::deadline_exceeded().with_cause("no quorum");
    /// assert!(err.is_deadline_exceeded());
    /// assert_eq!(err.cause().unwrap().to_string(), "no quorum");
    /// ```
    #[must_use]
    pub fn with_cause(self, cause: impl Into<Cause>) -> Self {
        let reason = Reason { kind: self.kind(), cause: Some(cause.into()) };
        Self { reason: Some(Arc::new(reason)), origin: self.origin }
    }

    /// The same error with `name` in the place of any origin it had: for a [`Signal`](crate::Signal) of your own, which
    /// is born under no name.
    ///
    /// ```
    /// use context_merge::Error;
    ///
    /// let err = Error::cancelled().named("leadership");
    /// assert_eq!(err.origin(), Some("leadership"));
    /// assert_eq!(err.to_string(), "context cancelled (leadership)");
    /// ```
    #[must_use]
    pub fn named(self, name: impl Into<Arc<str>>) -> Self {
        self.born_under(Some(&Name::new(name.into())))
    }

    /// The same error with this origin.
    pub(crate) fn born_under(self, name: Option<&Name>) -> Self {
        Self { origin: name.cloned(), ..self }
    }

    /// In which way the context finished.
    pub fn kind(&self) -> ErrorKind {
        self.reason.as_ref().map_or(ErrorKind::Cancelled, |reason| reason.kind)
    }

    /// Whether somebody cancelled it.
    pub fn is_cancelled(&self) -> bool {
        self.kind() == ErrorKind::Cancelled
    }

    /// Whether its deadline was reached.
    pub fn is_deadline_exceeded(&self) -> bool {
        self.kind() == ErrorKind::DeadlineExceeded
    }

    /// The cause that was given with the cancel or the deadline. It is shared: every context that finished by the
    /// same event gives the same pointer.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.reason.as_ref()?.cause.as_deref()
    }

    /// The name that the source or deadline was born under that finished first
    /// ([`Context::named`](crate::Context::named)), where there was one.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_ref().map(Name::as_str)
    }

    /// Whether both are the same reason under the same name.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let reason = |err: &Self| err.reason.as_ref().map(Arc::as_ptr);
        reason(self) == reason(other) && Name::same(self.origin.as_ref(), other.origin.as_ref())
    }
}

/// The error of a deadline to come. Where it has neither cause nor name, no count that all threads share is touched
/// before it is needed.
#[derive(Clone)]
pub(crate) struct DeadlineError(Error);

impl DeadlineError {
    pub(crate) fn new(name: Option<&Name>) -> Self {
        // Taken now, so that no look ever waits for its lock.
        LazyLock::force(&DEADLINE_EXCEEDED);
        Self(Error { reason: None, origin: name.cloned() })
    }

    pub(crate) fn caused_by(cause: Cause, name: Option<&Name>) -> Self {
        Self(Error::deadline_exceeded().with_cause(cause).born_under(name))
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.0.same(&other.0)
    }

    pub(crate) fn to_error(&self) -> Error {
        let Error { reason, origin } = self.0.clone();
        Error { reason: reason.or_else(|| Some(Arc::clone(&DEADLINE_EXCEEDED))), origin }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind() {
            ErrorKind::Cancelled => "context cancelled",
            ErrorKind::DeadlineExceeded => "context deadline exceeded",
        })?;
        match self.origin() {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.kind());
        if let Some(cause) = self.cause() {
            out.field("cause", &cause);
        }
        if let Some(origin) = self.origin() {
            out.field("origin", &origin);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause().map(|cause| cause as _)
    }
}

/// A deadline becomes [`TimedOut`](io::ErrorKind::TimedOut), a cancel [`Other`](io::ErrorKind::Other): never
/// `Interrupted`, which callers such as `read_exact` retry.
impl From<Error> for io::Error {
    fn from(err: Error) -> Self {
        let kind = match err.kind() {
            ErrorKind::Cancelled => io::ErrorKind::Other,
            ErrorKind::DeadlineExceeded => io::ErrorKind::TimedOut,
        };
        io::Error::new(kind, err)
    }
}

/// A cause may hold anything; nothing of it is reached through a shared error but by its own methods.
impl std::panic::UnwindSafe for Error {}
impl std::panic::RefUnwindSafe for Error {}
