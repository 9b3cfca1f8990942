//! The start of the log: what a leader trims, what a follower keeps to, and what happens to one that fell behind the start.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

use zue_core::{
    Appended, ClusterId, EPOCHS_AHEAD_MAX, Epoch, EpochStart, FrameFacts, History, Input, KnownStarts, Limits, Lineage,
    Millis, OFFSET_MAX, OFFSETS_AHEAD_MAX, Offset, Origin, Output, ProducerId, Producers, Promise, Recovered, Refusal,
    Replica, ReplicaId, Reply, RequestId, Run, Runs, Session, Start, Tail, Terms, Ticket,
};

const CLUSTER: ClusterId = ClusterId(7);
const SESSION: Session = Session(1);

fn epoch_start(epoch: u64, at: u64) -> EpochStart {
    let voters = vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)];
    let (epoch, start) = (Epoch(epoch), Offset(at));
    EpochStart { epoch, start, leader: ReplicaId(1), voters, quorum: 2, old_voters: None }
}

fn history(starts: &[(u64, u64)]) -> History {
    History::new(starts.iter().map(|(epoch, at)| epoch_start(*epoch, *at)).collect()).unwrap()
}

fn tail(epoch: u64, end: u64) -> Tail {
    Tail { epoch: Epoch(epoch), end: Offset(end) }
}

/// A replica with that history, log end, commit end and log start.
fn replica(id: u128, starts: &[(u64, u64)], end: u64, commit_end: u64, log_start: u64) -> Replica {
    let history = history(starts);
    let log = Tail { epoch: history.last_epoch(), end: Offset(end) };
    let recovered = Recovered {
        id: ReplicaId(id),
        cluster: (!history.is_empty()).then_some(CLUSTER),
        promise: Promise { epoch: log.epoch, leader: None },
        history,
        log,
        commit_end: Offset(commit_end),
        log_start: Offset(log_start),
        producers: Producers::default(),
        suspect: None,
        damaged: false,
        // What everybody knows of everybody changes nothing.
        starts: KnownStarts {
            lineage: Lineage::default(),
            runs: (1..=9).map(|id| (ReplicaId(id), Run::default())).collect(),
        },
        restored: false,
    };
    Replica::new(Limits::default(), recovered)
}

fn step(replica: &mut Replica, input: Input) -> Vec<Output> {
    let mut out = Vec::new();
    replica.step(Millis(0), input, &mut out);
    out
}

fn persist(replica: &mut Replica, ticket: u64) -> Vec<Output> {
    step(replica, Input::Persisted(Ticket(ticket)))
}

fn start(starts: &[(u64, u64)], end: u64, oldest: u64, origin: Option<Origin>) -> Input {
    let history = history(starts);
    let log = Tail { epoch: history.last_epoch(), end: Offset(end) };
    let (epoch, commit_end, oldest) = (log.epoch, Offset(end), Offset(oldest));
    let (cluster, leader) = (CLUSTER, ReplicaId(1));
    Input::Start {
        session: SESSION,
        start: Start { cluster, leader, epoch, history, log, commit_end, oldest, origin, runs: Runs::default() },
    }
}

fn origin(starts: &[(u64, u64)], at: u64) -> Origin {
    let mut producers = Producers::default();
    let producer = ProducerId { born: Offset(0), nonce: 5 };
    producers.record(Appended { producer, sequence: 0, count: 1, base: Offset(at - 1) });
    Origin { at: Offset(at), history: history(starts), timestamp_ms: 9, producers }
}

/// A leader of epoch 5 over ten committed records.
fn leader() -> Replica {
    led(replica(1, &[(1, 0), (3, 4)], 10, 0, 0))
}

/// The replica leads epoch 5, and all it holds is committed.
fn led(mut leader: Replica) -> Replica {
    let end = leader.log().end;
    step(&mut leader, Input::Seal { request: RequestId(1), cluster: Some(CLUSTER), epoch: Epoch(5) });
    persist(&mut leader, 1);
    let voters = epoch_start(5, 0).voters;
    let terms = Terms { epoch: Epoch(5), voters, quorum: 2, old_voters: None };
    step(&mut leader, Input::Appoint { request: RequestId(2), cluster: CLUSTER, terms });
    persist(&mut leader, 3);
    let (from, log) = (ReplicaId(2), tail(5, end.0));
    step(
        &mut leader,
        Input::Started {
            from,
            session: SESSION,
            log,
            durable: log,
            lineage: Lineage::default(),
            runs: Runs::default(),
        },
    );
    assert_eq!(leader.commit_end(), end);
    leader
}

fn ask(leader: &mut Replica, request: u64, before: u64) -> Vec<Output> {
    step(leader, Input::Trim { request: RequestId(request), before: Offset(before) })
}

#[test]
fn a_trim_is_answered_when_a_quorum_has_it_durably() {
    let mut leader = leader();
    assert_eq!(ask(&mut leader, 7, 6), [Output::Trim { ticket: Ticket(4), before: Offset(6) }]);
    let told = |from| Input::Trimmed { from: ReplicaId(from), log_start: Offset(6) };
    // One follower is not enough, nor is the leader alone.
    assert_eq!(step(&mut leader, told(2)), []);
    let answer = [Output::Reply(RequestId(7), Reply::Trimmed(Offset(6)))];
    let mut other = leader.clone();
    assert_eq!(persist(&mut leader, 4), answer);
    assert_eq!(step(&mut other, told(3)), answer, "two followers are a quorum too");
    // What was trimmed needs nothing more.
    assert_eq!(ask(&mut leader, 8, 3), [Output::Reply(RequestId(8), Reply::Trimmed(Offset(6)))]);
    assert_eq!(leader.history(), &history(&[(3, 4), (5, 10)]));
}

#[test]
fn a_trim_of_what_is_not_committed_is_refused_with_the_range() {
    let mut leader = leader();
    step(&mut leader, Input::Append { request: RequestId(6), producer: None, count: 5, bytes: 1 });
    let (before, log_start, commit_end) = (Offset(11), Offset(0), Offset(10));
    let refusal = Refusal::TrimOutOfRange { before, log_start, commit_end };
    assert_eq!(ask(&mut leader, 7, 11), [Output::Reply(RequestId(7), Reply::Refused(refusal))]);
    let mut follower = replica(2, &[(1, 0)], 10, 10, 0);
    let refused = Output::Reply(RequestId(7), Reply::Refused(Refusal::NotLeader));
    assert_eq!(ask(&mut follower, 7, 1), [refused]);
}

#[test]
fn a_leader_that_steps_down_says_that_a_trim_may_or_may_not_be_made() {
    let mut leader = leader();
    ask(&mut leader, 7, 6);
    let out = step(&mut leader, Input::Seal { request: RequestId(8), cluster: Some(CLUSTER), epoch: Epoch(6) });
    assert!(out.contains(&Output::Reply(RequestId(7), Reply::Refused(Refusal::SteppedDown))), "{out:?}");
}

#[test]
fn a_leader_keeps_to_what_an_earlier_one_has_trimmed_once_it_knows_it_to_be_committed() {
    let mut leader = leader();
    step(&mut leader, Input::Append { request: RequestId(6), producer: None, count: 5, bytes: 1 });
    let told = Input::Trimmed { from: ReplicaId(3), log_start: Offset(12) };
    assert_eq!(step(&mut leader, told), []);
    persist(&mut leader, 4);
    let acked =
        Input::Acked { from: ReplicaId(2), session: SESSION, durable: tail(5, 15), round: 0, run: Run::default() };
    let out = step(&mut leader, acked);
    assert!(out.contains(&Output::Trim { ticket: Ticket(5), before: Offset(12) }), "{out:?}");
}

#[test]
fn a_follower_trims_once_it_knows_it_to_be_committed_and_says_when_that_is_durable() {
    let heartbeat = |commit_end| Input::Heartbeat { session: SESSION, commit_end, log_end: Offset(20), round: 0 };
    let told = |log_start| Input::LogStart { session: SESSION, log_start: Offset(log_start) };
    let following = || {
        let mut follower = replica(2, &[(1, 0)], 10, 4, 0);
        step(&mut follower, start(&[(1, 0), (2, 10)], 10, 0, None));
        persist(&mut follower, 1);
        follower
    };
    let begin = |follower: &mut Replica| {
        let facts = FrameFacts { end: tail(2, 10), epoch_starts: vec![epoch_start(2, 10)], appends: vec![] };
        step(follower, Input::Frames { session: SESSION, prev: tail(1, 10), facts, commit_end: Offset(10), round: 0 });
    };
    // All of it is durable, and the leader has said that ten are committed; but the start of its epoch has not come.
    let mut stranger = following();
    step(&mut stranger, heartbeat(Offset(10)));
    assert_eq!(step(&mut stranger, told(8)), [], "whoever opens a stream can say so");
    begin(&mut stranger);
    assert_eq!(step(&mut stranger, told(9)), [], "it is not durable");
    assert!(persist(&mut stranger, 2).contains(&Output::Trim { ticket: Ticket(3), before: Offset(9) }));
    let mut follower = following();
    begin(&mut follower);
    persist(&mut follower, 2);
    assert_eq!(step(&mut follower, told(12)), [], "as far as it does not hold");
    assert_eq!(step(&mut follower, Input::LogStart { session: Session(9), log_start: Offset(5) }), []);
    let mut follower = following();
    begin(&mut follower);
    persist(&mut follower, 2);
    assert_eq!(step(&mut follower, told(8)), [Output::Trim { ticket: Ticket(3), before: Offset(8) }]);
    assert_eq!(persist(&mut follower, 3), [Output::SendTrimmed { session: SESSION, log_start: Offset(8) }]);
    assert_eq!(step(&mut follower, told(8)), []);
}

#[test]
fn a_leader_hears_where_logs_begin_from_those_who_elect_and_from_nobody_else() {
    let mut leader = leader();
    step(&mut leader, Input::Learners { request: RequestId(6), epoch: Epoch(5), learners: vec![ReplicaId(77)] });
    assert_eq!(step(&mut leader, Input::Trimmed { from: ReplicaId(77), log_start: Offset(10) }), []);
    let out = step(&mut leader, Input::Trimmed { from: ReplicaId(3), log_start: Offset(6) });
    assert!(out.contains(&Output::Trim { ticket: Ticket(4), before: Offset(6) }), "{out:?}");
}

#[test]
fn a_start_with_offsets_that_no_log_reaches_is_refused() {
    let far = OFFSETS_AHEAD_MAX + 20;
    for (oldest, end) in [(0, OFFSET_MAX.0 + 1), (0, u64::MAX), (u64::MAX, 30), (far, far)] {
        let mut follower = replica(2, &[(1, 0), (2, 8)], 9, 8, 0);
        let refused =
            joined(&mut follower, start(&[(3, 10), (5, 20)], end, oldest, Some(origin(&[(3, 10)], oldest.max(1)))));
        assert!(matches!(refused, Err(Refusal::Impossible(_))), "{refused:?} for {oldest} to {end}");
        assert_eq!(follower.log(), tail(2, 9));
    }
}

#[test]
fn a_replica_that_was_away_while_the_others_climbed_comes_nearer_with_each_try_of_its_leader() {
    let mut follower = replica(2, &[(1, 0)], 10, 4, 0);
    let far = 2 + 2 * EPOCHS_AHEAD_MAX;
    for promised in [1, 1 + EPOCHS_AHEAD_MAX] {
        let refusal = Refusal::TooFarAhead { asked: Epoch(far), promised: Epoch(promised) };
        assert_eq!(joined(&mut follower, start(&[(1, 0), (far, 10)], 10, 0, None)), Err(refusal));
        assert_eq!(follower.promise(), Promise { epoch: Epoch(promised + EPOCHS_AHEAD_MAX), leader: None });
    }
    assert_eq!(joined(&mut follower, start(&[(1, 0), (far, 10)], 10, 0, None)), Ok(Some(tail(1, 10))));
    assert_eq!(follower.promise().epoch, Epoch(far));
}

#[test]
fn frames_and_appends_end_where_offsets_do() {
    let mut follower = replica(2, &[(1, 0)], 10, 4, 0);
    step(&mut follower, start(&[(1, 0), (2, 10)], 10, 0, None));
    persist(&mut follower, 1);
    let facts = FrameFacts { end: tail(1, 11 + OFFSETS_AHEAD_MAX), epoch_starts: vec![], appends: vec![] };
    let frames = Input::Frames { session: SESSION, prev: tail(1, 10), facts, commit_end: Offset(10), round: 0 };
    let refused = step(&mut follower, frames);
    assert!(matches!(refused[..], [Output::Refuse { refusal: Refusal::Impossible(_), .. }]), "{refused:?}");
    let end = Offset(OFFSET_MAX.0 - 2);
    let mut leader = led(replica(1, &[(1, 0), (3, 4)], end.0, 0, 0));
    let append = |count| Input::Append { request: RequestId(6), producer: None, count, bytes: 10 };
    let refusal = Refusal::OffsetsUsedUp { end, count: 3 };
    assert_eq!(step(&mut leader, append(3)), [Output::Reply(RequestId(6), Reply::Refused(refusal))]);
    step(&mut leader, append(2));
    assert_eq!(leader.log().end, OFFSET_MAX);
}

/// Lets the disk do all of that.
fn persist_all(replica: &mut Replica, out: &[Output]) -> Vec<Output> {
    let tickets = out.iter().filter_map(|output| match output {
        Output::WritePromise { ticket, .. } | Output::Cut { ticket, .. } | Output::Reset { ticket, .. } => {
            Some(*ticket)
        }
        Output::WriteFrames { ticket } => Some(*ticket),
        _ => None,
    });
    tickets.max().map_or_else(Vec::new, |last| step(replica, Input::Persisted(last)))
}

fn refusal(out: &[Output]) -> Option<Refusal> {
    out.iter().find_map(|output| match output {
        Output::Refuse { refusal, .. } => Some(refusal.clone()),
        _ => None,
    })
}

/// The answer to a start: where the logs are joined, and what of that is durable.
fn answered(out: &[Output]) -> Option<(Tail, Tail)> {
    out.iter().find_map(|output| match output {
        Output::SendStarted { log, durable, .. } => Some((*log, *durable)),
        _ => None,
    })
}

/// The frames that lead from there to the end of the leader's log.
fn frames_of(start: &Input, prev: Tail) -> Input {
    let Input::Start { session, start } = start else { unreachable!() };
    let starts = start.history.starts().iter();
    let epoch_starts = starts.filter(|start| start.epoch > prev.epoch).cloned().collect();
    let facts = FrameFacts { end: start.log, epoch_starts, appends: vec![] };
    Input::Frames { session: *session, prev, facts, commit_end: Offset(0), round: 0 }
}

fn held(replica: &Replica) -> (Tail, Tail, Offset, Offset, History) {
    let (log, durable, history) = (replica.log(), replica.durable(), replica.history().clone());
    (log, durable, replica.commit_end(), replica.log_start(), history)
}

/// A follower's reaction to a leader's start, and to what follows: where it cuts to, `Err` for what it refuses, `None` if it begins
/// anew. The start alone changes nothing of what it holds.
fn joined(follower: &mut Replica, with: Input) -> Result<Option<Tail>, Refusal> {
    let before = held(follower);
    let out = step(follower, with.clone());
    assert_eq!(before, held(follower));
    if let Some(refusal) = refusal(&out) {
        return Err(refusal);
    }
    let mut told = out.clone();
    told.extend(persist_all(follower, &out));
    let (joint, _) = answered(&told).unwrap();
    let out = step(follower, frames_of(&with, joint));
    assert_eq!(refusal(&out), None);
    for output in &out {
        match output {
            Output::Reset { .. } => return Ok(None),
            Output::Cut { to, .. } => return Ok(Some(*to)),
            _ => {}
        }
    }
    Ok(Some(joint))
}

#[test]
fn histories_are_joined_whichever_of_them_is_trimmed() {
    let leader = [(1, 0), (3, 10), (5, 20)];
    for (own, end, commit_end, log_start, theirs, oldest, expected) in [
        // Neither is, then the leader's, then the follower's, then both.
        (&[(1, 0), (3, 10)][..], 15, 12, 0, &leader[..], 0, Ok(Some(tail(3, 15)))),
        (&[(1, 0), (3, 10)], 15, 12, 0, &leader[1..], 12, Ok(Some(tail(3, 15)))),
        (&[(3, 10)], 15, 12, 12, &leader, 0, Ok(Some(tail(3, 15)))),
        (&[(3, 10)], 15, 12, 12, &leader[1..], 14, Ok(Some(tail(3, 15)))),
        // A suffix of a rival epoch is cut.
        (&[(1, 0), (2, 8)], 15, 5, 0, &leader, 0, Ok(Some(tail(1, 8)))),
        (&[(3, 10), (4, 14)], 19, 12, 11, &leader[1..], 13, Ok(Some(tail(3, 14)))),
        // It ends before the leader's oldest, or lacks what the leader's begins with, or has nothing.
        (&[(1, 0), (3, 10)], 15, 12, 0, &leader[1..], 16, Ok(None)),
        (&[(1, 0), (2, 8)], 30, 8, 0, &leader[1..], 12, Ok(None)),
        (&[], 0, 0, 0, &leader[1..], 12, Ok(None)),
        (&[(1, 0), (2, 8)], 30, 8, 0, &leader[2..], 25, Ok(None)),
        // It knows more to be committed than it shares: never.
        (&[(1, 0), (2, 8)], 15, 13, 0, &leader[1..], 12, Err(13)),
        (&[(3, 10), (4, 14)], 19, 17, 11, &leader[1..], 13, Err(17)),
        (&[(3, 10), (4, 14)], 19, 17, 11, &leader[1..], 18, Err(17)),
    ] {
        let mut follower = replica(2, own, end, commit_end, log_start);
        let begins = theirs.iter().rfind(|(_, at)| *at < oldest).copied();
        let anew = (oldest > 0).then(|| origin(&begins.into_iter().collect::<Vec<_>>(), oldest));
        let case = format!("{own:?} to {end} and {theirs:?} from {oldest}");
        if let Ok(None) = expected {
            let asked = joined(&mut follower, start(theirs, 30, oldest, None));
            assert_eq!(asked, Err(Refusal::NeedsOrigin { oldest: Offset(oldest) }), "{case}");
        }
        match (joined(&mut follower, start(theirs, 30, oldest, anew)), expected) {
            (Ok(to), Ok(expected)) => assert_eq!(to, expected, "{case}"),
            (Err(Refusal::Parted { commit_end, .. }), Err(expected)) => assert_eq!(commit_end.0, expected, "{case}"),
            (other, expected) => panic!("{case}: {other:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_replica_that_begins_anew_says_nothing_is_durable_before_it_is() {
    let mut follower = replica(2, &[(1, 0), (2, 8)], 9, 8, 0);
    let anew = origin(&[(3, 10)], 12);
    let start = start(&[(3, 10), (5, 20)], 30, 12, Some(anew.clone()));
    step(&mut follower, start.clone());
    let started = Output::SendStarted { session: SESSION, log: tail(3, 12), durable: Tail::default() };
    assert_eq!(persist(&mut follower, 1), [started]);
    let out = step(&mut follower, frames_of(&start, tail(3, 12)));
    let reset = Output::Reset { ticket: Ticket(2), origin: anew.clone() };
    assert_eq!(out, [reset, Output::WriteFrames { ticket: Ticket(3) }]);
    assert_eq!((follower.durable(), follower.commit_end(), follower.log_start()), (tail(0, 0), Offset(8), Offset(0)));
    let out = persist(&mut follower, 2);
    assert!(out.contains(&Output::Committed(Offset(12))), "{out:?}");
    assert!(out.contains(&Output::SendAck { session: SESSION, durable: tail(3, 12), round: 0 }), "{out:?}");
    assert!(out.contains(&Output::SendTrimmed { session: SESSION, log_start: Offset(12) }), "{out:?}");
    assert_eq!((follower.commit_end(), follower.log_start()), (Offset(12), Offset(12)));
    assert_eq!(follower.history(), &history(&[(3, 10), (5, 20)]));
}

#[test]
fn a_replica_that_begins_anew_twice_knows_nothing_of_the_first_time() {
    let mut follower = replica(2, &[(1, 0), (2, 8)], 9, 8, 0);
    let starts = [(3, 10), (5, 11)];
    for (end, at) in [(30, 12), (40, 35)] {
        let start = start(&starts, end, at, Some(origin(&starts, at)));
        step(&mut follower, start.clone());
        step(&mut follower, frames_of(&start, tail(5, at)));
    }
    // The disk has begun the log anew at 12, and is about to do so at 35.
    persist(&mut follower, 3);
    assert_eq!((follower.durable(), follower.commit_end(), follower.log_start()), (tail(0, 0), Offset(8), Offset(0)));
    persist(&mut follower, 4);
    assert_eq!((follower.durable(), follower.commit_end()), (tail(5, 35), Offset(35)));
    assert_eq!(follower.log_start(), Offset(35));
}

#[test]
fn a_log_that_is_being_begun_anew_is_not_cut_before_where_it_begins() {
    let mut follower = replica(2, &[(1, 0), (2, 8)], 9, 8, 0);
    let starts = [(3, 10), (5, 20)];
    let anew = start(&starts, 30, 25, Some(origin(&starts, 25)));
    step(&mut follower, anew.clone());
    step(&mut follower, frames_of(&anew, tail(5, 25)));
    let refused = step(&mut follower, start(&[(3, 10), (6, 22)], 24, 20, None));
    assert_eq!(refusal(&refused), Some(Refusal::Parted { parted: Offset(20), commit_end: Offset(25) }));
    persist(&mut follower, 2);
    assert_eq!((follower.commit_end(), follower.log()), (Offset(25), tail(5, 30)));
}

/// Starts that take something of a log with epochs 1 and 2 that ends at 15, of which 10 are committed; and where they join it.
fn takers() -> Vec<(Input, Tail, Tail)> {
    let near = |at: u64| start(&[(9, at - 1)], at + 5, at, Some(origin(&[(9, at - 1)], at)));
    let mut takers: Vec<_> = [16, 20, 300].map(|at| (near(at), tail(9, at), Tail::default())).into();
    for at in [10, 12] {
        takers.push((start(&[(1, 0), (2, 8), (9, at)], 20, 0, None), tail(2, at), tail(2, at)));
    }
    takers
}

#[test]
fn a_start_alone_takes_nothing_of_a_log() {
    for (start, joint, durable) in takers() {
        let mut follower = replica(2, &[(1, 0), (2, 8)], 15, 10, 0);
        let before = held(&follower);
        let out = step(&mut follower, start.clone());
        assert!(matches!(out[..], [Output::WritePromise { .. }]), "{out:?}");
        // Its leader hears of what is joined, and of nothing else.
        let out = persist(&mut follower, 1);
        assert_eq!(answered(&out), Some((joint, durable)));
        let far = Offset(1000);
        let heartbeat = Input::Heartbeat { session: SESSION, commit_end: far, log_end: far, round: 3 };
        assert_eq!(step(&mut follower, heartbeat), [Output::SendAck { session: SESSION, durable, round: 3 }]);
        assert_eq!(step(&mut follower, Input::LogStart { session: SESSION, log_start: Offset(10) }), []);
        assert_eq!(held(&follower), before);
        // It ends, or something else comes: whoever elects hears of the log as it was.
        let mut sealed = follower.clone();
        step(&mut follower, Input::StreamEnded { session: SESSION });
        let late = step(&mut follower, frames_of(&start, joint));
        assert_eq!(refusal(&late), Some(Refusal::OtherStream));
        assert_eq!(held(&follower), before);
        step(&mut sealed, Input::Seal { request: RequestId(1), cluster: Some(CLUSTER), epoch: Epoch(10) });
        let out = persist(&mut sealed, 2);
        let [Output::Reply(_, Reply::Sealed(answer))] = &out[..] else { panic!("{out:?}") };
        assert_eq!(answer.durable, tail(2, 15));
        assert_eq!(held(&sealed), before);
        assert_eq!(refusal(&step(&mut sealed, frames_of(&start, joint))), Some(Refusal::OtherStream));
    }
}

#[test]
fn another_start_is_joined_with_the_log_as_it_was() {
    for (start_of_stranger, ..) in takers() {
        let mut follower = replica(2, &[(1, 0), (2, 8)], 15, 10, 0);
        let out = step(&mut follower, start_of_stranger);
        persist_all(&mut follower, &out);
        assert_eq!(joined(&mut follower, start(&[(1, 0), (2, 8), (11, 15)], 20, 0, None)), Ok(Some(tail(2, 15))));
        assert_eq!(follower.log(), tail(11, 20));
    }
}

#[test]
fn frames_that_are_refused_leave_a_log_that_is_to_be_joined_as_it_was() {
    for (start, joint, _) in takers() {
        let mut following = replica(2, &[(1, 0), (2, 8)], 15, 10, 0);
        let before = held(&following);
        step(&mut following, start.clone());
        persist(&mut following, 1);
        let mut foreign = epoch_start(9, joint.end.0);
        foreign.voters = vec![ReplicaId(77)];
        let frames = |prev: Tail, end, epoch_starts| {
            let facts = FrameFacts { end, epoch_starts, appends: vec![] };
            Input::Frames { session: SESSION, prev, facts, commit_end: Offset(0), round: 0 }
        };
        let next = Tail { end: joint.end.plus(1), ..joint };
        for refused in [
            frames(tail(2, 15), tail(2, 16), vec![]),
            frames(joint, joint, vec![]),
            frames(joint, Tail { epoch: Epoch(10), ..next }, vec![]),
            frames(joint, Tail { epoch: Epoch(4), ..next }, vec![]),
            frames(joint, Tail { end: joint.end.plus(OFFSETS_AHEAD_MAX + 1), ..joint }, vec![]),
            frames(joint, Tail { epoch: Epoch(9), ..next }, vec![foreign]),
        ] {
            let mut follower = following.clone();
            let out = step(&mut follower, refused.clone());
            assert!(matches!(out[..], [Output::Refuse { .. }]), "{refused:?}: {out:?}");
            assert_eq!(held(&follower), before);
        }
        let out = step(&mut following, frames(joint, next, vec![]));
        assert!(matches!(out[..], [Output::Reset { .. } | Output::Cut { .. }, Output::WriteFrames { .. }]), "{out:?}");
        assert_eq!(following.log(), next);
    }
}

#[test]
fn a_heartbeat_joins_a_log_whose_leader_has_nothing_to_send() {
    let begins = || {
        let mut follower = replica(2, &[(1, 0), (2, 8)], 15, 10, 0);
        let out = step(&mut follower, start(&[(9, 19)], 20, 20, Some(origin(&[(9, 19)], 20))));
        persist_all(&mut follower, &out);
        follower
    };
    let heartbeat =
        |log_end| Input::Heartbeat { session: SESSION, commit_end: Offset(20), log_end: Offset(log_end), round: 1 };
    // There is more, which is to come.
    let mut follower = begins();
    let ack = Output::SendAck { session: SESSION, durable: Tail::default(), round: 1 };
    assert_eq!(step(&mut follower, heartbeat(21)), std::slice::from_ref(&ack));
    assert_eq!(follower.log(), tail(2, 15));
    let mut follower = begins();
    let out = step(&mut follower, heartbeat(20));
    assert!(matches!(&out[..], [Output::Reset { .. }, last] if *last == ack), "{out:?}");
    persist_all(&mut follower, &out);
    assert_eq!(
        (follower.durable(), follower.commit_end(), follower.log_start()),
        (tail(9, 20), Offset(20), Offset(20))
    );
}

#[test]
fn an_origin_that_does_not_fit_is_refused() {
    for (starts, at) in [(&[(3, 13)], 12), (&[(3, 10)], 13), (&[(9, 10)], 12), (&[(3, 9)], 12)] {
        let mut follower = replica(2, &[(1, 0), (2, 8)], 9, 8, 0);
        let refused = joined(&mut follower, start(&[(3, 10), (5, 20)], 30, 12, Some(origin(starts, at))));
        assert!(matches!(refused, Err(Refusal::Impossible(_))), "{refused:?}");
        assert_eq!(follower.log(), tail(2, 9));
    }
}

#[test]
fn a_start_whose_log_ends_in_another_epoch_is_refused() {
    // With such an end, an origin of an epoch above the promise would fit.
    let anew = origin(&[(9, 10)], 12);
    let Input::Start { session, start } = start(&[(3, 10), (5, 20)], 30, 12, Some(anew)) else { unreachable!() };
    for epoch in [3, 9] {
        let mut follower = replica(2, &[(1, 0), (2, 8)], 9, 8, 0);
        let start = Start { log: tail(epoch, 30), ..start.clone() };
        let refused = joined(&mut follower, Input::Start { session, start });
        assert!(matches!(refused, Err(Refusal::Impossible(_))), "{refused:?}");
    }
}
