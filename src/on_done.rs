//! Callbacks: a callback is a waker.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{self, Wake, Waker};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::context::Context;
use crate::done::Waiting;
use crate::error::Error;
use crate::registration::Registration;
use crate::release::{Panics, ignoring_panics};
use crate::sync::{Mutex, unpoisoned};
use crate::timer::ThreadTimer;

/// A registered callback; made by [`Context::on_done`]. Dropping it is [`stop`](Self::stop).
#[must_use = "dropping it stops the callback; detach() keeps it"]
pub struct OnDone {
    callback: Option<Arc<dyn Stop>>,
}

impl OnDone {
    /// Keeps the callback from running. True exactly when it did so: false where it has run, is running or is about
    /// to. It never waits for a callback that is running.
    pub fn stop(mut self) -> bool {
        self.callback.take().is_some_and(|callback| callback.stop())
    }

    /// Leaves the callback registered for as long as one of the sources lives, and until the deadline, if there is one.
    pub fn detach(mut self) {
        self.callback = None;
    }
}

impl Drop for OnDone {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            callback.stop();
        }
    }
}

impl fmt::Debug for OnDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = self.callback.as_ref().is_some_and(|callback| callback.is_pending());
        f.debug_struct("OnDone").field("pending", &pending).finish()
    }
}

trait Stop: Send + Sync {
    fn stop(&self) -> bool;
    fn is_pending(&self) -> bool;
}

/// Whoever takes `work` out runs it, or stops it.
struct Callback<F> {
    work: Mutex<Option<(F, Context)>>,
    /// What has to be undone then. It is put here after the registration; who puts it looks at `work` once more.
    registered: Mutex<Option<Registered>>,
    /// The timer on the timer thread, where there is no task for it; put here in the same way.
    thread_timer: Mutex<Option<ThreadTimer>>,
}

struct Registered {
    _registration: Registration<Context>,
    task: Option<AbortHandle>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl<F: FnOnce(&Error) + Send + 'static> Callback<F> {
    fn take(&self) -> Option<(F, Context)> {
        let work = unpoisoned(self.work.lock()).take();
        if work.is_some() {
            self.withdraw();
        }
        work
    }

    fn withdraw(&self) {
        let registered = unpoisoned(self.registered.lock()).take();
        drop(registered);
        let thread_timer = unpoisoned(self.thread_timer.lock()).take();
        drop(thread_timer);
    }

    fn run(&self, err: &Error) {
        if let Some((callback, ctx)) = self.take() {
            let mut panics = Panics::default();
            // The last handle of a context may drop foreign values.
            panics.catch(|| drop(ctx));
            panics.catch(|| callback(err));
            panics.resume();
        }
    }

    /// While there is something to run.
    fn ctx(&self) -> Option<Context> {
        unpoisoned(self.work.lock()).as_ref().map(|(_, ctx)| ctx.clone())
    }

    /// Has the timer thread fire at the deadline; soon, if that has passed.
    fn arm_thread_timer(self: &Arc<Self>) {
        let Some(at) = self.ctx().and_then(|ctx| ctx.deadline()) else { return };
        let waker = Waker::from(Arc::new(AtDeadline(Arc::clone(self))));
        let thread_timer = loop {
            let mut thread_timer = ThreadTimer::new(at);
            if thread_timer.poll(&mut task::Context::from_waker(&waker)).is_pending() {
                break thread_timer;
            }
        };
        let mut hung = unpoisoned(self.thread_timer.lock());
        // Ours may have fired too early meanwhile, and the timer thread have hung the next one.
        let other = if hung.as_ref().is_some_and(|next| !next.has_fired()) {
            Some(thread_timer)
        } else {
            hung.replace(thread_timer)
        };
        drop(hung);
        drop(other);
        if !self.is_pending() {
            self.withdraw();
        }
    }
}

/// Wakes the callback on the timer thread.
struct AtDeadline<F>(Arc<Callback<F>>);

impl<F: FnOnce(&Error) + Send + 'static> Wake for AtDeadline<F> {
    fn wake(self: Arc<Self>) {
        let Some(ctx) = self.0.ctx() else { return };
        let mut seen = None;
        ignoring_panics(|| seen = ctx.err_when_told());
        let unnotified = ctx.is_finished_without_notify();
        drop(ctx);
        match seen {
            Some(err) if unnotified => self.0.run(&err),
            // As in `run_at_deadline`.
            Some(_) => {}
            // Further off than a timer can reach, or read off another clock.
            None => self.0.arm_thread_timer(),
        }
    }
}

impl<F: FnOnce(&Error) + Send + 'static> Wake for Callback<F> {
    fn wake(self: Arc<Self>) {
        if let Some(err) = self.ctx().and_then(|ctx| ctx.err_when_told()) {
            self.run(&err);
        }
    }
}

impl<F: FnOnce(&Error) + Send + 'static> Stop for Callback<F> {
    fn stop(&self) -> bool {
        self.take().is_some()
    }

    fn is_pending(&self) -> bool {
        unpoisoned(self.work.lock()).is_some()
    }
}

impl Context {
    /// Runs `f` once, when the context finishes: at once and on this thread if it is finished already; otherwise on
    /// the thread that cancels, after every context over the source has become done, or on this runtime when a
    /// deadline or a foreign signal finishes it. It should be short: it keeps the canceller from going on.
    ///
    /// Outside any runtime, and where the runtime has ended before the deadline, it runs at the deadline on a thread that is
    /// there for that, and serves all such callbacks of the process, by the real clock. A foreign signal is not heard any more
    /// when the runtime has ended, only seen: by a look, and by the cancel of what is derived from it. A runtime that lives, but is driven by
    /// nobody, runs nothing: then any cancel does, also one after the deadline.
    ///
    /// Until it has run it counts as somebody who can see the context.
    ///
    /// ```
    /// use context_merge::Context;
    /// use std::sync::mpsc::channel;
    ///
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// let (send, receive) = channel();
    /// let on_done = ctx.on_done(move |err| send.send(err.to_string()).unwrap());
    /// canceller.cancel();
    /// assert_eq!(receive.recv().unwrap(), "context cancelled");
    /// assert!(!on_done.stop(), "it has run");
    /// ```
    ///
    /// # Panics
    /// On a live context with a foreign signal, outside a tokio runtime; on one with a deadline, in a runtime without time
    /// enabled. A panic of `f` comes out of the call that finished the context, after all others have been woken; in a task or
    /// on that thread it is left to the panic hook. Where the system gives no thread, when one is needed.
    pub fn on_done<F: FnOnce(&Error) + Send + 'static>(&self, f: F) -> OnDone {
        if let Some(err) = self.err_when_told() {
            f(&err);
            return OnDone { callback: None };
        }
        if self.set.is_never() {
            return OnDone { callback: Some(Arc::new(Never(Mutex::new(Some(f))))) };
        }
        let signals = self.set.view().sources().any(|source| source.is_foreign());
        let deadline = self.view().deadline().is_some();
        let runtime = Handle::try_current().ok().filter(|_| signals || deadline);
        assert!(runtime.is_some() || !signals, "on_done of a context with a foreign signal needs a tokio runtime");
        // Before anything is registered, so that a panic leaves nothing behind.
        let unlisted = runtime.map(|runtime| (runtime, Waiting::without_lists(self.clone())));
        let needs_thread_timer = deadline && unlisted.is_none();
        let work = Mutex::new(Some((f, self.clone())));
        let callback = Arc::new(Callback { work, registered: Mutex::new(None), thread_timer: Mutex::new(None) });
        let mut registration = Registration::new(self.clone());
        registration.register(&Waker::from(Arc::clone(&callback)));
        let task = unlisted.map(|(runtime, unlisted)| {
            let callback = Arc::clone(&callback);
            runtime.spawn(run_at_deadline(unlisted, ByTask { callback, fired: false })).abort_handle()
        });
        let registered = Registered { _registration: registration, task };
        *unpoisoned(callback.registered.lock()) = Some(registered);
        // Made before a look that may panic with a foreign signal, which then leaves nothing behind.
        let on_done = OnDone { callback: Some(Arc::clone(&callback) as _) };
        if needs_thread_timer {
            callback.arm_thread_timer();
        }
        // Registered first, looked then: whoever finished it in between may have come too early to find us.
        if let Some(err) = self.err_when_told() {
            callback.run(&err);
        }
        if !callback.is_pending() {
            callback.withdraw();
        }
        on_done
    }

    fn is_finished_without_notify(&self) -> bool {
        self.view().finished_without_notify()
    }

    /// The error, once every context past eight sources that the same event finishes is done too.
    fn err_when_told(&self) -> Option<Error> {
        let err = self.view().err()?;
        self.view().mark_downstream();
        Some(err)
    }
}

/// On the background there is nothing to wait for, but there is something to stop.
struct Never<F>(Mutex<Option<F>>);

impl<F: Send> Stop for Never<F> {
    fn stop(&self) -> bool {
        let work = unpoisoned(self.0.lock()).take();
        work.is_some()
    }

    fn is_pending(&self) -> bool {
        true
    }
}

/// A callback for whose timer a task waits.
struct ByTask<F: FnOnce(&Error) + Send + 'static> {
    callback: Arc<Callback<F>>,
    fired: bool,
}

/// The task is gone without having fired: stopped, or its runtime has ended.
impl<F: FnOnce(&Error) + Send + 'static> Drop for ByTask<F> {
    fn drop(&mut self) {
        if !self.fired && self.callback.is_pending() {
            ignoring_panics(|| self.callback.arm_thread_timer());
        }
    }
}

/// What a deadline or a signal needs: somebody who waits. Where a source was first after all, its canceller is on its
/// way to run the callback on its own thread.
async fn run_at_deadline<F: FnOnce(&Error) + Send + 'static>(mut unlisted: Waiting<Context>, mut by_task: ByTask<F>) {
    let ctx = unlisted.ctx().clone();
    let err = poll_fn(|cx| unlisted.poll_without_lists(cx)).await;
    by_task.fired = true;
    let unnotified = ctx.is_finished_without_notify();
    drop(ctx);
    if unnotified {
        by_task.callback.run(&err);
    }
}
