//! Who waits on a source.
//!
//! W1. A list is open until its source fires or can fire no more, as its owner knows; that is asked under the lock. From
//!     then on it is closed for good, and its wakers are taken out whole, under the lock too.
//! W2. No waker is cloned, woken or dropped under the lock.
//! W3. When a source fires, all lists below it are told before the first waker runs, and before anything
//!     that says that it has fired returns. Whoever cannot wait for the one who is at that does it as well: so a list
//!     that has fired keeps what is below.
//! W4. A link from below is counted in the lower list's `upstream`; the list is abandoned with the last of them.

use std::num::NonZeroUsize;
use std::task::Waker;

use slab::Slab;

use crate::release::{Panics, in_turn};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, unpoisoned};

/// Where a waker, or a list below, stands in a list.
#[derive(Clone, Copy)]
pub(crate) struct Key(NonZeroUsize);

/// The list of one source, in its place there.
pub(crate) struct Waiters(Mutex<List>);

struct List {
    /// Most lists never have more than one waiter.
    first: Option<Waker>,
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    wakers: Slab<Waker>,
    below: Slab<Arc<Lower>>,
}

/// The wakers of a list.
#[derive(Default)]
struct Wakers {
    first: Option<Waker>,
    rest: Slab<Waker>,
}

/// The list of a relay or a gather, which is linked into the lists above it.
pub(crate) struct Lower {
    waiters: Waiters,
    /// Stored true with Release when a source at or above this list fired, loaded with Acquire by `is_told`.
    told: AtomicBool,
    upstream: AtomicUsize,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(List { first: None, more: None }))
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        unpoisoned(self.0.lock())
    }

    /// Puts `waker` in, or in the place of the one that `key` stands for. None once closed: the caller has to look
    /// whether the source has fired.
    pub(crate) fn register(&self, key: Option<Key>, waker: &Waker, is_open: impl FnOnce() -> bool) -> Option<Key> {
        let waker = waker.clone();
        let mut list = self.lock();
        if !is_open() {
            drop(list);
            return None;
        }
        let (key, old) = match key {
            Some(key) => (key, list.replace(key, waker)),
            None => (list.insert(waker), None),
        };
        drop(list);
        drop(old);
        Some(key)
    }

    pub(crate) fn deregister(&self, key: Key) {
        let mut list = self.lock();
        let waker = list.remove(key);
        drop(list);
        drop(waker);
    }

    /// Links `below`, which is counted there. None once closed.
    pub(crate) fn link(&self, below: &Arc<Lower>, is_open: impl FnOnce() -> bool) -> Option<Key> {
        // Relaxed: the lock of this list publishes it.
        below.upstream.fetch_add(1, Ordering::Relaxed);
        let link = Arc::clone(below);
        let mut list = self.lock();
        if is_open() {
            return Some(Key::new(list.more().below.insert(link)));
        }
        drop(list);
        below.lost_upstream();
        None
    }

    pub(crate) fn unlink(&self, key: Key) {
        let mut list = self.lock();
        let below = list.more.as_mut().and_then(|more| {
            let below = more.below.try_remove(key.index());
            shrink(&mut more.below);
            below
        });
        drop(list);
        drop(below);
    }

    /// The source has fired: when this returns, every list below is told, whoever did it.
    pub(crate) fn tell(&self) {
        let mut lists = Vec::new();
        self.lock().add_below(&mut lists);
        while let Some(list) = lists.pop() {
            list.told.store(true, Ordering::Release);
            list.waiters.lock().add_below(&mut lists);
        }
    }

    /// Takes the wakers out, and gives the lists below.
    fn close(&self, lists: &mut Vec<Arc<Lower>>) -> Wakers {
        let mut list = self.lock();
        list.add_below(lists);
        list.take_wakers()
    }

    /// The source has fired: tells every list below, then wakes everybody (W3). Wakers that panic do not keep the
    /// others from being woken; the first panic goes on when all have been.
    pub(crate) fn fire(&self) {
        let mut lists = Vec::new();
        let nearest = self.close(&mut lists);
        let mut further = Vec::new();
        while let Some(list) = lists.pop() {
            list.told.store(true, Ordering::Release);
            further.push(list.waiters.close(&mut lists));
        }
        let mut panics = Panics::default();
        nearest.wake(&mut panics);
        further.into_iter().for_each(|wakers| wakers.wake(&mut panics));
        panics.resume();
    }

    /// The source can fire no more: lets go of all that is registered, and of what below waits for nothing else.
    pub(crate) fn abandon(&self) {
        if self.lock().is_empty() {
            // For good: it is closed (W1).
            return;
        }
        let mut gone = Vec::new();
        let mut lists = self.give_up(&mut gone);
        while let Some(list) = lists.pop() {
            if list.lost_upstream() {
                lists.extend(list.waiters.give_up(&mut gone));
            }
        }
        if !gone.is_empty() {
            in_turn(gone);
        }
    }

    /// Takes all that it has.
    fn give_up(&self, gone: &mut Vec<Waker>) -> Vec<Arc<Lower>> {
        let mut list = self.lock();
        let wakers = list.take_wakers();
        let below = list.more.take().map(|more| more.below);
        drop(list);
        gone.extend(wakers.first);
        gone.extend(wakers.rest.into_iter().map(|(_, waker)| waker));
        below.into_iter().flatten().map(|(_, list)| list).collect()
    }
}

impl List {
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_none()
    }

    fn add_below(&self, lists: &mut Vec<Arc<Lower>>) {
        if let Some(more) = &self.more {
            lists.extend(more.below.iter().map(|(_, list)| Arc::clone(list)));
        }
    }

    fn insert(&mut self, waker: Waker) -> Key {
        if self.first.is_none() {
            self.first = Some(waker);
            return Key::FIRST;
        }
        Key::new(self.more().wakers.insert(waker))
    }

    fn slot(&mut self, key: Key) -> Option<&mut Waker> {
        if key.is_first() { self.first.as_mut() } else { self.more.as_mut()?.wakers.get_mut(key.index()) }
    }

    fn replace(&mut self, key: Key, waker: Waker) -> Option<Waker> {
        self.slot(key).map(|slot| std::mem::replace(slot, waker))
    }

    fn remove(&mut self, key: Key) -> Option<Waker> {
        if key.is_first() {
            return self.first.take();
        }
        let more = self.more.as_mut()?;
        let waker = more.wakers.try_remove(key.index());
        shrink(&mut more.wakers);
        waker
    }

    fn take_wakers(&mut self) -> Wakers {
        let rest = self.more.as_mut().map(|more| std::mem::take(&mut more.wakers));
        Wakers { first: self.first.take(), rest: rest.unwrap_or_default() }
    }
}

impl Key {
    const FIRST: Self = Self(NonZeroUsize::MIN);

    /// Behind the first, which stands by itself.
    fn new(index: usize) -> Self {
        Self(Self::FIRST.0.saturating_add(1 + index))
    }

    fn is_first(self) -> bool {
        self.0 == Self::FIRST.0
    }

    fn index(self) -> usize {
        self.0.get() - 2
    }
}

impl Wakers {
    fn wake(self, panics: &mut Panics) {
        let Self { first, rest } = self;
        if first.is_none() && rest.is_empty() {
            return;
        }
        let mut wakers = first.into_iter().chain(rest.into_iter().map(|(_, waker)| waker));
        // A waker that panics has been taken out, so that the next round goes on behind it.
        while panics.catch(|| wakers.by_ref().for_each(Waker::wake)).is_none() {}
    }
}

impl Lower {
    /// With one link more than there are, so that it is not abandoned half-linked; `connected` ends that.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { waiters: Waiters::new(), told: AtomicBool::new(false), upstream: AtomicUsize::new(1) })
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Whether a source at or above this list has fired.
    #[inline]
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Whether a source above it can still fire, and none has.
    pub(crate) fn is_open(&self) -> bool {
        // Acquire: pairs with `lost_upstream`. Who is refused because nothing more can come sees what has come before.
        !self.is_told() && self.upstream.load(Ordering::Acquire) != 0
    }

    /// A source above it has fired.
    pub(crate) fn fire(&self) {
        self.told.store(true, Ordering::Release);
        self.waiters.fire();
    }

    /// All links have been made.
    pub(crate) fn connected(&self) {
        if self.lost_upstream() {
            self.waiters.abandon();
        }
    }

    /// One of the links above is gone; true for the last.
    fn lost_upstream(&self) -> bool {
        // AcqRel: pairs with itself, so that the last one sees what the others did.
        self.upstream.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// A list that is empty again gives back what a crowd made it take.
fn shrink<T>(slots: &mut Slab<T>) {
    if slots.is_empty() && slots.capacity() > 64 {
        *slots = Slab::new();
    }
}
