//! From what replicas answer to what the rules look at. Pure.

use std::net::SocketAddr;

use zue_core::control::machine::{NodeReport, Placed, StandbyTerms};
use zue_core::control::{Policy, ReplicaRole, ReplicaStatus};
use zue_core::{ClusterId, Epoch, Offset, ReplicaId};
use zue_proto::{Malformed, v1};

use crate::notices::{self, Facts, Notice};

use super::wire::begun_cluster;
use crate::NodeAddress;

/// A leader is not asked to hand over to who lacks more than this: while that is on its way, appends are held. Of one that does not
/// say how much, as before this version, records alone count.
const HAND_OVER_BYTES_MAX: u64 = 8 << 20;

/// The answer of a node. A malformed status becomes an error, and so does one from a replica that has answered already at another
/// node.
pub(super) fn one(
    nodes: &[NodeAddress],
    statuses: &[Result<v1::StatusResponse, String>],
    ordinal: usize,
    answer: &mut Result<v1::StatusResponse, String>,
) -> Option<NodeReport> {
    let status = answer.as_ref().ok()?;
    let others = statuses.iter().enumerate().filter(|(other, _)| *other != ordinal);
    let mut others = others.filter_map(|(other, before)| Some((other, before.as_ref().ok()?)));
    let twice = others.find(|(_, before)| before.replica_id == status.replica_id);
    let told = match twice {
        None => told(nodes, status).map_err(|malformed| format!("malformed status: {malformed}")),
        Some((first, before)) if before.name == status.name => {
            Err(format!("{}, node {first}, answers here too: two addresses lead to one place", before.name))
        }
        Some((first, before)) => Err(format!(
            "{} runs on the disk of the same replica as {}, node {first}: one is a copy of the other, and only that one counts",
            status.name, before.name
        )),
    };
    told.map_err(|why| *answer = Err(why)).ok()
}

fn told(nodes: &[NodeAddress], status: &v1::StatusResponse) -> Result<NodeReport, Malformed> {
    let placed = |member: &v1::Member| {
        let ordinal = nodes.iter().position(|node| node.name == member.name)?;
        let replica = zue_proto::replica_id("members", &member.replica_id).ok()?;
        let is_reachable = nodes.get(ordinal).is_some_and(|node| is_current(node, member));
        Some(Placed { replica, ordinal, is_reachable })
    };
    let unreached = status.followers.iter().filter(|follower| !follower.connected);
    let unreached = unreached.map(|follower| zue_proto::replica_id("followers", &follower.replica_id));
    Ok(NodeReport {
        seen: seen(status)?,
        members: status.members.iter().filter_map(placed).collect(),
        unreached: unreached.collect::<Result<_, _>>()?,
        can_stand_by: status.can_stand_by,
        standby: status.standby.as_ref().map(|wire| standby(wire, placed)),
        standby_epoch: Epoch(status.standby.as_ref().map_or(0, |wire| wire.epoch)),
        // Such a node says its name, and no controller bears that of one.
        by_standby: status.role() == v1::Role::Leader && nodes.iter().any(|node| node.name == status.elected_by),
    })
}

/// Returns whether somebody who is told this reaches the node: by its name, and by the address known beside it.
fn is_current(node: &NodeAddress, member: &v1::Member) -> bool {
    let is_last = |last: SocketAddr| member.dial_address.parse() == Ok(last);
    node.peer_address == member.peer_address && node.last_address.is_none_or(is_last)
}

fn standby(wire: &v1::Standby, placed: impl Fn(&v1::Member) -> Option<Placed>) -> StandbyTerms {
    StandbyTerms {
        policy: if wire.static_leader { Policy::Static } else { Policy::Automatic },
        preferred: usize::try_from(wire.preferred).unwrap_or_default(),
        detection_ms: wire.detection_ms.into(),
        after_ms: wire.after_ms.into(),
        members: wire.members.iter().filter_map(placed).collect(),
    }
}

fn seen(status: &v1::StatusResponse) -> Result<ReplicaStatus, Malformed> {
    let durable = zue_proto::tail(status.durable);
    Ok(ReplicaStatus {
        replica: zue_proto::replica_id("replica_id", &status.replica_id)?,
        cluster: begun_cluster(&status.cluster_id, durable)?,
        promised: Epoch(status.promised),
        bound: bound_to(status)?,
        last: status.last_epoch_start.clone().map(zue_proto::epoch_start).transpose()?,
        durable,
        suspect: status.suspect.map(|suspect| zue_proto::tail(Some(suspect))),
        damaged: status.damaged,
        leaving: status.leaving,
        role: role(status)?,
    })
}

/// The oddities of the replicas side by side.
pub(super) fn notices(
    nodes: &[NodeAddress],
    statuses: &[Result<v1::StatusResponse, String>],
    recorded: Option<ClusterId>,
) -> Vec<Notice> {
    let facts = nodes.iter().zip(statuses).map(|(node, status)| {
        let status = status.as_ref().ok()?;
        let has_begun = status.durable.is_some_and(|durable| durable.epoch > 0);
        Some(Facts {
            known_as: &node.name,
            name: &status.name,
            replica: &status.replica_id,
            cluster: if has_begun { &status.cluster_id } else { &[] },
            durability: &status.durability,
            restored: zue_proto::status::is_restored(status),
        })
    });
    let facts: Vec<_> = facts.collect();
    let epoch = |status: &v1::StatusResponse| status.last_epoch_start.as_ref().map_or(0, |start| start.epoch);
    let leads = |status: &&v1::StatusResponse| status.role() == v1::Role::Leader;
    let led = |status: &Result<v1::StatusResponse, String>| status.as_ref().ok().filter(leads).map(epoch);
    let leader = (0..statuses.len()).filter(|at| statuses.get(*at).is_some_and(|status| led(status).is_some()));
    let leader = leader.max_by_key(|at| statuses.get(*at).and_then(led));
    let recorded = recorded.map(|cluster| zue_proto::id_bytes(cluster.0));
    let expected = recorded.as_ref().map(|cluster| (cluster.as_ref(), "the recorded state"));
    notices::notices(&facts, leader, expected).into_iter().flatten().collect()
}

fn bound_to(status: &v1::StatusResponse) -> Result<Option<ReplicaId>, Malformed> {
    let leader = Some(&status.promised_leader).filter(|id| !id.is_empty());
    leader.map(|id| zue_proto::replica_id("promised_leader", id)).transpose()
}

fn role(status: &v1::StatusResponse) -> Result<ReplicaRole, Malformed> {
    let silence_ms = status.leader_silence_ms.unwrap_or(u64::MAX);
    Ok(match status.role() {
        v1::Role::Unspecified | v1::Role::Idle => ReplicaRole::Idle { waiting_ms: silence_ms },
        v1::Role::Failed => ReplicaRole::Failed,
        v1::Role::Follower => ReplicaRole::Follower { silence_ms, connected: status.leader_connected },
        v1::Role::Leader => {
            let follower = |follower: &v1::FollowerStatus| {
                let id = zue_proto::replica_id("followers", &follower.replica_id)?;
                // One that was not heard from yet counts as in sync at first, but can't take over.
                Ok((id, follower.in_sync && follower.connected, zue_proto::tail(follower.durable).end))
            };
            let followers = status.followers.iter().map(follower).collect::<Result<Vec<_>, Malformed>>()?;
            let is_far = |follower: &&v1::FollowerStatus| follower.lag_bytes() > HAND_OVER_BYTES_MAX;
            let far = status.followers.iter().filter(is_far);
            let far = far.map(|far| zue_proto::replica_id("followers", &far.replica_id));
            let far = far.collect::<Result<Vec<_>, Malformed>>()?;
            let log_end: Offset = zue_proto::tail(status.log).end;
            let switch_to = Some(&status.switch_to).filter(|id| !id.is_empty());
            let switch_to = switch_to.map(|id| zue_proto::replica_id("switch_to", id)).transpose()?;
            ReplicaRole::Leader {
                log_end,
                settled: status.settled,
                followers,
                far,
                handing_over: status.handing_over,
                switch_to,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_replica_at_two_addresses_is_seen_once() {
        let node = |name: &str| NodeAddress {
            name: name.to_owned(),
            peer_address: format!("{name}:9441"),
            client_address: format!("{name}:9440"),
            dial_address: None,
            last_address: None,
            replica: None,
        };
        let status = v1::StatusResponse { replica_id: zue_proto::id_bytes(7), ..Default::default() };
        let silent = || Err("no answer".to_owned());
        let (nodes, mut first, mut second) = ([node("zue-0"), node("zue-1")], Ok(status.clone()), Ok(status));
        assert!(one(&nodes, &[silent(), silent()], 0, &mut first).is_some());
        assert!(one(&nodes, &[first.clone(), silent()], 0, &mut first).is_some(), "itself, at the look before");
        assert_eq!((one(&nodes, &[first, silent()], 1, &mut second), second.is_err()), (None, true));
    }

    #[test]
    fn whom_a_leader_does_not_reach_and_where_it_looks_is_told() {
        let node = |ordinal: usize| NodeAddress {
            name: format!("zue-{ordinal}"),
            peer_address: format!("zue-{ordinal}:9441"),
            client_address: String::new(),
            dial_address: None,
            last_address: None,
            replica: None,
        };
        let member = |id: u128, name: &str, peer_address: &str| v1::Member {
            replica_id: zue_proto::id_bytes(id),
            name: name.to_owned(),
            peer_address: peer_address.to_owned(),
            client_address: String::new(),
            dial_address: String::new(),
        };
        let follower = |id: u128, connected: bool| v1::FollowerStatus {
            replica_id: zue_proto::id_bytes(id),
            connected,
            ..v1::FollowerStatus::default()
        };
        let mut leader = v1::StatusResponse {
            replica_id: zue_proto::id_bytes(1),
            members: vec![
                member(2, "zue-1", "zue-1:9441"),
                member(3, "zue-2", "elsewhere:9441"),
                member(4, "gone", "gone:9441"),
            ],
            followers: vec![follower(2, true), follower(3, false)],
            ..v1::StatusResponse::default()
        };
        leader.set_role(v1::Role::Leader);
        let told = one(&[0, 1, 2].map(node), &[], 0, &mut Ok(leader)).unwrap();
        let placed = |id, ordinal, is_reachable| Placed { replica: ReplicaId(id), ordinal, is_reachable };
        assert_eq!(told.members, [placed(2, 1, true), placed(3, 2, false)]);
        assert_eq!(told.unreached, [ReplicaId(3)]);
        // An address that was handed over and is outdated, or none, is told anew; by whoever knows a better one.
        let known: SocketAddr = "10.0.0.1:9441".parse().unwrap();
        for (last_address, dial_address, is_reachable) in [
            (Some(known), "10.0.0.1:9441", true),
            (Some(known), "10.0.0.2:9441", false),
            (Some(known), "", false),
            (None, "10.0.0.2:9441", true),
        ] {
            let node = NodeAddress { last_address, ..node(1) };
            let member = v1::Member { dial_address: dial_address.to_owned(), ..member(2, "zue-1", "zue-1:9441") };
            assert_eq!(is_current(&node, &member), is_reachable, "{node:?} {member:?}");
        }
    }
}
