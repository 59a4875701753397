//! What the two readers share: the body, what has come of it, and their tasks.
//!
//! Two read one body: the handler, and whoever polls the response. The body stands in a slot; it is taken out while it is
//! polled, so that nothing foreign runs under the lock. What comes is queued in the same lock in which the body is put
//! back, and only the handler takes from the queue: frames keep their order.
//!
//! No wake-up is lost: each of the two registers before it looks; the body knows one waker, which wakes both; and who puts
//! the body back wakes the other where there is something for it, or where it has found the slot empty.

use std::any::Any;
use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Wake, Waker};

use bytes::Buf;
use http_body::Body;

use crate::Canceller;
use crate::tower::Ended;
use crate::tower::body::{Next, Rest};

/// What a poll of the body gave, and what the body said after it.
pub(super) struct Came<A: Body> {
    pub(super) next: Next<A>,
    pub(super) rest: Rest,
}

impl<A: Body> Came<A> {
    /// What it counts towards the limit.
    pub(super) fn weight(&self) -> usize {
        let data = self.next.as_ref().and_then(|next| next.as_ref().ok()?.data_ref()).map_or(0, Buf::remaining);
        data.saturating_add(size_of::<Self>())
    }
}

/// Nothing foreign runs under our locks, so what they guard is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first panic of several calls of foreign code, none of which keeps the next from being made.
#[derive(Default)]
pub(super) struct Panics(Option<Box<dyn Any + Send>>);

impl Panics {
    pub(super) fn catch<T>(&mut self, f: impl FnOnce() -> T) {
        match catch_unwind(AssertUnwindSafe(|| drop(f()))) {
            Err(panic) if self.0.is_none() => self.0 = Some(panic),
            // Its drop is foreign too.
            Err(panic) => mem::forget(panic),
            Ok(()) => {}
        }
    }

    /// Lets it go on, unless the thread is panicking already: two at once would abort.
    pub(super) fn resume(self) {
        match self.0 {
            Some(panic) if std::thread::panicking() => mem::forget(panic),
            Some(panic) => resume_unwind(panic),
            None => {}
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Side {
    Handler,
    Ahead,
}

/// The tasks of the two that read, and the waker of the body.
#[derive(Default)]
pub(super) struct Tasks {
    handler: Mutex<Option<Waker>>,
    ahead: Mutex<Option<Waker>>,
}

impl Tasks {
    fn lock(&self, side: Side) -> MutexGuard<'_, Option<Waker>> {
        lock(match side {
            Side::Handler => &self.handler,
            Side::Ahead => &self.ahead,
        })
    }

    /// Without a moment in which neither the old nor the new waker is there.
    pub(super) fn register(&self, side: Side, waker: &Waker) {
        if !self.lock(side).as_ref().is_some_and(|task| task.will_wake(waker)) {
            let new = waker.clone();
            let old = self.lock(side).replace(new);
            drop(old);
        }
    }

    pub(super) fn take(&self, side: Side) -> Option<Waker> {
        self.lock(side).take()
    }

    pub(super) fn wake_each(&self, sides: &[Side]) {
        let mut panics = Panics::default();
        for side in sides {
            let task = self.take(*side);
            panics.catch(|| task.map(Waker::wake));
        }
        panics.resume();
    }
}

impl Wake for Tasks {
    fn wake(self: Arc<Self>) {
        self.wake_each(&[Side::Handler, Side::Ahead]);
    }
}

pub(super) struct Shared<A: Body> {
    pub(super) limit: usize,
    state: Mutex<State<A>>,
    pub(super) tasks: Arc<Tasks>,
    /// The tasks as a waker.
    waker: Waker,
}

pub(super) struct State<A: Body> {
    /// None while it is polled, and once nobody needs it.
    body: Option<Pin<Box<A>>>,
    /// Whether one of the two has found no body to poll.
    missed: bool,
    pub(super) queue: VecDeque<Came<A>>,
    /// What is kept, or was let go of for a handler that does not read.
    pub(super) weight: usize,
    /// Whether the body may be asked for: a server may answer that with 100 Continue.
    pub(super) begun: bool,
    /// The body has ended or failed: there is nothing to read ahead.
    pub(super) over: bool,
    /// The handler has dropped its side.
    pub(super) dropped: bool,
    canceller: Option<Canceller>,
}

impl<A: Body> State<A> {
    pub(super) fn reads_ahead(&self, limit: usize) -> bool {
        self.begun && !self.over && self.weight < limit
    }

    /// The body, where nobody will poll it any more.
    pub(super) fn left_over(&mut self, limit: usize) -> Option<Pin<Box<A>>> {
        if self.dropped && !self.reads_ahead(limit) { self.body.take() } else { None }
    }
}

impl<A: Body> Shared<A> {
    pub(super) fn new(body: A, limit: usize, begun: bool, canceller: Option<Canceller>) -> Self {
        let state = State {
            body: Some(Box::pin(body)),
            missed: false,
            queue: VecDeque::new(),
            weight: 0,
            begun,
            over: false,
            dropped: false,
            canceller,
        };
        let tasks = Arc::<Tasks>::default();
        Self { limit, state: Mutex::new(state), waker: Waker::from(Arc::clone(&tasks)), tasks }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<A>> {
        lock(&self.state)
    }

    /// Polls the body once for `side`, where it may, and queues what comes; false where nothing came.
    pub(super) fn advance(&self, side: Side) -> bool {
        let mut state = self.lock();
        if matches!(side, Side::Ahead) && !state.reads_ahead(self.limit) {
            return false;
        }
        let Some(body) = state.body.take() else {
            state.missed = true;
            return false;
        };
        drop(state);
        let mut taken = Taken { shared: self, side, body: Some(body), came: None };
        let body = taken.body.as_mut().expect("put back by the drop");
        let Poll::Ready(next) = body.as_mut().poll_frame(&mut task::Context::from_waker(&self.waker)) else {
            return false;
        };
        let failed = matches!(next, Some(Err(_)));
        taken.came = Some(Came { next, rest: Rest::of(&**body) });
        if failed {
            let canceller = self.lock().canceller.take();
            // Before the error is there for the handler, which so finds the context finished.
            canceller.map(|canceller| canceller.cancel_with(Ended::InRequest));
        }
        true
    }
}

/// The body, out of its slot; it is put back with what came, also where a poll or a callback panics.
struct Taken<'a, A: Body> {
    shared: &'a Shared<A>,
    side: Side,
    body: Option<Pin<Box<A>>>,
    came: Option<Came<A>>,
}

impl<A: Body> Drop for Taken<'_, A> {
    fn drop(&mut self) {
        let (limit, tasks) = (self.shared.limit, &self.shared.tasks);
        let mut state = self.shared.lock();
        state.body = self.body.take();
        let mut wake = mem::take(&mut state.missed);
        let (mut canceller, mut unread) = (None, None);
        if let Some(came) = self.came.take() {
            state.weight = state.weight.saturating_add(came.weight());
            if came.rest.is_end_stream || !matches!(came.next, Some(Ok(_))) {
                state.over = true;
                canceller = state.canceller.take();
            }
            if state.dropped {
                unread = Some(came)
            } else {
                state.queue.push_back(came)
            }
            wake |= matches!(self.side, Side::Ahead) || state.reads_ahead(limit);
        }
        let body = state.left_over(limit);
        drop(state);
        let mut panics = Panics::default();
        panics.catch(|| drop(canceller));
        panics.catch(|| drop(unread));
        panics.catch(|| drop(body));
        if wake {
            let other = if matches!(self.side, Side::Ahead) { Side::Handler } else { Side::Ahead };
            panics.catch(|| tasks.wake_each(&[other]));
        }
        panics.resume();
    }
}
