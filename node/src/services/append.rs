//! Appends, from the wire to the answer: within the limits, handed to the driver, answered when committed or when the deadline
//! has passed. Says of every failure whether the records may be in the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use zue_core::{ProducerId, Reply};
use zue_log::{Fault, Limits};
use zue_proto::v1::{self, Reason};
use zue_settings::LimitSettings;

use crate::driver::handle::{Append, Handle, Records, Request};
use crate::driver::pace::Alarm;
use crate::driver::state::Role;
use crate::gauged::Gauged;
use crate::metrics::Metrics;
use crate::num::{gauge, wide};
use crate::server::owner::Owner;
use crate::server::room::{HeldRoom, Room};
use crate::services::errors::{error, invalid, not_leader, refused, shutting_down, storage_failed, unknown};
use crate::services::newcomers::Newcomers;

/// The intake of appends.
#[derive(Clone, Debug)]
pub(crate) struct Appends {
    pub(crate) handle: Handle,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: LimitSettings,
    pub(crate) limits: Limits,
    /// Bytes of appends that may be on their way to the disk.
    pub(crate) room: Arc<Room>,
    /// The origins of new producers of late.
    pub(crate) newcomers: Arc<Newcomers>,
    pub(crate) stop: CancellationToken,
}

/// An append that was handed to the driver.
pub(crate) struct Pending {
    begun: Instant,
    deadline: Instant,
    answer: oneshot::Receiver<Reply>,
    _in_flight: (Gauged, Gauged),
}

/// The deadline has passed.
struct Late;

/// The time that one call waits when its connection has brought in too many producers. A stream does not: others wait behind it.
const NEWCOMER_WAITS_MAX: Duration = Duration::from_secs(1);

/// The choice when too much is on its way to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WhenFull {
    /// Refuse: the caller has other things to do.
    Refuse,
    /// Wait until the deadline: the caller sends one after the other.
    Wait,
}

impl Appends {
    /// When an append must be answered that may take as long as `asked`.
    pub(crate) fn deadline(&self, asked: Option<Duration>) -> Instant {
        let LimitSettings { append_deadline, append_deadline_max, .. } = self.settings;
        Instant::now() + asked.unwrap_or(append_deadline.0).min(append_deadline_max.0)
    }

    /// Checks an append and hands it to the driver.
    pub(crate) async fn submit(
        &self,
        request: v1::AppendRequest,
        owner: Owner,
        received: Option<HeldRoom>,
        deadline: Instant,
        when_full: WhenFull,
    ) -> Result<Pending, v1::Error> {
        let begun = Instant::now();
        self.check_role()?;
        let records = parse(request)?;
        let bytes = self.encoded_bytes(&records)?;
        self.admit(&records, owner, deadline, when_full).await?;
        let late = || error(Reason::TimedOut, "the deadline passed before the append could be taken on");
        let mut room = self.room.hold(owner);
        match when_full {
            WhenFull::Refuse if room.try_grow(bytes) => {}
            WhenFull::Refuse => return Err(self.full()),
            WhenFull::Wait => timeout_at(deadline, room.grow(bytes)).await.map_err(|_| late())?,
        }
        let slot = timeout_at(deadline, self.handle.requests.reserve())
            .await
            .map_err(|_| late())?
            .map_err(|_| shutting_down())?;
        let (reply, answer) = oneshot::channel();
        slot.send(Request::Append(Append { records, bytes, limits: self.limits, room, received, reply }));
        let bytes = Gauged::new(&self.metrics.append_bytes_in_flight, gauge(wide(bytes)));
        let in_flight = (Gauged::new(&self.metrics.appends_in_flight, 1), bytes);
        Ok(Pending { begun, deadline, answer, _in_flight: in_flight })
    }

    /// A producer's first append has sequence 0: it takes of the share of who sends it.
    async fn admit(
        &self,
        records: &Records,
        owner: Owner,
        deadline: Instant,
        when_full: WhenFull,
    ) -> Result<(), v1::Error> {
        if !matches!(records.producer, Some((_, 0))) {
            return Ok(());
        }
        let now = Instant::now();
        let patience = match when_full {
            WhenFull::Refuse => NEWCOMER_WAITS_MAX.min(deadline.saturating_duration_since(now)),
            WhenFull::Wait => Duration::ZERO,
        };
        let wait = self.newcomers.admit(owner, now, patience)?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn full(&self) -> v1::Error {
        let max = self.settings.appends_bytes_max;
        let message = format!(
            "appends of {max} are on their way to the disk, which is the limit (limits.appendsBytesMax), or too many of this \
             connection or host"
        );
        error(Reason::Overloaded, message)
    }

    /// The answer that can be given without asking the replica.
    fn check_role(&self) -> Result<(), v1::Error> {
        if self.stop.is_cancelled() {
            return Err(shutting_down());
        }
        let view = self.handle.view.borrow();
        match (view.role, &view.full) {
            (Role::Failed, _) => Err(storage_failed(&view)),
            (Role::Leader, Some(stalled)) => Err(error(stalled.reason(), stalled.to_string())),
            (Role::Leader, None) => Ok(()),
            (Role::Idle | Role::Follower, _) => Err(not_leader(&view)),
        }
    }

    /// The length of the append in the log, if it is within the limits.
    fn encoded_bytes(&self, records: &Records) -> Result<usize, v1::Error> {
        match records.encoded_bytes(&self.limits) {
            Ok(bytes) => Ok(bytes),
            Err(Fault::Limit(limit)) => Err(error(Reason::TooLarge, limit.to_string())),
            Err(Fault::Empty) => Err(invalid("the append has no records: send at least one")),
            Err(fault) => Err(invalid(fault)),
        }
    }

    /// Waits for the answer until the deadline, of which the alarm tells.
    pub(crate) async fn answer(&self, pending: Pending, alarm: &mut Alarm) -> Result<v1::AppendResponse, v1::Error> {
        let Pending { begun, deadline, answer, _in_flight } = pending;
        let answered = tokio::select! {
            biased;
            answer = answer => Ok(answer),
            () = alarm.wait(Some(deadline)) => Err(Late),
        };
        self.metrics.append_duration.observe(begun.elapsed().as_secs_f64());
        match answered {
            Ok(Ok(Reply::Appended { base, count, epoch, duplicate })) => {
                Ok(v1::AppendResponse { base_offset: base.0, count, epoch: epoch.0, duplicate })
            }
            Ok(Ok(Reply::Refused(refusal))) => Err(refused(&refusal, &self.handle.view.borrow())),
            Ok(Ok(_)) => Err(unknown(Reason::Unspecified, "the replica answered another question")),
            Ok(Err(_gone)) => {
                Err(unknown(Reason::ShuttingDown, "this replica is shutting down; the append may yet be committed"))
            }
            Err(Late) => Err(unknown(
                Reason::TimedOut,
                "the append was not committed before its deadline; it may yet be: repeat it with the same producer and \
                 sequence",
            )),
        }
    }
}

fn parse(request: v1::AppendRequest) -> Result<Records, v1::Error> {
    let v1::AppendRequest { log, producer_id, sequence, records, within_ms: _ } = request;
    check_log(&log)?;
    let producer = match <[u8; 16]>::try_from(&*producer_id) {
        Ok(id) => Some((ProducerId::from_u128(u128::from_be_bytes(id)), sequence)),
        Err(_) if producer_id.is_empty() => None,
        Err(_) => return Err(invalid(format!("producer_id is {} bytes long, not 16", producer_id.len()))),
    };
    let count = wide(records.len());
    if sequence.checked_add(count).is_none() {
        return Err(invalid(format!(
            "{count} records from sequence {sequence} on go beyond the last sequence there is"
        )));
    }
    Ok(Records { producer, records })
}

/// A cluster has one log, named by the empty string.
pub(crate) fn check_log(log: &str) -> Result<(), v1::Error> {
    if log.is_empty() {
        return Ok(());
    }
    let name: String = log.chars().take(64).collect();
    Err(invalid(format!("there is no log {name:?}: a cluster has one, named by the empty string")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use bytes::Bytes;
    use tokio::sync::{mpsc, watch};
    use zue_core::{Lineage, Offset, ReplicaId};

    use super::*;
    use crate::config::convert::record_limits;
    use crate::driver::clock::SharedTime;
    use crate::driver::member::Identity;
    use crate::driver::state::{Ends, ReplicaView};
    use crate::server::owner::tests::owner;

    /// The intake of appends, and a driver that has none of them written.
    fn stuck() -> (Appends, mpsc::Receiver<Request>) {
        let (requests, kept) = mpsc::channel(1000);
        let view = ReplicaView { role: Role::Leader, ..ReplicaView::default() };
        let handle = Handle {
            identity: Arc::new(Identity {
                id: ReplicaId(1),
                name: String::new(),
                client_address: String::new(),
                peer_address: String::new(),
                lineage: Lineage::default(),
                durability: "sync",
                heartbeat: Duration::from_millis(100),
            }),
            requests,
            facts: mpsc::channel(1).0,
            ends: watch::channel(Ends::default()).1,
            readable: watch::channel(Offset::default()).1,
            view: watch::channel(view).1,
            sessions: Arc::new(AtomicU64::new(1)),
            time: SharedTime::default(),
        };
        let settings = LimitSettings::default();
        let appends = Appends {
            handle,
            metrics: Arc::new(Metrics::new().unwrap()),
            settings,
            limits: record_limits(&settings),
            room: Room::new(settings.appends_bytes_max.length()),
            newcomers: Arc::new(Newcomers::new(1)),
            stop: CancellationToken::new(),
        };
        (appends, kept)
    }

    #[tokio::test]
    async fn a_stream_that_is_faster_than_the_disk_leaves_room_to_the_appends_of_others() {
        let (appends, _kept) = stuck();
        let submit = async |owner, bytes: usize, when_full| {
            let record = v1::NewRecord { value: Bytes::from(vec![0; bytes]), ..v1::NewRecord::default() };
            let request = v1::AppendRequest { records: vec![record], ..v1::AppendRequest::default() };
            let deadline = Instant::now() + Duration::from_millis(20);
            appends.submit(request, owner, None, deadline, when_full).await.map(drop)
        };
        let mut taken = 0;
        while submit(owner(1, 1), 1_000_000, WhenFull::Wait).await.is_ok() {
            taken += 1;
        }
        assert!((10..=20).contains(&taken), "{taken}");
        let refused = submit(owner(1, 1), 1_000_000, WhenFull::Refuse).await.unwrap_err();
        assert_eq!((refused.reason(), refused.outcome()), (Reason::Overloaded, v1::Outcome::NotAppended));
        assert!(refused.message.contains("limits.appendsBytesMax"), "{}", refused.message);
        for other in [owner(1, 2), owner(2, 3)] {
            for _ in 0..5 {
                submit(other, 1_000_000, WhenFull::Refuse).await.unwrap();
            }
        }
    }
}
