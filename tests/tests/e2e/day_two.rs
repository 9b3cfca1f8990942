//! Requests to the operator while records are appended: a restart, a pause, a replacement, a deletion. Machines and operators that
//! go away meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zue_tests::replicas::eventually;

use crate::alone::{Outage, rows, signal};
use crate::changes::{expect_members, follower, replica_id};
use crate::kubernetes::{NAME, PATIENCE, Zue, apply, get, kubectl, run};

/// The time that a planned change may cost.
const STALL_MAX: Duration = Duration::from_millis(500);

/// Waits until every pod is another than before, and the cluster whole.
fn expect_restarted(cluster: &Zue, before: &BTreeMap<String, String>) {
    let restarted = || {
        let now = cluster.uids();
        (now.len() == before.len() && now.iter().all(|(pod, uid)| before.get(pod) != Some(uid))).then_some(())
    };
    eventually(PATIENCE, restarted, || format!("every pod is replaced: {:#}", cluster.status()));
    expect_members(cluster, before.len());
}

#[test]
fn a_restart_replaces_every_pod_and_no_append_waits_for_half_a_second() {
    let cluster = Zue::create("e2e-restart", 31160);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    load.take_stall();
    let before = cluster.uids();
    cluster.annotate("zue.io/restart=2026-11-29T18:00:00Z");
    expect_restarted(&cluster, &before);
    load.expect_acks(200, PATIENCE);
    let stall = load.take_stall();
    println!("the longest stall of a restart: {stall:?}");
    cluster.check(load);
    // What was obeyed is not obeyed again.
    let (uids, begun) = (cluster.uids(), Instant::now());
    while begun.elapsed() < Duration::from_secs(10) {
        assert_eq!(cluster.uids(), uids, "nothing restarts without being asked");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(stall < STALL_MAX, "{stall:?}");
}

#[test]
fn a_paused_cluster_is_left_alone_goes_on_by_itself_and_is_looked_after_once_it_is_resumed() {
    let cluster = Zue::create("e2e-paused", 31170);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let leader = cluster.leader();
    cluster.annotate("zue.io/paused=true");
    let is_paused = || (cluster.condition("Paused")["status"] == "True").then_some(());
    eventually(PATIENCE, is_paused, || format!("it says that it is paused: {}", cluster.status()));
    let pods = cluster.uids();
    cluster.patch(&json!({ "replicas": 5 }));
    signal(&cluster.node_of(&leader), "-KILL", "zue-node");
    load.expect_acks(500, PATIENCE);
    let by = || rows(&cluster).iter().find_map(|row| row["elected_by"].as_str().map(str::to_owned));
    let by_a_node = || by().filter(|by| by.contains(NAME));
    eventually(PATIENCE, by_a_node, || format!("a node has elected: {:?}", rows(&cluster)));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        assert_eq!(cluster.uids(), pods, "the operator makes and deletes no pods");
        std::thread::sleep(Duration::from_secs(1));
    }
    cluster.annotate("zue.io/paused-");
    expect_members(&cluster, 5);
    assert!(cluster.condition("Paused")["status"] != "True", "{}", cluster.status());
    load.expect_acks(200, PATIENCE);
    cluster.check(load);
}

#[test]
fn a_replica_that_is_given_up_is_replaced_by_an_empty_one_and_a_leader_is_not_given_up() {
    let cluster = Zue::create("e2e-replace", 31180);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let asks = || !get(&["-n", &cluster.namespace, "zue", NAME])["metadata"]["annotations"]["zue.io/replace"].is_null();
    let taken = || (!asks()).then_some(());
    let leader = cluster.leader();
    let before = replica_id(&cluster, &leader);
    cluster.annotate(&format!("zue.io/replace={leader}"));
    eventually(PATIENCE, taken, || "it is refused".to_owned());
    assert_eq!(replica_id(&cluster, &leader), before, "the leader is not given up");

    let lost = follower(&cluster);
    let before = replica_id(&cluster, &lost).expect("it has answered");
    cluster.annotate(&format!("zue.io/replace={lost}"));
    let replaced = || replica_id(&cluster, &lost).filter(|id| *id != before);
    eventually(PATIENCE, replaced, || format!("{lost} is another replica: {:#}", cluster.status()));
    expect_members(&cluster, 3);
    assert!(!asks(), "the annotation is taken away");
    load.expect_acks(200, PATIENCE);
    cluster.check(load);
}

/// Without TLS: the client that goes on would otherwise need what the cluster that is made anew gives out.
#[test]
fn a_cluster_deleted_in_the_middle_of_a_failover_finds_all_of_its_data_when_it_is_made_anew() {
    let cluster = Zue::create_with("e2e-deleted", 31190, "  tls: {mode: \"Off\"}\n");
    expect_members(&cluster, 3);
    let mut appended = 0;
    for _ in 0..3 {
        let load = cluster.load_of(&format!("load-{}", cluster.uids().into_values().next().expect("a pod")));
        load.expect_acks(500, PATIENCE);
        let before = cluster.uids();
        signal(&cluster.node_of(&cluster.leader()), "-KILL", "zue-node");
        kubectl(&["delete", "-n", &cluster.namespace, "zue", NAME, "--wait=true"]);
        apply(&cluster.namespace, &cluster.manifest).expect("the manifest is right");
        let is_new = || {
            let now = cluster.uids();
            (now.len() == 3 && now.values().all(|uid| !before.values().any(|before| before == uid))).then_some(())
        };
        eventually(PATIENCE, is_new, || "the deleted cluster's pods are gone".to_owned());
        cluster.expect_ready();
        expect_members(&cluster, 3);
        load.expect_acks(200, PATIENCE);
        // The log holds what earlier loads have appended as well: what this one was told must be there.
        let acks = load.finish();
        appended += acks.len();
        let held = cluster.read_lines(&format!("{NAME}-0"), appended);
        let records: Vec<(u64, &[u8])> = held
            .strip_suffix(b"\n")
            .unwrap_or(&held)
            .split(|byte| *byte == b'\n')
            .zip(0..)
            .map(|(v, n)| (n, v))
            .collect();
        assert_eq!(acks.check(records), Vec::<String>::new());
    }
}

/// A machine that is switched off, and started again by `docker start` when this is dropped.
fn switch_off(machine: &str) -> Outage<impl Fn() + use<>> {
    let name = machine.to_owned();
    run("docker", &["kill", machine]).expect("the machine goes down");
    Outage(move || drop(run("docker", &["start", &name])))
}

#[test]
fn a_machine_that_is_switched_off_takes_its_replica_with_it_and_brings_it_back() {
    let cluster = Zue::create("e2e-machine", 31200);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    load.take_stall();
    let leader = cluster.leader();
    let machine = switch_off(&cluster.node_of(&leader));
    load.expect_acks(1000, PATIENCE);
    println!("the leader's machine was switched off: appends stood still for {:?}", load.take_stall());
    // Nobody lets go of its volume, and nothing else is moved.
    let out = || {
        let members = cluster.status()["members"].as_array()?.clone();
        members
            .iter()
            .find(|member| member["pod"] == leader.as_str())
            .filter(|member| member["inSync"] == false)
            .map(|_| ())
    };
    eventually(PATIENCE, out, || format!("{leader} is told to be out of sync: {:#}", cluster.status()));
    drop(machine);
    eventually(2 * PATIENCE, || whole(&cluster), || format!("{leader} is back: {:#}", cluster.status()));
    load.expect_acks(200, PATIENCE);
    cluster.check(load);
}

fn whole(cluster: &Zue) -> Option<()> {
    let status = run("kubectl", &["get", "-n", &cluster.namespace, "zue", NAME, "-o", "json"]).ok()?;
    let status: Value = serde_json::from_str(&status).ok()?;
    (status["status"]["isr"].as_array()?.len() == 3).then_some(())
}

/// Tells whether so many replicas vote and are in sync, and there are no others.
pub fn has_members(cluster: &Zue, replicas: usize) -> bool {
    let status = cluster.status();
    let members = status["members"].as_array().cloned().unwrap_or_default();
    let in_sync = members.iter().filter(|member| member["inSync"] == true).count();
    members.len() == replicas && in_sync == replicas && status["replicas"] == json!(replicas)
}
