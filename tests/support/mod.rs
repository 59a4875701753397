//! What the integration tests share: wakers that count, and polling by hand.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context as TaskContext, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

use context_merge::{Canceller, Context, OnDone, any_of};

/// A waker that counts how often it was woken; its reference count tells where it is still registered.
#[derive(Default)]
pub struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counting {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Polls once with the waker.
pub fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Arc<Counting>) -> Poll<F::Output> {
    poll_with(future, &Waker::from(Arc::clone(waker)))
}

/// Stops a callback while its context is cancelled on another thread; gives what `stop` said.
pub fn stopped_in_a_race(on_done: OnDone, canceller: &Canceller) -> bool {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| {
            start.wait();
            on_done.stop()
        });
        start.wait();
        canceller.cancel();
        stopping.join().unwrap()
    })
}

/// Runs a closure when woken.
pub struct Calling<F>(pub F);

impl<F: Fn() + Send + Sync + 'static> Wake for Calling<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

pub fn calling(f: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Calling(f)))
}

/// Polls once with any waker.
pub fn poll_with<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut TaskContext::from_waker(waker))
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// What a hostile waker does in each of its operations; a clone counts as one more until it is woken or dropped,
/// whether or not the hook comes back.
#[derive(Default)]
pub struct Hooks {
    pub clone: Option<Hook>,
    pub wake: Option<Hook>,
    pub drop: Option<Hook>,
    clones: AtomicUsize,
}

impl Hooks {
    pub fn on_clone(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self { clone: Some(Box::new(f)), ..Self::default() }
    }

    pub fn on_wake(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self { wake: Some(Box::new(f)), ..Self::default() }
    }

    pub fn on_drop(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self { drop: Some(Box::new(f)), ..Self::default() }
    }

    /// How many wakers there are, the first included.
    pub fn clones(&self) -> usize {
        self.clones.load(Ordering::SeqCst)
    }

    #[expect(unsafe_code, reason = "only a raw waker can misbehave in clone and in every drop")]
    pub fn waker(self: &Arc<Self>) -> Waker {
        self.clones.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the pointer is a reference count of an `Arc<Hooks>`, as the table below takes it.
        unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(Arc::clone(self)).cast(), &HOOKS)) }
    }
}

fn call(hook: &Option<Hook>) {
    if let Some(hook) = hook {
        hook();
    }
}

#[expect(unsafe_code, reason = "the table of a raw waker")]
static HOOKS: RawWakerVTable = {
    fn take(hooks: *const ()) -> Arc<Hooks> {
        // SAFETY: each waker owns one count, and is woken or dropped once.
        let hooks = unsafe { Arc::from_raw(hooks.cast::<Hooks>()) };
        hooks.clones.fetch_sub(1, Ordering::SeqCst);
        hooks
    }
    RawWakerVTable::new(
        |hooks| {
            // SAFETY: the waker that is being cloned owns a count, so the target lives; the clone gets one more.
            let this = unsafe { &*hooks.cast::<Hooks>() };
            call(&this.clone);
            this.clones.fetch_add(1, Ordering::SeqCst);
            unsafe { Arc::increment_strong_count(hooks.cast::<Hooks>()) };
            RawWaker::new(hooks, &HOOKS)
        },
        |hooks| call(&take(hooks).wake),
        // SAFETY: as for a clone.
        |hooks| call(&unsafe { &*hooks.cast::<Hooks>() }.wake),
        |hooks| call(&take(hooks).drop),
    )
};

/// Runs a closure when dropped.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A cause that runs a closure when formatted, and one when dropped.
pub struct Cause {
    format: Option<Hook>,
    drop: Option<Hook>,
}

impl Cause {
    pub fn on_format(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self { format: Some(Box::new(f)), drop: None }
    }

    pub fn on_drop(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self { format: None, drop: Some(Box::new(f)) }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        call(&self.format);
        f.write_str("the cause")
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Its source is itself, without end.
impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self)
    }
}

impl Drop for Cause {
    fn drop(&mut self) {
        call(&self.drop);
    }
}

/// Adds one whenever it is called.
pub fn adding(count: &Arc<AtomicUsize>) -> impl Fn() + Send + Sync + Clone + 'static {
    let count = Arc::clone(count);
    move || {
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// What `f` panics with.
#[track_caller]
pub fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(f)) else { panic!("there should have been a panic") };
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).expect("a panic with a text")
}

/// Fails where `f` is not through within ten seconds, which stands for a deadlock.
#[track_caller]
pub fn within<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(f()));
    receive.recv_timeout(Duration::from_secs(10)).expect("a deadlock, or a panic on the other thread")
}

/// The context itself, a relay of it, and one that has it among more sources than eight; and what keeps those alive.
pub fn ways_to_see(root: &Context) -> ([Context; 3], Vec<Canceller>) {
    let (crowd, cancellers): (Vec<_>, Vec<_>) = (0..12).map(|_| Context::background().with_cancel()).unzip();
    ([root.clone(), root.relay(), any_of(crowd.iter().chain([root]))], cancellers)
}

/// Counts this thread's allocations and the bytes it holds.
pub struct CountingAlloc;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; this one only counts")]
// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size() as isize));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() - layout.size() as isize));
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// What `f` gives, and how many allocations this thread made for it.
pub fn allocations<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = CALLS.get();
    let out = f();
    (out, CALLS.get() - before)
}

/// The bytes that this thread holds more than it has freed.
pub fn bytes_held() -> isize {
    BYTES.get()
}
