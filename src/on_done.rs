//! Callbacks: a callback is a waker.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Wake, Waker};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::context::Context;
use crate::done::Waiting;
use crate::error::Error;
use crate::node::Node;
use crate::registration::Registration;
use crate::release::Panics;
use crate::sync::{Mutex, unpoisoned};

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

    /// Leaves the callback registered for as long as one of the sources lives.
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

    /// The error to run with, while there is something to run.
    fn err(&self) -> Option<Error> {
        let ctx = unpoisoned(self.work.lock()).as_ref().map(|(_, ctx)| ctx.clone())?;
        ctx.err_when_told()
    }
}

impl<F: FnOnce(&Error) + Send + 'static> Wake for Callback<F> {
    fn wake(self: Arc<Self>) {
        if let Some(err) = self.err() {
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
    /// the thread that cancels, after every context over the source has become done, or on the runtime when a
    /// deadline or a foreign signal finishes it. It should be short: it keeps the canceller from going on.
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
    /// On a live context with a deadline or a foreign signal, outside a tokio runtime with time enabled. A panic of
    /// `f` comes out of the call that finished the context, after all others have been woken.
    pub fn on_done<F: FnOnce(&Error) + Send + 'static>(&self, f: F) -> OnDone {
        if let Some(err) = self.err_when_told() {
            f(&err);
            return OnDone { callback: None };
        }
        let Some(node) = &self.node else { return OnDone { callback: Some(Arc::new(Never(Mutex::new(Some(f))))) } };
        // Before anything is registered, so that a panic leaves nothing behind.
        let alarms = needs_runtime(node).then(|| {
            let runtime = Handle::try_current().expect(
                "on_done of a context with a deadline or a foreign signal needs a tokio runtime with time enabled",
            );
            (runtime, Waiting::for_alarms(self.clone()))
        });
        let callback = Arc::new(Callback { work: Mutex::new(Some((f, self.clone()))), registered: Mutex::new(None) });
        let mut registration = Registration::new(self.clone());
        registration.register(&Waker::from(Arc::clone(&callback)));
        let task = alarms.map(|(runtime, alarms)| {
            let callback = Arc::clone(&callback);
            runtime.spawn(run_at_alarm(alarms, callback)).abort_handle()
        });
        let registered = Registered { _registration: registration, task };
        *unpoisoned(callback.registered.lock()) = Some(registered);
        // Made before a look that may panic with a foreign signal, which then leaves nothing behind.
        let on_done = OnDone { callback: Some(Arc::clone(&callback) as _) };
        // Registered first, looked then: whoever finished it in between may have come too early to find us.
        if let Some(err) = self.err_when_told() {
            callback.run(&err);
        }
        if !callback.is_pending() {
            callback.withdraw();
        }
        on_done
    }

    /// The error, once every context past eight sources that the same event finishes is done too.
    fn err_when_told(&self) -> Option<Error> {
        let node = self.node.as_ref()?;
        let err = node.err()?;
        node.tell_below();
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

fn needs_runtime(node: &Node) -> bool {
    node.deadline().is_some() || node.sources().any(Node::is_signal)
}

/// What a deadline or a signal needs: somebody who waits. Where a source was first after all, its canceller is on its
/// way to run the callback on its own thread.
async fn run_at_alarm<F: FnOnce(&Error) + Send + 'static>(alarms: Waiting<Context>, callback: Arc<Callback<F>>) {
    let ctx = alarms.ctx().clone();
    let mut alarms = pin!(alarms);
    let err = poll_fn(|cx| alarms.as_mut().poll(cx)).await;
    let by_alarm = ctx.node.as_ref().is_some_and(Node::finished_by_alarm);
    drop(ctx);
    if by_alarm {
        callback.run(&err);
    }
}
