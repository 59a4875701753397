//! Who waits for something, and whether it can still happen: a word of state, and a list. A source has one in its place; a
//! relay or a gather has one that is shared with the lists above it, which hold it as *downstream*.
//!
//! | state | a look sees | next |
//! |---|---|---|
//! | pending, counted | nothing | marked, by one of those who are counted; or closed, when the last of them is gone |
//! | marked | it has happened | none |
//! | closed: not marked, count zero | nothing | marked, where a deadline or a signal was first and a cancel came after |
//!
//! W1. A list is open while it is neither marked nor closed. That is for good, and asked under the lock.
//! W2. `WAITED` is set under the lock before the first entry, by a read-modify-write that sees whether the list is open. So
//!     whoever marks it, or takes away the last of the count, by one read-modify-write too, finds `WAITED`, and takes the
//!     list out under the lock; or nobody ever gets in, and no lock is needed.
//! W3. No waker is cloned, woken or dropped under the lock.
//! W4. When it is notified, all lists downstream are marked before the first waker runs, and before anything that says that
//!     it has happened returns. Whoever cannot wait for the one who is at that does it as well, so entries downstream stay.
//! W5. An entry downstream is counted there; with the last one gone, that list is closed too.

use std::collections::HashSet;
use std::task::Waker;

use slab::Slab;
use smallvec::SmallVec;

use crate::release::{Panics, drop_iteratively};
use crate::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, unpoisoned};

/// It has happened.
pub(crate) const MARKED: usize = 1;
/// The word alone does not tell: whoever looks has to ask what it stands for.
pub(crate) const INDIRECT: usize = 2;
const WAITED: usize = 4;
/// One of those who can mark it.
const COUNTED: usize = 8;

#[repr(C)]
pub(crate) struct Waiters {
    state: AtomicUsize,
    list: Mutex<List>,
}

/// Where a waker, or a list downstream, stands in a list: 0 nowhere, 1 in the first place, else behind.
#[derive(Clone, Copy, Default)]
pub(crate) struct Key(u32);

#[derive(Default)]
struct List {
    /// Most lists never have more than one waiter.
    first: Option<Waker>,
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    wakers: Slab<Waker>,
    /// Most of those that have any have one.
    first_downstream: Option<Arc<Waiters>>,
    downstream: Slab<Arc<Waiters>>,
}

type Wakers = (Option<Waker>, Slab<Waker>);

impl Waiters {
    /// With one that can mark it.
    #[inline]
    pub(crate) fn new() -> Self {
        Self::with(COUNTED)
    }

    /// That nobody can mark from outside, and that has no list.
    #[inline]
    pub(crate) fn with(state: usize) -> Self {
        Self { state: AtomicUsize::new(state), list: Mutex::new(List { first: None, more: None }) }
    }

    #[inline]
    fn state(&self) -> usize {
        // Acquire: pairs with `mark`, and with `is_last`. loom tries more interleavings of a read-modify-write.
        match cfg!(context_merge_loom) {
            true => self.state.fetch_or(0, Ordering::AcqRel),
            false => self.state.load(Ordering::Acquire),
        }
    }

    /// Whether the word alone tells that it has not happened.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.state() & (MARKED | INDIRECT) == 0
    }

    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.state() & MARKED != 0
    }

    /// Whether it can still be marked by somebody who is counted.
    pub(crate) fn is_open(&self) -> bool {
        is_open(self.state())
    }

    /// It has happened. Whether somebody may wait, whom the caller then notifies.
    pub(crate) fn mark(&self) -> bool {
        // AcqRel: pairs with the looks, and with `admits`.
        self.state.fetch_or(MARKED, Ordering::AcqRel) & WAITED != 0
    }

    /// One more can mark it.
    pub(crate) fn add(&self) {
        // Relaxed: as with a reference count, who adds is counted; a list downstream is published by the lock above it.
        self.state.fetch_add(COUNTED, Ordering::Relaxed);
    }

    /// One of those who can mark it is gone; with the last, what waits is let go, and what waits for nothing else below.
    pub(crate) fn lose(&self) {
        if !self.is_last() {
            return;
        }
        let mut gone = Vec::new();
        let mut lists = self.take_all(&mut gone);
        while let Some(list) = lists.pop() {
            if list.is_last() {
                lists.extend(list.take_all(&mut gone));
            }
        }
        if !gone.is_empty() {
            drop_iteratively(gone);
        }
    }

    /// Takes one from the count; true where that was the last, and somebody waits for what cannot come any more.
    fn is_last(&self) -> bool {
        // AcqRel: pairs with itself, so that the last one sees what the others did, and with `admits`.
        let before = self.state.fetch_sub(COUNTED, Ordering::AcqRel);
        before < 2 * COUNTED && before & (WAITED | MARKED) == WAITED
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        unpoisoned(self.list.lock())
    }

    /// Under the lock: whether somebody may get in (W2).
    fn admits(&self) -> bool {
        // Acquire: who is refused sees what has come before.
        let state = self.state.load(Ordering::Acquire);
        let waited = state & WAITED != 0;
        is_open(if waited { state } else { self.state.fetch_or(WAITED, Ordering::AcqRel) })
    }

    /// Puts `waker` in, or in the place of the one at `key`. Nowhere once it is not open: the caller has to look whether it
    /// has happened.
    pub(crate) fn register(&self, key: Key, waker: &Waker) -> Key {
        // Asked before as well, so that no waker is cloned for nothing.
        if !self.is_open() {
            return Key::default();
        }
        let waker = waker.clone();
        let mut list = self.lock();
        if !self.admits() {
            drop(list);
            return Key::default();
        }
        let (key, before) = list.put(key, waker);
        drop(list);
        drop(before);
        key
    }

    /// What was at `key`, for the caller to drop.
    pub(crate) fn deregister(&self, key: Key) -> Option<Waker> {
        if key.0 == 0 { None } else { self.lock().take(key) }
    }

    /// Puts a list downstream, where it is counted. Nowhere once it is not open.
    pub(crate) fn link(&self, downstream: &Arc<Waiters>) -> Key {
        downstream.add();
        let link = Arc::clone(downstream);
        let mut list = self.lock();
        if self.admits() {
            let more = list.more.get_or_insert_default();
            if more.first_downstream.is_some() {
                return Key::behind(more.downstream.insert(link));
            }
            more.first_downstream = Some(link);
            return Key(1);
        }
        drop(list);
        downstream.lose();
        Key::default()
    }

    pub(crate) fn unlink(&self, key: Key) {
        let mut list = self.lock();
        let gone = list.more.as_mut().and_then(|more| match key.index() {
            Some(index) => take(&mut more.downstream, index),
            None => more.first_downstream.take_if(|_| key.0 == 1),
        });
        drop(list);
        drop(gone);
    }

    /// It is marked: marks every list downstream, then wakes everybody (W4). Wakers that panic do not keep the others from
    /// being woken; the first panic goes on when all have been.
    pub(crate) fn notify(&self) {
        let mut wakers = SmallVec::<[Wakers; 1]>::new();
        self.each_downstream(|list| wakers.push(list.take_wakers()));
        let mut panics = Panics::default();
        for (first, rest) in wakers {
            let mut wakers = first.into_iter().chain(rest.into_iter().map(|(_, waker)| waker));
            // A waker that panics has been taken out, so that the next round goes on behind it.
            while panics.catch(|| wakers.by_ref().for_each(Waker::wake)).is_none() {}
        }
        panics.resume();
    }

    /// It is marked: when this returns every list downstream is as well, whoever did that.
    pub(crate) fn mark_downstream(&self) {
        self.each_downstream(|_| {});
    }

    /// Marks each list downstream once, and calls `f` with it and with this one, under the lock.
    fn each_downstream(&self, mut f: impl FnMut(&mut List)) {
        let mut next = Vec::new();
        let mut visit = |list: &Self, next: &mut Vec<_>| {
            let mut list = list.lock();
            if let Some(more) = &list.more {
                next.extend(more.first_downstream.iter().cloned());
                next.extend(more.downstream.iter().map(|(_, list)| Arc::clone(list)));
            }
            f(&mut list);
        };
        visit(self, &mut next);
        let mut seen = HashSet::new();
        while let Some(list) = next.pop() {
            if seen.insert(Arc::as_ptr(&list)) {
                list.mark();
                visit(&list, &mut next);
            }
        }
    }

    /// Closed: takes all that it has, and gives what was downstream.
    fn take_all(&self, gone: &mut Vec<Waker>) -> Vec<Arc<Waiters>> {
        let List { first, more } = std::mem::take(&mut *self.lock());
        let More { wakers, first_downstream, downstream } = more.map(|more| *more).unwrap_or_default();
        gone.extend(first.into_iter().chain(wakers.into_iter().map(|(_, waker)| waker)));
        first_downstream.into_iter().chain(downstream.into_iter().map(|(_, list)| list)).collect()
    }
}

fn is_open(state: usize) -> bool {
    state & MARKED == 0 && state >= COUNTED
}

impl List {
    fn put(&mut self, key: Key, waker: Waker) -> (Key, Option<Waker>) {
        if key.0 == 1 || (key.0 == 0 && self.first.is_none()) {
            return (Key(1), self.first.replace(waker));
        }
        let wakers = &mut self.more.get_or_insert_default().wakers;
        match key.index().and_then(|index| wakers.get_mut(index)) {
            Some(place) => (key, Some(std::mem::replace(place, waker))),
            None => (Key::behind(wakers.insert(waker)), None),
        }
    }

    fn take(&mut self, key: Key) -> Option<Waker> {
        match key.index() {
            Some(index) => take(&mut self.more.as_mut()?.wakers, index),
            None => self.first.take(),
        }
    }

    fn take_wakers(&mut self) -> Wakers {
        let rest = self.more.as_mut().map(|more| std::mem::take(&mut more.wakers));
        (self.first.take(), rest.unwrap_or_default())
    }
}

impl Key {
    fn behind(index: usize) -> Self {
        Self(u32::try_from(index + 2).expect("fewer than four billion wait for one thing"))
    }

    /// Where it stands behind the first.
    fn index(self) -> Option<usize> {
        (self.0 as usize).checked_sub(2)
    }
}

/// A list that is empty again gives back what a crowd made it take.
fn take<T>(places: &mut Slab<T>, index: usize) -> Option<T> {
    let taken = places.try_remove(index);
    if places.is_empty() && places.capacity() > 64 {
        *places = Slab::new();
    }
    taken
}
