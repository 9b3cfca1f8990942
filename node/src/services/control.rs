//! The service for controllers: status, seal, appoint, learners, hand over.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use zue_core::{Epoch, Refusal, ReplicaId, Reply, Terms};
use zue_proto::v1::control_server::Control as ControlApi;
use zue_proto::v1::{self, Reason};
use zue_proto::{Malformed, cluster_id, id_bytes, replica_id};

use crate::backup;
use crate::driver::handle::Control;
use crate::driver::member::Member;
use crate::server::caller::Caller;
use crate::server::rights::Party;
use crate::services::errors::{error, invalid, refused, shutting_down, status};
use crate::services::target::{self, Target};
use crate::services::watch::{Sources, watch};
use crate::standby::Standby;

/// The time that the disk may take for a promise or an epoch start before the controller is told that it is late.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most letters that the name of who appoints has.
const BY_MAX: usize = 256;
/// The time that a hand-over may be asked to take.
const HANDOVER_MAX: Duration = Duration::from_mins(1);

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct ControlService(pub(crate) Sources);

impl ControlService {
    fn check(&self, caller: Option<Arc<Caller>>, protocol_version: u32, target: &[u8]) -> Result<(), Status> {
        target::check(&self.0.handle.identity, caller.as_deref(), &Target { protocol_version, target }).map_err(status)
    }

    /// Refuses what is said of another cluster than this replica's.
    fn check_cluster(&self, cluster: &[u8]) -> Result<(), Status> {
        let theirs = cluster_id(cluster).map_err(malformed)?;
        let ours = self.0.handle.view.borrow().cluster;
        match ours.filter(|_| theirs != ours) {
            Some(ours) => Err(status(self.refused(&Refusal::OtherCluster { ours, theirs }))),
            None => Ok(()),
        }
    }

    /// Asks the replica, and gives up waiting after a while.
    async fn ask(&self, control: Control, within: Duration) -> Result<Reply, Status> {
        let late = || status(error(Reason::TimedOut, format!("this replica did not get it done within {within:?}")));
        match timeout(within, self.0.handle.control(control)).await {
            Err(_) => Err(late()),
            Ok(Err(_gone)) => Err(status(shutting_down())),
            Ok(Ok(Reply::Refused(refusal))) => Err(status(self.refused(&refusal))),
            Ok(Ok(reply)) => Ok(reply),
        }
    }

    /// A node that stands by elects among the voters that there are: otherwise one of them could make itself all of them. What the newest
    /// epoch start says cannot change between this and the appointment, since no lower epoch is followed once this one is promised.
    async fn check_standby(&self, appoint: &Control) -> Result<(), Status> {
        let Control::Appoint { terms, .. } = appoint else { return Ok(()) };
        let now = self.0.status().await?;
        may_appoint(&now, terms).map_err(|why| status(error(Reason::PermissionDenied, why)))
    }

    fn refused(&self, refusal: &Refusal) -> v1::Error {
        refused(refusal, &self.0.handle.view.borrow())
    }
}

fn malformed(error: Malformed) -> Status {
    status(invalid(error))
}

/// A reply to another question: a bug.
fn mixed_up() -> Status {
    status(error(Reason::Unspecified, "the replica answered another question"))
}

#[tonic::async_trait]
impl ControlApi for ControlService {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        self.0.status().await.map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::StatusResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let v1::WatchRequest { detection_ms } = request.into_inner();
        Ok(Response::new(Box::pin(watch(self.0.clone(), detection_ms.into()))))
    }

    async fn seal(&self, request: Request<v1::SealRequest>) -> Result<Response<v1::SealResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::SealRequest { protocol_version, cluster_id: cluster, target, epoch } = request.into_inner();
        self.check(caller, protocol_version, &target)?;
        let cluster = cluster_id(&cluster).map_err(malformed)?;
        let Reply::Sealed(sealed) = self.ask(Control::Seal { cluster, epoch: Epoch(epoch) }, ANSWER_TIMEOUT).await?
        else {
            return Err(mixed_up());
        };
        let zue_core::election::Sealed { replica, cluster, last, durable, commit_end, suspect, damaged, lineage, runs } =
            sealed;
        Ok(Response::new(v1::SealResponse {
            replica_id: id_bytes(replica.0),
            cluster_id: cluster.map(|id| id_bytes(id.0)).unwrap_or_default(),
            promised: epoch,
            last_epoch_start: last.as_ref().map(Into::into),
            durable: Some(durable.into()),
            commit_end: commit_end.0,
            suspect: suspect.map(Into::into),
            damaged,
            lineage: Some((&lineage).into()),
            runs: zue_proto::runs_to_wire(&runs),
        }))
    }

    async fn appoint(&self, request: Request<v1::AppointRequest>) -> Result<Response<v1::AppointResponse>, Status> {
        let (caller, party, request) = (Caller::of(&request), Party::of(&request), request.into_inner());
        self.check(caller, request.protocol_version, &request.target)?;
        let appoint = parse_appoint(request).map_err(status)?;
        match party {
            Party::Anybody | Party::Controller => {}
            Party::Node => self.check_standby(&appoint).await?,
            Party::Nobody | Party::Client(_) => {
                return Err(status(error(
                    Reason::PermissionDenied,
                    "only a controller or a node may appoint a leader",
                )));
            }
        }
        match self.ask(appoint, ANSWER_TIMEOUT).await? {
            Reply::Appointed(start) => Ok(Response::new(v1::AppointResponse { epoch_start: Some((&start).into()) })),
            _ => Err(mixed_up()),
        }
    }

    async fn learners(&self, request: Request<v1::LearnersRequest>) -> Result<Response<v1::LearnersResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::LearnersRequest {
            protocol_version,
            cluster_id: cluster,
            target,
            epoch,
            learners,
            moved_voters,
            standby,
        } = request.into_inner();
        self.check(caller, protocol_version, &target)?;
        self.check_cluster(&cluster)?;
        let learners = Member::parse_all(learners, false).map_err(invalid).map_err(status)?;
        let moved = Member::parse_all(moved_voters, false).map_err(invalid).map_err(status)?;
        let heartbeat = self.0.handle.identity.heartbeat;
        let standby =
            standby.map(|standby| Standby::parse(standby, heartbeat)).transpose().map_err(invalid).map_err(status)?;
        match self.ask(Control::Learners { epoch: Epoch(epoch), learners, moved, standby }, ANSWER_TIMEOUT).await? {
            Reply::Learners(_) => Ok(Response::new(v1::LearnersResponse {})),
            _ => Err(mixed_up()),
        }
    }

    async fn handover(&self, request: Request<v1::HandoverRequest>) -> Result<Response<v1::HandoverResponse>, Status> {
        let caller = Caller::of(&request);
        let v1::HandoverRequest { protocol_version, cluster_id: cluster, target, epoch, to, deadline_ms } =
            request.into_inner();
        self.check(caller, protocol_version, &target)?;
        self.check_cluster(&cluster)?;
        let to = replica_id("to", &to).map_err(malformed)?;
        let deadline = Duration::from_millis(deadline_ms.into()).min(HANDOVER_MAX);
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let hand_over = Control::HandOver { epoch: Epoch(epoch), to, deadline_ms };
        match self.ask(hand_over, deadline + ANSWER_TIMEOUT).await? {
            Reply::HandedOver(log) => Ok(Response::new(v1::HandoverResponse { log: Some(log.into()) })),
            _ => Err(mixed_up()),
        }
    }

    async fn back_up(&self, request: Request<v1::BackUpRequest>) -> Result<Response<v1::AskedBackup>, Status> {
        let caller = Caller::of(&request);
        let v1::BackUpRequest { protocol_version, cluster_id: cluster, target, name } = request.into_inner();
        self.check(caller, protocol_version, &target)?;
        self.check_cluster(&cluster)?;
        backup::ask(self.0.backups.as_ref(), &name).map(Response::new).map_err(|why| status(invalid(why)))
    }
}

/// Tells whether a node may appoint this replica on these terms.
fn may_appoint(now: &v1::StatusResponse, terms: &Terms) -> Result<(), String> {
    let promised = now.promised;
    if promised != terms.epoch.0 {
        return Err(format!(
            "a node appoints in the epoch that is promised, which is {promised}, and not {}",
            terms.epoch
        ));
    }
    let newest = now.last_epoch_start.clone().map(zue_proto::epoch_start).transpose();
    let newest = newest.map_err(|malformed| malformed.to_string())?;
    let newest = newest.ok_or("a node begins no cluster: a controller does")?;
    let sorted = |ids: &[ReplicaId]| ids.iter().copied().collect::<BTreeSet<_>>();
    let old = |ids: &Option<Vec<ReplicaId>>| sorted(ids.as_deref().unwrap_or_default());
    let is_repeated = sorted(&newest.voters) == sorted(&terms.voters)
        && old(&newest.old_voters) == old(&terms.old_voters)
        && newest.quorum == terms.quorum;
    if is_repeated {
        return Ok(());
    }
    Err(format!(
        "a node repeats the voters, old voters and quorum of epoch {}, and changes none: a controller does",
        newest.epoch
    ))
}

fn parse_appoint(request: v1::AppointRequest) -> Result<Control, v1::Error> {
    // One that only a later version has is none that this one could tell apart.
    let reason = request.reason();
    let v1::AppointRequest {
        protocol_version: _,
        cluster_id: cluster,
        target: _,
        epoch,
        voters,
        quorum,
        old_voters,
        by,
        reason: _,
    } = request;
    let cluster = cluster_id(&cluster).map_err(invalid)?.ok_or_else(|| invalid("cluster_id is missing"))?;
    let (voters, mut members) = electorate(voters, true)?;
    let (old_voters, old_members) = electorate(old_voters, false)?;
    let old_voters = Some(old_voters).filter(|old| !old.is_empty());
    members.extend(old_members.into_iter().filter(|old| !voters.contains(&old.id)));
    let terms = Terms { epoch: Epoch(epoch), voters, quorum, old_voters };
    let by = by.chars().take(BY_MAX).collect();
    Ok(Control::Appoint { cluster, terms, members, by, reason })
}

/// All ids, and the members whose address is known. One whose address is not known votes all the same: it is fed once the leader is
/// told where it is.
fn electorate(wire: Vec<v1::Member>, voter: bool) -> Result<(Vec<ReplicaId>, Vec<Member>), v1::Error> {
    let id = |member: &v1::Member| replica_id("replica_id", &member.replica_id);
    let ids = wire.iter().map(id).collect::<Result<Vec<_>, Malformed>>().map_err(invalid)?;
    let known = wire.into_iter().filter(|member| !member.peer_address.is_empty()).collect();
    Ok((ids, Member::parse_all(known, voter).map_err(invalid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_appoints_on_the_terms_that_there_are_and_on_no_others() {
        let ids = |ids: &[u128]| ids.iter().map(|id| id_bytes(*id)).collect::<Vec<_>>();
        let newest = v1::EpochStart {
            epoch: 6,
            leader: id_bytes(1),
            voters: ids(&[1, 2, 3]),
            quorum: 2,
            old_voters: ids(&[1, 2]),
            ..v1::EpochStart::default()
        };
        let now = v1::StatusResponse { promised: 7, last_epoch_start: Some(newest), ..v1::StatusResponse::default() };
        let terms = |epoch, voters: &[u128], quorum, old: &[u128]| {
            let of = |ids: &[u128]| ids.iter().copied().map(ReplicaId).collect::<Vec<_>>();
            let old_voters = Some(of(old)).filter(|old| !old.is_empty());
            Terms { epoch: Epoch(epoch), voters: of(voters), quorum, old_voters }
        };
        assert_eq!(may_appoint(&now, &terms(7, &[3, 2, 1], 2, &[2, 1])), Ok(()));
        for (terms, why) in [
            (terms(8, &[1, 2, 3], 2, &[1, 2]), "which is 7, and not 8"),
            (terms(7, &[1, 2], 2, &[1, 2]), "repeats the voters, old voters and quorum of epoch 6"),
            (terms(7, &[1], 1, &[]), "repeats the voters"),
            (terms(7, &[1, 2, 3, 4], 3, &[1, 2]), "repeats the voters"),
            (terms(7, &[1, 2, 3], 2, &[]), "repeats the voters"),
            (terms(7, &[1, 2, 3], 3, &[1, 2]), "repeats the voters"),
        ] {
            let error = may_appoint(&now, &terms).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let blank = v1::StatusResponse { last_epoch_start: None, ..now };
        assert!(may_appoint(&blank, &terms(7, &[1], 1, &[])).unwrap_err().contains("begins no cluster"));
    }

    #[test]
    fn a_voter_whose_address_is_not_known_votes_all_the_same() {
        let member = |id: u128, address: &str| v1::Member {
            replica_id: id_bytes(id),
            name: String::new(),
            peer_address: address.to_owned(),
            client_address: address.to_owned(),
            ..v1::Member::default()
        };
        let request = v1::AppointRequest {
            cluster_id: id_bytes(9),
            voters: vec![member(1, "one:1"), member(2, ""), member(3, "three:1")],
            old_voters: vec![member(1, "one:1"), member(4, "")],
            ..v1::AppointRequest::default()
        };
        let Ok(Control::Appoint { terms, members, .. }) = parse_appoint(request.clone()) else { panic!("refused") };
        assert_eq!(terms.voters, [1, 2, 3].map(ReplicaId));
        assert_eq!(terms.old_voters, Some(vec![ReplicaId(1), ReplicaId(4)]));
        assert_eq!(members.iter().map(|member| member.id.0).collect::<Vec<_>>(), [1, 3]);
        let wrong = v1::AppointRequest { voters: vec![member(1, "no address")], ..request };
        assert!(parse_appoint(wrong).is_err());
    }
}
