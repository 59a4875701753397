//! Letting go of what may hold more of its kind, as deep as there is memory, on any stack; and foreign code that panics.

use std::any::Any;
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::sync::thread_local;

/// The first panic of several calls of foreign code, none of which keeps the next from being made.
#[derive(Default)]
pub(crate) struct Panics {
    first: Option<Box<dyn Any + Send>>,
}

impl Panics {
    /// What `f` gives, if it does not panic.
    pub(crate) fn catch<T>(&mut self, f: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => return Some(value),
            Err(panic) if self.first.is_none() => self.first = Some(panic),
            // Its drop is foreign code too, and nobody is left to catch what that would throw.
            Err(panic) => std::mem::forget(panic),
        }
        None
    }

    /// Lets the first panic go on, unless the thread is panicking already: two at once would abort.
    pub(crate) fn resume(self) {
        match self.first {
            Some(panic) if std::thread::panicking() => std::mem::forget(panic),
            Some(panic) => resume_unwind(panic),
            None => {}
        }
    }
}

/// Drops what is foreign. Where its neighbour in the same node or list has panicked already, its own panic ends here.
pub(crate) fn drop_foreign<T>(foreign: T) {
    let mut panics = Panics::default();
    panics.catch(|| drop(foreign));
    panics.resume();
}

/// Runs foreign code on a thread that must go on: of its panic nobody hears but the hook.
pub(crate) fn ignoring_panics(f: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(f)).err();
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

/// Drops one thing after the other, as it is asked for more.
type Held = Box<dyn Iterator<Item = ()>>;

thread_local! {
    /// What waits for its turn, while something is let go on this thread. Nothing is in here outside of that, so it
    /// needs no destructor, and is there for the destructors of other thread-locals.
    static QUEUE: ManuallyDrop<RefCell<Option<Vec<Held>>>> = ManuallyDrop::new(RefCell::new(None));
}

/// Drops each of `held`, after what is being dropped in this way already. Drops that panic do not keep the others from
/// being dropped; the first panic goes on when all have been.
pub(crate) fn drop_iteratively<T: 'static>(held: impl IntoIterator<Item = T, IntoIter: 'static>) {
    let mut held = held.into_iter().map(drop);
    let begun = QUEUE.with(|later| later.borrow().is_some());
    if begun {
        QUEUE.with(|later| later.borrow_mut().get_or_insert_default().push(Box::new(held)));
        return;
    }
    QUEUE.with(|later| *later.borrow_mut() = Some(Vec::new()));
    let mut panics = Panics::default();
    drop_each(&mut held, &mut panics);
    while let Some(mut next) = QUEUE.with(|later| later.borrow_mut().as_mut().and_then(Vec::pop)) {
        drop_each(&mut next, &mut panics);
    }
    QUEUE.with(|later| *later.borrow_mut() = None);
    panics.resume();
}

/// A drop that panics has been taken out, so that the next call goes on behind it.
fn drop_each(held: &mut impl Iterator<Item = ()>, panics: &mut Panics) {
    while panics.catch(|| for () in held.by_ref() {}).is_none() {}
}
