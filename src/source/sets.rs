//! Sets of sources, as data: nothing, a row, or a union.

use smallvec::SmallVec;

use super::{MAX_SOURCES, Source};
use crate::event::Deadline;
use crate::sync::{Arc, AtomicU32, Ordering, filled};

/// The sources and the deadline of a context.
#[derive(Clone, Default)]
pub(crate) enum Set {
    #[default]
    Never,
    /// A source, and what that was made below.
    Source(Arc<Source>),
    Union(Arc<Union>),
}

/// Flat: two sources in their place, the others in an allocation of their own.
pub(crate) struct Union {
    pub(crate) deadline: Option<Deadline>,
    /// What `set.rs` stores.
    pub(crate) verdict: AtomicU32,
    first: [Option<Arc<Source>>; 2],
    more: Option<Box<[Arc<Source>]>>,
}

pub(crate) type Sources = SmallVec<[Arc<Source>; MAX_SOURCES]>;

/// The sources of a set: those of a row from the lowest one up, then those of the union at its end.
#[derive(Clone, Default)]
pub(crate) struct Walk<'a> {
    row: Option<&'a Arc<Source>>,
    first: std::slice::Iter<'a, Option<Arc<Source>>>,
    more: std::slice::Iter<'a, Arc<Source>>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = &'a Arc<Source>;

    #[inline]
    fn next(&mut self) -> Option<&'a Arc<Source>> {
        if let Some(source) = self.row.take() {
            if let Some(up) = source.up() {
                *self = up.view().sources();
            }
            return Some(source);
        }
        self.first.find_map(Option::as_ref).or_else(|| self.more.next())
    }
}

/// A set to look at, also that of a source whose handle is elsewhere.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    Never,
    Source(&'a Arc<Source>),
    Union(&'a Union),
}

impl<'a> View<'a> {
    #[inline]
    pub(crate) fn sources(self) -> Walk<'a> {
        match self {
            Self::Never => Walk::default(),
            Self::Source(source) => Walk { row: Some(source), ..Walk::default() },
            Self::Union(Union { first, more, .. }) => {
                Walk { row: None, first: first.iter(), more: more.as_deref().unwrap_or_default().iter() }
            }
        }
    }

    /// As `sources().all(f)`, which costs more where it matters.
    #[inline]
    pub(crate) fn all(self, mut f: impl FnMut(&Source) -> bool) -> bool {
        let mut at = self;
        loop {
            match at {
                Self::Never => return true,
                Self::Union(union) => return union.all(f),
                Self::Source(source) if !f(source) => return false,
                Self::Source(source) => at = source.up().map_or(Self::Never, Set::view),
            }
        }
    }

    #[inline]
    pub(crate) fn each(self, mut f: impl FnMut(&Source)) {
        self.all(|source| {
            f(source);
            true
        });
    }

    #[inline]
    pub(crate) fn deadline(self) -> Option<&'a Deadline> {
        let mut at = self;
        loop {
            match at {
                Self::Never => return None,
                Self::Union(union) => return union.deadline.as_ref(),
                // A relay's is that of what it relays.
                Self::Source(source) => at = source.up().or_else(|| Some(&source.as_relay()?.of))?.view(),
            }
        }
    }
}

impl Set {
    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        match self {
            Self::Never => View::Never,
            Self::Source(source) => View::Source(source),
            Self::Union(union) => View::Union(union),
        }
    }

    /// In an allocation, or two for more than two sources.
    #[inline]
    pub(crate) fn union(mut sources: impl Iterator<Item = Arc<Source>>, deadline: Option<Deadline>) -> Self {
        Self::Union(filled(Union::empty(), |union| {
            union.deadline = deadline;
            union.first[0] = sources.next();
            union.first[1] = sources.next();
            if let Some(third) = sources.next() {
                union.more = Some([third].into_iter().chain(sources).collect());
            }
        }))
    }

    /// The same of just two.
    #[inline(always)]
    pub(crate) fn pair(a: Arc<Source>, b: Arc<Source>, deadline: Option<Deadline>) -> Self {
        Self::Union(filled(Union::empty(), |union| {
            if deadline.is_some() {
                union.deadline = deadline;
            }
            union.first = [Some(a), Some(b)];
        }))
    }

    /// The same of just one.
    #[inline]
    pub(crate) fn single(source: Arc<Source>, deadline: Option<Deadline>) -> Self {
        Self::Union(filled(Union::empty(), |union| {
            union.deadline = deadline;
            union.first[0] = Some(source);
        }))
    }

    /// Its one source and its deadline, where it has no more, and can be seen at a glance to be live but for the deadline.
    #[inline]
    pub(crate) fn only(&self) -> Option<(&Arc<Source>, Option<&Deadline>)> {
        match self {
            Self::Source(source) if source.is_pending_root() => Some((source, None)),
            Self::Union(union) => match &union.first {
                [Some(source), None] if union.verdict.load(Ordering::Acquire) == 0 && source.is_pending() => {
                    Some((source, union.deadline.as_ref()))
                }
                _ => None,
            },
            Self::Source(source) => {
                let of = &source.as_relay()?.of;
                source.is_pending().then(|| (source, of.view().deadline()))
            }
            Self::Never => None,
        }
    }

    /// What `only` gives.
    #[inline]
    pub(crate) fn into_only(self) -> Arc<Source> {
        match self {
            Self::Source(source) => Some(source),
            Self::Union(union) => union.first[0].clone(),
            Self::Never => None,
        }
        .expect("it has been seen to have one")
    }
}

impl Union {
    /// Whether a glance at two sources tells that it is live: it has no more, and no deadline.
    #[inline]
    pub(crate) fn is_live_pair(&self) -> bool {
        self.deadline.is_none()
            && self.more.is_none()
            && self.first.iter().all(|source| source.as_ref().is_none_or(|source| source.is_pending()))
    }

    #[inline(always)]
    fn empty() -> Self {
        Self { deadline: None, verdict: AtomicU32::new(0), first: [None, None], more: None }
    }

    #[inline]
    fn all(&self, mut f: impl FnMut(&Source) -> bool) -> bool {
        self.first.iter().all(|source| source.as_ref().is_none_or(|source| f(source)))
            && self.more.as_deref().is_none_or(|more| more.iter().all(|source| f(source)))
    }
}
