//! The machine before nodes and a store that answer as a test says.

use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::vec;

use super::*;
use crate::control::{Reason, ReplicaRole, Sound};
use crate::types::ReplicaId;
use crate::types::history::EpochStart;
use crate::types::incarnations::{Lineage, Runs};
use crate::types::sealed::Sealed;
use crate::types::{ClusterId, Offset, Tail};

pub(super) const CLUSTER: ClusterId = ClusterId(9);
pub(super) const WISH: Wish = Wish {
    replicas: 3,
    policy: crate::control::Policy::Automatic,
    ordinal: 0,
    switch_to: None,
    detection_ms: 1000,
    quorum: None,
    standby_after_ms: None,
};

pub(super) fn start(epoch: u64) -> EpochStart {
    let voters = [1, 2, 3].map(ReplicaId).to_vec();
    EpochStart { epoch: Epoch(epoch), start: Offset(0), leader: ReplicaId(1), voters, quorum: 2, old_voters: None }
}

pub(super) fn told(replica: u128, promised: u64, role: ReplicaRole) -> NodeReport {
    let seen = ReplicaStatus {
        replica: ReplicaId(replica),
        cluster: Some(CLUSTER),
        promised: Epoch(promised),
        bound: None,
        last: Some(start(4)),
        durable: Tail { epoch: Epoch(4), end: Offset(0) },
        suspect: None,
        damaged: false,
        leaving: false,
        role,
    };
    NodeReport {
        seen,
        members: vec![],
        unreached: vec![],
        can_stand_by: true,
        standby: None,
        standby_epoch: Epoch(0),
        by_standby: false,
    }
}

pub(super) const LOST: ReplicaRole = ReplicaRole::Idle { waiting_ms: 5000 };

pub(super) fn leading() -> ReplicaRole {
    let followers = [2, 3].map(|id| (ReplicaId(id), true, Offset(0))).to_vec();
    ReplicaRole::Leader {
        log_end: Offset(0),
        settled: true,
        followers,
        far: vec![],
        handing_over: false,
        switch_to: None,
    }
}

pub(super) fn sealed(replica: u128) -> Answer {
    Answer::Sealed(Box::new(Sealed {
        replica: ReplicaId(replica),
        cluster: Some(CLUSTER),
        last: Some(start(4)),
        durable: Tail { epoch: Epoch(4), end: Offset(0) },
        commit_end: Offset(0),
        suspect: None,
        damaged: false,
        lineage: Lineage::default(),
        runs: Runs::default(),
    }))
}

/// A machine, the time, and what it has asked for.
pub(super) struct Bench {
    pub(super) machine: Machine<Sound>,
    pub(super) now: u64,
    pub(super) asked: Vec<Action>,
}

impl Bench {
    pub(super) fn new(machine: Machine<Sound>) -> Self {
        let mut bench = Self { machine, now: 0, asked: vec![] };
        bench.machine.wish(WISH, 3);
        bench
    }

    pub(super) fn controller() -> Self {
        Self::new(Machine::new(Sound, Patience::default(), 7))
    }

    pub(super) fn step(&mut self, input: Input) {
        self.asked.clear();
        self.machine.step(Millis(self.now), input, &mut self.asked);
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.step(Input::Tick);
    }

    /// Begins a look; gives its number.
    pub(super) fn begin_look(&mut self) -> u64 {
        self.now += 100;
        self.step(Input::Tick);
        let look = |action: &Action| if let Action::Look { look, .. } = action { Some(*look) } else { None };
        self.asked.iter().find_map(look).expect("a look")
    }

    /// Looks, and the nodes say that; none is silent.
    pub(super) fn look(&mut self, nodes: [Option<NodeReport>; 3]) {
        let look = self.begin_look();
        self.loaded();
        for (ordinal, told) in nodes.into_iter().enumerate() {
            self.step(Input::Status { look, ordinal, told: told.map(Box::new) });
        }
    }

    /// A record that is written is told, if it is asked for.
    pub(super) fn loaded(&mut self) {
        let load = self.asked.iter().find_map(|action| if let Action::Load { op } = action { Some(*op) } else { None });
        if let Some(op) = load {
            let recorded = Recorded { epoch: Epoch(4), leader: Some(ReplicaId(1)), cluster: Some(CLUSTER) };
            self.step(Input::Loaded { op, result: Ok(recorded) });
        }
    }

    pub(super) fn swap(&self) -> Option<u64> {
        self.asked.iter().find_map(|action| if let Action::Swap { op, .. } = action { Some(*op) } else { None })
    }

    /// The attempt that seals, its epoch, and how many it asks.
    pub(super) fn seals(&self) -> Option<(u64, Epoch, usize)> {
        let seal = |action: &Action| match action {
            Action::Call { attempt, call: Call::Seal { epoch, .. }, .. } => Some((*attempt, *epoch)),
            _ => None,
        };
        let first = self.asked.iter().find_map(seal)?;
        Some((first.0, first.1, self.asked.iter().filter_map(seal).count()))
    }

    pub(super) fn appoints(&self) -> Option<(usize, Epoch)> {
        self.asked.iter().find_map(|action| match action {
            Action::Call { ordinal, call: Call::Appoint { terms, .. }, .. } => Some((*ordinal, terms.epoch)),
            _ => None,
        })
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        self.asked.iter().find_map(|action| match action {
            Action::Tell(Event::ElectionFailed { why, .. }) => Some(why),
            _ => None,
        })
    }

    pub(super) fn answer(&mut self, attempt: u64, ordinal: usize, answer: Answer) {
        self.step(Input::Answer { attempt, ordinal, answer });
    }
}

pub(super) fn leaderless() -> [Option<NodeReport>; 3] {
    [None, Some(told(2, 4, LOST)), Some(told(3, 4, LOST))]
}

#[test]
fn the_epoch_is_reserved_beside_the_seal_and_nobody_is_appointed_before_it_is() {
    let mut bench = Bench::controller();
    bench.look(leaderless());
    let (attempt, epoch, asked) = bench.seals().expect("it seals at once");
    assert_eq!((epoch, asked), (Epoch(5), 2));
    let op = bench.swap().expect("and reserves at the same time");
    bench.answer(attempt, 1, sealed(2));
    bench.answer(attempt, 2, sealed(3));
    assert_eq!(bench.appoints(), None, "the store has not answered yet");
    bench.step(Input::Swapped { op, result: Ok(true) });
    assert_eq!(bench.appoints(), Some((1, Epoch(5))));
}

#[test]
fn a_conflict_ends_the_attempt_and_late_answers_are_of_no_use() {
    let mut bench = Bench::controller();
    bench.look(leaderless());
    let ((attempt, ..), op) = (bench.seals().unwrap(), bench.swap().unwrap());
    bench.answer(attempt, 1, sealed(2));
    bench.step(Input::Swapped { op, result: Ok(false) });
    assert_eq!(bench.failure(), Some(&Failure::Conflict));
    bench.answer(attempt, 2, sealed(3));
    assert_eq!(bench.asked, []);
}

#[test]
fn where_the_store_does_not_answer_the_next_attempt_does_without_and_takes_an_epoch_further_on() {
    let mut bench = Bench::controller();
    bench.look(leaderless());
    bench.wait(1000);
    assert!(matches!(bench.failure(), Some(Failure::Store(_))), "{:?}", bench.asked);
    bench.look([None, Some(told(2, 5, LOST)), Some(told(3, 5, LOST))]);
    let (attempt, epoch, _) = bench.seals().expect("it seals without the store");
    assert!(epoch > Epoch(5) && epoch <= Epoch(6 + 1024), "{epoch}");
    bench.answer(attempt, 1, sealed(2));
    bench.answer(attempt, 2, sealed(3));
    assert_eq!(bench.appoints(), Some((1, epoch)));
}

#[test]
fn an_epoch_has_one_candidate_whatever_answer_is_lost() {
    let mut bench = Bench::controller();
    bench.look(leaderless());
    let ((attempt, ..), op) = (bench.seals().unwrap(), bench.swap().unwrap());
    bench.step(Input::Swapped { op, result: Ok(true) });
    bench.answer(attempt, 1, sealed(2));
    bench.answer(attempt, 2, sealed(3));
    assert_eq!(bench.appoints(), Some((1, Epoch(5))));
    bench.wait(1000);
    assert!(matches!(bench.failure(), Some(Failure::NotAppointed { .. })));
    // The record was put back, and the disks of both that promised too: they know of nothing above 4.
    bench.wait(200);
    bench.machine.record = Record::new();
    bench.machine.rest(Millis(bench.now));
    bench.look([None, Some(told(2, 4, LOST)), Some(told(3, 4, LOST))]);
    let (_, epoch, _) = bench.seals().expect("it tries again");
    assert!(epoch > Epoch(5), "{epoch}");
}

#[test]
fn a_first_epoch_waits_for_the_store_and_for_every_node() {
    let blank = |id| {
        let mut told = told(id, 0, ReplicaRole::Idle { waiting_ms: 0 });
        (told.seen.cluster, told.seen.last, told.seen.durable) = (None, None, Tail::default());
        Some(told)
    };
    let mut bench = Bench::controller();
    bench.wait(0);
    let Some(Action::Look { look, .. }) = bench.asked.first().cloned() else { panic!("{:?}", bench.asked) };
    let load = bench.asked.iter().find_map(|action| if let Action::Load { op } = action { Some(*op) } else { None });
    bench.step(Input::Loaded { op: load.unwrap(), result: Ok(Recorded::default()) });
    for ordinal in 0..3 {
        bench.step(Input::Status { look, ordinal, told: blank(u128::try_from(ordinal).unwrap() + 1).map(Box::new) });
    }
    assert_eq!(bench.seals(), None, "first it is written down");
    let op = bench.swap().unwrap();
    bench.step(Input::Swapped { op, result: Ok(true) });
    assert_eq!(bench.seals().unwrap().2, 3);
    bench.wait(5000);
    assert!(matches!(bench.failure(), Some(Failure::NoChoice { .. })));
}

#[test]
fn no_first_epoch_begins_while_the_store_is_away() {
    let blank = |id| {
        let mut told = told(id, 0, ReplicaRole::Idle { waiting_ms: 0 });
        (told.seen.cluster, told.seen.last, told.seen.durable) = (None, None, Tail::default());
        Some(told)
    };
    let mut bench = Bench::controller();
    bench.wait(0);
    let load = bench.asked.iter().find_map(|action| if let Action::Load { op } = action { Some(*op) } else { None });
    let Some(Action::Look { look, .. }) = bench.asked.first().cloned() else { panic!("{:?}", bench.asked) };
    bench.step(Input::Loaded { op: load.unwrap(), result: Err("down".to_string()) });
    for ordinal in 0..3 {
        bench.step(Input::Status { look, ordinal, told: blank(u128::try_from(ordinal).unwrap() + 1).map(Box::new) });
    }
    assert_eq!((bench.seals(), bench.swap()), (None, None));
    assert!(matches!(bench.machine.planned(), Step::Elect { reason: Reason::Bootstrap, .. }));
}

#[test]
fn a_record_that_was_put_back_is_raised_and_one_that_is_too_high_is_corrected_in_time() {
    let mut bench = Bench::controller();
    let well = || {
        let hears = || ReplicaRole::Follower { silence_ms: 10, connected: true };
        let mut nodes = [told(1, 7, leading()), told(2, 7, hears()), told(3, 7, hears())];
        for told in &mut nodes {
            told.seen.last = Some(start(7));
        }
        nodes.map(Some)
    };
    bench.look(well());
    let raised = bench
        .asked
        .iter()
        .find_map(|action| if let Action::Swap { op, to, .. } = action { Some((*op, to.epoch)) } else { None });
    let (op, epoch) = raised.expect("the record is behind");
    assert_eq!(epoch, Epoch(7));
    bench.step(Input::Swapped { op, result: Ok(false) });
    // Somebody has written a number that nobody promised.
    bench.wait(100);
    let mut corrected = None;
    for _ in 0..120 {
        let load =
            bench.asked.iter().find_map(|action| if let Action::Load { op } = action { Some(*op) } else { None });
        let look = bench
            .asked
            .iter()
            .find_map(|action| if let Action::Look { look, .. } = action { Some(*look) } else { None });
        if let Some(op) = load {
            let recorded = Recorded { epoch: Epoch(1000), leader: Some(ReplicaId(1)), cluster: Some(CLUSTER) };
            bench.step(Input::Loaded { op, result: Ok(recorded) });
        }
        if let Some(look) = look {
            for (ordinal, told) in well().into_iter().enumerate() {
                bench.step(Input::Status { look, ordinal, told: told.map(Box::new) });
            }
        }
        corrected = corrected
            .or(bench.asked.iter().find_map(|action| {
                if let Action::Swap { to, .. } = action { Some((bench.now, to.epoch)) } else { None }
            }));
        bench.wait(100);
    }
    let (when, epoch) = corrected.expect("it is corrected");
    assert!(epoch == Epoch(7) && when >= 10_000, "{epoch} at {when}");
}

#[test]
fn two_controllers_that_undo_each_other_wait_longer_and_longer() {
    // This one wishes for two replicas; each time it has removed the third, somebody adds it again.
    let mut bench = Bench::controller();
    let (mut epoch, mut begun) = (4, Vec::new());
    while begun.len() < 5 && bench.now < 1_000_000 {
        bench.machine.wish(Wish { replicas: 2, ..WISH }, 3);
        let hears = || ReplicaRole::Follower { silence_ms: 10, connected: true };
        let mut nodes = [told(1, epoch, leading()), told(2, epoch, hears()), told(3, epoch, hears())];
        for told in &mut nodes {
            told.seen.last = Some(start(epoch));
            told.seen.durable.epoch = Epoch(epoch);
        }
        let before = epoch;
        bench.look(nodes.map(Some));
        if let Some(op) = bench.swap() {
            bench.step(Input::Swapped { op, result: Ok(true) });
            if let Some((attempt, next, _)) = bench.seals() {
                begun.push(bench.now);
                for id in 1..=3 {
                    let Answer::Sealed(mut of) = sealed(id) else { unreachable!() };
                    of.last = Some(start(before));
                    of.durable.epoch = Epoch(before);
                    bench.answer(attempt, usize::try_from(id).unwrap() - 1, Answer::Sealed(of));
                }
                assert!(bench.appoints().is_some(), "{:?}", bench.asked);
                bench.answer(attempt, 0, Answer::Appointed);
                epoch = next.0 + 1;
            }
        }
    }
    let pauses: Vec<u64> = begun.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(pauses.len(), 4, "{begun:?}");
    assert!(pauses.windows(2).all(|two| two[1] > two[0]) && pauses[3] > 3000, "{pauses:?}");
}

/// The nodes as they are when all is well, voters or not, and what the leader knows of standing by.
pub(super) fn well(
    epoch: u64,
    voters: &[u128],
    ids: [u128; 3],
    terms: Option<&StandbyTerms>,
) -> [Option<NodeReport>; 3] {
    let voters: Vec<ReplicaId> = voters.iter().copied().map(ReplicaId).collect();
    ids.map(|id| {
        let role = if id == 1 { leading() } else { ReplicaRole::Follower { silence_ms: 10, connected: true } };
        let mut told = told(id, epoch, role);
        told.seen.last = Some(EpochStart { voters: voters.clone(), ..start(epoch) });
        told.seen.durable.epoch = Epoch(epoch);
        told.standby = terms.cloned();
        Some(told)
    })
}

fn told_terms(bench: &Bench) -> Option<(u64, StandbyTerms)> {
    bench.asked.iter().find_map(|action| match action {
        Action::Call { attempt, call: Call::Learners { standby: Some(terms), .. }, .. } => {
            Some((*attempt, terms.clone()))
        }
        _ => None,
    })
}

fn standing_by() -> Wish {
    Wish { standby_after_ms: Some(1000), ..WISH }
}

/// The terms that the leader is told within some looks.
fn terms_told(wish: &Wish, nodes: &[Option<NodeReport>; 3]) -> Option<StandbyTerms> {
    let mut bench = Bench::controller();
    bench.machine.wish(wish.clone(), 3);
    for _ in 0..5 {
        bench.look(nodes.clone());
        if let Some((_, terms)) = told_terms(&bench) {
            return Some(terms);
        }
    }
    None
}

#[test]
fn where_the_named_leader_does_not_vote_the_nodes_are_told_to_wait_for_it() {
    let two = Wish { replicas: 3, policy: crate::control::Policy::Static, ordinal: 2, ..standing_by() };
    let places = |terms: &StandbyTerms| terms.members.iter().map(|member| member.ordinal).collect::<Vec<_>>();
    let mut nodes = well(4, &[1, 2], [1, 2, 9], None);
    if let Some(told) = &mut nodes[2] {
        (told.seen.role, told.seen.last) = (ReplicaRole::Idle { waiting_ms: 0 }, None);
    }
    let mut bench = Bench::controller();
    bench.machine.wish(two, 3);
    bench.look(nodes.clone());
    let untold =
        bench.machine.news(Millis(bench.now), &bench.machine.seen(), &mut vec![]).and_then(|feed| feed.standby);
    let terms = untold.expect("terms");
    assert_eq!((places(&terms), terms.preferred), (vec![0, 1], 2), "it is neither of the two");
}

#[test]
fn a_voter_that_is_silent_keeps_nobody_from_being_told_what_has_changed() {
    let known = terms_told(&standing_by(), &well(4, &[1, 2, 3], [1, 2, 3], None)).unwrap();
    let mut nodes = well(4, &[1, 2, 3], [1, 2, 3], Some(&known));
    nodes[2] = None;
    let changed = Wish { policy: crate::control::Policy::Static, ..standing_by() };
    let terms = terms_told(&changed, &nodes).expect("news");
    assert_eq!((terms.policy, &terms.members), (crate::control::Policy::Static, &known.members));
    nodes[0].as_mut().unwrap().standby = None;
    assert_eq!(terms_told(&changed, &nodes), None, "nobody knows whether the third can stand by, or where it is");
}

#[test]
fn a_voter_that_keeps_what_was_told_in_a_later_epoch_than_the_leaders_terms_is_told_again_once() {
    let known = terms_told(&standing_by(), &well(4, &[1, 2, 3], [1, 2, 3], None)).unwrap();
    let mut nodes = well(4, &[1, 2, 3], [1, 2, 3], Some(&known));
    let fewer = StandbyTerms { members: known.members[..2].to_vec(), ..known.clone() };
    let third = nodes[2].as_mut().unwrap();
    (third.standby, third.standby_epoch) = (Some(fewer), Epoch(3));
    assert_eq!(terms_told(&standing_by(), &nodes), Some(known));
    nodes[0].as_mut().unwrap().standby_epoch = Epoch(4);
    assert_eq!(terms_told(&standing_by(), &nodes), None, "the leader tells it");
}

#[test]
fn two_controllers_that_tell_the_nodes_otherwise_do_so_less_and_less_often() {
    let other =
        terms_told(&Wish { detection_ms: 3000, ..standing_by() }, &well(4, &[1, 2, 3], [1, 2, 3], None)).unwrap();
    let mut bench = Bench::controller();
    bench.machine.wish(standing_by(), 3);
    let (mut told, mut warned) = (Vec::new(), 0);
    while bench.now < 600_000 {
        // Whatever it says, the other one has had the last word.
        bench.look(well(4, &[1, 2, 3], [1, 2, 3], Some(&other)));
        let is_warning = |action: &&Action| matches!(action, Action::Tell(Event::TermsContested { .. }));
        warned += bench.asked.iter().filter(is_warning).count();
        if let Some((attempt, _)) = told_terms(&bench) {
            told.push(bench.now);
            bench.answer(attempt, 0, Answer::Fed);
        }
    }
    assert!((4..20).contains(&told.len()) && warned >= 2, "{told:?}, {warned} warnings");
}

#[test]
fn a_voter_that_never_answered_is_where_the_nodes_were_told_to_stand_by() {
    let placed = |(id, ordinal)| Placed { replica: ReplicaId(id), ordinal, is_reachable: true };
    let members = vec![(3, 0), (1, 1), (2, 2)].into_iter().map(placed).collect();
    let terms = StandbyTerms { policy: WISH.policy, preferred: 0, detection_ms: 1000, after_ms: 1000, members };
    let mut bench = Bench::controller();
    let mut leader = told(1, 4, leading());
    leader.standby = Some(terms);
    bench.look([None, Some(leader), None]);
    let found = bench.machine.places.of(&[1, 2, 3].map(ReplicaId), &bench.machine.seen());
    assert_eq!(found, [(ReplicaId(1), Some(1)), (ReplicaId(2), Some(2)), (ReplicaId(3), Some(0))]);
}
