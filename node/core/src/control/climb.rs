//! The number of the next epoch: above every one that was ever promised or written down, as long as enough replicas accept it. A
//! replica accepts no great step, so past one that is far ahead (of a replica or of the record) it is climbed in several.

use alloc::vec::Vec;

use super::{Recorded, Seen};
use crate::history::EpochStart;
use crate::quorum::majority;
use crate::types::{EPOCHS_AHEAD_MAX, Epoch, ReplicaId};

use super::plan::electorates;

/// Those whose promises an election needs.
struct Group {
    promised: Vec<Epoch>,
    needed: usize,
}

impl Group {
    fn accepts(&self, epoch: Epoch) -> bool {
        self.promised.iter().filter(|promised| epoch.follows(**promised)).count() >= self.needed
    }
}

/// The epoch to elect next. `newest` names who elects; without it all nodes do.
pub(super) fn next_epoch(recorded: &Recorded, nodes: &[&Seen], newest: Option<&EpochStart>) -> Epoch {
    let known = |seen: &&Seen| seen.promised.max(seen.last.as_ref().map_or(Epoch(0), |last| last.epoch));
    let highest = nodes.iter().map(known).max().unwrap_or_default().max(recorded.epoch);
    let highest = Epoch(highest.0.saturating_add(1));
    let groups: Vec<Group> = match newest {
        None => {
            let promised: Vec<Epoch> = nodes.iter().map(|seen| seen.promised).collect();
            alloc::vec![Group { needed: promised.len(), promised }]
        }
        Some(newest) => electorates(newest).map(|voters| group(voters, nodes)).collect(),
    };
    let is_enough = |epoch: &Epoch| groups.iter().all(|group| group.accepts(*epoch));
    if is_enough(&highest) {
        return highest;
    }
    // What is written down must change with each attempt, so that of two controllers one gives way.
    let is_new = |epoch: &Epoch| *epoch != recorded.epoch && *epoch < highest;
    let steps = |promised: &Epoch| {
        let furthest = promised.0.saturating_add(EPOCHS_AHEAD_MAX);
        [promised.0.saturating_add(1), furthest.saturating_sub(1), furthest].map(Epoch)
    };
    let promised = || groups.iter().flat_map(|group| &group.promised);
    let accepted = promised().flat_map(steps).filter(is_new).filter(is_enough).max();
    accepted.unwrap_or_else(|| {
        // Too few are near each other: those furthest behind come first.
        let lowest = promised().min().copied().unwrap_or_default();
        steps(&lowest).into_iter().filter(is_new).max().unwrap_or(highest)
    })
}

/// Each voter has to accept where all of them have to answer: to say what one of them may have lost, or, while some hold no epoch start
/// yet, whether there is one.
fn group(voters: &[ReplicaId], nodes: &[&Seen]) -> Group {
    let voting = || nodes.iter().filter(|seen| voters.contains(&seen.replica));
    let promised: Vec<Epoch> = voting().map(|seen| seen.promised).collect();
    let all = if voting().any(|seen| seen.suspect.is_some() || seen.last.is_none()) { promised.len() } else { 0 };
    Group { needed: majority(voters.len()).max(all), promised }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::control::SeenRole;
    use crate::types::{Offset, Tail};

    const STEP: u64 = EPOCHS_AHEAD_MAX;

    /// The next epoch of three voters that have promised these, with that one written down.
    fn next(recorded: u64, promised: &[u64]) -> u64 {
        next_with(true, None, recorded, promised)
    }

    /// The same where each may have acknowledged up to there, or none of them holds an epoch start.
    fn next_with(begun: bool, suspect: Option<Tail>, recorded: u64, promised: &[u64]) -> u64 {
        let voters = vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        let (epoch, start) = (Epoch(1), Offset(0));
        let newest = EpochStart { epoch, start, leader: ReplicaId(1), voters, quorum: 2, old_voters: None };
        let last = begun.then(|| newest.clone());
        let seen = |(id, promised): (u128, &u64)| Seen {
            replica: ReplicaId(id),
            cluster: None,
            promised: Epoch(*promised),
            bound: None,
            last: last.clone(),
            durable: Tail::default(),
            suspect,
            damaged: false,
            leaving: false,
            role: SeenRole::Failed,
        };
        let nodes: Vec<Seen> = (1..).zip(promised).map(seen).collect();
        let nodes: Vec<&Seen> = nodes.iter().collect();
        let recorded = Recorded { epoch: Epoch(recorded), ..Recorded::default() };
        next_epoch(&recorded, &nodes, Some(&newest)).0
    }

    #[test]
    fn it_is_above_all_that_is_promised_and_written_down() {
        assert_eq!(next(4, &[4, 4, 4]), 5);
        assert_eq!(next(9, &[4, 7, 4]), 10);
        assert_eq!(next(4, &[4, STEP, 4]), STEP + 1);
    }

    #[test]
    fn one_that_is_far_ahead_is_passed_in_steps_that_a_majority_accepts() {
        assert_eq!(next(4, &[4, STEP + 4, 4]), STEP + 4);
        assert_eq!(next(STEP + 4, &[STEP + 4, STEP + 4, STEP + 4]), STEP + 5);
        assert_eq!(next(4, &[4, u64::MAX, 4]), STEP + 4);
        assert_eq!(next(4, &[4, u64::MAX]), STEP + 4, "only the nearest accepts it");
    }

    #[test]
    fn a_record_that_is_far_ahead_of_every_promise_is_written_anew() {
        for recorded in [STEP + 5, 1 << 40, u64::MAX - 1, u64::MAX] {
            assert_eq!(next(recorded, &[4, 4, 4]), STEP + 4);
        }
        assert_eq!(next(STEP + 4, &[4, 4, 4]), STEP + 3, "the record changes with each attempt");
    }

    #[test]
    fn promises_that_lie_far_apart_come_together_in_the_end() {
        let (mut promised, mut recorded) = ([0, 3 * STEP, 7 * STEP], 7 * STEP);
        for _ in 0..20 {
            let epoch = next(recorded, &promised);
            let accepts = |promised: &u64| *promised < epoch && epoch - *promised <= STEP;
            assert!(epoch != recorded && promised.iter().any(accepts), "{epoch} after {promised:?}");
            recorded = epoch;
            promised.iter_mut().filter(|promised| accepts(promised)).for_each(|promised| *promised = epoch);
        }
        assert!(promised.iter().all(|epoch| *epoch >= 7 * STEP), "{promised:?}");
    }

    #[test]
    fn where_all_voters_have_to_answer_the_one_that_is_far_behind_comes_nearer_first() {
        let (lost, behind) = (Some(Tail::default()), [STEP + 9, 3, STEP + 9]);
        assert_eq!(next(STEP + 9, &behind), STEP + 10);
        for (begun, suspect) in [(true, lost), (false, None)] {
            assert_eq!(next_with(begun, suspect, STEP + 9, &behind), STEP + 3);
            assert_eq!(next_with(begun, suspect, STEP + 3, &[STEP + 9, STEP + 3, STEP + 9]), STEP + 10);
        }
    }
}
