//! From what replicas answer to what the rules look at. Pure.

use std::collections::HashMap;

use bytes::Bytes;
use zue_core::control::{Seen, SeenRole};
use zue_core::{ClusterId, Epoch, Offset, ReplicaId, Tail};
use zue_proto::{Malformed, v1};

use crate::notices::{self, Facts, Notice};

use super::NodeAddress;
use super::homes::Homes;

/// A leader is not asked to hand over to who lacks more than this: while that is on its way, appends are held. Of one that does not
/// say how much, as before this version, records alone count.
const HAND_OVER_BYTES_MAX: u64 = 8 << 20;

/// What is seen of every node. A status that makes no sense, or comes from a replica that has answered already under another
/// name, becomes an error in `statuses`.
pub(super) fn all(statuses: &mut [Result<v1::StatusResponse, String>]) -> Vec<Option<Seen>> {
    let mut ordinals: HashMap<ReplicaId, usize> = HashMap::new();
    let names: Vec<String> =
        statuses.iter().map(|status| status.as_ref().map_or("", |status| &status.name).into()).collect();
    let name = |ordinal: usize| names.get(ordinal).map_or("", String::as_str);
    let mut see = |(ordinal, status): (usize, &mut Result<v1::StatusResponse, String>)| {
        let seen = one(status.as_ref().ok()?).map_err(|malformed| format!("its status makes no sense: {malformed}"));
        let seen = seen.and_then(|seen| match ordinals.insert(seen.replica, ordinal) {
            None => Ok(seen),
            Some(first) if name(first) == name(ordinal) => {
                Err(format!("{}, node {first}, answers here too: two addresses lead to one place", name(first)))
            }
            Some(first) => Err(format!(
                "{} runs on the disk of the same replica as {}, node {first}: one is a copy of the other, and only that one counts",
                name(ordinal),
                name(first)
            )),
        });
        seen.map_err(|why| *status = Err(why)).ok()
    };
    statuses.iter_mut().enumerate().map(&mut see).collect()
}

fn one(status: &v1::StatusResponse) -> Result<Seen, Malformed> {
    let durable = zue_proto::tail(status.durable);
    Ok(Seen {
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

/// What is odd about the replicas side by side.
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

/// A cluster begins with an epoch start: one that was only named, by an appointment that died, binds nobody.
pub(super) fn begun_cluster(cluster_id: &[u8], durable: Tail) -> Result<Option<ClusterId>, Malformed> {
    Ok(zue_proto::cluster_id(cluster_id)?.filter(|_| durable.epoch > Epoch(0)))
}

fn role(status: &v1::StatusResponse) -> Result<SeenRole, Malformed> {
    let silence_ms = status.leader_silence_ms.unwrap_or(u64::MAX);
    Ok(match status.role() {
        v1::Role::Unspecified | v1::Role::Idle => SeenRole::Idle { waiting_ms: silence_ms },
        v1::Role::Failed => SeenRole::Failed,
        v1::Role::Follower => SeenRole::Follower { silence_ms, connected: status.leader_connected },
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
            SeenRole::Leader {
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

/// Which node a replica answers at.
pub(super) fn ordinal_of(seen: &[Option<Seen>], replica: ReplicaId) -> Option<usize> {
    seen.iter().position(|seen| seen.as_ref().is_some_and(|seen| seen.replica == replica))
}

/// Who leads the newest epoch that is led, if it is that one or a newer one: any older is outdated.
pub(super) fn newest_leader(seen: &[Option<Seen>], epoch: Epoch) -> Option<ReplicaId> {
    let leads = |seen: &&Seen| matches!(seen.role, SeenRole::Leader { .. });
    let led = |seen: &Seen| seen.last.as_ref().map(|last| (last.epoch, seen.replica));
    let newest = seen.iter().flatten().filter(leads).filter_map(led).max()?;
    Some(newest).filter(|(led, _)| *led >= epoch).map(|(_, leader)| leader)
}

pub(super) fn cluster_bytes(cluster: Option<ClusterId>) -> Bytes {
    cluster.map_or_else(Bytes::new, |cluster| zue_proto::id_bytes(cluster.0))
}

/// Where each voter is reached. One that does not answer now is where it was known to be, else it is looked for at the node of its
/// place among the voters (the order of a bootstrap), else at the first node that no voter is at. A wrong guess does no harm: a
/// replica refuses what is meant for another, and the leader is told better once that voter answers.
pub(super) fn members(
    voters: &[ReplicaId],
    nodes: &[NodeAddress],
    seen: &[Option<Seen>],
    homes: &Homes,
) -> Vec<v1::Member> {
    let is_free = |home: &usize| !voters.iter().any(|voter| ordinal_of(seen, *voter) == Some(*home));
    let known = |voter: ReplicaId| ordinal_of(seen, voter).or_else(|| homes.of(voter).filter(is_free));
    let taken: Vec<usize> = voters.iter().filter_map(|voter| known(*voter)).collect();
    let mut free: Vec<usize> = (0..nodes.len()).filter(|ordinal| !taken.contains(ordinal)).collect();
    let mut take = |place: usize| {
        let at = free.iter().position(|ordinal| *ordinal == place).or(if free.is_empty() { None } else { Some(0) });
        at.map(|at| free.remove(at))
    };
    let guesses: Vec<Option<usize>> =
        voters.iter().enumerate().map(|(place, voter)| known(*voter).or_else(|| take(place))).collect();
    let member = |(voter, ordinal): (&ReplicaId, Option<usize>)| {
        let node = ordinal.and_then(|ordinal| nodes.get(ordinal));
        let text = |field: fn(&NodeAddress) -> &String| node.map(field).cloned().unwrap_or_default();
        v1::Member {
            replica_id: zue_proto::id_bytes(voter.0),
            name: text(|node| &node.name),
            peer_address: text(|node| &node.peer_address),
            client_address: text(|node| &node.client_address),
        }
    };
    voters.iter().zip(guesses).map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ordinal: usize) -> NodeAddress {
        let name = format!("zue-{ordinal}");
        NodeAddress {
            peer_address: format!("{name}:9441"),
            client_address: format!("{name}:9440"),
            dial_address: None,
            name,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "stands beside nodes that do not answer")]
    fn seen(replica: u128, cluster: Option<u128>) -> Option<Seen> {
        Some(Seen {
            replica: ReplicaId(replica),
            cluster: cluster.map(ClusterId),
            promised: Epoch(0),
            bound: None,
            last: None,
            durable: Tail::default(),
            suspect: None,
            damaged: false,
            leaving: false,
            role: SeenRole::Idle { waiting_ms: 0 },
        })
    }

    fn names(voters: &[u128], seen: &[Option<Seen>]) -> Vec<String> {
        let voters: Vec<_> = voters.iter().copied().map(ReplicaId).collect();
        let nodes: Vec<_> = (0..seen.len()).map(node).collect();
        members(&voters, &nodes, seen, &Homes::default()).into_iter().map(|member| member.name).collect()
    }

    #[test]
    fn a_voter_is_where_it_answers_else_at_its_place() {
        assert_eq!(names(&[10, 11, 12], &[seen(10, None), None, None]), ["zue-0", "zue-1", "zue-2"]);
        assert_eq!(names(&[10, 11, 12], &[seen(11, None), seen(10, None), None]), ["zue-1", "zue-0", "zue-2"]);
    }

    #[test]
    fn a_voter_whose_place_is_taken_is_looked_for_where_no_voter_answers() {
        assert_eq!(names(&[10, 11, 12], &[seen(11, None), None, seen(12, None)]), ["zue-1", "zue-0", "zue-2"]);
    }

    #[test]
    fn a_voter_whose_disk_was_emptied_keeps_its_address() {
        assert_eq!(
            names(&[10, 11, 12], &[seen(10, None), seen(77, None), seen(12, None)]),
            ["zue-0", "zue-1", "zue-2"]
        );
    }

    #[test]
    fn one_replica_at_two_addresses_is_seen_once() {
        let status = v1::StatusResponse { replica_id: zue_proto::id_bytes(7), ..Default::default() };
        let mut statuses = [Ok(status.clone()), Ok(status)];
        let seen = all(&mut statuses);
        assert_eq!((seen[0].is_some(), seen[1].is_some(), statuses[1].is_err()), (true, false, true));
    }
}
