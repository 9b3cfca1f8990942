//! A new cluster that begins with a log that was restored from a backup: with one, and only where nobody is of a cluster.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

use zue_core::control::{Blocked, Policy, Reason, Recorded, ReplicaRole, ReplicaStatus, Step, Wish, plan};
use zue_core::election::{Choice, First, NoChoice, Sealed, choose};
use zue_core::{
    ClusterId, Epoch, EpochStart, FrameFacts, History, Input, KnownStarts, Limits, Lineage, Millis, Offset, Output,
    Producers, Promise, Recovered, Refusal, Replica, ReplicaId, Reply, RequestId, Runs, Session, Start, Tail, Terms,
    Ticket,
};

const NEW: ClusterId = ClusterId(7);
/// At the nodes of the new cluster; the earlier one had other replicas.
const ALL: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
const FIRST: Option<First<'_>> = Some(First { voters: &ALL, listed: &ALL });
const IDLE: ReplicaRole = ReplicaRole::Idle { waiting_ms: 10 };

fn start(epoch: u64, at: u64, voters: &[u128]) -> EpochStart {
    let voters: Vec<ReplicaId> = voters.iter().copied().map(ReplicaId).collect();
    let quorum = u32::try_from(voters.len() / 2 + 1).unwrap();
    EpochStart { epoch: Epoch(epoch), start: Offset(at), leader: voters[0], voters, quorum, old_voters: None }
}

/// The first epoch of the new cluster, led by the first of these.
fn begun(epoch: u64, voters: &[u128]) -> EpochStart {
    EpochStart { old_voters: Some(vec![ReplicaId(voters[0])]), ..start(epoch, 10, voters) }
}

/// Two epochs of the earlier cluster.
fn earlier() -> History {
    History::new(vec![start(4, 0, &[41, 42, 43]), start(9, 6, &[42, 41, 43])]).unwrap()
}

const RESTORED: Tail = Tail { epoch: Epoch(9), end: Offset(10) };

fn blank(replica: u128) -> Sealed {
    Sealed {
        replica: ReplicaId(replica),
        cluster: None,
        last: None,
        durable: Tail::default(),
        commit_end: Offset(0),
        suspect: None,
        damaged: false,
        lineage: Lineage::default(),
        runs: Runs::default(),
    }
}

fn restored(replica: u128) -> Sealed {
    Sealed { last: earlier().last().cloned(), durable: RESTORED, ..blank(replica) }
}

fn member(replica: u128) -> Sealed {
    let durable = Tail { epoch: Epoch(3), end: Offset(1) };
    Sealed { cluster: Some(NEW), last: Some(start(3, 0, &[1, 2, 3])), durable, ..blank(replica) }
}

#[expect(clippy::unnecessary_wraps, reason = "a node that says nothing is none")]
fn seen(sealed: Sealed) -> Option<ReplicaStatus> {
    let Sealed { replica, cluster, last, durable, suspect, damaged, .. } = sealed;
    let promised = last.as_ref().map_or(Epoch(0), |last| last.epoch);
    Some(ReplicaStatus {
        replica,
        cluster,
        promised,
        bound: None,
        last,
        durable,
        suspect,
        damaged,
        leaving: false,
        role: IDLE,
    })
}

fn wish(policy: Policy, ordinal: usize) -> Wish {
    Wish { replicas: 3, policy, ordinal, detection_ms: 1000, ..Wish::default() }
}

fn planned(recorded: Option<ClusterId>, nodes: [Option<Sealed>; 3]) -> Step {
    let recorded = Recorded { cluster: recorded, ..Recorded::default() };
    plan(&wish(Policy::Automatic, 0), &recorded, &nodes.map(|node| node.and_then(seen)))
}

#[test]
fn a_cluster_begins_with_the_one_that_was_restored_whoever_is_preferred() {
    for prefer in [None, Some(1), Some(2), Some(3)] {
        let answers = [blank(1), restored(2), blank(3)];
        let Choice { leader, voters, quorum, old_voters, bootstrap, .. } =
            choose(&answers, prefer.map(ReplicaId), FIRST, None, None).unwrap();
        assert_eq!((leader, voters, quorum), (ReplicaId(2), ALL.to_vec(), 2));
        assert!(bootstrap && old_voters == Some(vec![ReplicaId(2)]), "until others hold the log, it is asked");
    }
    for policy in [Policy::Automatic, Policy::Static] {
        let nodes = [blank(1), restored(2), blank(3)].map(seen);
        let Step::Elect { epoch, reason, .. } = plan(&wish(policy, 0), &Recorded::default(), &nodes) else { panic!() };
        assert_eq!((epoch, reason), (Epoch(10), Reason::Bootstrap), "above all that the restored log knows");
    }
}

#[test]
fn the_one_that_was_restored_votes_also_behind_the_nodes_that_are_wished_for() {
    let first = Some(First { voters: &ALL[..2], listed: &ALL });
    let choice = choose(&[blank(1), blank(2), restored(3)], None, first, None, None).unwrap();
    assert_eq!((choice.leader, choice.voters), (ReplicaId(3), vec![ReplicaId(1), ReplicaId(3)]));
}

#[test]
fn a_cluster_begins_with_a_restored_log_only_if_every_node_answers() {
    let waiting = Blocked::WaitingForReplicas { reachable: 2, replicas: 3 };
    assert_eq!(planned(None, [Some(restored(1)), None, Some(blank(3))]), Step::Blocked(waiting.clone()));
    assert_eq!(planned(None, [None, Some(blank(2)), Some(blank(3))]), Step::Blocked(waiting));
    let missing = choose(&[restored(1), blank(3)], None, FIRST, None, None);
    assert_eq!(missing, Err(NoChoice::NotAllBlank { answered: 2, listed: 3 }));
}

#[test]
fn of_two_restored_logs_none_is_taken() {
    let step = planned(None, [Some(restored(1)), Some(blank(2)), Some(restored(3))]);
    assert_eq!(step, Step::Blocked(Blocked::ManyRestored(vec![0, 2])));
    let Step::Blocked(blocked) = step else { panic!() };
    assert!(blocked.to_string().starts_with("replicas 0 and 2 hold restored logs"), "{blocked}");
    let chosen = choose(&[restored(1), blank(2), restored(3)], None, FIRST, None, None);
    assert_eq!(chosen, Err(NoChoice::ManyRestored(vec![ReplicaId(1), ReplicaId(3)])));
}

#[test]
fn a_restored_log_that_is_not_whole_begins_nothing() {
    let damaged = Sealed { damaged: true, ..restored(2) };
    let torn = Sealed { suspect: Some(Tail { epoch: Epoch(9), end: Offset(12) }), ..restored(2) };
    for hurt in [damaged, torn].map(|hurt| move || hurt.clone()) {
        let step = planned(None, [Some(blank(1)), Some(hurt()), Some(blank(3))]);
        assert_eq!(step, Step::Blocked(Blocked::RestoredHurt { ordinal: 1 }));
        let chosen = choose(&[blank(1), hurt(), blank(3)], None, FIRST, None, None);
        assert_eq!(chosen, Err(NoChoice::RestoredHurt(ReplicaId(2))));
    }
}

#[test]
fn a_restored_log_begins_nothing_where_a_cluster_is_recorded_or_has_members() {
    let beside = Step::Blocked(Blocked::RestoredBesideCluster { ordinal: 0, cluster: NEW });
    assert_eq!(planned(Some(NEW), [Some(restored(1)), Some(blank(2)), Some(blank(3))]), beside);
    assert_eq!(planned(None, [Some(restored(1)), Some(member(2)), Some(member(3))]), beside);
    // A recorded cluster goes on without it, and asks it for nothing.
    let step = planned(Some(NEW), [Some(restored(1)), Some(member(2)), Some(member(3))]);
    assert!(matches!(step, Step::Elect { epoch: Epoch(4), reason: Reason::LeaderLost, .. }), "{step:?}");
    let choice = choose(&[restored(1), member(2), member(3)], None, None, None, None).unwrap();
    assert_eq!((choice.leader, choice.bootstrap), (ReplicaId(2), false));
}

// ---- replicas

fn recovered(id: u128, history: History, log: Tail) -> Recovered {
    Recovered {
        id: ReplicaId(id),
        cluster: None,
        promise: Promise { epoch: log.epoch, leader: None },
        history,
        log,
        commit_end: log.end,
        log_start: Offset(0),
        producers: Producers::default(),
        suspect: None,
        damaged: false,
        starts: KnownStarts { lineage: Lineage::default(), runs: Runs::default() },
        restored: false,
    }
}

fn seed() -> Replica {
    Replica::new(Limits::default(), recovered(1, earlier(), RESTORED))
}

fn step(replica: &mut Replica, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    replica.step(Millis(0), input, &mut out);
    out
}

fn seal(replica: &mut Replica, cluster: Option<ClusterId>, epoch: u64) -> Vec<Output> {
    step(replica, Input::Seal { request: RequestId(1), cluster, epoch: Epoch(epoch) })
}

fn appoint(replica: &mut Replica, epoch: u64, voters: &[u128]) -> Vec<Output> {
    let voters: Vec<ReplicaId> = voters.iter().copied().map(ReplicaId).collect();
    let quorum = u32::try_from(voters.len() / 2 + 1).unwrap();
    let old_voters = Some(vec![ReplicaId(1)]);
    let terms = Terms { epoch: Epoch(epoch), voters, quorum, old_voters };
    step(replica, Input::Appoint { request: RequestId(2), cluster: NEW, terms })
}

fn refusal(out: &[Output]) -> Option<&Refusal> {
    out.iter().find_map(|output| match output {
        Output::Reply(_, Reply::Refused(refusal)) | Output::Refuse { refusal, .. } => Some(refusal),
        _ => None,
    })
}

fn first_words(leader: u128, epoch: u64) -> Input {
    let mut history = earlier();
    history.push(begun(epoch, &[leader, 2, 3])).unwrap();
    let (epoch, log) = (Epoch(epoch), Tail { epoch: Epoch(epoch), end: Offset(10) });
    let (leader, runs) = (ReplicaId(leader), Runs::default());
    let start = Start {
        cluster: NEW,
        leader,
        epoch,
        history,
        log,
        commit_end: Offset(0),
        oldest: Offset(0),
        origin: None,
        runs,
    };
    Input::Start { session: Session(5), start }
}

#[test]
fn one_that_was_restored_leads_a_new_cluster_and_follows_nobody() {
    let mut one = seed();
    assert!(one.is_seed());
    assert_eq!(refusal(&step(&mut one, first_words(8, 11))), Some(&Refusal::NotBlank));
    assert_eq!(refusal(&seal(&mut one, Some(NEW), 11)), Some(&Refusal::NotBlank), "sealed for a cluster that there is");
    let promised = Refusal::Promised { asked: Epoch(9), promised: Epoch(9) };
    assert_eq!(refusal(&seal(&mut one, None, 9)), Some(&promised), "an epoch of the restored log");
    assert_eq!(refusal(&seal(&mut one, None, 11)), None);
    let out = step(&mut one, Input::Persisted(Ticket(1)));
    let [Output::Reply(_, Reply::Sealed(sealed))] = &out[..] else { panic!("{out:?}") };
    assert!(sealed.is_seed() && sealed.durable == RESTORED);
    // Not with the voters of the earlier cluster, nor with any of them.
    assert!(refusal(&appoint(&mut one, 11, &[1, 42, 43])).is_some());
    assert_eq!(refusal(&appoint(&mut one, 11, &[1, 2, 3])), None);
    assert_eq!((one.is_seed(), one.begun_cluster()), (false, None), "named, and not begun");
    step(&mut one, Input::Persisted(Ticket(3)));
    assert_eq!(one.begun_cluster(), Some(NEW));
    assert_eq!(
        refusal(&seal(&mut one, None, 12)).map(ToString::to_string).as_deref().map(|w| &w[..12]),
        Some("this replica")
    );
}

#[test]
fn one_whose_appointment_dies_is_restored_still_and_one_whose_epoch_began_is_a_member() {
    let cluster = Some(NEW);
    let promise = Promise { epoch: Epoch(11), leader: Some(ReplicaId(1)) };
    let died = Recovered { cluster, promise, ..recovered(1, earlier(), RESTORED) };
    let mut one = Replica::new(Limits::default(), died);
    assert!(one.is_seed() && one.begun_cluster().is_none());
    // It is sealed for another cluster, and its disk is told to forget the one that was named.
    let out = seal(&mut one, None, 12);
    assert!(matches!(out[..], [Output::WritePromise { cluster: None, epoch: Epoch(12), .. }]), "{out:?}");

    let mut history = earlier();
    history.push(begun(11, &[1, 2, 3])).unwrap();
    let log = Tail { epoch: Epoch(11), end: Offset(10) };
    let begun = Replica::new(Limits::default(), Recovered { cluster, promise, ..recovered(1, history, log) });
    assert!(!begun.is_seed() && begun.begun_cluster() == cluster);
}

#[test]
fn nobody_is_elected_without_the_restored_one_before_a_majority_holds_what_it_does() {
    // The third does not vote, and alone holds the first epoch's start: of the voters that answer none has all of the log.
    let two = Some(begun(11, &[1, 2, 4]));
    let durable = Tail { epoch: Epoch(11), end: Offset(10) };
    let learner = Sealed { cluster: Some(NEW), last: two.clone(), durable, ..blank(3) };
    let behind = |replica| Sealed { cluster: Some(NEW), ..blank(replica) };
    let chosen = choose(&[behind(2), learner.clone(), behind(4)], None, None, None, None);
    assert_eq!(chosen, Err(NoChoice::NoMajority { answered: 0, voters: 1, missing: vec![ReplicaId(1)] }));
    let first = Sealed { cluster: Some(NEW), last: two, durable, ..blank(1) };
    let choice = choose(&[first, behind(2), learner, behind(4)], None, None, None, None).unwrap();
    assert_eq!((choice.leader, choice.old_voters), (ReplicaId(1), Some(vec![ReplicaId(1)])));
    // So it is carried on, and settled once a majority holds it.
    let next = |old: Option<Vec<ReplicaId>>| EpochStart { old_voters: old, ..start(12, 10, &[1, 2, 4]) };
    assert!(
        next(Some(vec![ReplicaId(1)])).follows(&begun(11, &[1, 2, 4])) && next(None).follows(&begun(11, &[1, 2, 4]))
    );
    assert!(!next(Some(vec![ReplicaId(2)])).follows(&begun(11, &[1, 2, 4])));
}

#[test]
fn one_that_is_fed_a_restored_log_takes_the_new_voters_behind_the_earlier_ones() {
    let mut blank = Replica::new(Limits::default(), recovered(2, History::default(), Tail::default()));
    assert_eq!(refusal(&step(&mut blank, first_words(1, 11))), None);
    let frames = |epoch_starts: Vec<EpochStart>| {
        let end = Tail { epoch: epoch_starts.last().unwrap().epoch, end: Offset(10) };
        let facts = FrameFacts { end, epoch_starts, appends: vec![] };
        Input::Frames { session: Session(5), prev: Tail::default(), facts, commit_end: Offset(0), round: 0 }
    };
    let starts = |last: EpochStart| earlier().starts().iter().cloned().chain([last]).collect::<Vec<_>>();
    // Among those of the earlier cluster, voters follow from one another; and one that is half of it begins nothing.
    let mut other = blank.clone();
    let mixed = refusal(&step(&mut other, frames(starts(begun(11, &[1, 2, 43]))))).cloned();
    assert_eq!(mixed, Some(Refusal::OtherVoters { epoch: Epoch(11), before: Epoch(9) }));
    assert_eq!(refusal(&step(&mut blank, frames(starts(begun(11, &[1, 2, 3]))))), None);
    assert_eq!(blank.history().last(), Some(&begun(11, &[1, 2, 3])));
    assert!(blank.history().names(ReplicaId(2)), "from here on voters follow from one another");
}
