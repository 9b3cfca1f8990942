//! A standby before nodes that answer as a test says.

use alloc::string::ToString as _;

use super::tests::{Bench, LOST, WISH, leaderless, leading, sealed, start, told};
use super::*;
use crate::EpochStart;
use crate::control::{Policy, ReplicaRole, Sound};
use crate::types::sealed::Sealed;
use crate::types::{ClusterId, Tail};

fn standby(own: usize) -> Bench {
    Bench::new(Machine::standing_by(Sound, Patience::default(), 7, own, StandbyTimes::default()))
}

/// The time until a standby seals; none within a minute.
fn acts_after(bench: &mut Bench, mut nodes: impl FnMut(u64) -> [Option<NodeReport>; 3]) -> Option<u64> {
    let begun = bench.now;
    while bench.now < begun + 60_000 {
        let at = bench.now - begun;
        bench.look(nodes(at));
        if bench.asked.iter().any(|action| matches!(action, Action::Call { .. })) {
            return Some(bench.now - begun);
        }
    }
    None
}

#[test]
fn a_standby_elects_once_nobody_else_has_acted_for_a_while_and_asks_no_store() {
    let mut bench = standby(1);
    let took = acts_after(&mut bench, |_| leaderless()).expect("it acts");
    assert!((1000..1600).contains(&took), "{took}");
    let (_, epoch, asked) = bench.seals().unwrap();
    assert!(epoch > Epoch(5) && asked == 2 && bench.swap().is_none());
}

#[test]
fn a_standby_waits_as_long_as_somebody_acts_or_leads_and_begins_no_cluster_and_changes_no_members() {
    // A promise that rises every half second: somebody is at it.
    let rising = |at: u64| {
        let promised = 4 + at / 500;
        [None, Some(told(2, promised, LOST)), Some(told(3, promised, LOST))]
    };
    assert_eq!(acts_after(&mut standby(1), rising), None);
    let hears = || Some(told(2, 4, ReplicaRole::Follower { silence_ms: 10, connected: true }));
    let led = |_| [Some(told(1, 4, leading())), hears(), None];
    assert_eq!(acts_after(&mut standby(1), led), None);
    let blank = |id| {
        let mut told = told(id, 0, LOST);
        (told.seen.cluster, told.seen.last, told.seen.durable) = (None, None, Tail::default());
        Some(told)
    };
    assert_eq!(acts_after(&mut standby(0), |_| [blank(1), blank(2), blank(3)]), None, "a first epoch");
    let stranger = |_| {
        let mut other = told(8, 4, LOST);
        other.seen.last = None;
        [
            Some(told(1, 4, leading())),
            Some(told(2, 4, ReplicaRole::Follower { silence_ms: 1, connected: true })),
            Some(other),
        ]
    };
    assert_eq!(acts_after(&mut standby(1), stranger), None, "a replica that would be fed");
}

#[test]
fn a_standby_that_reaches_nobody_waits_for_voters_of_its_cluster_and_not_for_a_new_one() {
    let mut bench = standby(1);
    let blank = || {
        let mut told = told(3, 0, LOST);
        (told.seen.cluster, told.seen.last, told.seen.durable) = (None, None, Tail::default());
        Some(told)
    };
    for (nodes, answered) in [([None, None, None], 0), ([None, None, blank()], 1)] {
        bench.look(nodes);
        let blocked = Blocked::NoMajority { answered, voters: 3, needed: 2 };
        assert_eq!(*bench.machine.planned(), Step::Blocked(blocked.clone()));
        let is_told =
            bench.asked.iter().any(|action| matches!(action, Action::Tell(Event::Blocked(b)) if *b == blocked));
        assert!(is_told, "{:?}", bench.asked);
    }
}

#[test]
fn a_standby_repeats_the_old_voters_settled_or_not_and_a_controller_lets_them_go() {
    let old_voters = Some([1, 2].map(ReplicaId).to_vec());
    let joint = || EpochStart { old_voters: old_voters.clone(), ..start(4) };
    let node = |replica| {
        let told = told(replica, 4, LOST);
        Some(NodeReport { seen: ReplicaStatus { last: Some(joint()), ..told.seen }, ..told })
    };
    let nodes = || [node(1), node(2), node(3)];
    let mut standby = standby(1);
    let _ = acts_after(&mut standby, |_| nodes());
    let mut controller = Bench::controller();
    controller.look(nodes());
    for (bench, repeated) in [(&mut standby, old_voters.clone()), (&mut controller, None)] {
        let (attempt, ..) = bench.seals().expect("it elects");
        let op = bench.swap();
        let mut asked = Vec::new();
        for (ordinal, replica) in (0..).zip([1, 2, 3]) {
            let Answer::Sealed(answer) = sealed(replica) else { unreachable!("it is one") };
            bench.answer(attempt, ordinal, Answer::Sealed(Box::new(Sealed { last: Some(joint()), ..*answer })));
            asked.append(&mut bench.asked.clone());
        }
        if let Some(op) = op {
            bench.step(Input::Swapped { op, result: Ok(true) });
            asked.append(&mut bench.asked.clone());
        }
        let terms = asked.into_iter().find_map(|action| match action {
            Action::Call { call: Call::Appoint { terms, .. }, .. } => Some(terms),
            _ => None,
        });
        assert_eq!(terms.expect("it appoints").old_voters, repeated);
    }
}

#[test]
fn a_standby_does_not_act_against_a_named_leader_that_is_waited_for() {
    let mut bench = standby(1);
    bench.machine.wish(Wish { policy: Policy::Static, ..WISH }, 3);
    assert_eq!(acts_after(&mut bench, |_| leaderless()), None);
}

#[test]
fn a_standby_tries_three_times_and_then_less_and_less_often() {
    let mut bench = standby(1);
    let (mut promised, mut tries) = (4, Vec::new());
    while bench.now < 120_000 {
        bench.look([None, Some(told(2, promised, LOST)), Some(told(3, promised, LOST))]);
        if let Some((attempt, epoch, _)) = bench.seals() {
            tries.push(bench.now);
            promised = epoch.0;
            bench.answer(attempt, 1, Answer::Failed("no".to_string()));
            bench.answer(attempt, 2, Answer::Failed("no".to_string()));
        }
    }
    assert!(tries[2] < 6000, "{tries:?}");
    assert!(tries[3] - tries[2] >= 5000 && tries.len() < 20, "{tries:?}");
}

#[test]
fn what_a_standby_puts_off_is_no_try() {
    let mut bench = standby(1);
    bench.machine.epochs.told_in_vain = 3;
    bench.machine.pauses.election.failed(Millis(0), Backoff { min_ms: 8000, max_ms: 8000 }, &mut Random(1));
    let took = acts_after(&mut bench, |_| leaderless()).expect("it acts");
    assert!((4000..8500).contains(&took), "{took}");
}

#[test]
fn a_standbys_appointments_get_more_time_after_each_that_failed() {
    let mut bench = standby(1);
    let (mut promised, mut patience) = (4, Vec::new());
    while patience.len() < 3 {
        bench.look([None, Some(told(2, promised, LOST)), Some(told(3, promised, LOST))]);
        let Some((attempt, epoch, _)) = bench.seals() else { continue };
        promised = epoch.0;
        bench.answer(attempt, 1, sealed(2));
        bench.answer(attempt, 2, sealed(3));
        let within = bench.asked.iter().find_map(|action| match action {
            Action::Call { call: Call::Appoint { .. }, within_ms, .. } => Some(*within_ms),
            _ => None,
        });
        patience.push(within.expect("an appointment"));
        bench.answer(attempt, 1, Answer::Failed("slow".to_string()));
    }
    assert!(patience[0] < patience[1] && patience[1] < patience[2], "{patience:?}");
}

#[test]
fn a_replica_of_another_cluster_at_a_voters_address_keeps_no_standby_from_acting() {
    let foreign = |_| {
        let mut other = told(8, 4, LOST);
        other.seen.cluster = Some(ClusterId(77));
        [Some(other), Some(told(2, 4, LOST)), Some(told(3, 4, LOST))]
    };
    assert!(acts_after(&mut standby(1), foreign).is_some());
}

#[test]
fn a_leader_that_wants_to_go_hands_over_without_a_controller() {
    let mut bench = standby(0);
    let leaving = |_| {
        let hears = |id| Some(told(id, 4, ReplicaRole::Follower { silence_ms: 10, connected: true }));
        let mut leader = told(1, 4, leading());
        leader.seen.leaving = true;
        [Some(leader), hears(2), hears(3)]
    };
    let took = acts_after(&mut bench, leaving).expect("it hands over");
    assert!((300..600).contains(&took), "{took}");
    assert!(matches!(&bench.asked[..], [Action::Call { call: Call::HandOver { .. }, .. }]), "{:?}", bench.asked);
}

#[test]
fn a_voter_that_a_seal_has_left_deaf_is_taken_back() {
    let mut bench = standby(2);
    let deaf = |_| {
        let hears = told(2, 4, ReplicaRole::Follower { silence_ms: 10, connected: true });
        [Some(told(1, 4, leading())), Some(hears), Some(told(3, 6, LOST))]
    };
    assert!(acts_after(&mut bench, deaf).is_some_and(|took| took < 2000));
}
