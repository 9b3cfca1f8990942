//! The plan for changes of the members: every shape of one, and whole changes step by step.

use alloc::string::String;
use alloc::vec;

use super::*;
use crate::control::election::Change::{self, Add, Remove};
use crate::quorum::effective_quorum;

/// The replica at a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Silent,
    Replica(u128),
}
use At::{Replica, Silent};

/// A cluster whose replica 1 leads epoch 4, unless it is said otherwise.
#[derive(Clone, Debug)]
struct Shape {
    replicas: usize,
    leader: u128,
    voters: Vec<u128>,
    old: Option<Vec<u128>>,
    settled: bool,
    /// The replicas that hold the epoch's start beside the leader, if it is not settled.
    held: Vec<u128>,
    quorum: Option<u32>,
    learners: Vec<u128>,
    late: Vec<u128>,
    nodes: Vec<At>,
}

fn ids(numbers: &[u128]) -> Vec<ReplicaId> {
    numbers.iter().copied().map(ReplicaId).collect()
}

impl Shape {
    fn new(replicas: usize, voters: &[u128], nodes: &[At]) -> Self {
        Self {
            replicas,
            leader: 1,
            voters: voters.to_vec(),
            old: None,
            settled: true,
            held: vec![],
            quorum: None,
            learners: vec![],
            late: vec![],
            nodes: nodes.to_vec(),
        }
    }

    fn wish(&self) -> Wish {
        let (policy, detection_ms) = (Policy::Automatic, 1000);
        Wish {
            replicas: self.replicas,
            policy,
            ordinal: 0,
            switch_to: None,
            detection_ms,
            quorum: self.quorum,
            standby_after_ms: None,
        }
    }

    fn nodes(&self) -> Vec<Option<ReplicaStatus>> {
        let old = self.old.iter().flatten().filter(|id| !self.voters.contains(id));
        let fed = self.voters.iter().chain(old).chain(&self.learners).filter(|id| **id != self.leader);
        let follower = |id: &u128| (ReplicaId(*id), !self.late.contains(id), Offset(5));
        let followers: Vec<_> = fed.map(follower).collect();
        let start = EpochStart {
            epoch: Epoch(4),
            start: Offset(0),
            leader: ReplicaId(self.leader),
            voters: ids(&self.voters),
            quorum: effective_quorum(self.voters.len(), self.quorum),
            old_voters: self.old.as_deref().map(ids),
        };
        let holds = |id| self.settled || id == self.leader || self.held.contains(&id);
        let seen = |at: &At| {
            let Replica(id) = *at else { return None };
            let (log_end, settled, followers) = (Offset(5), self.settled, followers.clone());
            let leader =
                ReplicaRole::Leader { log_end, settled, followers, far: vec![], handing_over: false, switch_to: None };
            let follower = ReplicaRole::Follower { silence_ms: 9, connected: true };
            Some(ReplicaStatus {
                replica: ReplicaId(id),
                cluster: Some(ClusterId(9)),
                promised: Epoch(4),
                bound: None,
                last: Some(if holds(id) { start.clone() } else { EpochStart { epoch: Epoch(3), ..start.clone() } }),
                durable: Tail { epoch: Epoch(4), end: Offset(5) },
                suspect: None,
                damaged: false,
                leaving: false,
                role: if id == self.leader { leader } else { follower },
            })
        };
        self.nodes.iter().map(seen).collect()
    }

    fn step(&self) -> Step {
        let recorded = Recorded { epoch: Epoch(4), leader: None, cluster: Some(ClusterId(9)) };
        plan(&self.wish(), &recorded, &self.nodes())
    }

    /// Does what is planned, with all that are not late in sync, until nothing is left to do.
    fn run(mut self) -> Vec<String> {
        let mut told = vec![];
        for _ in 0..40 {
            match self.step() {
                Step::Nothing => return told,
                Step::Feed { learners, .. } => self.learners = learners.iter().map(|id| id.0).collect(),
                Step::HandOver { to, .. } => {
                    told.push(alloc::format!("lead {}", to.0));
                    (self.leader, self.learners) = (to.0, vec![]);
                }
                Step::Elect { change, .. } => {
                    let before = self.voters.clone();
                    (self.old, self.learners) = (change.map(|_| before), vec![]);
                    told.push(match change {
                        Some(Add(id)) => {
                            self.voters.push(id.0);
                            alloc::format!("add {}", id.0)
                        }
                        Some(Remove(id)) => {
                            self.voters.retain(|voter| *voter != id.0);
                            alloc::format!("remove {}", id.0)
                        }
                        None => "settle".into(),
                    });
                }
                Step::Blocked(blocked) => panic!("{blocked}"),
            }
        }
        panic!("no end: {told:?}")
    }
}

fn change(change: Change) -> Step {
    let (epoch, prefer) = (Epoch(5), Some(ReplicaId(1)));
    Step::Elect { epoch, prefer, without: None, change: Some(change), reason: Reason::VotersChange }
}

const FIVE: [At; 5] = [Replica(1), Replica(2), Replica(3), Replica(4), Replica(5)];

#[test]
fn a_cluster_grows_by_one_voter_after_the_other() {
    let three = Shape::new(3, &[1], &FIVE[..3]).run();
    assert_eq!(three, ["add 2", "add 3", "settle"]);
    assert_eq!(Shape::new(5, &[1, 2, 3], &FIVE).run(), ["add 4", "add 5", "settle"]);
}

#[test]
fn a_cluster_shrinks_from_its_highest_ordinal_and_a_leader_there_hands_over_first() {
    assert_eq!(Shape::new(3, &[1, 2, 3, 4, 5], &FIVE).run(), ["remove 5", "remove 4", "settle"]);
    assert_eq!(Shape::new(1, &[1, 2, 3], &FIVE[..3]).run(), ["remove 3", "remove 2", "settle"]);
    let led_by_the_last = Shape { leader: 3, ..Shape::new(1, &[1, 2, 3], &FIVE[..3]) };
    assert_eq!(led_by_the_last.run(), ["lead 1", "remove 3", "remove 2", "settle"]);
}

#[test]
fn a_lost_disk_is_replaced_once_the_new_replica_has_caught_up() {
    let nodes = [Replica(1), Replica(2), Replica(7)];
    let lost = Shape::new(3, &[1, 2, 3], &nodes);
    assert_eq!(lost.step(), Step::Feed { epoch: Epoch(4), leader: ReplicaId(1), learners: ids(&[7]) });
    let learns = Shape { learners: vec![7], late: vec![3, 7], ..lost.clone() };
    assert_eq!(learns.step(), Step::Nothing);
    let ready = Shape { late: vec![3], ..learns.clone() };
    assert_eq!(ready.step(), change(Remove(ReplicaId(3))));
    assert_eq!(Shape { late: vec![3], ..lost }.run(), ["remove 3", "add 7", "settle"]);
}

#[test]
fn the_disk_of_a_leader_that_was_replaced_is_no_different() {
    let nodes = [Replica(7), Replica(2), Replica(3)];
    let lost = Shape { leader: 2, late: vec![1], ..Shape::new(3, &[1, 2, 3], &nodes) };
    assert_eq!(lost.run(), ["remove 1", "add 7", "settle"]);
}

#[test]
fn a_lost_disk_is_replaced_even_if_all_voters_are_to_commit() {
    let nodes = [Replica(1), Replica(2), Replica(7)];
    let three = Shape { quorum: Some(3), late: vec![3], ..Shape::new(3, &[1, 2, 3], &nodes) };
    // The leader has changed since: this epoch's start reaches no quorum any more.
    let lost = Shape { settled: false, held: vec![2], learners: vec![7], ..three };
    assert_eq!(lost.step(), change(Remove(ReplicaId(3))));
    assert_eq!(Shape { held: vec![], ..lost.clone() }.step(), Step::Nothing);
    assert_eq!(lost.run(), ["remove 3", "add 7", "settle"]);
    // Nor does that of an added voter whose disk is lost as well, before it was settled.
    let old = Some(vec![1, 2]);
    let again = Shape {
        quorum: Some(3),
        late: vec![7],
        old,
        ..Shape::new(3, &[1, 2, 7], &[Replica(1), Replica(2), Replica(8)])
    };
    let again = Shape { settled: false, held: vec![2], learners: vec![8], ..again };
    assert_eq!(again.run(), ["remove 7", "add 8", "settle"]);
}

#[test]
fn a_changed_quorum_takes_effect_once_it_would_commit() {
    let elect = Step::Elect {
        epoch: Epoch(5),
        prefer: Some(ReplicaId(1)),
        without: None,
        change: None,
        reason: Reason::QuorumChange,
    };
    let recorded = Recorded { epoch: Epoch(4), leader: None, cluster: Some(ClusterId(9)) };
    let asked = |shape: &Shape, quorum| plan(&Wish { quorum, ..shape.wish() }, &recorded, &shape.nodes());
    let two = Shape::new(3, &[1, 2, 3], &FIVE[..3]);
    assert_eq!(asked(&two, Some(3)), elect);
    assert_eq!(asked(&two, Some(2)), Step::Nothing);
    assert_eq!(asked(&two, Some(1)), Step::Nothing);
    assert_eq!(asked(&Shape { late: vec![3], ..two }, Some(3)), Step::Nothing);
    // One of three is down, and all were to commit.
    let all = Shape { quorum: Some(3), late: vec![3], ..Shape::new(3, &[1, 2, 3], &[Replica(1), Replica(2), Silent]) };
    let all = Shape { settled: false, held: vec![2], ..all };
    assert_eq!(asked(&all, Some(3)), Step::Nothing);
    assert_eq!(asked(&all, None), elect);
}

#[test]
fn a_voter_that_merely_does_not_answer_is_not_removed() {
    let down = Shape { late: vec![3], ..Shape::new(3, &[1, 2, 3], &[Replica(1), Replica(2), Silent]) };
    assert_eq!(down.step(), Step::Nothing);
    // Nor while it cannot be told which of two is lost and which is only down.
    let nodes = [Replica(1), Replica(2), Replica(3), Silent, Replica(7)];
    let two = Shape { learners: vec![7], late: vec![4, 5], ..Shape::new(5, &[1, 2, 3, 4, 5], &nodes) };
    assert_eq!(two.step(), Step::Nothing);
    // One at a node that is to go is, whether or not it answers.
    let nodes = [Replica(1), Replica(2), Replica(3), Replica(4), Silent];
    let beyond = Shape { late: vec![5], ..Shape::new(3, &[1, 2, 3, 4, 5], &nodes) };
    assert_eq!(beyond.step(), change(Remove(ReplicaId(5))));
    let gone = Shape { nodes: FIVE[..4].to_vec(), ..beyond };
    assert_eq!(gone.step(), change(Remove(ReplicaId(5))));
}

#[test]
fn no_voter_goes_while_those_left_could_not_commit_nor_comes_before_it_has_caught_up() {
    let late = Shape { late: vec![2], ..Shape::new(1, &[1, 2, 3], &FIVE[..3]) };
    // Two voters need both: the one that is late goes first, however low its ordinal.
    assert_eq!(late.step(), change(Remove(ReplicaId(2))));
    let both_late = Shape { late: vec![2, 3], ..late };
    assert_eq!(both_late.step(), Step::Nothing);
    let learns = Shape { learners: vec![2, 3], late: vec![2, 3], ..Shape::new(3, &[1], &FIVE[..3]) };
    assert_eq!(learns.step(), Step::Nothing);
    assert_eq!(Shape { late: vec![2], ..learns }.step(), change(Add(ReplicaId(3))));
    // Four of four are to commit, and one is late.
    let strict = Shape { learners: vec![4], late: vec![3], ..Shape::new(4, &[1, 2, 3], &FIVE[..4]) };
    let wish = Wish { quorum: Some(4), ..strict.wish() };
    let recorded = Recorded { epoch: Epoch(4), leader: None, cluster: Some(ClusterId(9)) };
    assert_eq!(plan(&wish, &recorded, &strict.nodes()), Step::Nothing);
}

#[test]
fn a_leader_that_nobody_can_take_over_from_stays_for_now() {
    let stays = Shape { leader: 4, late: vec![1], ..Shape::new(1, &[1, 2, 3, 4], &FIVE[..4]) };
    let (epoch, prefer, reason) = (Epoch(5), Some(ReplicaId(4)), Reason::VotersChange);
    let remove_3 = Step::Elect { epoch, prefer, without: None, change: Some(Remove(ReplicaId(3))), reason };
    assert_eq!(stays.step(), remove_3);
}

#[test]
fn a_learner_is_not_proposed_before_it_holds_the_start_of_the_epoch_by_its_own_word() {
    let shape = Shape { learners: vec![4], ..Shape::new(4, &[1, 2, 3], &FIVE[..4]) };
    let mut nodes = shape.nodes();
    let recorded = Recorded { epoch: Epoch(4), leader: None, cluster: Some(ClusterId(9)) };
    assert_eq!(plan(&shape.wish(), &recorded, &nodes), change(Add(ReplicaId(4))));
    nodes[3].as_mut().unwrap().durable.epoch = Epoch(3);
    assert_eq!(plan(&shape.wish(), &recorded, &nodes), Step::Nothing);
    // Nor is a lost voter removed for its sake.
    let shape = Shape { learners: vec![4], ..Shape::new(3, &[1, 2, 3], &[Replica(1), Replica(2), Replica(4)]) };
    let mut nodes = shape.nodes();
    assert_eq!(plan(&shape.wish(), &recorded, &nodes), change(Remove(ReplicaId(3))));
    nodes[2].as_mut().unwrap().durable.epoch = Epoch(3);
    assert_eq!(plan(&shape.wish(), &recorded, &nodes), Step::Nothing);
}

#[test]
fn nothing_changes_before_the_last_change_is_settled() {
    let shape = Shape::new(5, &[1, 2, 3, 4], &FIVE);
    let unsettled = Shape { old: Some(vec![1, 2, 3]), settled: false, learners: vec![5], ..shape };
    assert_eq!(unsettled.step(), Step::Nothing);
    let settled = Shape { settled: true, ..unsettled };
    assert_eq!(settled.step(), change(Add(ReplicaId(5))));
    // A change that is settled is ended only where its electorates are in reach: or the old ones would be needed again.
    let last = Shape { replicas: 4, learners: vec![], ..settled };
    let (epoch, prefer, reason) = (Epoch(5), Some(ReplicaId(1)), Reason::VotersSettled);
    assert_eq!(last.step(), Step::Elect { epoch, prefer, without: None, change: None, reason });
    assert_eq!(Shape { late: vec![2, 3], ..last }.step(), Step::Nothing);
}

#[test]
fn a_voter_at_no_wished_node_makes_room_for_one_that_is() {
    // One replica is wished for, at the first node; the only voter is at the second.
    let moved = Shape { leader: 2, ..Shape::new(1, &[2], &[Replica(7), Replica(2)]) };
    assert_eq!(moved.run(), ["add 7", "lead 7", "remove 2", "settle"]);
}

#[test]
fn strangers_and_failed_replicas_do_not_learn() {
    let mut nodes = Shape::new(3, &[1], &FIVE[..3]).nodes();
    nodes[1].as_mut().unwrap().cluster = Some(ClusterId(8));
    nodes[2].as_mut().unwrap().role = ReplicaRole::Failed;
    let recorded = Recorded { epoch: Epoch(4), leader: None, cluster: Some(ClusterId(9)) };
    assert_eq!(plan(&Shape::new(3, &[1], &[]).wish(), &recorded, &nodes), Step::Nothing);
}

#[test]
fn a_learner_that_has_promised_a_higher_epoch_is_taken_back_by_a_new_one() {
    let shape = Shape { learners: vec![2], late: vec![2], ..Shape::new(2, &[1], &FIVE[..2]) };
    let mut nodes = shape.nodes();
    nodes[1].as_mut().unwrap().promised = Epoch(6);
    let recorded = Recorded { epoch: Epoch(4), leader: None, cluster: Some(ClusterId(9)) };
    let (epoch, prefer, reason) = (Epoch(7), Some(ReplicaId(1)), Reason::HigherPromise);
    let elect = Step::Elect { epoch, prefer, without: None, change: None, reason };
    assert_eq!(plan(&shape.wish(), &recorded, &nodes), elect);
}

#[test]
fn a_voter_that_was_removed_and_has_promised_a_higher_epoch_does_not_keep_the_change_from_its_end() {
    let shape = Shape { old: Some(vec![1, 2]), late: vec![2], ..Shape::new(1, &[1], &FIVE[..2]) };
    let mut nodes = shape.nodes();
    nodes[1].as_mut().unwrap().promised = Epoch(5);
    let recorded = Recorded { epoch: Epoch(5), leader: None, cluster: Some(ClusterId(9)) };
    let (epoch, prefer, reason) = (Epoch(6), Some(ReplicaId(1)), Reason::HigherPromise);
    let elect = Step::Elect { epoch, prefer, without: None, change: None, reason };
    assert_eq!(plan(&shape.wish(), &recorded, &nodes), elect);
}

#[test]
fn a_new_cluster_begins_only_when_all_nodes_are_blank_be_they_wished_for_or_not() {
    let blank = |id: u128| {
        let seen = Shape::new(3, &[1], &[Replica(id)]).nodes().remove(0);
        seen.map(|seen| ReplicaStatus {
            cluster: None,
            last: None,
            durable: Tail::default(),
            role: ReplicaRole::Idle { waiting_ms: 0 },
            ..seen
        })
    };
    let wish = Shape::new(3, &[], &[]).wish();
    let step = plan(&wish, &Recorded::default(), &[blank(1), blank(2), blank(3), blank(4), blank(5)]);
    assert!(matches!(step, Step::Elect { reason: Reason::Bootstrap, .. }), "{step:?}");
    let step = plan(&wish, &Recorded::default(), &[blank(1), blank(2), blank(3), None, blank(5)]);
    assert_eq!(step, Step::Blocked(Blocked::WaitingForReplicas { reachable: 4, replicas: 5 }));
}

#[test]
fn nodes_are_needed_as_long_as_what_they_hold_has_a_say() {
    let needed = |shape: Shape| nodes_needed(&shape.wish(), &shape.nodes());
    let shrinks = Shape::new(3, &[1, 2, 3, 4, 5], &FIVE);
    assert_eq!(needed(shrinks.clone()), 5);
    let removed = Shape { voters: vec![1, 2, 3, 4], old: Some(vec![1, 2, 3, 4, 5]), ..shrinks.clone() };
    assert_eq!(needed(removed.clone()), 5);
    assert_eq!(needed(Shape { old: None, ..removed.clone() }), 4);
    let done = Shape { voters: vec![1, 2, 3], old: None, ..removed };
    assert_eq!(needed(done.clone()), 3);
    assert_eq!(needed(Shape { nodes: [&FIVE[..3], &[Silent, Silent]].concat(), ..done.clone() }), 3);
    // A voter that is nowhere to be seen may be at any node that is silent.
    let hidden = Shape { nodes: [&FIVE[..2], &[Silent, Silent, Replica(5)]].concat(), ..done.clone() };
    assert_eq!(needed(hidden), 4);
    assert_eq!(needed(Shape { settled: false, ..done.clone() }), 5);
    assert_eq!(needed(Shape { leader: 9, ..done }), 5, "nobody leads");
}
