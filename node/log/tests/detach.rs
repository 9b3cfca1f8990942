//! A log that leaves its cluster: it is whole, of a new replica, and bound to nobody; and a crash on the way leaves the old or the new one.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{fill, fresh, open, read_all, start_epoch, try_open};
use zue_core::{ClusterId, Epoch, Offset, ReplicaId, Tail};
use zue_log::sim::SimDisk;

const NEW: ReplicaId = ReplicaId(0x2e);
const CLUSTER: ClusterId = ClusterId(9);

/// A log of a cluster, of 30 records in two epochs, of which 25 are known to be committed.
fn member(seed: u64) -> (SimDisk, common::SimLog) {
    let (disk, mut log) = fresh(seed);
    for epoch in [3, 4] {
        log.set_promise(Epoch(epoch), Some(ReplicaId(1)), Some(CLUSTER)).unwrap();
        start_epoch(&mut log, epoch);
        fill(&mut log, 15, 1500);
    }
    log.sync().unwrap();
    log.note_commit(Offset(25));
    log.write_commit().unwrap();
    (disk, log)
}

#[test]
fn a_log_that_was_detached_is_whole_and_of_no_cluster_and_bound_to_nobody() {
    let (disk, mut log) = member(1);
    let held = read_all(&log);
    log.trim(Offset(5)).unwrap();
    // It promised an epoch that it holds nothing of.
    log.set_promise(Epoch(7), Some(ReplicaId(2)), Some(CLUSTER)).unwrap();
    let tail = log.detach(NEW).unwrap();
    assert_eq!(tail, Tail { epoch: Epoch(4), end: Offset(30) });
    let (mut log, recovered) = open(&disk);
    assert_eq!((recovered.initialised, recovered.cut_bytes, recovered.suspect), (false, 0, None));
    let meta = *log.meta();
    assert_eq!((meta.replica, meta.cluster, meta.commit_end, meta.log_start), (NEW, None, Offset(30), Offset(5)));
    assert_eq!((meta.promise.epoch, meta.promise.leader), (Epoch(7), None));
    assert_eq!((meta.starts.count, meta.runs().iter().count()), (1, 0), "what the old replica was known by is gone");
    assert_eq!(read_all(&log), held.get(5..).unwrap());
    // Any later epoch of a new cluster, and no earlier one.
    log.set_promise(Epoch(6), Some(NEW), Some(ClusterId(10))).unwrap_err();
    log.set_promise(Epoch(8), Some(NEW), Some(ClusterId(10))).unwrap();
}

#[test]
fn the_promise_of_a_log_that_promised_nothing_later_names_the_leader_of_its_last_epoch() {
    let (disk, log) = member(2);
    log.detach(NEW).unwrap();
    let meta = *open(&disk).0.meta();
    assert_eq!((meta.promise.epoch, meta.promise.leader), (Epoch(4), Some(ReplicaId(1))));
}

#[test]
fn a_crash_on_the_way_leaves_the_old_replica_or_the_new_one_with_the_same_log() {
    let mut seen = [0, 0];
    for seed in 0..60 {
        let (disk, log) = member(seed);
        let held = read_all(&log);
        disk.stop_at(disk.operations() + seed % 12);
        drop(log.detach(NEW));
        disk.crash(seed);
        let (log, _) = try_open(&disk).unwrap();
        let (replica, cluster) = (log.meta().replica, log.meta().cluster);
        let is_new = replica == NEW;
        assert_eq!(
            (is_new, cluster),
            if is_new { (true, None) } else { (replica == NEW, Some(CLUSTER)) },
            "seed {seed}"
        );
        assert_eq!(read_all(&log), held, "seed {seed}");
        seen[usize::from(is_new)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}
