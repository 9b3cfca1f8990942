//! The calls of the machine, as the nodes understand them, and their answers.

use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Channel;
use zue_core::control::machine::{Answer, Call, StandbyTerms};
use zue_core::control::{Policy, Reason};
use zue_core::election::Sealed;
use zue_core::{ClusterId, Epoch, Offset, ReplicaId, Tail};
use zue_proto::v1::control_client::ControlClient;
use zue_proto::{Malformed, v1};

use super::peers;
use crate::NodeAddress;

/// Asks one node, and gives what it answers.
pub(super) async fn call(
    mut client: ControlClient<Channel>,
    target: ReplicaId,
    call: Call,
    (nodes, by): (&[NodeAddress], &str),
    within: Duration,
) -> Answer {
    let protocol_version = zue_proto::PROTOCOL_VERSION;
    let id = target;
    let target = zue_proto::id_bytes(target.0);
    let answer = match call {
        Call::Seal { cluster, epoch } => {
            let request =
                v1::SealRequest { protocol_version, cluster_id: cluster_bytes(cluster), target, epoch: epoch.0 };
            let answer = peers::call(within, client.seal(request)).await;
            answer.and_then(|answer| sealed(answer, id, epoch)).map(|sealed| Answer::Sealed(Box::new(sealed)))
        }
        Call::Appoint { cluster, terms, places, reason } => {
            let request = v1::AppointRequest {
                protocol_version,
                cluster_id: cluster_bytes(Some(cluster)),
                target,
                epoch: terms.epoch.0,
                voters: members(&terms.voters, &places, nodes),
                quorum: terms.quorum,
                old_voters: members(terms.old_voters.as_deref().unwrap_or_default(), &places, nodes),
                by: by.to_owned(),
                reason: election_reason(reason).into(),
            };
            peers::call(within, client.appoint(request)).await.map(|_| Answer::Appointed)
        }
        Call::Learners { cluster, epoch, learners, moved, places, standby } => {
            let request = v1::LearnersRequest {
                protocol_version,
                cluster_id: cluster_bytes(cluster),
                target,
                epoch: epoch.0,
                learners: members(&learners, &places, nodes),
                moved_voters: members(&moved, &places, nodes),
                standby: standby.map(|terms| standby_to_wire(&terms, nodes)),
            };
            peers::call(within, client.learners(request)).await.map(|_| Answer::Fed)
        }
        Call::HandOver { cluster, epoch, to, deadline_ms } => {
            let request = v1::HandoverRequest {
                protocol_version,
                cluster_id: cluster_bytes(cluster),
                target,
                epoch: epoch.0,
                to: zue_proto::id_bytes(to.0),
                deadline_ms: u32::try_from(deadline_ms).unwrap_or(u32::MAX),
            };
            peers::call(within, client.handover(request)).await.map(|_| Answer::HandedOver)
        }
    };
    answer.unwrap_or_else(Answer::Failed)
}

/// Why an epoch begins, as nodes count it.
const fn election_reason(reason: Reason) -> v1::ElectionReason {
    match reason {
        Reason::Bootstrap => v1::ElectionReason::Bootstrap,
        Reason::NoLeader => v1::ElectionReason::NoLeader,
        Reason::LeaderLost => v1::ElectionReason::LeaderLost,
        Reason::QuorumLost => v1::ElectionReason::QuorumLost,
        Reason::HigherPromise | Reason::FarPromise => v1::ElectionReason::HigherPromise,
        Reason::HandOver => v1::ElectionReason::HandOver,
        Reason::VotersChange | Reason::VotersSettled | Reason::QuorumChange => v1::ElectionReason::Settings,
    }
}

fn cluster_bytes(cluster: Option<ClusterId>) -> Bytes {
    cluster.map_or_else(Bytes::new, |cluster| zue_proto::id_bytes(cluster.0))
}

/// The address of each of them; none where nobody knows.
fn members(ids: &[ReplicaId], places: &[(ReplicaId, Option<usize>)], nodes: &[NodeAddress]) -> Vec<v1::Member> {
    let member = |id: &ReplicaId| {
        let ordinal = places.iter().find(|(placed, _)| placed == id).and_then(|(_, ordinal)| *ordinal);
        let node = ordinal.and_then(|ordinal| nodes.get(ordinal));
        let text = |field: fn(&NodeAddress) -> &String| node.map(field).cloned().unwrap_or_default();
        v1::Member {
            replica_id: zue_proto::id_bytes(id.0),
            name: text(|node| &node.name),
            peer_address: text(|node| &node.peer_address),
            client_address: text(|node| &node.client_address),
            dial_address: node.and_then(|node| node.last_address).map(|at| at.to_string()).unwrap_or_default(),
        }
    };
    ids.iter().map(member).collect()
}

fn standby_to_wire(terms: &StandbyTerms, nodes: &[NodeAddress]) -> v1::Standby {
    let StandbyTerms { policy, preferred, detection_ms, after_ms, ref members } = *terms;
    let ids: Vec<ReplicaId> = members.iter().map(|placed| placed.replica).collect();
    let places: Vec<_> = members.iter().map(|placed| (placed.replica, Some(placed.ordinal))).collect();
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    v1::Standby {
        static_leader: policy == Policy::Static,
        preferred: u32::try_from(preferred).unwrap_or_default(),
        detection_ms: narrow(detection_ms),
        after_ms: narrow(after_ms),
        members: self::members(&ids, &places, nodes),
        epoch: 0,
    }
}

/// A cluster begins with an epoch start: one that was only named, by an appointment that died, binds nobody.
pub(super) fn begun_cluster(cluster_id: &[u8], durable: Tail) -> Result<Option<ClusterId>, Malformed> {
    Ok(zue_proto::cluster_id(cluster_id)?.filter(|_| durable.epoch > Epoch(0)))
}

/// A checked answer to a seal: of the replica that was asked, and with the promise that was asked for.
fn sealed(answer: v1::SealResponse, asked: ReplicaId, epoch: Epoch) -> Result<Sealed, String> {
    let malformed = |malformed: Malformed| format!("malformed response: {malformed}");
    let replica = zue_proto::replica_id("replica_id", &answer.replica_id).map_err(malformed)?;
    if replica != asked {
        return Err(format!("another replica answers: {replica}"));
    }
    if answer.promised != epoch.0 {
        return Err(format!("it promised epoch {}, not {epoch}", answer.promised));
    }
    let durable = zue_proto::tail(answer.durable);
    Ok(Sealed {
        replica,
        cluster: begun_cluster(&answer.cluster_id, durable).map_err(malformed)?,
        last: answer.last_epoch_start.map(zue_proto::epoch_start).transpose().map_err(malformed)?,
        durable,
        commit_end: Offset(answer.commit_end),
        suspect: answer.suspect.map(|suspect| zue_proto::tail(Some(suspect))),
        damaged: answer.damaged,
        lineage: zue_proto::lineage(answer.lineage),
        runs: zue_proto::runs(&answer.runs).map_err(malformed)?,
    })
}
