//! Writes that wait for two of three replicas, and let the third go on behind the response.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use context_merge::tower::ServerContext;
use context_merge::{Context, Error};
use tokio::sync::mpsc;
use tokio::time::sleep;

const ENOUGH: usize = 2;
/// The last one is far away.
const AWAY: [Duration; 3] = [Duration::from_millis(5), Duration::from_millis(10), Duration::from_millis(500)];

#[derive(Clone, Default)]
pub(crate) struct Replicas(Arc<[Mutex<BTreeSet<u64>>; AWAY.len()]>);

impl Replicas {
    pub(crate) async fn write(&self, ctx: &Context, server: &ServerContext, key: u64) -> Result<(), Error> {
        let (ack, mut acks) = mpsc::unbounded_channel();
        for (replica, away) in AWAY.into_iter().enumerate() {
            let (replicas, ack) = (self.clone(), ack.clone());
            // Neither the response nor a client that hangs up ends it; the end of the process waits for it.
            server.spawn(async move {
                sleep(away).await;
                replicas.0[replica].lock().unwrap().insert(key);
                // Nobody listens behind the response.
                let _ = ack.send(());
            });
        }
        for _ in 0..ENOUGH {
            ctx.run(acks.recv()).await?;
        }
        Ok(())
    }

    /// How many keys there are, and how many of them some replica has not.
    pub(crate) fn tally(&self) -> String {
        let replicas: Vec<_> = self.0.iter().map(|keys| keys.lock().unwrap().clone()).collect();
        let all: BTreeSet<u64> = replicas.iter().flatten().copied().collect();
        let missing = all.iter().filter(|key| !replicas.iter().all(|keys| keys.contains(key))).count();
        format!("keys={} missing={missing}", all.len())
    }
}
