//! The service for clients: append, read, who leads, a producer id.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use zue_core::{Offset, ProducerId, Reply};
use zue_log::{OsDisk, Reader};
use zue_proto::v1::log_server::Log;
use zue_proto::v1::{self, append_stream_response};
use zue_proto::{error_of, id_bytes, status_of};
use zue_settings::LimitSettings;

use crate::backup::{self, BackupRequests, Hold};
use crate::driver::pace::Alarm;
use crate::driver::state::{Ends, LeaderView, ReplicaView, Role};
use crate::gauged::Gauged;
use crate::num::length;
use crate::rarely::Rarely;
use crate::server::body_limit::Parcel;
use crate::server::caller::Caller;
use crate::server::door::grpc_timeout;
use crate::server::owner::Owner;
use crate::server::room::Room;
use crate::server::slots::Slots;
use crate::services::append::{Appends, Pending, WhenFull, check_log};
use crate::services::errors::{error, invalid, refused, shutting_down, status};
use crate::services::read::{Read, ReadLimits, too_many, unfed_max};
use crate::tls::Security;

/// The time for which another leader may be wanted.
const SWITCH_OVER_MAX: Duration = Duration::from_hours(1);

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct LogService {
    pub(crate) appends: Appends,
    pub(crate) reader: Reader<OsDisk>,
    /// Of the reads that go on at once.
    pub(crate) readers: Arc<Slots>,
    /// The room for records on their way to readers.
    pub(crate) answers: Arc<Room>,
    /// The time that a read may wait for what is committed.
    pub(crate) lag_max: Duration,
    pub(crate) security: Security,
    /// Of one that makes backups.
    pub(crate) backups: Option<BackupRequests>,
    /// The end of what trims may take, where they leave what is in no backup.
    pub(crate) hold: Option<Hold>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Log for LogService {
    type AppendStreamStream = Responses<v1::AppendStreamResponse>;
    type ReadStream = Responses<v1::ReadResponse>;

    async fn append(&self, request: Request<v1::AppendRequest>) -> Result<Response<v1::AppendResponse>, Status> {
        let asked = time_allowed(request.metadata()).into_iter().chain(within(request.get_ref())).min();
        let deadline = self.appends.deadline(asked);
        let (owner, received) = (Owner::of(&request), Parcel::of(&request).open().map_err(status_of)?);
        let pending = self.appends.submit(request.into_inner(), owner, received, deadline, WhenFull::Refuse).await;
        self.appends.answer(pending.map_err(status_of)?, &mut Alarm::new()).await.map(Response::new).map_err(status_of)
    }

    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        // One more is being answered. Of a producer no more may be under way than are remembered: they wait instead.
        let LimitSettings { stream_appends_max, producer_appends_max, .. } = self.appends.settings;
        let waiting_max = length(stream_appends_max.min(producer_appends_max)).saturating_sub(1).max(1);
        let (pending, answers) = mpsc::channel(waiting_max);
        let (appends, owner, parcel) = (self.appends.clone(), Owner::of(&request), Parcel::of(&request));
        let ends = Caller::of(&request).map(|caller| caller.ends.clone()).unwrap_or_default();
        tokio::spawn(take_on(appends.clone(), (request.into_inner(), ends), owner, parcel, pending));
        // The answers come in the order of the requests, each no later than its deadline.
        let begin = (answers, appends, Alarm::new());
        let responses = futures::stream::unfold(begin, async |(mut answers, appends, mut alarm)| {
            let answered = match answers.recv().await? {
                Ok(pending) => appends.answer(pending, &mut alarm).await,
                Err(error) => Err(error),
            };
            let outcome = match answered {
                Ok(appended) => append_stream_response::Outcome::Appended(appended),
                Err(error) => {
                    appends.metrics.append_failed(&error);
                    append_stream_response::Outcome::Error(error)
                }
            };
            Some((Ok(v1::AppendStreamResponse { outcome: Some(outcome) }), (answers, appends, alarm)))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let deadline = self.appends.deadline(time_allowed(request.metadata()));
        let owner = Owner::of(&request);
        let request = request.into_inner();
        check_log(&request.log).map_err(status)?;
        let appends = &self.appends;
        let slot = self.readers.take_busy(owner);
        let slot = Arc::new(slot.ok_or_else(|| status(too_many(appends.settings.readers_max)))?);
        let read = Read {
            reader: self.reader.clone(),
            ends: appends.handle.ends.clone(),
            readable: appends.handle.readable.clone(),
            view: appends.handle.view.clone(),
            metrics: Arc::clone(&appends.metrics),
            stop: appends.stop.clone(),
            not_before_ms: 0,
            limits: ReadLimits {
                bytes_max: appends.settings.read_bytes_max.length(),
                lag_max: self.lag_max,
                unfed_max: unfed_max(self.lag_max),
                stall_max: appends.settings.stall_deadline.0,
            },
            room: Arc::clone(&self.answers),
            owner,
            slot,
            _open: Gauged::new(&appends.metrics.readers, 1),
        };
        self.ensure(request.consistency(), deadline).await.map_err(status)?;
        let from = read.begin(&request).await.map_err(status)?;
        Ok(Response::new(Box::pin(read.start(from, request))))
    }

    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        let deadline = self.appends.deadline(time_allowed(request.metadata()));
        let request = request.into_inner();
        check_log(&request.log).map_err(status)?;
        self.ensure(request.consistency(), deadline).await.map_err(status)?;
        let handle = &self.appends.handle;
        let Ends { commit_end, log, .. } = *handle.ends.borrow();
        let view = handle.view.borrow().clone();
        let ReplicaView { cluster, epoch, leader, members, problem, left, standby, .. } = view;
        let (LeaderView { unreached, isr, reach, elected_by }, connected) =
            (view.as_leader, view.as_follower.connected);
        let problem = problem.map(|problem| problem.as_ref().to_owned()).or_else(|| self.security.problem());
        // Whom a replica followed that is no member any more may lead no more either.
        let leader = leader.filter(|_| left.is_none());
        Ok(Response::new(v1::DescribeResponse {
            name: handle.identity.name.clone(),
            cluster_id: cluster.map(|id| id_bytes(id.0)).unwrap_or_default(),
            replica_id: id_bytes(handle.identity.id.0),
            epoch: epoch.0,
            log_start: self.reader.log_start().0,
            commit_end: commit_end.0,
            leader,
            members: members.iter().map(|member| member.to_member_hint(&unreached)).collect(),
            log_end: log.end.0,
            durability: handle.identity.durability.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            isr: isr.to_vec(),
            quorum: reach.quorum,
            in_reach: reach.writing,
            leader_connected: connected,
            problem: problem.unwrap_or_default(),
            elected_by: elected_by.as_deref().unwrap_or_default().to_owned(),
            stands_by: standby.is_some(),
        }))
    }

    async fn switch_over(
        &self,
        request: Request<v1::SwitchOverRequest>,
    ) -> Result<Response<v1::SwitchOverResponse>, Status> {
        let v1::SwitchOverRequest { to, within_ms } = request.into_inner();
        let within = Duration::from_millis(within_ms.into()).min(SWITCH_OVER_MAX);
        match self.appends.handle.switch_over(to, within).await {
            Ok(Ok(())) => Ok(Response::new(v1::SwitchOverResponse {})),
            Ok(Err(error)) => Err(status(error)),
            Err(_gone) => Err(status(crate::services::errors::shutting_down())),
        }
    }

    async fn trim(&self, request: Request<v1::TrimRequest>) -> Result<Response<v1::TrimResponse>, Status> {
        let deadline = self.appends.deadline(time_allowed(request.metadata()));
        let v1::TrimRequest { log, before } = request.into_inner();
        check_log(&log).map_err(status)?;
        let handle = &self.appends.handle;
        // Another refuses anyway, and says who leads.
        if let Some(hold) = self.hold.as_ref().filter(|_| handle.view.borrow().role == Role::Leader) {
            hold.check(Offset(before)).map_err(|why| status(invalid(why)))?;
        }
        let reply = timeout_at(deadline, handle.trim(Offset(before))).await.map_err(|_| {
            status(error(v1::Reason::TimedOut, "the deadline passed before a quorum had trimmed the log; it may yet"))
        })?;
        match reply {
            Ok(Reply::Trimmed(log_start)) => Ok(Response::new(v1::TrimResponse { log_start: log_start.0 })),
            Ok(Reply::Refused(refusal)) => Err(status(refused(&refusal, &handle.view.borrow()))),
            Ok(_) => Err(status(error(v1::Reason::Unspecified, "the replica answered another question"))),
            Err(_gone) => Err(status(shutting_down())),
        }
    }

    async fn back_up(&self, request: Request<v1::AskBackupRequest>) -> Result<Response<v1::AskedBackup>, Status> {
        let v1::AskBackupRequest { log, name } = request.into_inner();
        check_log(&log).map_err(status)?;
        backup::ask(self.backups.as_ref(), &name).map(Response::new).map_err(|why| status(invalid(why)))
    }

    async fn open_producer(
        &self,
        _: Request<v1::OpenProducerRequest>,
    ) -> Result<Response<v1::OpenProducerResponse>, Status> {
        let born = self.appends.handle.ends.borrow().commit_end;
        let producer = ProducerId { born, nonce: rand::random() };
        Ok(Response::new(v1::OpenProducerResponse { producer_id: id_bytes(producer.to_u128()) }))
    }
}

impl LogService {
    /// Waits until what the request must see is known here.
    async fn ensure(&self, consistency: v1::Consistency, deadline: Instant) -> Result<(), v1::Error> {
        match consistency {
            v1::Consistency::Committed => Ok(()),
            v1::Consistency::Linearizable => timeout_at(deadline, self.confirm()).await.unwrap_or_else(|_| {
                Err(error(v1::Reason::TimedOut, "the deadline passed before a majority said that this replica leads"))
            }),
        }
    }

    /// Waits until all that was committed when this was called is known here to be.
    async fn confirm(&self) -> Result<(), v1::Error> {
        let handle = &self.appends.handle;
        match handle.confirm_read().await {
            // Answers come after the news: it is in the ends already.
            Ok(Reply::ReadConfirmed { .. }) => Ok(()),
            Ok(Reply::Refused(refusal)) => Err(refused(&refusal, &handle.view.borrow())),
            Ok(_) => Err(error(v1::Reason::Unspecified, "the replica answered another question")),
            Err(_gone) => Err(shutting_down()),
        }
    }
}

/// Takes the requests of a stream on, one after the other, as long as not too many are unanswered.
async fn take_on(
    appends: Appends,
    (mut requests, ends): (Streaming<v1::AppendRequest>, CancellationToken),
    owner: Owner,
    parcel: Parcel,
    pending: mpsc::Sender<Result<Pending, v1::Error>>,
) {
    let stop = appends.stop.clone();
    let mut ended = Rarely::new(async move {
        tokio::select! {
            // What was taken on is answered; what comes after that goes to another connection.
            () = ends.cancelled() => None,
            () = stop.cancelled() => Some(shutting_down()),
        }
    });
    loop {
        let Ok(slot) = pending.reserve().await else { return };
        let request = tokio::select! {
            biased;
            why = &mut ended => {
                if let Some(why) = why {
                    slot.send(Err(why));
                }
                return;
            }
            request = requests.message() => request,
        };
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => return,
            // What it cannot go on after is told like any other failure, in its turn.
            Err(status) => {
                slot.send(Err(error_of(&status).unwrap_or_else(|| invalid(status.message()))));
                return;
            }
        };
        let deadline = appends.deadline(within(&request));
        slot.send(match parcel.open() {
            Ok(received) => appends.submit(request, owner, received, deadline, WhenFull::Wait).await,
            Err(refused) => Err(refused),
        });
    }
}

/// The time that an append may take, if it says so.
fn within(request: &v1::AppendRequest) -> Option<Duration> {
    (request.within_ms > 0).then(|| Duration::from_millis(request.within_ms.into()))
}

/// The time that the call may take, from the caller's side; a little less, so that the answer arrives in time.
fn time_allowed(metadata: &MetadataMap) -> Option<Duration> {
    grpc_timeout(metadata.as_ref()).map(|asked| asked.saturating_sub((asked / 10).min(Duration::from_millis(50))))
}
