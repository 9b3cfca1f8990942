//! One read: a task that reads chunk by chunk, no faster than its client takes them, and waits for news at the end if it is to
//! follow. Serves what is committed and checked, and nothing else.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use zue_core::Offset;
use zue_log::{Chunk, OsDisk, ReadError, Reader, RecordView};
use zue_proto::{id_bytes, v1};

use crate::driver::state::{Ends, ReplicaView, Role};
use crate::gauged::Gauged;
use crate::metrics::Metrics;
use crate::num::wide;
use crate::server::owner::Owner;
use crate::server::room::{HeldRoom, Room};
use crate::server::slots::Slot;
use crate::services::aside::aside;
use crate::services::errors::{
    error, out_of_range, read_elsewhere, read_failed, shutting_down, status, storage_failed,
};

/// The memory that a record and a header take beside their bytes, until they are on their way.
const RECORD_BYTES: usize = 256;
const HEADER_BYTES: usize = 128;

/// One read.
pub(crate) struct Read {
    pub(crate) reader: Reader<OsDisk>,
    pub(crate) ends: watch::Receiver<Ends>,
    /// The end of reads; the one of these that is waited for.
    pub(crate) readable: watch::Receiver<Offset>,
    /// True once this replica has failed, or is no member any more.
    pub(crate) view: watch::Receiver<ReplicaView>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
    /// Records that are older are passed over.
    pub(crate) not_before_ms: u64,
    pub(crate) limits: ReadLimits,
    /// For what is on its way to its client.
    pub(crate) room: Arc<Room>,
    pub(crate) owner: Owner,
    /// Its place among the reads that go on at once; work on the disk shares it.
    pub(crate) slot: Arc<Slot>,
    pub(crate) _open: Gauged,
}

/// Limits of a read.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "each is the most of something")]
pub(crate) struct ReadLimits {
    /// The bytes of one message.
    pub(crate) bytes_max: usize,
    /// The time that committed records may stay away from this disk, before a read that does not follow is sent elsewhere.
    pub(crate) lag_max: Duration,
    /// The time that one that follows waits, at least, where no leader feeds this replica.
    pub(crate) unfed_max: Duration,
    /// The time for which its client may take nothing.
    pub(crate) stall_max: Duration,
}

/// The multiple of `replication.lagTimeMax` for which no leader may feed a replica before a read that follows is sent elsewhere; and at least so
/// long: a client that waited for less takes it for a failure.
const UNFED_LAGS: u32 = 5;
const UNFED_MIN: Duration = Duration::from_secs(5);

/// The time for which no leader may feed a replica whose readers wait for news.
pub(crate) fn unfed_max(lag_max: Duration) -> Duration {
    lag_max.saturating_mul(UNFED_LAGS).max(UNFED_MIN)
}

/// The end of a read that follows.
const ENDLESS: Offset = Offset(u64::MAX);

/// A message, and the room that it takes until the next one is asked for.
type Responses = mpsc::Sender<(v1::ReadResponse, HeldRoom)>;

/// Why a read ends before its end.
enum End {
    /// Nobody listens any more.
    Gone,
    Because(Box<v1::Error>),
}

impl From<v1::Error> for End {
    fn from(error: v1::Error) -> Self {
        Self::Because(Box::new(error))
    }
}

/// The part of a read that has been sent: where it ends, and how many records it is.
type Served = Result<(Offset, u64), End>;

impl Read {
    /// Finds and checks where it is to begin.
    pub(crate) async fn begin(&self, request: &v1::ReadRequest) -> Result<Offset, v1::Error> {
        let view = self.view.borrow().clone();
        if let Some(left) = &view.left {
            return Err(read_elsewhere(left, &view));
        }
        let (reader, from) = (self.reader.clone(), Offset(request.from));
        let from = match request.from_timestamp_ms {
            Some(time) => from.max(self.offset_at(time).await?),
            None => from,
        };
        let Ends { commit_end, .. } = *self.ends.borrow();
        let log_start = reader.log_start();
        if from < log_start || from > commit_end {
            return Err(out_of_range(from.0, log_start, commit_end));
        }
        Ok(from)
    }

    /// The first committed record that is no older, or where it will be: what is not committed may yet be replaced.
    async fn offset_at(&self, timestamp_ms: u64) -> Result<Offset, v1::Error> {
        let reader = self.reader.clone();
        let found = aside(Arc::clone(&self.slot), move || reader.offset_at(timestamp_ms)).await;
        let Ends { commit_end, .. } = *self.ends.borrow();
        match found {
            Ok((Ok(offset), _)) => Ok(offset.min(commit_end)),
            Ok((Err(failure), _)) => Err(read_failed(&failure, commit_end)),
            Err(_) => Err(error(v1::Reason::Unspecified, "the read ended by itself")),
        }
    }

    /// Begins to serve. No faster than the messages are asked for; and why it ended comes after them, however late they are.
    pub(crate) fn start(
        self,
        from: Offset,
        request: v1::ReadRequest,
    ) -> impl Stream<Item = Result<v1::ReadResponse, Status>> + Send {
        let (responses, messages) = mpsc::channel(1);
        let (last, end) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(End::Because(why)) = self.run(from, request, responses).await {
                let _ = last.send(status(*why));
            }
        });
        futures::stream::unfold((messages, Some(end), None), |(mut messages, end, held)| async move {
            drop::<Option<HeldRoom>>(held);
            if let Some((message, held)) = messages.recv().await {
                return Some((Ok(message), (messages, end, Some(held))));
            }
            let why = end?.await.ok()?;
            Some((Err(why), (messages, None, None)))
        })
    }

    /// Serves until the client has what it asked for, or is gone.
    async fn run(mut self, from: Offset, request: v1::ReadRequest, responses: Responses) -> Result<(), End> {
        let v1::ReadRequest { log: _, from: _, max_records, follow, consistency: _, from_timestamp_ms } = request;
        self.not_before_ms = from_timestamp_ms.unwrap_or_default();
        let mut left = if max_records == 0 { u64::MAX } else { max_records };
        let mut at = from;
        // Without following, the end is what was committed when the request came; the client learns it at once.
        let commit_end = self.ends.borrow().commit_end;
        let target = if follow { ENDLESS } else { commit_end };
        self.send(&responses, Vec::new(), 0, from..from, commit_end).await?;
        let (stop, leaves) = (self.stop.clone(), self.slot.occupant.leaves.clone());
        while at < target && left > 0 {
            let (end, count) = tokio::select! {
                served = self.next(at, target, left, &responses) => served?,
                () = responses.closed() => return Err(End::Gone),
                () = leaves.cancelled() => return Err(made_way(at).into()),
                () = stop.cancelled() => return Err(shutting_down().into()),
            };
            left = left.saturating_sub(count);
            at = end;
        }
        Ok(())
    }

    /// Waits for records and serves some; where they end, and how many there were.
    async fn next(&mut self, at: Offset, target: Offset, left: u64, responses: &Responses) -> Served {
        let (unfed_max, mut fed) = (self.limits.unfed_max, self.view.clone());
        let waits_in_vain = async move {
            tokio::time::sleep(unfed_max).await;
            let view = fed.wait_for(|view| view.as_follower.unfed).await.map_err(|_| End::Gone)?;
            Ok::<_, End>(Err(unfed(unfed_max, &view)))
        };
        let readable = tokio::select! {
            // What can be read is served first.
            biased;
            readable = self.readable.wait_for(|readable| *readable > at) => Ok(*readable.map_err(|_| End::Gone)?),
            // Another replica has what will come.
            view = self.view.wait_for(has_no_more) => Err(elsewhere(&*view.map_err(|_| End::Gone)?)),
            // Perhaps it is no member any more, and does not know.
            vain = waits_in_vain, if target == ENDLESS => vain?,
            // Others have what is committed: a disk that hangs must not hold up who could read it there.
            () = tokio::time::sleep(self.limits.lag_max), if target != ENDLESS => Err(stands_still(at, self.limits.lag_max)),
        };
        let upto = readable?.min(target).min(at.plus(left));
        let (reader, bytes_max) = (self.reader.clone(), self.limits.bytes_max);
        let read = aside(Arc::clone(&self.slot), move || reader.read(at, upto, bytes_max)).await;
        let chunk = match read {
            Ok((Ok(chunk), _)) => chunk,
            Ok((Err(failure), _)) => return Err(self.failed(&failure)),
            Err(_) => return Err(End::Gone),
        };
        self.metrics.read_bytes.inc_by(wide(chunk.encoded_bytes()));
        self.serve(&chunk, at..upto, responses).await
    }

    /// Sends the records of a chunk, in messages of about the size that one may have; where it ends, and how many there were.
    async fn serve(&self, chunk: &Chunk, range: Range<Offset>, responses: &Responses) -> Served {
        let Range { start: mut first, end: upto } = range;
        let (mut records, mut bytes, mut served, mut end) = (Vec::new(), 0, 0, first);
        for record in chunk.records() {
            let record = match record {
                Ok(record) if record.offset < upto => record,
                Ok(_) => break,
                Err(failure) => {
                    // What is in front of the damage is whole.
                    self.serve_some(responses, records, bytes, first..end).await?;
                    return Err(self.failed(&failure));
                }
            };
            if record.timestamp_ms >= self.not_before_ms {
                let more = record.payload_bytes() + RECORD_BYTES + record.headers().count() * HEADER_BYTES;
                if bytes > 0 && bytes + more > self.limits.bytes_max {
                    self.serve_some(responses, std::mem::take(&mut records), bytes, first..end).await?;
                    (first, bytes) = (end, 0);
                }
                bytes += more;
                records.push(to_wire(chunk, &record));
                served += 1;
            }
            end = record.offset.plus(1);
        }
        // Behind the last record there may be some that were compacted away.
        let end = end.max(chunk.end().min(upto));
        self.serve_some(responses, records, bytes, first..end).await?;
        Ok((end, served))
    }

    async fn serve_some(
        &self,
        responses: &Responses,
        records: Vec<v1::Record>,
        bytes: usize,
        range: Range<Offset>,
    ) -> Result<(), End> {
        if range.is_empty() {
            return Ok(());
        }
        let Ends { commit_end, .. } = *self.ends.borrow();
        self.send(responses, records, bytes, range, commit_end).await
    }

    async fn send(
        &self,
        responses: &Responses,
        records: Vec<v1::Record>,
        bytes: usize,
        range: Range<Offset>,
        commit_end: Offset,
    ) -> Result<(), End> {
        self.metrics.read_records.inc_by(wide(records.len()));
        let (log_start, commit_end) = (self.reader.log_start().0, commit_end.0);
        let Range { start: Offset(first), end: Offset(next) } = range;
        let response = v1::ReadResponse { records, commit_end, log_start, first, next };
        let mut held = self.room.hold(self.owner);
        let grown = timeout(self.limits.stall_max, held.grow(bytes)).await;
        grown.map_err(|_| no_room(self.room.max()))?;
        let sent = timeout(self.limits.stall_max, responses.send((response, held))).await;
        sent.map_err(|_| takes_nothing(first, self.limits.stall_max))?.map_err(|_| End::Gone)
    }

    fn failed(&self, failure: &ReadError) -> End {
        if let ReadError::Damaged(damage) = failure {
            self.metrics.crc_errors.inc();
            tracing::error!(%damage, "a record is not served");
        }
        read_failed(failure, self.ends.borrow().commit_end).into()
    }
}

/// Keys and values are shared with the mapped file, not copied.
fn to_wire(chunk: &Chunk, record: &RecordView<'_>) -> v1::Record {
    let header =
        |(name, value): (&str, &[u8])| v1::Header { name: name.to_owned(), value: Bytes::copy_from_slice(value) };
    v1::Record {
        offset: record.offset.0,
        epoch: record.epoch.0,
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(|key| chunk.share(key)),
        value: chunk.share(record.value),
        headers: record.headers().map(header).collect(),
        producer_id: record.producer.map(|producer| id_bytes(producer.id)).unwrap_or_default(),
        sequence: record.producer.map(|producer| producer.sequence).unwrap_or_default(),
    }
}

/// Tells whether nothing will come any more to this replica.
fn has_no_more(view: &ReplicaView) -> bool {
    view.role == Role::Failed || view.left.is_some()
}

fn elsewhere(view: &ReplicaView) -> v1::Error {
    view.left.as_ref().map_or_else(|| storage_failed(view), |left| read_elsewhere(left, view))
}

/// The refusal of a read whose records do not come to this disk.
fn stands_still(at: Offset, lag_max: Duration) -> v1::Error {
    let message = format!(
        "this replica is behind: the committed records from offset {at} on did not reach its disk within {lag_max:?}; read another replica"
    );
    error(v1::Reason::Overloaded, message)
}

/// No leader sends what follows.
fn unfed(unfed_max: Duration, view: &ReplicaView) -> v1::Error {
    let why = format!(
        "no leader has fed this replica for {unfed_max:?} or longer: others may have more, and it may be no member any more"
    );
    read_elsewhere(&why, view)
}

/// The client does not take what it is sent.
fn takes_nothing(at: u64, stall_max: Duration) -> v1::Error {
    let message = format!(
        "the client took nothing of this read for {stall_max:?} (limits.stallDeadline), so it was ended: read on from offset {at}"
    );
    error(v1::Reason::Overloaded, message)
}

/// Others hold all the room there is for what is on its way.
fn no_room(max: usize) -> v1::Error {
    error(v1::Reason::Overloaded, format!("{max} bytes are on their way to readers, which is the limit"))
}

/// The read gave its place to one of somebody who has fewer.
fn made_way(at: Offset) -> v1::Error {
    let message = format!(
        "as many reads go on as may (limits.readersMax), and this host or this connection has most of them, so this one has ended: read on \
         from offset {at}"
    );
    error(v1::Reason::Overloaded, message)
}

/// Too many reads at once.
pub(crate) fn too_many(max: u32) -> v1::Error {
    error(v1::Reason::Overloaded, format!("{max} reads go on at once, which is the limit (limits.readersMax)"))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use zue_core::ReplicaId;
    use zue_log::{Log, LogConfig};

    use super::*;
    use crate::driver::member::Member;
    use crate::driver::state::FollowerView;
    use crate::server::owner::tests::owner;
    use crate::server::slots::Slots;

    #[tokio::test]
    async fn a_read_of_what_does_not_come_to_the_disk_is_sent_elsewhere_and_one_that_follows_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(OsDisk::new(dir.path()).unwrap(), LogConfig::default(), ReplicaId(1)).unwrap();
        let (_ends, ends) = watch::channel(Ends { commit_end: Offset(5), ..Ends::default() });
        let (_readable, readable) = watch::channel(Offset(0));
        let (tell, view) = watch::channel(ReplicaView::default());
        let (slots, metrics) = (Slots::new(2), Arc::new(Metrics::new().unwrap()));
        let begin = |follow: bool| {
            let read = Read {
                reader: log.reader(),
                ends: ends.clone(),
                readable: readable.clone(),
                view: view.clone(),
                metrics: Arc::clone(&metrics),
                stop: CancellationToken::new(),
                not_before_ms: 0,
                limits: ReadLimits {
                    bytes_max: 1000,
                    lag_max: Duration::from_millis(50),
                    unfed_max: Duration::from_millis(50),
                    stall_max: Duration::from_secs(9),
                },
                room: Room::new(1000),
                owner: owner(1, 0),
                slot: slots.take_busy(owner(1, 0)).unwrap().into(),
                _open: Gauged::new(&metrics.readers, 1),
            };
            Box::pin(read.start(Offset(0), v1::ReadRequest { follow, ..Default::default() }))
        };
        let (mut following, mut answers) = (begin(true), begin(false));
        for answers in [&mut following, &mut answers] {
            assert_eq!(answers.next().await.unwrap().unwrap().commit_end, 5);
        }
        let refused = answers.next().await.unwrap().unwrap_err();
        assert_eq!(zue_proto::error_of(&refused).unwrap().reason(), v1::Reason::Overloaded);
        assert!(answers.next().await.is_none());
        assert!(futures::poll!(following.next()).is_pending());
        // No leader feeds it: others may have more.
        tell.send(ReplicaView {
            as_follower: FollowerView { unfed: true, ..FollowerView::default() },
            ..ReplicaView::default()
        })
        .unwrap();
        let sent_on = zue_proto::error_of(&following.next().await.unwrap().unwrap_err()).unwrap();
        assert_eq!((sent_on.reason(), sent_on.leader), (v1::Reason::NotLeader, None));
        assert!(following.next().await.is_none());
        tell.send(ReplicaView::default()).unwrap();
        let mut following = begin(true);
        assert_eq!(following.next().await.unwrap().unwrap().commit_end, 5);
        // Scaled away, nothing comes any more: it is told whom to ask instead.
        let address = "zue-0:9440".to_owned();
        let member = Member {
            id: ReplicaId(7),
            name: "zue-0".to_owned(),
            voter: true,
            peer_address: address.clone(),
            client_address: address,
            dial_address: None,
        };
        let (leader, left) = (Some(member.to_hint()), Some("no member since epoch 3".into()));
        tell.send(ReplicaView { leader, left, members: [member].into(), ..ReplicaView::default() }).unwrap();
        let redirected = zue_proto::error_of(&following.next().await.unwrap().unwrap_err()).unwrap();
        assert_eq!((redirected.reason(), &*redirected.leader.unwrap().address), (v1::Reason::NotLeader, "zue-0:9440"));
        assert!(redirected.message.contains("ask zue-0 at zue-0:9440"), "{}", redirected.message);
        assert!(following.next().await.is_none());
    }
}
