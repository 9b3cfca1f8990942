//! The status of this node as a stream, for a controller: at once, then when something changes that one may act on, and every so often.

use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use zue_proto::status::{HEARTBEAT_MS, is_news};
use zue_proto::v1::{self, Reason};

use crate::backup::BackupRequests;
use crate::driver::handle::Handle;
use crate::driver::state::ReplicaView;
use crate::services::errors::{error, shutting_down, status};
use crate::tls::Security;

/// The time that the driver may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The sources that a status is put together from: the replica, and what is beside it.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) handle: Handle,
    pub(crate) security: Security,
    /// Of one that makes backups.
    pub(crate) backups: Option<BackupRequests>,
}

/// A controller that watches.
struct Watch {
    sources: Sources,
    view: watch::Receiver<ReplicaView>,
    /// The silence of a leader, in milliseconds, from which on it is news.
    detection_ms: u64,
    /// The status that it was told last, and when.
    told: Option<(v1::StatusResponse, Instant)>,
}

/// Tells the status until nobody takes it any more, or the node stops: that is the last word.
pub(crate) fn watch(
    sources: Sources,
    detection_ms: u64,
) -> impl Stream<Item = Result<v1::StatusResponse, Status>> + Send {
    let view = sources.handle.view.clone();
    unfold(Some(Watch { sources, view, detection_ms, told: None }), |watch| async {
        let mut watch = watch?;
        let told = watch.next().await;
        let goes_on = told.is_ok();
        Some((told, goes_on.then_some(watch)))
    })
}

impl Sources {
    /// The status as it is now.
    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, Status> {
        match timeout(ANSWER_TIMEOUT, self.handle.status()).await {
            Ok(Ok(now)) => Ok(self.complete(now)),
            Ok(Err(_gone)) => Err(status(shutting_down())),
            Err(_) => Err(status(error(Reason::TimedOut, "this replica is too busy to answer"))),
        }
    }

    /// Problems of the log go before those of TLS.
    fn complete(&self, mut now: v1::StatusResponse) -> v1::StatusResponse {
        now.tls = self.security.status();
        now.backup = self.backups.as_ref().map(BackupRequests::status);
        if now.problem.is_empty() {
            now.problem = self.security.problem().unwrap_or_default();
        }
        now
    }
}

impl Watch {
    async fn next(&mut self) -> Result<v1::StatusResponse, Status> {
        loop {
            self.view.borrow_and_update();
            let now = self.sources.status().await?;
            let until = match &self.told {
                Some((before, at)) if !is_news(before, &now, self.detection_ms) => {
                    *at + Duration::from_millis(HEARTBEAT_MS)
                }
                _ => Instant::now(),
            };
            if until <= Instant::now() {
                self.told = Some((now.clone(), Instant::now()));
                return Ok(now);
            }
            let silence_ms = now.leader_silence_ms.filter(|ms| *ms < self.detection_ms);
            let lost_in = silence_ms.map(|ms| Duration::from_millis(self.detection_ms - ms));
            let until = lost_in.map_or(until, |lost_in| until.min(Instant::now() + lost_in));
            if let Ok(Err(_gone)) = timeout_at(until, self.view.changed()).await {
                return Err(status(shutting_down()));
            }
        }
    }
}
