//! The status of this node as a stream, for a controller: at once, then when something changes that one may act on, and every so often.

use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use zue_proto::status::{HEARTBEAT_MS, is_news};
use zue_proto::v1::{self, Reason};

use crate::driver::handle::Handle;
use crate::driver::state::View;
use crate::services::errors::{error, shutting_down, status};
use crate::tls::Security;

/// How long the driver may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A controller that watches.
struct Watch {
    handle: Handle,
    security: Security,
    view: watch::Receiver<View>,
    /// For how long a leader may be silent before that is news, milliseconds.
    detection_ms: u64,
    /// What it was told last, and when.
    told: Option<(v1::StatusResponse, Instant)>,
}

/// Tells the status until nobody takes it any more, or the node stops: that is the last word.
pub(crate) fn watch(
    handle: Handle,
    security: Security,
    detection_ms: u64,
) -> impl Stream<Item = Result<v1::StatusResponse, Status>> + Send {
    let view = handle.view.clone();
    unfold(Some(Watch { handle, security, view, detection_ms, told: None }), |watch| async {
        let mut watch = watch?;
        let told = watch.next().await;
        let goes_on = told.is_ok();
        Some((told, goes_on.then_some(watch)))
    })
}

/// The status as it is now.
pub(crate) async fn status_now(handle: &Handle, security: &Security) -> Result<v1::StatusResponse, Status> {
    match timeout(ANSWER_TIMEOUT, handle.status()).await {
        Ok(Ok(now)) => Ok(with(now, security)),
        Ok(Err(_gone)) => Err(status(shutting_down())),
        Err(_) => Err(status(error(Reason::TimedOut, "this replica is too busy to answer"))),
    }
}

/// What a person should know of the log goes before what there is to know of TLS.
fn with(mut now: v1::StatusResponse, security: &Security) -> v1::StatusResponse {
    now.tls = security.status();
    if now.problem.is_empty() {
        now.problem = security.problem().unwrap_or_default();
    }
    now
}

impl Watch {
    async fn next(&mut self) -> Result<v1::StatusResponse, Status> {
        loop {
            self.view.borrow_and_update();
            let now = status_now(&self.handle, &self.security).await?;
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
