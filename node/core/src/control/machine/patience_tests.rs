//! For what a machine waits, and for how long.

use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use super::tests::{Bench, CLUSTER, LOST, WISH, leaderless, sealed, start, told, well};
use super::*;
use crate::control::Policy;
use crate::types::Tail;

fn calls(bench: &Bench) -> usize {
    bench.asked.iter().filter(|action| matches!(action, Action::Call { .. })).count()
}

#[test]
fn a_leader_that_is_well_is_asked_for_nothing_before_the_store_has_answered() {
    let named = || Wish { policy: Policy::Static, ordinal: 1, ..WISH };
    let mut bench = Bench::controller();
    bench.machine.wish(named(), 3);
    bench.look(well(4, &[1, 2, 3], [1, 2, 3], None));
    assert!(matches!(bench.machine.planned(), Step::HandOver { .. }), "{:?}", bench.machine.planned());
    let op = bench.swap().expect("it reserves");
    assert_eq!(calls(&bench), 0);
    bench.step(Input::Swapped { op, result: Ok(true) });
    assert!(matches!(bench.asked[..], [Action::Call { call: Call::HandOver { .. }, .. }]), "{:?}", bench.asked);
    // A store that hangs holds up the wish, and nobody's appends.
    let mut bench = Bench::controller();
    bench.machine.wish(named(), 3);
    bench.look(well(4, &[1, 2, 3], [1, 2, 3], None));
    for _ in 0..9 {
        bench.wait(100);
        assert_eq!(calls(&bench), 0);
    }
}

#[test]
fn while_nobody_leads_a_store_that_hangs_costs_less_than_half_a_second() {
    let mut bench = Bench::controller();
    bench.look(leaderless());
    let (attempt, ..) = bench.seals().unwrap();
    let begun = bench.now;
    bench.answer(attempt, 1, sealed(2));
    bench.answer(attempt, 2, sealed(3));
    bench.wait(400);
    assert!(matches!(bench.failure(), Some(Failure::Store(_))), "{:?}", bench.asked);
    bench.look([None, Some(told(2, 5, LOST)), Some(told(3, 5, LOST))]);
    assert!(bench.seals().is_some() && bench.now - begun <= 500, "{}", bench.now - begun);
}

#[test]
fn only_appointments_that_failed_give_the_next_one_more_time() {
    let mut bench = Bench::controller();
    let mut promised = 4;
    for tries in 1..=5 {
        let (attempt, epoch) = loop {
            bench.look([None, Some(told(2, promised, LOST)), Some(told(3, promised, LOST))]);
            if let Some((attempt, epoch, _)) = bench.seals() {
                break (attempt, epoch);
            }
        };
        promised = epoch.0;
        let op = bench.swap().expect("it reserves");
        bench.step(Input::Swapped { op, result: Ok(true) });
        bench.answer(attempt, 1, sealed(2));
        if tries < 5 {
            bench.answer(attempt, 2, Answer::Failed("busy".to_string()));
        } else {
            bench.answer(attempt, 2, sealed(3));
            let within = bench.asked.iter().find_map(|action| match action {
                Action::Call { call: Call::Appoint { .. }, within_ms, .. } => Some(*within_ms),
                _ => None,
            });
            assert_eq!(within, Some(1000));
        }
    }
}

#[test]
fn who_hangs_holds_up_what_the_others_say_a_tenth_of_a_second() {
    let mut bench = Bench::controller();
    let look = bench.begin_look();
    bench.loaded();
    for ordinal in [1, 2] {
        let told = told(u128::try_from(ordinal).unwrap() + 1, 4, LOST);
        bench.step(Input::Status { look, ordinal, told: Some(Box::new(told)) });
    }
    assert_eq!(bench.seals(), None, "the first may yet answer");
    bench.wait(100);
    assert!(bench.seals().is_some(), "{:?}", bench.asked);
}

#[test]
fn answers_that_come_as_time_is_up_all_count() {
    let mut bench = Bench::controller();
    let look = bench.begin_look();
    bench.loaded();
    bench.now += Patience::default().call_ms;
    let nodes = well(4, &[1, 2, 3], [2, 1, 3], None);
    for (ordinal, told) in nodes.into_iter().enumerate() {
        bench.step(Input::Status { look, ordinal, told: told.filter(|_| ordinal < 2).map(Box::new) });
    }
    assert_eq!(*bench.machine.planned(), Step::Nothing);
}

#[test]
fn nothing_is_due_while_only_the_store_is_waited_for() {
    let mut bench = Bench::controller();
    let look = bench.begin_look();
    for (ordinal, told) in leaderless().into_iter().enumerate() {
        bench.step(Input::Status { look, ordinal, told: told.map(Box::new) });
    }
    bench.wait(900);
    assert_eq!(bench.machine.deadline(), Some(Millis(100 + Patience::default().store.answer_ms)));
}

#[test]
fn an_own_epoch_that_was_answered_too_late_is_nobody_elses() {
    let mut bench = Bench::controller();
    bench.machine.epochs.begun =
        Some(StartedEpoch { epoch: Epoch(4), leader: ReplicaId(1), voters: vec![], quorum: 2 });
    bench.machine.epochs.appointed = Epoch(5);
    bench.machine.wish(Wish { replicas: 2, ..WISH }, 3);
    bench.look(well(5, &[1, 2, 3], [1, 2, 3], None));
    assert!(bench.swap().is_some(), "it goes on: {:?}", bench.asked);
    assert!(!bench.asked.iter().any(|action| matches!(action, Action::Tell(Event::Contested { .. }))));
}

/// The time until a wish is acted on, after so many changes of leader that each undid what was begun before.
fn waits_after(changes: u64, by_standby: bool) -> (u64, bool) {
    let mut bench = Bench::controller();
    let mut is_contested = false;
    // What it began before is over, and the record is read anew.
    let mut acts = |bench: &mut Bench, epoch| {
        (bench.machine.work, bench.machine.record) = (Work::Resting, Record::new());
        bench.machine.wish(Wish { replicas: 2, ..WISH }, 3);
        let mut nodes = well(epoch, &[1, 2, 3], [1, 2, 3], None);
        nodes.iter_mut().flatten().for_each(|told| told.by_standby = by_standby);
        bench.look(nodes);
        is_contested |= bench.asked.iter().any(|action| matches!(action, Action::Tell(Event::Contested { .. })));
        !bench.machine.is_at_rest()
    };
    let epochs = (4..).step_by(2).take(usize::try_from(changes).unwrap());
    for epoch in epochs {
        let voters = [1, 2, 3].map(ReplicaId).to_vec();
        // It had the second replica lead; the first one does, in a later epoch.
        bench.machine.epochs.begun =
            Some(StartedEpoch { epoch: Epoch(epoch - 1), leader: ReplicaId(2), voters, quorum: 2 });
        bench.machine.epochs.appointed = Epoch(epoch - 1);
        acts(&mut bench, epoch);
    }
    let since = bench.now;
    while !acts(&mut bench, 2 + 2 * changes) {
        assert!(bench.now < since + 600_000, "it never acts");
    }
    (bench.now - since, is_contested)
}

#[test]
fn what_nodes_that_stood_by_have_done_contests_nothing_and_what_another_controller_does_costs_ever_longer_pauses() {
    assert_eq!(waits_after(8, true), (100, false));
    let (waited, is_contested) = waits_after(8, false);
    assert!(waited > 20_000 && is_contested, "{waited} ms");
}

#[test]
fn a_record_is_too_high_only_once_it_has_been_for_long() {
    let mut bench = Bench::controller();
    let well = || well(4, &[1, 2, 3], [1, 2, 3], None);
    while bench.now < 20_000 {
        bench.look(well());
        assert_eq!(bench.swap(), None, "at {}", bench.now);
    }
    // Another controller has just reserved an epoch, and seals.
    let recorded = Recorded { epoch: Epoch(9), leader: Some(ReplicaId(1)), cluster: Some(CLUSTER) };
    bench.machine.record = Record::new();
    let mut corrected = None;
    while corrected.is_none() {
        bench.now += 100;
        bench.step(Input::Tick);
        let actions: Vec<Action> = bench.asked.clone();
        for action in actions {
            match action {
                Action::Look { look, .. } => {
                    for (ordinal, told) in well().into_iter().enumerate() {
                        bench.step(Input::Status { look, ordinal, told: told.map(Box::new) });
                        corrected = corrected.or(bench.swap().map(|_| bench.now));
                    }
                }
                Action::Load { op } => {
                    bench.step(Input::Loaded { op, result: Ok(recorded.clone()) });
                    corrected = corrected.or(bench.swap().map(|_| bench.now));
                }
                _ => {}
            }
        }
    }
    assert!(corrected >= Some(30_000), "{corrected:?}");
}

#[test]
fn a_voter_that_answers_every_other_time_does_not_keep_a_standby_waiting() {
    let mut bench =
        Bench::new(Machine::standing_by(crate::control::Sound, Patience::default(), 7, 1, StandbyTimes::default()));
    let mut turns = 0;
    while bench.seals().is_none() {
        turns += 1;
        assert!(turns < 30);
        let mut third = told(3, 9, LOST);
        third.seen.last = Some(start(4));
        third.seen.durable = Tail { epoch: Epoch(4), ..Tail::default() };
        bench.look([Some(told(1, 4, LOST)), Some(told(2, 4, LOST)), (turns % 2 == 0).then_some(third)]);
    }
}

#[test]
fn replicas_that_refuse_to_promise_are_asked_ever_more_seldom_though_another_comes_and_goes() {
    let mut bench = Bench::controller();
    let mut tries: u64 = 0;
    while bench.now < 60_000 {
        let first = Some(told(1, 4, LOST)).filter(|_| bench.now.is_multiple_of(200));
        bench.look([first, Some(told(2, 4, LOST)), Some(told(3, 4, LOST))]);
        let Some((attempt, ..)) = bench.seals() else { continue };
        tries += 1;
        let op = bench.swap().expect("each try costs an epoch");
        bench.step(Input::Swapped { op, result: Ok(true) });
        for ordinal in 0..3 {
            bench.answer(attempt, ordinal, Answer::Failed("PERMISSION_DENIED: this is no controller".to_string()));
        }
    }
    assert!((10..=30).contains(&tries), "{tries} epochs in a minute");
    // Who was never there may be the one that was wanting; the first such is not waited with.
    let mut bench = Bench::controller();
    bench.look(leaderless());
    let (attempt, ..) = bench.seals().expect("it tries");
    let op = bench.swap().expect("it reserves");
    bench.step(Input::Swapped { op, result: Ok(true) });
    for ordinal in [1, 2] {
        bench.answer(attempt, ordinal, Answer::Failed("busy".to_string()));
    }
    bench.look([1, 2, 3].map(|id| Some(told(id, 4, LOST))));
    assert!(bench.seals().is_some(), "{:?}", bench.asked);
}
