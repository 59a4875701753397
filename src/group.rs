//! `Group`: tasks that fail together.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;

use tokio::task::JoinSet;

use crate::canceller::Canceller;
use crate::context::Context;
use crate::error::Error;

/// Tasks of which the first failure cancels the rest, and is the cause; as Go's `errgroup`.
///
/// Each task is given the group's context, a child of the one that the group was made with, and ends by itself when that
/// is done: none is dropped half-way, but where the group itself is dropped.
///
/// ```
/// use context_merge::{Context, Error, Group};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut group = Group::new(&Context::background());
/// group.spawn(async |ctx| Ok::<(), Error>(ctx.run(std::future::pending()).await?));
/// group.spawn(async |_| Err("the disk is full"));
/// let err = group.join().await.unwrap_err();
/// assert_eq!(err.cause().unwrap().to_string(), "the disk is full");
/// # }
/// ```
#[must_use = "dropping it cancels and aborts its tasks"]
pub struct Group<T> {
    ctx: Context,
    canceller: Canceller,
    tasks: JoinSet<(usize, Option<T>)>,
    spawned: usize,
}

impl<T: Send + 'static> Group<T> {
    /// A group without tasks, whose context is a child of `ctx`.
    pub fn new(ctx: &Context) -> Self {
        let (ctx, canceller) = ctx.with_cancel();
        Self { ctx, canceller, tasks: JoinSet::new(), spawned: 0 }
    }

    /// The context of the tasks. It is done when one has failed or panicked, when the context that the group was made
    /// with is, and when the group is over.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Spawns a task. Its error cancels the others at once, also where nobody is in [`join`](Self::join) yet.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<W, F, E>(&mut self, work: W)
    where
        W: FnOnce(Context) -> F,
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (work, at) = (work(self.ctx.clone()), self.spawned);
        let unless_it_ends = Panicked(Some(self.canceller.clone()));
        self.spawned += 1;
        self.tasks.spawn(async move {
            let mut unless_it_ends = unless_it_ends;
            let result = work.await;
            let canceller = unless_it_ends.0.take();
            (at, result.map_err(|err| canceller.map(|canceller| canceller.cancel_with(err))).ok())
        });
    }

    /// Waits until all tasks have ended. What they gave, in the order in which they were spawned, if all have succeeded:
    /// also where the context has finished since. Otherwise the error of the context, which is that of the earliest
    /// event: the first failure is its cause, unless a parent or a deadline came before.
    ///
    /// # Cancel safety
    /// Dropping it drops the group: the context is cancelled, and the tasks are aborted at their next await.
    ///
    /// # Panics
    /// With the panic of a task, when all have ended.
    pub async fn join(mut self) -> Result<Vec<T>, Error> {
        let (mut done, mut panic) = (Vec::with_capacity(self.spawned), None);
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((at, value)) => done.extend(value.map(|value| (at, value))),
                Err(err) => panic = panic.or(err.try_into_panic().ok()),
            }
        }
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        if done.len() < self.spawned {
            return Err(self.ctx.err().expect("what does not end well cancels"));
        }
        done.sort_unstable_by_key(|(at, _)| *at);
        Ok(done.into_iter().map(|(_, value)| value).collect())
    }
}

/// Cancels when it is dropped before the work has ended.
struct Panicked(Option<Canceller>);

impl Drop for Panicked {
    fn drop(&mut self) {
        if let Some(canceller) = self.0.take() {
            canceller.cancel_with("a task of the group panicked");
        }
    }
}

impl<T> Drop for Group<T> {
    fn drop(&mut self) {
        self.canceller.cancel_with("the group is over");
    }
}

impl<T> fmt::Debug for Group<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("ctx", &self.ctx).field("tasks", &self.tasks.len()).finish()
    }
}
