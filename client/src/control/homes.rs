//! At which node each replica is: as it answered last, else as the others were told. Saves guesses only, and so may be forgotten.

use std::collections::HashMap;

use zue_core::ReplicaId;
use zue_core::control::Seen;
use zue_proto::v1;

use super::NodeAddress;

/// The ordinal of each replica's node, of those that answer or vote.
#[derive(Debug, Default)]
pub(super) struct Homes(HashMap<ReplicaId, usize>);

impl Homes {
    pub(super) fn of(&self, replica: ReplicaId) -> Option<usize> {
        self.0.get(&replica).copied()
    }

    /// Takes note of who answered where, and of what those say.
    pub(super) fn learn(
        &mut self,
        nodes: &[NodeAddress],
        statuses: &[Result<v1::StatusResponse, String>],
        seen: &[Option<Seen>],
    ) {
        for member in statuses.iter().flatten().flat_map(|status| &status.members) {
            let Ok(id) = zue_proto::replica_id("members", &member.replica_id) else { continue };
            if let Some(ordinal) = nodes.iter().position(|node| node.name == member.name) {
                self.0.entry(id).or_insert(ordinal);
            }
        }
        for (ordinal, seen) in seen.iter().enumerate() {
            if let Some(seen) = seen {
                self.0.insert(seen.replica, ordinal);
            }
        }
        let starts = || seen.iter().flatten().filter_map(|seen| seen.last.as_ref());
        if starts().next().is_some() {
            let answers = |id: &ReplicaId| seen.iter().flatten().any(|seen| seen.replica == *id);
            let votes = |id: &ReplicaId| {
                starts()
                    .any(|start| start.voters.contains(id) || start.old_voters.iter().flatten().any(|old| old == id))
            };
            self.0.retain(|id, ordinal| *ordinal < nodes.len() && (answers(id) || votes(id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use zue_core::control::SeenRole;
    use zue_core::{ClusterId, Epoch, EpochStart, Offset, Tail};

    use super::*;

    fn node(ordinal: usize) -> NodeAddress {
        let name = format!("zue-{ordinal}");
        NodeAddress { peer_address: format!("{name}:1"), client_address: format!("{name}:2"), dial_address: None, name }
    }

    #[expect(clippy::unnecessary_wraps, reason = "stands beside nodes that do not answer")]
    fn voter(replica: u128) -> Option<Seen> {
        let last = EpochStart {
            epoch: Epoch(1),
            start: Offset(0),
            leader: ReplicaId(1),
            voters: [1, 2, 3].map(ReplicaId).to_vec(),
            quorum: 2,
            old_voters: None,
        };
        Some(Seen {
            replica: ReplicaId(replica),
            cluster: Some(ClusterId(9)),
            promised: Epoch(1),
            bound: None,
            last: Some(last),
            durable: Tail::default(),
            suspect: None,
            damaged: false,
            leaving: false,
            role: SeenRole::Idle { waiting_ms: 0 },
        })
    }

    #[test]
    fn a_replica_that_falls_silent_is_where_it_answered_last() {
        let (nodes, mut homes) = ([0, 1, 2].map(node), Homes::default());
        homes.learn(&nodes, &[], &[voter(3), voter(1), voter(7)]);
        homes.learn(&nodes, &[], &[None, voter(1), None]);
        assert_eq!([1, 3, 7].map(|id| homes.of(ReplicaId(id))), [Some(1), Some(0), None]);
    }

    #[test]
    fn a_replica_that_never_answered_is_where_the_others_were_told() {
        let (nodes, mut homes) = ([0, 1, 2].map(node), Homes::default());
        let member = |id, name: &str| v1::Member {
            replica_id: zue_proto::id_bytes(id),
            name: name.to_owned(),
            ..v1::Member::default()
        };
        let members = vec![member(2, "zue-2"), member(3, "zue-0"), member(1, "elsewhere")];
        let told = v1::StatusResponse { members, ..v1::StatusResponse::default() };
        homes.learn(&nodes, &[Ok(told)], &[None, voter(1), None]);
        assert_eq!([1, 2, 3].map(|id| homes.of(ReplicaId(id))), [Some(1), Some(2), Some(0)]);
    }
}
