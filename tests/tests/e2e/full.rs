//! Long tests: the same failure again and again, and failures that follow one another, with how long appends stood still.

use std::time::Duration;

use zue_tests::replicas::eventually;

use crate::kubernetes::{NAME, PATIENCE, Zue, kubectl};

const TIMES: usize = 6;
/// Far above what it takes, far below a time-out: who is paged sees the difference.
const STALL_MAX: Duration = Duration::from_secs(5);

/// The leader's pod is deleted by force as soon as another leads, so that the one deleted before may still be away: its successor
/// has to wait for the data directory until the old process has ended, not to give up and be backed off.
#[test]
fn leaders_deleted_by_force_one_after_the_other_are_each_replaced_at_once() {
    let cluster = Zue::create("e2e-forced", 31080);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    load.take_stall();
    let mut stalls = vec![];
    for _ in 0..TIMES {
        let leader = cluster.leader();
        kubectl(&["delete", "pod", "-n", &cluster.namespace, &leader, "--grace-period=0", "--force"]);
        load.expect_acks(500, PATIENCE);
        stalls.push(load.take_stall());
        expect_in_sync(&cluster);
    }
    println!("stalls after a forced delete of the leader: {stalls:?}");
    cluster.check(load);
    assert!(stalls.iter().all(|stall| *stall < STALL_MAX), "{stalls:?}");
}

#[test]
fn leaders_killed_one_after_the_other_are_each_replaced_at_once() {
    let cluster = Zue::create("e2e-crashes", 31090);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    load.take_stall();
    let mut stalls = vec![];
    for _ in 0..TIMES {
        cluster.kill(&cluster.leader());
        load.expect_acks(500, PATIENCE);
        stalls.push(load.take_stall());
        expect_in_sync(&cluster);
    }
    println!("stalls after a crash of the leader: {stalls:?}");
    cluster.check(load);
    assert!(stalls.iter().all(|stall| *stall < STALL_MAX), "{stalls:?}");
}

fn expect_in_sync(cluster: &Zue) {
    let whole = || (cluster.status()["isr"].as_array()?.len() == 3).then_some(());
    eventually(PATIENCE, whole, || format!("{NAME} is whole again: {}", cluster.status()));
}
