//! A worker that finishes the job in hand, and takes no more once the service drains.

use std::time::Duration;

use context_merge::shutdown::Shutdown;
use context_merge::{Context, merge};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

const WORK: Duration = Duration::from_millis(200);

pub(crate) struct Job {
    ctx: Context,
    id: u64,
}

impl Job {
    /// In the name of who asks for it, but not bound to the end of the request.
    pub(crate) fn new(asked: &Context, id: u64) -> Job {
        Job { ctx: asked.without_cancel().named("job").with_timeout(Duration::from_secs(60)), id }
    }
}

/// How many were finished, cut off, and left in the queue: with a broker those go to another instance.
pub(crate) async fn work(shutdown: Shutdown, mut jobs: UnboundedReceiver<Job>) -> String {
    let (mut finished, mut cut) = (0, 0);
    while let Ok(Some(job)) = shutdown.draining().run(jobs.recv()).await {
        match merge(&job.ctx, shutdown.stopping()).run(sleep(WORK)).await {
            Ok(()) if shutdown.draining().is_done() => {
                println!("JOB {} was in hand at the signal, and is finished", job.id);
                finished += 1;
            }
            Ok(()) => finished += 1,
            Err(_) => cut += 1,
        }
    }
    jobs.close();
    let mut left = 0;
    while jobs.try_recv().is_ok() {
        left += 1;
    }
    format!("finished={finished} cut={cut} left={left}")
}
