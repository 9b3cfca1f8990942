//! The number of the next epoch: above every one that was ever promised or written down, as long as enough replicas accept it. A
//! replica accepts no great step, so past one that is far ahead (of a replica or of the record) it is climbed in several.

use alloc::vec::Vec;

use super::{Recorded, ReplicaRole, ReplicaStatus};
use crate::quorum::majority;
use crate::types::history::EpochStart;
use crate::types::{EPOCHS_AHEAD_MAX, Epoch, ReplicaId};

/// Those whose promises an election needs.
struct Group {
    /// Of those who can promise, and are asked.
    promised: Vec<Epoch>,
    needed: usize,
}

impl Group {
    fn accepts(&self, epoch: Epoch) -> bool {
        self.promised.iter().filter(|promised| epoch.follows(**promised)).count() >= self.needed
    }
}

/// The epoch to elect next, `without` asking one of them. `newest` names who elects; without it all nodes do.
pub(super) fn next_epoch(
    recorded: &Recorded,
    nodes: &[&ReplicaStatus],
    newest: Option<&EpochStart>,
    without: Option<ReplicaId>,
) -> Epoch {
    let known = |seen: &&ReplicaStatus| seen.promised.max(seen.last.as_ref().map_or(Epoch(0), |last| last.epoch));
    let highest = nodes.iter().map(known).max().unwrap_or_default().max(recorded.epoch);
    let highest = Epoch(highest.0.saturating_add(1));
    // One that has failed answers, and promises nothing: counted, it would be waited for with epoch after epoch.
    let can_promise = |seen: &&ReplicaStatus| seen.role != ReplicaRole::Failed && Some(seen.replica) != without;
    let able: Vec<&ReplicaStatus> = nodes.iter().copied().filter(can_promise).collect();
    let groups: Vec<Group> = match newest {
        None => {
            let promised: Vec<Epoch> = able.iter().map(|seen| seen.promised).collect();
            alloc::vec![Group { needed: promised.len(), promised }]
        }
        Some(newest) => newest.electorates().map(|voters| group(voters, &able)).collect(),
    };
    // Nobody but its leader may hold the newest start: what the others hold says who of them has to answer, and that one may be among
    // those.
    let can_tell = are_enough(&able);
    let can_choose = |epoch: Epoch| {
        let accept: Vec<&ReplicaStatus> = able.iter().copied().filter(|seen| epoch.follows(seen.promised)).collect();
        !can_tell || are_enough(&accept)
    };
    let is_enough = |epoch: &Epoch| groups.iter().all(|group| group.accepts(*epoch)) && can_choose(*epoch);
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
    let epoch = accepted.unwrap_or_else(|| {
        // Too few are near each other: those furthest behind come first. One that could have taken what is written down, and did not,
        // may never move: then it is the turn of the next.
        let was_passed_over = |promised: &&Epoch| recorded.epoch.follows(**promised);
        let lowest = promised().filter(|promised| !was_passed_over(promised)).min().or_else(|| promised().min());
        let lowest = lowest.copied().unwrap_or_default();
        steps(&lowest).into_iter().filter(is_new).max().unwrap_or(highest)
    });
    debug_assert!(epoch <= highest, "an epoch is passed over that nobody has seen");
    epoch
}

/// Each voter has to accept where all of them have to answer: to say what one of them may have lost, or, while some hold no epoch start
/// yet, whether there is one.
fn group(voters: &[ReplicaId], nodes: &[&ReplicaStatus]) -> Group {
    let voting = || nodes.iter().filter(|seen| voters.contains(&seen.replica));
    let promised: Vec<Epoch> = voting().map(|seen| seen.promised).collect();
    let all = if voting().any(|seen| seen.suspect.is_some() || seen.last.is_none()) { promised.len() } else { 0 };
    Group { needed: majority(voters.len()).max(all), promised }
}

/// Returns whether somebody could be chosen from their answers, by the newest start that any of them holds.
fn are_enough(nodes: &[&ReplicaStatus]) -> bool {
    let newest = nodes.iter().filter_map(|seen| seen.begun()).max_by_key(|last| last.epoch);
    newest.is_none_or(|newest| {
        newest.electorates().map(|voters| group(voters, nodes)).all(|group| group.promised.len() >= group.needed)
    })
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::types::{ClusterId, Offset, Tail};

    const STEP: u64 = EPOCHS_AHEAD_MAX;

    /// The next epoch of three voters that have promised these, with that one written down.
    fn next(recorded: u64, promised: &[u64]) -> u64 {
        next_with(true, None, recorded, promised)
    }

    /// The same where each may have acknowledged up to there, or none of them holds an epoch start.
    fn next_with(begun: bool, suspect: Option<Tail>, recorded: u64, promised: &[u64]) -> u64 {
        next_of(begun, suspect, recorded, promised, (&[], None))
    }

    /// The same where some have failed, and one is not asked.
    fn next_of(
        begun: bool,
        suspect: Option<Tail>,
        recorded: u64,
        promised: &[u64],
        (failed, without): (&[u128], Option<u128>),
    ) -> u64 {
        let voters = vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        let (epoch, start) = (Epoch(1), Offset(0));
        let newest = EpochStart { epoch, start, leader: ReplicaId(1), voters, quorum: 2, old_voters: None };
        let last = begun.then(|| newest.clone());
        let seen = |(id, promised): (u128, &u64)| ReplicaStatus {
            replica: ReplicaId(id),
            cluster: Some(ClusterId(9)),
            promised: Epoch(*promised),
            bound: None,
            last: last.clone(),
            durable: Tail::default(),
            suspect,
            damaged: false,
            leaving: false,
            role: if failed.contains(&id) { ReplicaRole::Failed } else { ReplicaRole::Idle { waiting_ms: 0 } },
        };
        let nodes: Vec<ReplicaStatus> = (1..).zip(promised).map(seen).collect();
        let nodes: Vec<&ReplicaStatus> = nodes.iter().collect();
        let recorded = Recorded { epoch: Epoch(recorded), ..Recorded::default() };
        next_epoch(&recorded, &nodes, Some(&newest), without.map(ReplicaId)).0
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

    /// How many epochs it takes until those who can promise agree on one, where those of them that are near enough do.
    fn tries(mut promised: Vec<u64>, suspect: Option<Tail>, failed: &[u128], without: Option<u128>) -> usize {
        let is_able = |id: u128| !failed.contains(&id) && Some(id) != without;
        let mut recorded = *promised.iter().max().unwrap();
        for tried in 1..20 {
            let epoch = next_of(true, suspect, recorded, &promised, (failed, without));
            assert_ne!(epoch, recorded, "what is written down changes with each attempt");
            recorded = epoch;
            let mut agreed = 0;
            for (id, promised) in (1..).zip(&mut promised).filter(|(id, _)| is_able(*id)) {
                if Epoch(epoch).follows(Epoch(*promised)) {
                    (*promised, agreed) = (epoch, agreed + id);
                }
            }
            // The second and the third, or all.
            if agreed >= 5 {
                return tried;
            }
        }
        panic!("no end: {promised:?}");
    }

    #[test]
    fn one_that_has_failed_is_not_waited_for_and_those_that_can_promise_come_together() {
        let lost = Some(Tail::default());
        for (failed, without) in [(&[1][..], None), (&[], Some(1))] {
            // The first has climbed with the third, out of the second one's reach; or lies behind them, who are far apart.
            assert_eq!(tries(vec![STEP + 9, 4, STEP + 9], None, failed, without), 2);
            assert_eq!(tries(vec![0, 7, STEP + 9], None, failed, without), 2);
            // What one may have lost, all have to say: all that can.
            assert_eq!(tries(vec![0, STEP + 9, STEP + 9], lost, failed, without), 1);
        }
    }

    #[test]
    fn one_that_answers_and_does_not_move_is_passed_over() {
        // The first says nothing of why: the others are brought together all the same.
        let (mut promised, mut recorded) = ([0, 2 * STEP, 4 * STEP], 4 * STEP);
        for _ in 0..20 {
            recorded = next(recorded, &promised);
            for promised in promised.iter_mut().skip(1).filter(|promised| Epoch(recorded).follows(Epoch(**promised))) {
                *promised = recorded;
            }
        }
        assert_eq!(promised[1], promised[2], "{promised:?}");
    }

    #[test]
    fn a_voter_that_is_far_behind_comes_nearer_first_where_the_others_cannot_choose_without_it() {
        // The first leads the newest epoch, and nobody has followed it. Of the start before, it is one of two voters.
        let start = |epoch: u64, voters: &[u128]| EpochStart {
            epoch: Epoch(epoch),
            start: Offset(0),
            leader: ReplicaId(1),
            voters: voters.iter().copied().map(ReplicaId).collect(),
            quorum: 2,
            old_voters: None,
        };
        let seen = |id: u128, promised: u64, last: EpochStart| ReplicaStatus {
            replica: ReplicaId(id),
            cluster: Some(ClusterId(9)),
            promised: Epoch(promised),
            bound: None,
            last: Some(last),
            durable: Tail::default(),
            suspect: None,
            damaged: false,
            leaving: false,
            role: ReplicaRole::Idle { waiting_ms: 0 },
        };
        let newest = start(5, &[1, 2, 3]);
        let nodes =
            [seen(1, 5, newest.clone()), seen(2, STEP + 9, start(4, &[1, 2])), seen(3, STEP + 9, start(3, &[1, 2, 3]))];
        let nodes: Vec<&ReplicaStatus> = nodes.iter().collect();
        let recorded = Recorded { epoch: Epoch(STEP + 9), ..Recorded::default() };
        assert_eq!(next_epoch(&recorded, &nodes, Some(&newest), None), Epoch(STEP + 5));
        // Without it they can do nothing, and try what they can.
        assert_eq!(next_epoch(&recorded, &nodes[1..], Some(&newest), None), Epoch(STEP + 10));
    }
}
