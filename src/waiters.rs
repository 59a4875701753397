//! Who waits on a source.
//!
//! W1. A list is open until its source fires or can fire no more; then it is closed for good, and taken out whole.
//! W2. No waker is cloned, woken or dropped under the lock.
//! W3. When a source fires, all lists below it are closed and told before the first waker runs, and before anything
//!     that says that it has fired returns. Whoever cannot wait for the one who is at that does it as well: what is
//!     below stays in its place until all are told.
//! W4. A link from below is counted in the lower list's `upstream`; the list is abandoned with the last of them.

use std::task::Waker;

use slab::Slab;

use crate::release::{Panics, in_turn};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, unpoisoned};

pub(crate) type Key = usize;

/// The list of one source, or of a relay, which is linked into the lists above it.
pub(crate) struct Waiters {
    list: Mutex<List>,
    /// Stored true with Release when a source at or above this list fired, loaded with Acquire by `is_told`.
    told: AtomicBool,
    upstream: AtomicUsize,
}

struct List {
    open: bool,
    wakers: Slab<Waker>,
    below: Slab<Arc<Waiters>>,
}

impl Waiters {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            list: Mutex::new(List { open: true, wakers: Slab::new(), below: Slab::new() }),
            told: AtomicBool::new(false),
            upstream: AtomicUsize::new(0),
        })
    }

    /// Puts `waker` in, or in the place of the one that `key` stands for. None once closed: the caller has to look
    /// whether the source has fired.
    pub(crate) fn register(&self, key: Option<Key>, waker: &Waker) -> Option<Key> {
        let waker = waker.clone();
        let mut list = unpoisoned(self.list.lock());
        if !list.open {
            drop(list);
            return None;
        }
        let (key, old) = match key {
            Some(key) => (key, Some(std::mem::replace(&mut list.wakers[key], waker))),
            None => (list.wakers.insert(waker), None),
        };
        drop(list);
        drop(old);
        Some(key)
    }

    pub(crate) fn deregister(&self, key: Key) {
        let mut list = unpoisoned(self.list.lock());
        let waker = if list.open { list.wakers.try_remove(key) } else { None };
        shrink(&mut list.wakers);
        drop(list);
        drop(waker);
    }

    fn link(&self, below: &Arc<Self>) -> Option<Key> {
        let below = Arc::clone(below);
        let mut list = unpoisoned(self.list.lock());
        list.open.then(|| list.below.insert(below))
    }

    fn unlink(&self, key: Key) {
        let mut list = unpoisoned(self.list.lock());
        let below = if list.open { list.below.try_remove(key) } else { None };
        shrink(&mut list.below);
        drop(list);
        drop(below);
    }

    /// Whether a source at or above this list has fired.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    fn close(&self) -> (Slab<Waker>, Slab<Arc<Waiters>>) {
        let mut list = unpoisoned(self.list.lock());
        list.open = false;
        (std::mem::take(&mut list.wakers), std::mem::take(&mut list.below))
    }

    /// Closes the list and gives those below, which stay where they are: whoever comes while others are still on
    /// their way down goes down as well.
    fn close_and_tell(&self, lists: &mut Vec<Arc<Self>>) {
        let mut list = unpoisoned(self.list.lock());
        self.told.store(true, Ordering::Release);
        list.open = false;
        lists.extend(list.below.iter().map(|(_, list)| Arc::clone(list)));
    }

    /// The source has fired: when this returns, every list below is told, whoever did it.
    pub(crate) fn tell(&self) {
        let mut lists = Vec::new();
        self.close_and_tell(&mut lists);
        while let Some(list) = lists.pop() {
            list.close_and_tell(&mut lists);
        }
    }

    /// The source has fired: tells every list below, then wakes everybody (W3). Wakers that panic do not keep the
    /// others from being woken; the first panic goes on when all have been.
    pub(crate) fn fire(&self) {
        self.tell();
        let (wakers, below) = self.close();
        let mut ready = vec![wakers];
        let mut lists: Vec<_> = below.into_iter().map(|(_, list)| list).collect();
        while let Some(list) = lists.pop() {
            let (wakers, below) = list.close();
            ready.push(wakers);
            lists.extend(below.into_iter().map(|(_, list)| list));
        }
        wake_all(ready);
    }

    /// The source can fire no more: lets go of all that is registered, and of what below waits for nothing else.
    pub(crate) fn abandon(&self) {
        let (wakers, below) = self.close();
        let mut gone = vec![wakers];
        let mut lists: Vec<_> = below.into_iter().map(|(_, list)| list).collect();
        while let Some(list) = lists.pop() {
            if list.lost_upstream() {
                let (wakers, below) = list.close();
                gone.push(wakers);
                lists.extend(below.into_iter().map(|(_, list)| list));
            }
        }
        in_turn(gone.into_iter().flatten());
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

fn wake_all(ready: Vec<Slab<Waker>>) {
    let mut panics = Panics::default();
    for (_, waker) in ready.into_iter().flatten() {
        panics.catch(|| waker.wake());
    }
    panics.resume();
}

/// The links of a relay's list into the lists above it, undone on drop.
pub(crate) struct Upstream {
    links: Vec<(Arc<Waiters>, Key)>,
}

impl Upstream {
    /// Links `list` into those `above`. The caller has to look once more whether one of them fired meanwhile.
    pub(crate) fn connect(list: &Arc<Waiters>, above: impl Iterator<Item = Arc<Waiters>>) -> Self {
        // One more than there are links, so that the list is not abandoned half-linked. Relaxed: the lock of the
        // list above publishes it.
        list.upstream.fetch_add(1, Ordering::Relaxed);
        let mut links = Vec::with_capacity(above.size_hint().0);
        for above in above {
            list.upstream.fetch_add(1, Ordering::Relaxed);
            match above.link(list) {
                Some(key) => links.push((above, key)),
                None => {
                    list.lost_upstream();
                }
            }
        }
        Self { links }
    }

    /// Ends the time in which `list` cannot be abandoned.
    pub(crate) fn connected(list: &Waiters) {
        if list.lost_upstream() {
            list.abandon();
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for (above, key) in self.links.drain(..) {
            above.unlink(key);
        }
    }
}
