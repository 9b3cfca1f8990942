//! The follower's side of replication: takes a leader's stream, checks every message before the replica hears of it, and sends
//! back what the replica says.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use zue_core::{Epoch, Offset, ProducerLimits, Refusal, Session, Tail};
use zue_log::{Batch, Fault, Limits};
use zue_proto::v1::replication_server::Replication;
use zue_proto::v1::{self, FollowerMessage, LeaderMessage, Reason, follower_message, leader_message};
use zue_settings::fixed::PEER_MESSAGE_BYTES_MAX;

use crate::driver::clock::unix_ms;
use crate::driver::handle::{Follow, Handle, Heard, Outbox};
use crate::driver::member::Member;
use crate::metrics::Metrics;
use crate::num::narrow;
use crate::num::wide;
use crate::replication::fetch::FetchServer;
use crate::server::body_limit::Parcel;
use crate::server::caller::Caller;
use crate::server::owner::Owner;
use crate::services::errors::{error, invalid, refused, shutting_down, status};
use crate::services::target::{self, Target};
use crate::standby::Standby;

/// The time that a leader may take to begin its handshake; a long one may take longer, once it has begun.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of answers that wait for the connection.
const ANSWERS_MAX: usize = 4;

/// Bounds of a leader's messages, by the message alone: its own limits have let it into the log.
fn limits() -> Limits {
    let bytes_max = narrow(wide(PEER_MESSAGE_BYTES_MAX));
    Limits {
        record_bytes_max: bytes_max,
        key_bytes_max: bytes_max,
        headers_max: u16::MAX,
        header_name_bytes_max: u16::MAX,
        header_value_bytes_max: bytes_max,
        append_records_max: u32::MAX,
        batch_bytes_max: bytes_max,
    }
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct ReplicationService {
    pub(crate) handle: Handle,
    pub(crate) metrics: Arc<Metrics>,
    /// Bytes of frames that may be on their way to the disk.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) room_bytes: u32,
    /// The limits of the table of who appended what.
    pub(crate) producers: ProducerLimits,
    pub(crate) stop: CancellationToken,
    pub(crate) fetch_server: FetchServer,
}

type Answers = Pin<Box<dyn Stream<Item = Result<FollowerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Replication for ReplicationService {
    type FollowStream = Answers;

    async fn follow(&self, request: Request<Streaming<LeaderMessage>>) -> Result<Response<Answers>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS_MAX);
        let service = self.clone();
        let (caller, parcel) = (Caller::of(&request), Parcel::of(&request));
        let incoming = request.into_inner();
        tokio::spawn(async move { service.serve((caller, parcel), incoming, answers).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let (caller, owner) = (Caller::of(&request), Owner::of(&request));
        let given = self.fetch_server.give(&self.handle.identity, caller.as_deref(), owner, request.into_inner()).await;
        given.map(Response::new).map_err(status)
    }
}

/// The end of a stream from this side.
enum End {
    /// Tell the leader why.
    Refuse(v1::Error),
    /// There is nobody to tell.
    Quiet,
}

/// The first message of a leader, which may have to send much over a slow link.
async fn first_message(
    incoming: &mut Streaming<LeaderMessage>,
    parcel: &Parcel,
) -> Result<Result<Option<LeaderMessage>, Status>, Elapsed> {
    let mut coming = pin!(incoming.message());
    match timeout(START_TIMEOUT, coming.as_mut()).await {
        Ok(came) => Ok(came),
        Err(_) => timeout(parcel.longer(), coming).await,
    }
}

/// The stream broke, or what came was refused before it was a message.
fn broken(status: &Status) -> End {
    zue_proto::error_of(status).map_or(End::Quiet, End::Refuse)
}

impl ReplicationService {
    async fn serve(
        self,
        from: (Option<Arc<Caller>>, Parcel),
        mut incoming: Streaming<LeaderMessage>,
        answers: mpsc::Sender<Result<FollowerMessage, Status>>,
    ) {
        let session = self.handle.session();
        let (outbox, news) = watch::channel(Outbox::default());
        let listening = async {
            let end = self.listen(session, from, &mut incoming, outbox, news.clone()).await;
            let _ = self.handle.follow(session, Follow::Ended).await;
            end
        };
        let end = tokio::select! {
            end = listening => Some(end),
            told = self.answer(&answers, news.clone()) => { let _ = self.handle.follow(session, Follow::Ended).await; told }
            () = self.stop.cancelled() => Some(End::Refuse(shutting_down())),
        };
        if let Some(End::Refuse(error)) = end {
            tracing::warn!(reason = error.message, "a leader's stream is refused");
            let promised = self.handle.view.borrow().epoch.0;
            let refused = v1::Refused { error: Some(error), promised };
            let _ = answers.send(Ok(answer(follower_message::Message::Refused(refused)))).await;
        }
    }

    /// Hears the leader out.
    async fn listen(
        &self,
        session: Session,
        (caller, parcel): (Option<Arc<Caller>>, Parcel),
        incoming: &mut Streaming<LeaderMessage>,
        outbox: watch::Sender<Outbox>,
        news: watch::Receiver<Outbox>,
    ) -> End {
        let first = match first_message(incoming, &parcel).await {
            Ok(Ok(Some(LeaderMessage { message: Some(leader_message::Message::Start(start)) }))) => start,
            Ok(Ok(Some(_))) => return End::Refuse(invalid("the first message of a leader is no Start")),
            Ok(Ok(None)) => return End::Quiet,
            Ok(Err(status)) => return broken(&status),
            Err(_) => return End::Refuse(error(Reason::TimedOut, "no Start came in time")),
        };
        let heard = Arc::new(Heard::now());
        let start = match self.parse_start(first, caller.as_deref(), outbox, &heard) {
            Ok(start) => start,
            Err(error) => return End::Refuse(error),
        };
        if self.handle.follow(session, start).await.is_err() {
            return End::Refuse(shutting_down());
        }
        let mut expected: Option<(Tail, u64)> = None;
        let mut is_told_wrong = false;
        loop {
            heard.listens();
            let message = match incoming.message().await {
                Ok(Some(LeaderMessage { message })) => message,
                Ok(None) => return End::Quiet,
                Err(status) => return broken(&status),
            };
            heard.is_busy();
            let parsed = match message {
                Some(leader_message::Message::Frames(frames)) => self.frames(frames, &mut expected, &news).await,
                Some(leader_message::Message::Heartbeat(heartbeat)) => parse_heartbeat(heartbeat),
                Some(leader_message::Message::Runs(v1::Runs { runs })) => {
                    zue_proto::runs(&runs).map(Follow::Runs).map_err(invalid)
                }
                Some(leader_message::Message::Standby(standby)) => {
                    match Standby::parse(standby, self.handle.identity.heartbeat) {
                        Ok(standby) => Ok(Follow::Standby(standby)),
                        Err(error) => {
                            // The log does not depend on it: this replica stands by as before, and follows.
                            if !std::mem::replace(&mut is_told_wrong, true) {
                                tracing::warn!(%error, "the standby settings from the leader are invalid: ignored");
                            }
                            continue;
                        }
                    }
                }
                Some(leader_message::Message::Start(_)) | None => Err(invalid("a message of a leader is out of turn")),
            };
            let told = match parsed {
                Ok(message) => self.handle.follow(session, message).await,
                Err(error) => return End::Refuse(error),
            };
            if told.is_err() {
                return End::Refuse(shutting_down());
            }
        }
    }

    fn parse_start(
        &self,
        wire: v1::Start,
        caller: Option<&Caller>,
        outbox: watch::Sender<Outbox>,
        heard: &Arc<Heard>,
    ) -> Result<Follow, v1::Error> {
        let v1::Start { protocol_version, cluster_id, target, leader, epoch, .. } = wire;
        let v1::Start { history, log, commit_end, members, oldest, origin, runs, .. } = wire;
        target::check(&self.handle.identity, caller, &Target { protocol_version, target: &target })?;
        let cluster =
            zue_proto::cluster_id(&cluster_id).map_err(invalid)?.ok_or_else(|| invalid("cluster_id is missing"))?;
        let history = zue_proto::history(history).map_err(invalid)?;
        let leader = Member::parse(leader.ok_or_else(|| invalid("leader is missing"))?, true).map_err(invalid)?;
        let mut members = Member::parse_all(members, false).map_err(invalid)?;
        // Until a change of voters is settled, those before it are still asked.
        let settled = |last: &zue_core::EpochStart| last.old_voters.as_ref().unwrap_or(&last.voters).clone();
        let voters = history.last().map(settled).unwrap_or_default();
        for member in &mut members {
            member.voter = voters.contains(&member.id);
        }
        let start = zue_core::Start {
            cluster,
            leader: leader.id,
            epoch: Epoch(epoch),
            history,
            log: zue_proto::tail(log),
            commit_end: offset("commit_end", commit_end)?,
            oldest: offset("oldest", oldest)?,
            origin: origin.map(|origin| zue_proto::origin(origin, self.producers)).transpose().map_err(invalid)?,
            runs: zue_proto::runs(&runs).map_err(invalid)?,
        };
        Ok(Follow::Start { start: Box::new(start), leader, members, outbox, heard: Arc::clone(heard) })
    }

    /// Checks every byte of the frames, and waits until there is room for them.
    async fn frames(
        &self,
        wire: v1::Frames,
        expected: &mut Option<(Tail, u64)>,
        news: &watch::Receiver<Outbox>,
    ) -> Result<Follow, v1::Error> {
        let v1::Frames { prev, frames, commit_end, round } = wire;
        let prev = zue_proto::tail(prev);
        let started = news.borrow().started.map(|(log, _, last_ms)| (log, last_ms));
        let (log, last_ms) =
            expected.or(started).ok_or_else(|| invalid("frames came before this replica has started"))?;
        if prev != log {
            return Err(refused(&Refusal::Gap { prev, log }, &self.handle.view.borrow()));
        }
        let bytes = narrow(wide(frames.len())).min(self.room_bytes);
        let permit = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_| shutting_down())?;
        let batch = Batch::decode(frames, prev, &limits()).map_err(|fault| {
            if let Fault::Crc { .. } = fault.fault {
                self.metrics.crc_errors.inc();
            }
            error(Reason::Corrupt, fault.to_string())
        })?;
        // The disk would take it for a fault of its own.
        batch.follows_time(last_ms).map_err(invalid)?;
        *expected = Some((batch.tail(), batch.timestamps_ms().map_or(last_ms, |(_, last)| last)));
        Ok(Follow::Frames { batch, commit_end: offset("commit_end", commit_end)?, round, permit })
    }

    /// Tells the leader the news, until the stream is refused or its end is known.
    async fn answer(
        &self,
        answers: &mpsc::Sender<Result<FollowerMessage, Status>>,
        mut news: watch::Receiver<Outbox>,
    ) -> Option<End> {
        let (mut has_started, mut told) = (false, None);
        loop {
            let Outbox { started, joint_ms: _, ack, trimmed, refused: refusal } = news.borrow_and_update().clone();
            if let Some((refusal, promised)) = refusal {
                let error = refused(&refusal, &self.handle.view.borrow());
                let refused = v1::Refused { error: Some(error), promised: promised.0 };
                let _ = answers.send(Ok(answer(follower_message::Message::Refused(refused)))).await;
                return None;
            }
            if let Some((log, durable, _)) = started.filter(|_| !has_started) {
                has_started = true;
                let lineage = Some((&self.handle.identity.lineage).into());
                let runs = zue_proto::runs_to_wire(&self.handle.view.borrow().runs);
                let (log, durable, clock_ms) = (Some(log.into()), Some(durable.into()), unix_ms());
                let started = v1::Started { log, durable, lineage, runs, clock_ms, can_stand_by: true };
                answers.send(Ok(answer(follower_message::Message::Started(started)))).await.ok()?;
            }
            if let Some((durable, round)) = ack.filter(|_| has_started) {
                let ack = v1::Ack { durable: Some(durable.into()), round, clock_ms: unix_ms() };
                answers.send(Ok(answer(follower_message::Message::Ack(ack)))).await.ok()?;
            }
            if let Some(Offset(log_start)) = trimmed.filter(|_| has_started && trimmed != told) {
                told = trimmed;
                let trimmed = v1::Trimmed { log_start };
                answers.send(Ok(answer(follower_message::Message::Trimmed(trimmed)))).await.ok()?;
            }
            if news.changed().await.is_err() {
                // The replica follows another stream now.
                let _ =
                    answers.send(Err(status(error(Reason::StaleEpoch, "this replica follows another stream")))).await;
                return None;
            }
        }
    }
}

/// An offset that a log can have.
fn offset(field: &'static str, found: u64) -> Result<Offset, v1::Error> {
    zue_proto::offset(field, found).map_err(invalid)
}

fn parse_heartbeat(wire: v1::Heartbeat) -> Result<Follow, v1::Error> {
    let v1::Heartbeat { commit_end, log_end, round, log_start, agreed_ms } = wire;
    let (commit_end, log_end) = (offset("commit_end", commit_end)?, offset("log_end", log_end)?);
    let (log_start, agreed_ms) = (offset("log_start", log_start)?, Some(agreed_ms).filter(|known| *known > 0));
    Ok(Follow::Heartbeat { commit_end, log_end, round, log_start, agreed_ms })
}

fn answer(message: follower_message::Message) -> FollowerMessage {
    FollowerMessage { message: Some(message) }
}
