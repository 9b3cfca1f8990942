//! The end of the driver: whoever waits is told, and the disk does what it has been asked for.

use std::iter;

use zue_core::Reply;

use crate::driver::handle::Request;
use crate::driver::{Driver, Inbox, Parts};
use crate::num::wide;

impl Driver {
    /// Tells those who wait, and lets the disk do what it has been asked for.
    pub(crate) async fn finish(mut self) {
        if let Some(leading) = self.leading.take() {
            leading.stop.cancel();
        }
        tracing::info!(waiting = wide(self.engine.waiting()), log = %self.engine.replica().log(), "stopping");
        let Self { parts: Parts { storage, inbox, .. }, engine, outboxes, .. } = self;
        let Inbox { mut disk, mut requests, .. } = inbox;
        // What was not taken on is not appended, and is told so.
        requests.close();
        let appends = iter::from_fn(|| requests.try_recv().ok()).filter_map(|request| match request {
            Request::Append(append) => Some(append),
            _ => None,
        });
        // Who else waits sees the sender go, and says that this replica is shutting down.
        for append in engine.end().chain(appends) {
            let _ = append.reply.send(Reply::Refused(zue_core::Refusal::NotLeader));
        }
        drop(outboxes);
        let closed = storage.close();
        tokio::pin!(closed);
        loop {
            tokio::select! {
                () = &mut closed => return,
                fact = disk.recv() => if fact.is_none() { break },
            }
        }
        closed.await;
    }
}
