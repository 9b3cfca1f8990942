//! The way in which everyone else speaks to the driver: two bounded queues and two watches. Requests may make work for the disk, and wait
//! while it has much to do; facts never do, and are always taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use zue_core::{
    ClockReading, ClusterId, Epoch, Lineage, Offset, ProducerId, Refusal, ReplicaId, Reply, Run, Runs, Session, Start,
    Tail, Terms,
};
use zue_log::{Batch, BatchBuilder, Bounded, Fault, Limits, Producer, record_bytes};
use zue_proto::v1;

use crate::driver::clock::SharedTime;
use crate::driver::member::{Identity, Member};
use crate::driver::state::{DriverEnded, Ends, ReplicaView};
use crate::num::wide;
use crate::server::room::HeldRoom;
use crate::standby::Standby;
use crate::storage::Share;

/// An append that has been found to be within its limits.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) records: Records,
    /// Its length in the log, and the limits that it was found to be within.
    pub(crate) bytes: usize,
    pub(crate) limits: Limits,
    /// Its share of the bytes that may be on their way to the disk.
    pub(crate) room: HeldRoom,
    /// The room that it takes as it was received, until it is encoded.
    pub(crate) received: Option<HeldRoom>,
    /// Dropped when nobody waits any more; if that is before the append has an offset, it never gets one.
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// The records of one append.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    pub(crate) producer: Option<(ProducerId, u64)>,
    pub(crate) records: Vec<v1::NewRecord>,
}

impl Records {
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.records.len()).unwrap_or(u32::MAX)
    }

    /// Their length in a log, if they are within the limits: else why [`Records::encode`] refuses them.
    pub(crate) fn encoded_bytes(&self, limits: &Limits) -> Result<usize, Fault> {
        if self.records.is_empty() {
            return Err(Fault::Empty);
        }
        Bounded::AppendRecords.check(self.records.len(), limits.append_records_max)?;
        let mut bytes = 0_usize;
        for record in &self.records {
            let (key, has_producer) = (record.key.as_deref(), self.producer.is_some());
            bytes = bytes.saturating_add(record_bytes(key, &record.value, headers(record), has_producer, limits)?);
        }
        Bounded::BatchBytes.check(bytes, limits.batch_bytes_max)?;
        Ok(bytes)
    }

    /// As they stand in a log that ends with `prev`, as long as [`Records::encoded_bytes`] says.
    fn encode(&self, (prev, timestamp_ms): (Tail, u64), bytes: usize, limits: Limits) -> Result<Batch, Fault> {
        let mut batch = BatchBuilder::new(prev, timestamp_ms, limits);
        let mut sequence = self.producer.map_or(0, |(_, sequence)| sequence);
        batch.reserve(bytes);
        for record in &self.records {
            let producer = self.producer.map(|(id, _)| Producer { id: id.to_u128(), sequence });
            batch.push(record.key.as_deref(), &record.value, headers(record), producer)?;
            sequence = sequence.wrapping_add(1);
        }
        batch.finish()
    }
}

fn headers(record: &v1::NewRecord) -> impl Iterator<Item = (&str, &[u8])> + Clone {
    record.headers.iter().map(|v1::Header { name, value }| (name.as_str(), Bytes::as_ref(value)))
}

impl zue_engine::driver::Append for Append {
    type Batch = Batch;
    type Waiter = Waiter;
    type Share = Share;

    fn producer(&self) -> Option<(ProducerId, u64)> {
        self.records.producer
    }

    fn count(&self) -> u32 {
        self.records.count()
    }

    fn bytes(&self) -> u64 {
        wide(self.bytes)
    }

    /// Its deadline has passed, and its client was told that it was not appended.
    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    /// Gives back the room of the request: it is not needed any more.
    fn write(self, prev: Tail, timestamp_ms: u64) -> Result<(Batch, Waiter, Share), Fault> {
        let Self { records, bytes, limits, room, received, reply } = self;
        let batch = records.encode((prev, timestamp_ms), bytes, limits)?;
        drop((records, received));
        Ok((batch, Waiter { reply, since: Some(Instant::now()) }, Box::new(room)))
    }

    fn into_waiter(self) -> Waiter {
        Waiter { reply: self.reply, since: None }
    }
}

/// The one who waits for a reply.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) reply: oneshot::Sender<Reply>,
    /// When the append got its offset.
    pub(crate) since: Option<Instant>,
}

/// News for a leader on a follower's stream; newer news replaces older.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outbox {
    /// The place where the log is joined to the leader's, what of that was durable when the stream was taken on, and the time of the last record.
    pub(crate) started: Option<(Tail, Tail, u64)>,
    /// The rewind before what the leader sends, where something of the log is to go: the time of the last record that stays.
    pub(crate) joint_ms: Option<u64>,
    /// The durable end, and the greatest round heard of.
    pub(crate) ack: Option<(Tail, u64)>,
    /// The durable start of the log.
    pub(crate) trimmed: Option<Offset>,
    /// Why the stream is refused, and what is promised instead.
    pub(crate) refused: Option<(Refusal, Epoch)>,
}

/// A request for something to be done, perhaps by the disk.
#[derive(Debug)]
pub(crate) enum Request {
    Append(Append),
    Trim { before: Offset, reply: oneshot::Sender<Reply> },
    Control(Control, oneshot::Sender<Reply>),
    Follow(Session, Follow),
}

/// A controller's request.
#[derive(Debug)]
pub(crate) enum Control {
    Seal { cluster: Option<ClusterId>, epoch: Epoch },
    Appoint { cluster: ClusterId, terms: Terms, members: Vec<Member>, by: String, reason: v1::ElectionReason },
    Learners { epoch: Epoch, learners: Vec<Member>, moved: Vec<Member>, standby: Option<Standby> },
    HandOver { epoch: Epoch, to: ReplicaId, deadline_ms: u64 },
}

/// The time for which a leader has been silent on its stream. While this replica is busy with what it has heard, and so not listening, it
/// cannot blame the leader.
#[derive(Debug)]
pub(crate) struct Heard {
    born: Instant,
    /// In milliseconds since then; the greatest number while nobody listens.
    listening_since: AtomicU64,
}

impl Heard {
    pub(crate) fn now() -> Self {
        Self { born: Instant::now(), listening_since: AtomicU64::new(0) }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When it was heard from last.
    pub(crate) fn last(&self) -> Option<Instant> {
        Instant::now().checked_sub(Duration::from_millis(self.silence_ms()))
    }

    pub(crate) fn listens(&self) {
        self.listening_since.store(self.age_ms(), Ordering::Relaxed);
    }

    pub(crate) fn is_busy(&self) {
        self.listening_since.store(u64::MAX, Ordering::Relaxed);
    }

    /// For so long nobody could listen: that is no silence.
    pub(crate) fn was_away(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let since = self.listening_since.load(Ordering::Relaxed);
        if since != u64::MAX {
            self.listening_since.store(since.saturating_add(time).min(self.age_ms()), Ordering::Relaxed);
        }
    }

    pub(crate) fn silence_ms(&self) -> u64 {
        self.age_ms().saturating_sub(self.listening_since.load(Ordering::Relaxed))
    }
}

/// A message of a leader's stream, in its order.
#[derive(Debug)]
pub(crate) enum Follow {
    Start {
        start: Box<Start>,
        leader: Member,
        members: Vec<Member>,
        outbox: watch::Sender<Outbox>,
        heard: Arc<Heard>,
    },
    Frames {
        batch: Batch,
        commit_end: Offset,
        round: u64,
        permit: OwnedSemaphorePermit,
    },
    Heartbeat {
        commit_end: Offset,
        log_end: Offset,
        round: u64,
        log_start: Offset,
        agreed_ms: Option<u64>,
    },
    Runs(Runs),
    /// The terms by which the follower stands by.
    Standby(Standby),
    Ended,
}

/// An event that makes no work for the disk.
#[derive(Debug)]
pub(crate) enum Fact {
    /// A follower has opened its log.
    Started {
        from: ReplicaId,
        session: Session,
        log: Tail,
        durable: Tail,
        lineage: Lineage,
        runs: Runs,
    },
    Acked {
        from: ReplicaId,
        session: Session,
        durable: Tail,
        round: u64,
        run: Run,
    },
    /// The time of a follower's wall clock.
    Clock(ClockReading),
    /// A follower's log durably starts there.
    Trimmed {
        from: ReplicaId,
        log_start: Offset,
    },
    Disconnected {
        from: ReplicaId,
        session: Session,
    },
    /// A client wants to read all that is committed by now.
    ConfirmRead(oneshot::Sender<Reply>),
    /// This replica is about to stop.
    Leaving,
    /// Someone wants another to lead.
    SwitchOver {
        to: String,
        within: Duration,
        reply: oneshot::Sender<Result<(), v1::Error>>,
    },
    /// Someone wants to know all about this replica.
    Status(oneshot::Sender<v1::StatusResponse>),
}

/// The driver, seen from everyone else.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) identity: Arc<Identity>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) facts: mpsc::Sender<Fact>,
    pub(crate) ends: watch::Receiver<Ends>,
    /// The end of reads. By itself, so that who follows is woken by commits alone.
    pub(crate) readable: watch::Receiver<Offset>,
    pub(crate) view: watch::Receiver<ReplicaView>,
    pub(crate) sessions: Arc<AtomicU64>,
    /// The agreed time; told by the driver.
    pub(crate) time: SharedTime,
}

impl Handle {
    /// A name for a new stream, never used before in this process.
    pub(crate) fn session(&self) -> Session {
        Session(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn control(&self, control: Control) -> Result<Reply, DriverEnded> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Control(control, reply)).await.map_err(|_| DriverEnded)?;
        answer.await.map_err(|_| DriverEnded)
    }

    pub(crate) async fn follow(&self, session: Session, message: Follow) -> Result<(), DriverEnded> {
        self.requests.send(Request::Follow(session, message)).await.map_err(|_| DriverEnded)
    }

    pub(crate) async fn fact(&self, fact: Fact) -> Result<(), DriverEnded> {
        self.facts.send(fact).await.map_err(|_| DriverEnded)
    }

    pub(crate) async fn trim(&self, before: Offset) -> Result<Reply, DriverEnded> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Trim { before, reply }).await.map_err(|_| DriverEnded)?;
        answer.await.map_err(|_| DriverEnded)
    }

    pub(crate) async fn confirm_read(&self) -> Result<Reply, DriverEnded> {
        let (reply, answer) = oneshot::channel();
        self.fact(Fact::ConfirmRead(reply)).await?;
        answer.await.map_err(|_| DriverEnded)
    }

    /// Outer: the driver has ended. Inner: what stands against it.
    pub(crate) async fn switch_over(&self, to: String, within: Duration) -> Result<Result<(), v1::Error>, DriverEnded> {
        let (reply, answer) = oneshot::channel();
        self.fact(Fact::SwitchOver { to, within, reply }).await?;
        answer.await.map_err(|_| DriverEnded)
    }

    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, DriverEnded> {
        let (reply, answer) = oneshot::channel();
        self.fact(Fact::Status(reply)).await?;
        answer.await.map_err(|_| DriverEnded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_this_node_was_away_is_no_silence_of_its_leader() {
        let Some(born) = Instant::now().checked_sub(Duration::from_mins(1)) else { return };
        let heard = Heard { born, listening_since: AtomicU64::new(0) };
        heard.was_away(Duration::from_secs(50));
        assert!((10_000..11_000).contains(&heard.silence_ms()), "{}", heard.silence_ms());
        heard.was_away(Duration::MAX);
        assert!(heard.silence_ms() < 1000, "no more than there was");
        heard.is_busy();
        heard.was_away(Duration::from_secs(1));
        assert_eq!(heard.silence_ms(), 0, "nobody listens yet");
    }

    #[test]
    fn an_append_takes_as_much_room_as_is_said_before_it_is_encoded_or_is_refused_for_the_same_reason() {
        let header = v1::Header { name: "name".to_owned(), value: Bytes::from_static(b"value") };
        let record = |key: Option<&'static [u8]>, headers: usize| v1::NewRecord {
            key: key.map(Bytes::from_static),
            value: Bytes::from_static(b"v"),
            headers: vec![header.clone(); headers],
        };
        let limits = Limits { headers_max: 2, append_records_max: 3, batch_bytes_max: 200, ..Limits::default() };
        let records = [
            vec![],
            vec![record(None, 0)],
            vec![record(None, 0), record(Some(b"key"), 2)],
            vec![record(None, 3)],
            vec![record(None, 2); 3],
            vec![record(None, 0); 4],
        ];
        let mut refused = 0;
        for records in records {
            for producer in [None, Some((ProducerId::from_u128(7), 3))] {
                let records = Records { producer, records: records.clone() };
                let bytes = records.encoded_bytes(&limits);
                let encoded = records.encode((Tail::default(), 1), bytes.unwrap_or(0), limits);
                assert_eq!(bytes, encoded.map(|batch| batch.bytes().len()), "{records:?}");
                refused += usize::from(bytes.is_err());
            }
        }
        assert_eq!(refused, 8);
    }
}
