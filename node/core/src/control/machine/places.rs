//! At which node each replica is: as it answered last, else as the others were told. Saves guesses only, and so may be forgotten.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::io::Placed;
use crate::control::ReplicaStatus;
use crate::types::ReplicaId;

/// The ordinal of each replica's node, of those that answer or vote.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(BTreeMap<ReplicaId, usize>);

/// The node at which a replica answers.
pub(super) fn ordinal_of(seen: &[Option<ReplicaStatus>], replica: ReplicaId) -> Option<usize> {
    seen.iter().position(|seen| seen.as_ref().is_some_and(|seen| seen.replica == replica))
}

impl Places {
    /// Takes note of who answered where, and of what those say.
    pub(super) fn learn(&mut self, seen: &[Option<ReplicaStatus>], told: impl Iterator<Item = Placed>) {
        for placed in told {
            self.0.entry(placed.replica).or_insert(placed.ordinal);
        }
        for (ordinal, seen) in seen.iter().enumerate() {
            if let Some(seen) = seen {
                self.0.insert(seen.replica, ordinal);
            }
        }
        let starts = || seen.iter().flatten().filter_map(ReplicaStatus::begun);
        if starts().next().is_some() {
            let answers = |id: &ReplicaId| seen.iter().flatten().any(|seen| seen.replica == *id);
            let votes = |id: &ReplicaId| starts().any(|start| start.elects(*id));
            self.0.retain(|id, ordinal| *ordinal < seen.len() && (answers(id) || votes(id)));
        }
    }

    /// The node of each voter. One that does not answer now is where it was known to be, else it is looked for at the node of its place
    /// among the voters (the order of a bootstrap), else at the first node that no voter is at. A wrong guess does no harm: a replica
    /// refuses what is meant for another, and the leader is told better once that voter answers.
    pub(super) fn of(&self, voters: &[ReplicaId], seen: &[Option<ReplicaStatus>]) -> Vec<(ReplicaId, Option<usize>)> {
        let is_free = |place: &usize| !voters.iter().any(|voter| ordinal_of(seen, *voter) == Some(*place));
        let known = |voter: ReplicaId| ordinal_of(seen, voter).or_else(|| self.0.get(&voter).copied().filter(is_free));
        let taken: Vec<usize> = voters.iter().filter_map(|voter| known(*voter)).collect();
        let mut free: Vec<usize> = (0..seen.len()).filter(|ordinal| !taken.contains(ordinal)).collect();
        let mut take = |place: usize| {
            let at = free.iter().position(|ordinal| *ordinal == place).or(if free.is_empty() { None } else { Some(0) });
            at.map(|at| free.remove(at))
        };
        voters.iter().enumerate().map(|(place, voter)| (*voter, known(*voter).or_else(|| take(place)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::control::ReplicaRole;
    use crate::types::history::EpochStart;
    use crate::types::{ClusterId, Epoch, Offset, Tail};

    #[expect(clippy::unnecessary_wraps, reason = "stands beside nodes that do not answer")]
    fn voter(replica: u128) -> Option<ReplicaStatus> {
        let voters = [1, 2, 3].map(ReplicaId).to_vec();
        let (epoch, start, leader) = (Epoch(1), Offset(0), ReplicaId(1));
        Some(ReplicaStatus {
            replica: ReplicaId(replica),
            cluster: Some(ClusterId(9)),
            promised: Epoch(1),
            bound: None,
            last: Some(EpochStart { epoch, start, leader, voters, quorum: 2, old_voters: None }),
            durable: Tail::default(),
            suspect: None,
            damaged: false,
            leaving: false,
            role: ReplicaRole::Idle { waiting_ms: 0 },
        })
    }

    fn blank(replica: u128) -> Option<ReplicaStatus> {
        Some(ReplicaStatus { last: None, cluster: None, ..voter(replica)? })
    }

    fn places(known: &Places, seen: &[Option<ReplicaStatus>]) -> Vec<Option<usize>> {
        known.of(&[1, 2, 3].map(ReplicaId), seen).into_iter().map(|(_, ordinal)| ordinal).collect()
    }

    #[test]
    fn a_voter_is_where_it_answers_else_at_its_place() {
        let none = Places::default();
        assert_eq!(places(&none, &[blank(1), None, None]), [Some(0), Some(1), Some(2)]);
        assert_eq!(places(&none, &[blank(2), blank(1), None]), [Some(1), Some(0), Some(2)]);
    }

    #[test]
    fn a_voter_whose_place_is_taken_is_looked_for_where_no_voter_answers() {
        assert_eq!(places(&Places::default(), &[blank(2), None, blank(3)]), [Some(1), Some(0), Some(2)]);
    }

    #[test]
    fn a_voter_whose_disk_was_emptied_keeps_its_place() {
        assert_eq!(places(&Places::default(), &[blank(1), blank(77), blank(3)]), [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_replica_that_falls_silent_is_where_it_answered_last() {
        let mut known = Places::default();
        known.learn(&[voter(3), voter(1), voter(7)], [].into_iter());
        known.learn(&[None, voter(1), None], [].into_iter());
        assert_eq!(places(&known, &[None, voter(1), None]), [Some(1), Some(2), Some(0)]);
        assert_eq!(known.0.get(&ReplicaId(7)), None, "it does not vote");
    }

    #[test]
    fn a_replica_that_never_answered_is_where_the_others_were_told() {
        let mut known = Places::default();
        let placed = |(id, ordinal)| Placed { replica: ReplicaId(id), ordinal, is_reachable: true };
        let told = vec![(2, 2), (3, 0)].into_iter().map(placed).collect::<Vec<_>>();
        known.learn(&[None, voter(1), None], told.into_iter());
        assert_eq!(places(&known, &[None, voter(1), None]), [Some(1), Some(2), Some(0)]);
    }
}
