//! Letting go of what may hold more of its kind, as deep as there is memory, on any stack.

use std::any::Any;
use std::cell::RefCell;
use std::mem::ManuallyDrop;

use crate::sync::thread_local;

type Held = Box<dyn Any>;

thread_local! {
    /// What waits for its turn, while something is let go on this thread. Nothing is in here outside of that, so it
    /// needs no destructor, and is there for the destructors of other thread-locals.
    static LATER: ManuallyDrop<RefCell<Option<Vec<Held>>>> = ManuallyDrop::new(RefCell::new(None));
}

/// Drops `held`, after what is being dropped in this way already.
pub(crate) fn in_turn<T: 'static>(held: Vec<T>) {
    if held.is_empty() {
        return;
    }
    let begun = LATER.with(|later| later.borrow().is_some());
    if begun {
        LATER.with(|later| later.borrow_mut().get_or_insert_default().push(Box::new(held)));
        return;
    }
    LATER.with(|later| *later.borrow_mut() = Some(Vec::new()));
    let _round = Round;
    drop(held);
    while let Some(next) = LATER.with(|later| later.borrow_mut().as_mut().and_then(Vec::pop)) {
        drop(next);
    }
}

/// Ends a round also where a foreign drop panics.
struct Round;

impl Drop for Round {
    fn drop(&mut self) {
        let rest = LATER.with(|later| later.borrow_mut().take());
        drop(rest);
    }
}
