//! What the integration tests share: wakers that count, and polling by hand.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

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
    future.poll(&mut TaskContext::from_waker(&Waker::from(Arc::clone(waker))))
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
