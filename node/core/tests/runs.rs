//! A disk that was restored from a copy: whoever has heard of a later start of it tells it, and counts it for nothing.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

use zue_core::{
    ClusterId, Epoch, EpochStart, FrameFacts, History, Input, KnownStarts, Limits, Lineage, Millis, Offset, Output,
    Producers, Promise, Recovered, Refusal, Replica, ReplicaId, Reply, RequestId, RoleView, Run, Runs, Session, Start,
    Tail, Terms, Ticket,
};

const CLUSTER: ClusterId = ClusterId(7);

fn tail(epoch: u64, end: u64) -> Tail {
    Tail { epoch: Epoch(epoch), end: Offset(end) }
}

fn epoch_start(epoch: u64, at: u64) -> EpochStart {
    let voters = vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)];
    EpochStart { epoch: Epoch(epoch), start: Offset(at), leader: ReplicaId(1), voters, quorum: 2, old_voters: None }
}

/// The starts of a disk, as many as there are nonces.
fn lineage(nonces: &[u64]) -> Lineage {
    Lineage { starts: u64::try_from(nonces.len()).unwrap(), nonces: nonces.to_vec() }
}

fn knows(known: &[(u128, u64, u64)]) -> Runs {
    known.iter().map(|(id, starts, nonce)| (ReplicaId(*id), Run { starts: *starts, nonce: *nonce })).collect()
}

/// A replica with ten records of epoch 1.
fn replica(id: u128, nonces: &[u64], runs: Runs) -> Replica {
    let recovered = Recovered {
        id: ReplicaId(id),
        cluster: Some(CLUSTER),
        promise: Promise { epoch: Epoch(1), leader: None },
        history: History::new(vec![epoch_start(1, 0)]).unwrap(),
        log: tail(1, 10),
        commit_end: Offset(0),
        log_start: Offset(0),
        producers: Producers::default(),
        suspect: None,
        damaged: false,
        starts: KnownStarts { lineage: lineage(nonces), runs },
        restored: false,
    };
    Replica::new(Limits::default(), recovered)
}

fn step(replica: &mut Replica, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    replica.step(Millis(0), input, &mut out);
    out
}

/// A leader of epoch 5 whose disk has started once.
fn leader(runs: Runs) -> Replica {
    let mut leader = replica(1, &[10], runs);
    step(&mut leader, Input::Seal { request: RequestId(1), cluster: Some(CLUSTER), epoch: Epoch(5) });
    step(&mut leader, Input::Persisted(Ticket(1)));
    let voters = epoch_start(5, 0).voters;
    let terms = Terms { epoch: Epoch(5), voters, quorum: 2, old_voters: None };
    step(&mut leader, Input::Appoint { request: RequestId(2), cluster: CLUSTER, terms });
    step(&mut leader, Input::Persisted(Ticket(3)));
    leader
}

/// A follower that holds all of it says so.
fn started(leader: &mut Replica, from: u128, nonces: &[u64], runs: Runs) -> Vec<Output> {
    let (from, log) = (ReplicaId(from), tail(5, 10));
    let session = Session(u64::try_from(from.0).unwrap());
    step(leader, Input::Started { from, session, log, durable: log, lineage: lineage(nonces), runs })
}

fn start(epoch: u64, runs: Runs) -> Input {
    let history = History::new(vec![epoch_start(1, 0), epoch_start(epoch, 10)]).unwrap();
    let start = Start {
        cluster: CLUSTER,
        leader: ReplicaId(1),
        epoch: Epoch(epoch),
        history,
        log: tail(epoch, 10),
        commit_end: Offset(10),
        oldest: Offset(0),
        origin: None,
        runs,
    };
    Input::Start { session: Session(9), start }
}

/// The start of the leader's epoch comes.
fn begins(epoch: u64) -> Input {
    let facts = FrameFacts { end: tail(epoch, 10), epoch_starts: vec![epoch_start(epoch, 10)], appends: vec![] };
    Input::Frames { session: Session(9), prev: tail(1, 10), facts, commit_end: Offset(10), round: 0 }
}

#[test]
fn a_start_counts_for_commits_once_the_leader_has_written_it_down() {
    let mut leader = leader(knows(&[(2, 1, 20)]));
    let out = started(&mut leader, 2, &[21, 20], Runs::default());
    let runs = knows(&[(1, 1, 10), (2, 2, 21)]);
    assert_eq!(out, [Output::WriteRuns { ticket: Ticket(4), runs }]);
    assert_eq!(leader.commit_end(), Offset(0));
    let out = step(&mut leader, Input::Persisted(Ticket(4)));
    assert!(out.contains(&Output::Committed(Offset(10))), "{out:?}");
}

#[test]
fn a_known_start_counts_at_once() {
    let mut leader = leader(knows(&[(2, 1, 20)]));
    let out = started(&mut leader, 2, &[20], Runs::default());
    assert!(out.contains(&Output::Committed(Offset(10))), "{out:?}");
}

#[test]
fn a_follower_on_a_restored_disk_commits_nothing_whenever_the_leader_hears_of_it() {
    let acked = |leader: &mut Replica, run| {
        let (from, session, durable) = (ReplicaId(2), Session(2), tail(5, 10));
        step(leader, Input::Acked { from, session, durable, round: 0, run })
    };
    // The copy is from before the second start; it has started twice since.
    let copy: &[u64] = &[29, 28, 20];
    let mut knowing = leader(knows(&[(2, 2, 21)]));
    assert_eq!(started(&mut knowing, 2, copy, Runs::default()), []);
    assert_eq!(acked(&mut knowing, lineage(copy).run()), []);
    // This one hears of it from another follower, while nothing counts yet.
    let mut told = leader(Runs::default());
    started(&mut told, 2, copy, Runs::default());
    started(&mut told, 3, &[30], knows(&[(2, 2, 21)]));
    assert_eq!(told.runs().get(ReplicaId(2)), Some(Run { starts: 2, nonce: 21 }));
    assert_eq!(acked(&mut told, lineage(copy).run()), []);
    for leader in [&mut knowing, &mut told] {
        let durable: Vec<_> = match leader.role(Millis(0)) {
            RoleView::Leader { followers, .. } => followers.into_iter().map(|(id, f)| (id.0, f.counts)).collect(),
            _ => panic!(),
        };
        assert_eq!(durable[0], (2, false));
    }
}

#[test]
fn who_is_told_of_a_start_that_its_disk_has_not_seen_takes_part_in_nothing_any_more() {
    let restored = || replica(2, &[29, 20], knows(&[(1, 1, 10)]));
    let seal = || Input::Seal { request: RequestId(1), cluster: Some(CLUSTER), epoch: Epoch(9) };
    let is_restored = |mut replica: Replica, out: &[Output]| {
        let refused = Output::Refuse { session: Session(9), refusal: Refusal::Restored };
        assert!(out.contains(&refused), "{out:?}");
        assert!(out.iter().any(|output| matches!(output, Output::WriteRestored { .. })), "{out:?}");
        assert!(replica.is_restored() && replica.role(Millis(0)) == RoleView::Failed);
        let failed = Output::Reply(RequestId(1), Reply::Refused(Refusal::Failed));
        assert_eq!(step(&mut replica, seal()), [failed]);
    };
    let mut at_start = restored();
    step(&mut at_start, start(5, knows(&[(2, 2, 21)])));
    let out = step(&mut at_start, begins(5));
    assert!(out.iter().all(|output| !matches!(output, Output::WriteFrames { .. })), "{out:?}");
    is_restored(at_start, &out);
    let mut later = restored();
    step(&mut later, start(5, knows(&[(2, 1, 20)])));
    step(&mut later, begins(5));
    let runs = knows(&[(2, 3, 22)]);
    let out = step(&mut later, Input::Runs { session: Session(9), runs });
    is_restored(later, &out);
    // One that has seen it goes on.
    let mut sound = restored();
    assert!(step(&mut sound, start(5, knows(&[(2, 2, 29)]))).iter().all(|o| !matches!(o, Output::Refuse { .. })));
    assert!(step(&mut sound, begins(5)).iter().all(|o| !matches!(o, Output::Refuse { .. })));
}

#[test]
fn whoever_opens_a_stream_makes_no_disk_a_copy_before_the_start_of_its_epoch_is_in_the_log() {
    let invented = || knows(&[(2, 2, 7), (3, 1 << 60, 7), (77, 1, 7)]);
    // Refused, for its epoch is below the promise or its history ends with another.
    for epoch in [0, 3] {
        let mut follower = replica(2, &[20], knows(&[(3, 1, 30)]));
        step(&mut follower, Input::Seal { request: RequestId(1), cluster: Some(CLUSTER), epoch: Epoch(4) });
        let Input::Start { session, start } = start(5, invented()) else { unreachable!() };
        let refused = step(&mut follower, Input::Start { session, start: Start { epoch: Epoch(epoch), ..start } });
        assert!(matches!(refused[..], [Output::Refuse { .. }]), "{refused:?}");
        assert!(!follower.is_restored() && *follower.runs() == knows(&[(2, 1, 20), (3, 1, 30)]));
    }
    // Taken on: nothing of it counts yet, nor what comes later on that stream.
    let mut follower = replica(2, &[20], knows(&[(3, 1, 30)]));
    let mut out = step(&mut follower, start(5, invented()));
    out.extend(step(&mut follower, Input::Runs { session: Session(9), runs: invented() }));
    assert!(out.iter().all(|o| !matches!(o, Output::WriteRestored { .. } | Output::WriteRuns { .. })), "{out:?}");
    assert!(!follower.is_restored() && *follower.runs() == knows(&[(2, 1, 20), (3, 1, 30)]));
    // Even then only of members, and only what a disk can have reached.
    let mut follower = replica(2, &[20], knows(&[(3, 1, 30)]));
    step(&mut follower, start(5, knows(&[(2, u64::MAX, 7), (3, 1 << 60, 7), (77, 1, 7), (1, 1, 10)])));
    step(&mut follower, begins(5));
    assert!(!follower.is_restored() && *follower.runs() == knows(&[(1, 1, 10), (2, 1, 20), (3, 1, 30)]));
}

#[test]
fn what_a_learner_says_of_others_is_not_believed() {
    let mut leader = leader(knows(&[(2, 1, 20)]));
    step(&mut leader, Input::Learners { request: RequestId(3), epoch: Epoch(5), learners: vec![ReplicaId(77)] });
    started(&mut leader, 77, &[70], knows(&[(1, 9, 99), (2, 9, 99)]));
    assert!(!leader.is_restored());
    assert_eq!(*leader.runs(), knows(&[(1, 1, 10), (2, 1, 20), (77, 1, 70)]));
}

#[test]
fn a_follower_writes_down_what_its_leader_knows_before_it_acknowledges_anything_of_its_epoch() {
    let mut follower = replica(2, &[20], Runs::default());
    let out = step(&mut follower, start(5, knows(&[(1, 4, 10), (2, 1, 20), (3, 7, 30)])));
    assert!(!out.iter().any(|output| matches!(output, Output::WriteRuns { .. })), "{out:?}");
    step(&mut follower, Input::Persisted(Ticket(1)));
    let out = step(&mut follower, begins(5));
    let write = out.iter().position(|output| matches!(output, Output::WriteRuns { .. })).unwrap();
    let Output::WriteRuns { runs, ticket } = &out[write] else { panic!() };
    assert_eq!(*runs, knows(&[(1, 4, 10), (2, 1, 20), (3, 7, 30)]));
    let frames = out.iter().position(|output| matches!(output, Output::WriteFrames { .. })).unwrap();
    assert!(write < frames, "{out:?}");
    let acks =
        |out: &[Output]| out.iter().any(|o| matches!(o, Output::SendAck { durable, .. } if durable.epoch == Epoch(5)));
    let (noted, written) = (*ticket, Ticket(ticket.0 + 1));
    assert!(!acks(&out) && !acks(&step(&mut follower, Input::Persisted(noted))));
    assert!(acks(&step(&mut follower, Input::Persisted(written))));
    // On a further stream of the epoch, before it answers.
    let mut again = start(5, knows(&[(1, 5, 11), (2, 1, 20)]));
    let Input::Start { start, .. } = &mut again else { unreachable!() };
    start.log = tail(5, 10);
    let out = step(&mut follower, again);
    assert!(matches!(out[..], [Output::WriteRuns { .. }]), "{out:?}");
}

#[test]
fn what_a_follower_acknowledged_before_a_restart_counts_no_more() {
    let mut leader = leader(knows(&[(2, 1, 20)]));
    let out = started(&mut leader, 2, &[20], Runs::default());
    assert!(out.contains(&Output::Committed(Offset(10))), "{out:?}");
    // Its machine has forgotten the last three records, and the start of the epoch.
    let (from, session, found) = (ReplicaId(2), Session(4), tail(1, 7));
    let (lineage, runs) = (lineage(&[21, 20]), Runs::default());
    step(&mut leader, Input::Started { from, session, log: found, durable: found, lineage, runs });
    let RoleView::Leader { followers, .. } = leader.role(Millis(0)) else { panic!() };
    assert_eq!((followers[0].0, followers[0].1.durable), (from, found));
    assert_eq!(followers[0].1.caught_up, None);
}

#[test]
fn a_leader_is_told_that_its_disk_was_restored() {
    let mut leader = leader(Runs::default());
    let out = started(&mut leader, 2, &[20], knows(&[(1, 1, 10)]));
    assert!(!leader.is_restored() && !out.contains(&Output::StepDown), "{out:?}");
    let out = started(&mut leader, 3, &[30], knows(&[(1, 2, 11)]));
    assert!(out.iter().any(|output| matches!(output, Output::WriteRestored { .. })), "{out:?}");
    assert!(leader.is_restored() && leader.role(Millis(0)) == RoleView::Failed);
}

#[test]
fn a_leader_whose_start_is_over_or_of_a_copy_is_not_followed() {
    let after = |told| {
        let mut follower = replica(2, &[20], knows(&[(1, 3, 30)]));
        let out = step(&mut follower, start(5, knows(&[told])));
        assert!(follower.role(Millis(0)) != RoleView::Failed && follower.log() == tail(1, 10));
        out.iter().any(|output| matches!(output, Output::Refuse { .. }))
    };
    assert!(after((1, 2, 22)) && after((1, 3, 33)));
    assert!(!after((1, 3, 30)) && !after((1, 4, 44)));
}

#[test]
fn whom_a_leader_feeds_is_not_forgotten_however_many_replicas_there_were() {
    let before = (100..117).map(|id| (id, 1, 1));
    let mut leader = leader(knows(&before.chain([(2, 1, 20), (3, 1, 30)]).collect::<Vec<_>>()));
    let learners = vec![ReplicaId(4), ReplicaId(5)];
    step(&mut leader, Input::Learners { request: RequestId(3), epoch: Epoch(5), learners });
    for id in [4, 5] {
        started(&mut leader, id, &[40], Runs::default());
    }
    assert_eq!(leader.runs().iter().count(), zue_core::RUNS_MAX);
    assert!(leader.runs().get(ReplicaId(4)).is_some() && leader.runs().get(ReplicaId(5)).is_some());
}
