//! The time: what a majority's clocks agree on, what a leader's records are stamped with, and what is known of a log's end.

#![allow(clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

use zue_core::{
    CLOCK_TOLERANCE_MS, ClockReading, ClusterId, Epoch, EpochStart, History, Input, KnownStarts, Limits, Lineage,
    Millis, Offset, Producers, Promise, Recovered, Replica, ReplicaId, RequestId, Run, Runs, Session, Start, Tail,
    Terms, Ticket,
};

const CLUSTER: ClusterId = ClusterId(7);
/// The true time.
const TRUE: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

fn blank(id: u128) -> Replica {
    let recovered = Recovered {
        id: ReplicaId(id),
        cluster: Some(CLUSTER),
        promise: Promise::default(),
        history: History::default(),
        log: Tail::default(),
        commit_end: Offset(0),
        log_start: Offset(0),
        producers: Producers::default(),
        suspect: None,
        damaged: false,
        starts: KnownStarts {
            lineage: Lineage::default(),
            runs: (1..=9).map(|id| (ReplicaId(id), Run::default())).collect(),
        },
        restored: false,
    };
    Replica::new(Limits::default(), recovered)
}

fn step(replica: &mut Replica, now: u64, input: Input) {
    replica.step(Millis(now), input, &mut Vec::new());
}

fn voters(count: u128) -> Vec<ReplicaId> {
    (1..=count).map(ReplicaId).collect()
}

/// Replica 1, which leads so many voters.
fn leader(count: u128, old_voters: Option<Vec<ReplicaId>>) -> Replica {
    let mut leader = blank(1);
    let quorum = u32::try_from(count / 2 + 1).unwrap();
    let terms = Terms { epoch: Epoch(1), voters: voters(count), quorum, old_voters };
    step(&mut leader, 0, Input::Seal { request: RequestId(0), cluster: None, epoch: Epoch(1) });
    step(&mut leader, 0, Input::Persisted(Ticket(1)));
    step(&mut leader, 0, Input::Appoint { request: RequestId(1), cluster: CLUSTER, terms });
    step(&mut leader, 0, Input::Persisted(Ticket(3)));
    leader
}

/// A follower that has begun, and acknowledges at a time with what its clock shows.
fn acked(leader: &mut Replica, from: u128, now: u64, clock_ms: Option<u64>) {
    acked_with(leader, from, now, clock_ms, Epoch(1));
}

/// The same, with the start of this epoch in its log.
fn acked_with(leader: &mut Replica, from: u128, now: u64, clock_ms: Option<u64>, epoch: Epoch) {
    let (from, session, durable) = (ReplicaId(from), Session(1), Tail { epoch, end: Offset(0) });
    if let Some(clock_ms) = clock_ms {
        step(leader, now, Input::Clock(ClockReading::Follower { from, clock_ms }));
    }
    let (lineage, runs) = (Lineage::default(), Runs::default());
    step(leader, now, Input::Started { from, session, log: durable, durable, lineage, runs });
}

#[test]
fn the_agreed_time_is_what_a_majority_of_the_voters_clocks_have_reached() {
    let ahead = Some(TRUE + HOUR);
    for (own, others, agreed) in [
        // Alone, its own clock is all there is.
        (TRUE + HOUR, vec![], Some(TRUE + HOUR)),
        // Of two, both have to have reached it.
        (TRUE + HOUR, vec![Some(TRUE)], Some(TRUE)),
        (TRUE, vec![ahead], Some(TRUE)),
        // One of three is wrong.
        (TRUE + HOUR, vec![Some(TRUE), Some(TRUE - 9)], Some(TRUE)),
        (TRUE, vec![ahead, Some(TRUE - 9)], Some(TRUE)),
        (TRUE - HOUR, vec![Some(TRUE), Some(TRUE - 9)], Some(TRUE - 9)),
        (TRUE, vec![Some(0), Some(TRUE - 9)], Some(TRUE - 9)),
        // Too many are of a version that does not say what its clock shows.
        (TRUE, vec![None], None),
        (TRUE, vec![None, None], None),
        (TRUE + HOUR, vec![None, Some(TRUE)], Some(TRUE)),
        // Of five, two are wrong.
        (TRUE + HOUR, vec![ahead, Some(TRUE), Some(TRUE - 1), Some(TRUE - 2)], Some(TRUE)),
        (TRUE, vec![Some(0), Some(1), Some(TRUE - 1), Some(TRUE - 2)], Some(TRUE - 2)),
    ] {
        let mut leader = leader(u128::try_from(others.len()).unwrap() + 1, None);
        for (from, clock) in (2..).zip(&others) {
            acked(&mut leader, from, 10, *clock);
        }
        assert_eq!(leader.agreed_ms(Millis(10), own), agreed, "{own} {others:?}");
    }
}

#[test]
fn a_follower_that_is_silent_or_gone_counts_for_no_time_and_what_it_has_shown_does_not_go_on() {
    let mut leader = leader(3, None);
    acked(&mut leader, 2, 10, Some(TRUE));
    assert_eq!(leader.agreed_ms(Millis(10), TRUE + HOUR), Some(TRUE));
    assert_eq!(leader.agreed_ms(Millis(2010), TRUE + HOUR), Some(TRUE));
    assert_eq!(leader.agreed_ms(Millis(2011), TRUE + HOUR), None);
    acked(&mut leader, 2, 3000, Some(TRUE + 2990));
    assert_eq!(leader.agreed_ms(Millis(3000), TRUE + HOUR), Some(TRUE + 2990));
    // A clock that was put right is believed.
    acked(&mut leader, 2, 3000, Some(TRUE + 5));
    assert_eq!(leader.agreed_ms(Millis(3000), TRUE + HOUR), Some(TRUE + 5));
    step(&mut leader, 3000, Input::Disconnected { from: ReplicaId(2), session: Session(1) });
    assert_eq!(leader.agreed_ms(Millis(3000), TRUE + HOUR), None);
}

#[test]
fn while_a_change_of_voters_is_unsettled_a_majority_of_the_old_ones_agrees_too() {
    let mut leader = leader(3, Some(vec![ReplicaId(1), ReplicaId(4), ReplicaId(5)]));
    for from in 2..=3 {
        acked(&mut leader, from, 10, Some(TRUE + HOUR));
    }
    acked_with(&mut leader, 4, 10, Some(TRUE), Epoch(0));
    assert_eq!(leader.timestamp_ms(Millis(10), TRUE + HOUR), TRUE + CLOCK_TOLERANCE_MS);
    assert_eq!(
        (leader.agreed_ms(Millis(10), TRUE), leader.told_end()),
        (None, None),
        "nor does it know what is committed"
    );
    acked(&mut leader, 4, 10, Some(TRUE));
    assert_eq!(leader.agreed_ms(Millis(10), TRUE + HOUR), Some(TRUE + HOUR), "it is settled");
}

#[test]
fn a_learners_clock_counts_for_nothing() {
    let mut leader = leader(1, None);
    let learners = vec![ReplicaId(2), ReplicaId(3)];
    step(&mut leader, 10, Input::Learners { request: RequestId(2), epoch: Epoch(1), learners });
    for from in 2..=3 {
        acked(&mut leader, from, 10, Some(TRUE + HOUR));
    }
    assert_eq!(leader.agreed_ms(Millis(10), TRUE), Some(TRUE));
}

#[test]
fn a_leader_stamps_what_its_own_clock_shows_as_far_as_a_majority_bears_it_out() {
    let mut leader = leader(3, None);
    assert_eq!(leader.timestamp_ms(Millis(0), TRUE + HOUR), TRUE + HOUR, "nobody says what his clock shows");
    for from in 2..=3 {
        acked(&mut leader, from, 10, Some(TRUE));
    }
    for (own, stamped) in [
        (TRUE + 500, TRUE + 500),
        (TRUE + CLOCK_TOLERANCE_MS, TRUE + CLOCK_TOLERANCE_MS),
        (TRUE + HOUR, TRUE + CLOCK_TOLERANCE_MS),
        (u64::MAX, TRUE + CLOCK_TOLERANCE_MS),
        // One that is behind would make records look older than they are.
        (TRUE - HOUR, TRUE),
        (0, TRUE),
    ] {
        assert_eq!(leader.timestamp_ms(Millis(10), own), stamped, "{own}");
    }
}

#[test]
fn a_follower_takes_its_leaders_word_for_the_time_but_no_more_than_its_own_clock_shows() {
    let mut follower = blank(2);
    assert_eq!(follower.agreed_ms(Millis(0), TRUE), None);
    assert_eq!(follower.told_end(), None);
    let epoch_start = EpochStart {
        epoch: Epoch(1),
        start: Offset(0),
        leader: ReplicaId(1),
        voters: voters(3),
        quorum: 2,
        old_voters: None,
    };
    let (session, end) = (Session(4), Offset(50));
    let start = Start {
        cluster: CLUSTER,
        leader: ReplicaId(1),
        epoch: Epoch(1),
        history: History::new(vec![epoch_start]).unwrap(),
        log: Tail { epoch: Epoch(1), end },
        commit_end: end,
        oldest: Offset(0),
        origin: None,
        runs: Runs::default(),
    };
    step(&mut follower, 0, Input::Start { session, start });
    assert_eq!(follower.told_end(), Some(end), "what its leader knows to be committed");
    assert_eq!(follower.agreed_ms(Millis(0), TRUE), None, "a leader of an older version never says it");
    let agreed = |session, agreed_ms| Input::Clock(ClockReading::Agreed { session, agreed_ms: Some(agreed_ms) });
    step(&mut follower, 0, agreed(Session(3), TRUE));
    assert_eq!(follower.agreed_ms(Millis(0), TRUE), None, "another stream's");
    step(&mut follower, 0, agreed(session, TRUE));
    assert_eq!(follower.agreed_ms(Millis(0), TRUE + HOUR), Some(TRUE));
    assert_eq!(follower.told_ms(Millis(0), TRUE + HOUR), Some(TRUE));
    assert_eq!(follower.agreed_ms(Millis(0), TRUE - HOUR), Some(TRUE - HOUR));
    assert_eq!(follower.told_ms(Millis(0), TRUE - HOUR), Some(TRUE));
    step(&mut follower, 0, Input::Clock(ClockReading::Agreed { session, agreed_ms: None }));
    assert_eq!(follower.agreed_ms(Millis(0), TRUE), None, "its leader does not know any more");
    step(&mut follower, 0, agreed(session, TRUE));
    step(&mut follower, 0, Input::StreamEnded { session });
    assert_eq!((follower.agreed_ms(Millis(0), TRUE), follower.told_end()), (None, None));
}
