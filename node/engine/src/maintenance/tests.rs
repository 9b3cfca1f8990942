//! Maintenance on a simulated disk: whom it asks, what it makes of the answers, and when it looks again.

use zue_log::sim::SimDisk;
use zue_log::{BatchBuilder, Limits, Log, LogConfig, SEGMENT_BYTES_MIN, SharedLog};

use super::*;

const OTHERS: [ReplicaId; 2] = [ReplicaId(2), ReplicaId(3)];

fn settings() -> Settings {
    Settings {
        turn_ms: 100,
        retry_ms: 5000,
        retry_lost_ms: 60_000,
        answer_ms: 1000,
        piece_bytes: 64,
        scrub_bytes_per_second: 10_000,
        scrub_interval_ms: 1_000_000,
        compaction_bytes_per_second: 64_000,
        retention: Retention::default(),
        retention_ms: 0,
        trim_delay_ms: 0,
    }
}

/// A log of three records, and its maintenance.
struct World {
    log: SharedLog<SimDisk>,
    maintenance: Maintenance<SimDisk>,
    now: Millis,
    others: Option<Vec<ReplicaId>>,
    events: Vec<Event>,
}

#[test]
fn retention_leaves_what_is_in_no_backup_where_it_is_to() {
    let config = LogConfig { segment_bytes_max: SEGMENT_BYTES_MIN, ..LogConfig::default() };
    let (mut log, _) = Log::open(SimDisk::new(1), config, ReplicaId(1)).unwrap();
    for _ in 0..200 {
        let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
        builder.push(None, &[b'x'; 1000], [], None).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
    }
    log.sync().unwrap();
    let committed = log.tail().end;
    log.note_commit(committed);
    let retention = Retention { bytes: Some(SEGMENT_BYTES_MIN), age_ms: None };
    let expired = |backed_up: Option<u64>| {
        let mut maintenance = Maintenance::new(log.reader(), Settings { retention, ..settings() });
        let aged = Aged::unknown();
        let backed_up = backed_up.map(Offset);
        let facts = Facts { now: Millis(0), committed, aged, deletes: aged, others: None, backed_up };
        let mut events = Vec::new();
        maintenance.retain(&facts, &mut events);
        events.into_iter().find_map(|event| if let Event::Expired(before) = event { Some(before.0) } else { None })
    };
    let all = expired(None).expect("most of it is more than is to be kept");
    assert!(all > 150, "{all}");
    assert_eq!(expired(Some(committed.0)), Some(all));
    let held = expired(Some(100)).expect("what is in backups may go");
    assert!(held > 50 && held <= 100, "{held}");
    assert_eq!(expired(Some(0)), None);
}

impl World {
    /// The one in the middle is damaged; what it was is given too.
    fn damaged() -> (Self, zue_log::Excerpt) {
        let disk = SimDisk::new(1);
        let config = LogConfig { segment_bytes_max: SEGMENT_BYTES_MIN, ..LogConfig::default() };
        let (mut log, _) = Log::open(disk.clone(), config, ReplicaId(1)).unwrap();
        for value in [b"first!", b"second", b"third!"] {
            let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
            builder.push(None, &value.repeat(50), [], None).unwrap();
            log.append(&builder.finish().unwrap()).unwrap();
        }
        log.sync().unwrap();
        log.note_commit(Offset(3));
        let whole = log.reader().excerpt(Offset(1), Offset(2), 1 << 20).unwrap();
        log.close().unwrap();
        disk.damage("00000000000000000000.log", |bytes| {
            let at = bytes.windows(6).position(|window| window == b"second").unwrap();
            bytes[at] ^= 1;
        });
        let (log, _) = Log::open(disk, config, ReplicaId(1)).unwrap();
        let maintenance = Maintenance::new(log.reader(), settings());
        let (log, now) = (SharedLog::new(log), Millis(0));
        (Self { log, maintenance, now, others: Some(OTHERS.to_vec()), events: Vec::new() }, whole)
    }

    fn step(&mut self, answer: Option<(u64, Result<zue_log::Excerpt, Unanswered>)>) -> Duration {
        let Self { log, maintenance, now, others, events } = self;
        let (committed, aged) = (Offset(0), Aged::unknown());
        let facts = Facts { now: *now, committed, aged, deletes: aged, others: others.as_deref(), backed_up: None };
        match answer {
            Some((number, answer)) => maintenance.answered(number, answer, &facts, &mut &*log, events),
            None => maintenance.turn(&facts, &mut &*log, events),
        }
    }

    /// Goes on until it rests or asks; gives whom.
    fn asks(&mut self) -> Option<Ask> {
        for _ in 0..1000 {
            let asked = self.events.iter().position(|event| matches!(event, Event::Ask(_)));
            if let Some(at) = asked
                && let Event::Ask(ask) = self.events.remove(at)
            {
                return Some(ask);
            }
            let waits = self.step(None);
            if waits == Duration::from_millis(100) && !self.events.iter().any(|event| matches!(event, Event::Ask(_))) {
                return None;
            }
        }
        panic!("it never rests: {:?}", self.events);
    }

    fn refuses(&mut self, ask: Ask, is_damaged: bool) {
        self.step(Some((ask.number, Err(Unanswered { reason: format!("{:?} has not", ask.of), is_damaged }))));
    }

    /// The last report of what is damaged.
    fn damages(&self) -> Damages {
        let damaged = |event: &Event| if let Event::Damaged(damages) = event { Some(damages.clone()) } else { None };
        self.events.iter().rev().find_map(damaged).expect("something was said")
    }
}

#[test]
fn what_is_damaged_is_asked_of_one_replica_after_the_other_and_written_anew() {
    let (mut world, whole) = World::damaged();
    let first = world.asks().unwrap();
    assert_eq!((first.of, first.from, first.upto), (ReplicaId(2), Offset(1), Offset(2)));
    assert_eq!(world.asks(), None, "it waits for the answer");
    world.refuses(first, false);
    let second = world.asks().unwrap();
    assert_eq!((second.of, second.from), (ReplicaId(3), Offset(1)));
    world.step(Some((first.number, Ok(whole.clone()))));
    assert_eq!(world.asks(), None);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Repaired(..))), "that was asked long ago");
    world.step(Some((second.number, Ok(whole))));
    assert_eq!(world.asks(), None);
    assert!(world.events.iter().any(|event| matches!(event, Event::Repaired(..))), "{:?}", world.events);
    assert_eq!(world.damages(), Damages { ranges: 0, lost: 0, problem: None });
    assert!(world.log.lock().damaged().is_empty());
}

#[test]
fn who_does_not_answer_is_waited_for_only_so_long() {
    let (mut world, _) = World::damaged();
    assert_eq!(world.asks().unwrap().of, ReplicaId(2));
    world.now = Millis(999);
    assert_eq!(world.asks(), None);
    world.now = Millis(1000);
    assert_eq!(world.asks().unwrap().of, ReplicaId(3));
    world.now = Millis(2000);
    assert_eq!(world.asks(), None);
    assert!(world.damages().problem.unwrap().contains("no answer has come; no answer has come"));
    world.now = Millis(2000 + 4999);
    assert_eq!(world.asks(), None);
    world.now = Millis(2000 + 5000);
    assert_eq!(world.asks().unwrap().of, ReplicaId(2), "it begins anew");
}

#[test]
fn lost_is_only_what_all_others_have_said_to_lack() {
    for (answers, others, lost) in [
        ([true, true], Some(OTHERS.to_vec()), 1),
        ([true, false], Some(OTHERS.to_vec()), 0),
        ([false, true], Some(OTHERS.to_vec()), 0),
        ([true, true], Some(vec![]), 1),
        ([true, true], None, 0),
    ] {
        let (mut world, _) = World::damaged();
        world.others = others;
        for is_damaged in answers {
            if let Some(ask) = world.asks() {
                world.refuses(ask, is_damaged);
            }
        }
        assert_eq!(world.asks(), None);
        let damages = world.damages();
        assert_eq!((damages.ranges, damages.lost), (1, lost), "{answers:?} {damages:?}");
        let (retry, lost_retry) = (world.now.0 + 5000, world.now.0 + 60_000);
        if world.others.as_ref().is_some_and(|others| !others.is_empty()) {
            world.now = Millis(retry);
            assert_eq!(world.asks().is_some(), lost == 0);
            world.now = Millis(lost_retry);
            assert!(world.asks().is_some() || lost == 0);
        }
    }
}

#[test]
fn a_piece_is_followed_by_as_long_a_pause_as_it_may_take() {
    let (mut world, whole) = World::damaged();
    let ask = world.asks().unwrap();
    world.step(Some((ask.number, Ok(whole))));
    let pauses: Vec<_> = std::iter::from_fn(|| {
        let waits = world.step(None);
        (!world.events.iter().any(|event| matches!(event, Event::Repaired(..)))).then_some(waits)
    })
    .collect();
    assert!(pauses.iter().any(|pause| *pause >= Duration::from_millis(1)), "{pauses:?}: 64 bytes at 64 bytes a ms");
}
