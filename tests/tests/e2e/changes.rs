//! Intended changes, and losses, while records are appended: members, disks, leaders, operators.

use std::time::Instant;

use serde_json::{Value, json};
use zue_tests::replicas::eventually;

use crate::kubernetes::{NAME, PATIENCE, Zue, get, kubectl};

#[test]
fn replicas_come_and_go_and_lose_their_volume_without_a_failed_append() {
    let cluster = Zue::create("e2e-members", 31060);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    for replicas in [5, 3] {
        let count = format!("--replicas={replicas}");
        kubectl(&["scale", "-n", &cluster.namespace, "zue", NAME, &count]);
        expect_members(&cluster, replicas);
        load.expect_acks(200, PATIENCE);
    }
    kubectl(&["get", "pvc", "-n", &cluster.namespace, &format!("data-{NAME}-4")]); // A removed replica keeps its volume.

    let lost = follower(&cluster);
    let before = replica_id(&cluster, &lost).expect("it has answered");
    kubectl(&["delete", "pvc", "-n", &cluster.namespace, &format!("data-{lost}"), "--wait=false"]);
    kubectl(&["delete", "pod", "-n", &cluster.namespace, &lost, "--wait=false"]);
    let replaced = || replica_id(&cluster, &lost).filter(|id| *id != before);
    eventually(PATIENCE, replaced, || format!("{lost} comes back with an empty disk: {}", cluster.status()));
    expect_members(&cluster, 3);
    load.expect_acks(200, PATIENCE);
    cluster.check(load);
}

#[test]
fn the_leader_that_an_annotation_names_leads_and_an_operator_that_dies_is_replaced_by_the_other() {
    let cluster = Zue::create("e2e-switch", 31070);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let target = follower(&cluster);
    switch_over(&cluster, &target);
    expect_members(&cluster, 3);
    load.expect_acks(200, PATIENCE);

    // The operator that acts dies, and the leader with it: the other operator has to notice both.
    let acting = acting_operator().expect("an operator acts");
    let epoch = cluster.status()["epoch"].as_u64();
    let begun = Instant::now();
    kubectl(&["delete", "pod", "-n", "zue-system", &acting, "--grace-period=0", "--force"]);
    cluster.kill(&target);
    let replaced = || {
        let status = cluster.status();
        (acting_operator()? != acting && status["epoch"].as_u64() > epoch && !status["leader"].is_null()).then_some(())
    };
    eventually(PATIENCE, replaced, || format!("the other acts: {}", cluster.status()));
    println!("another operator has replaced the leader after {:?}", begun.elapsed());
    load.expect_acks(200, PATIENCE);
    expect_members(&cluster, 3);
    cluster.check(load);
}

/// Has a pod lead, unless it does, and waits until the annotation that asks for it is obeyed.
pub fn switch_over(cluster: &Zue, target: &str) {
    kubectl(&["annotate", "-n", &cluster.namespace, "zue", NAME, &format!("zue.io/switchover-to={target}")]);
    let obeyed = || {
        let resource = get(&["-n", &cluster.namespace, "zue", NAME]);
        let is_gone = resource["metadata"]["annotations"]["zue.io/switchover-to"].is_null();
        (is_gone && resource["status"]["leader"] == target).then_some(())
    };
    eventually(PATIENCE, obeyed, || format!("{target} leads: {}", cluster.status()));
}

/// Waits until so many replicas vote and are in sync, and there are no others.
pub fn expect_members(cluster: &Zue, replicas: usize) {
    let are_members = || {
        let status = cluster.status();
        let members = status["members"].as_array()?;
        let has_vote = |member: &&Value| member["role"] == "Leader" || member["role"] == "Follower";
        let in_sync = members.iter().filter(has_vote).filter(|member| member["inSync"] == true).count();
        (in_sync == replicas && members.len() == replicas && status["replicas"] == json!(replicas)).then_some(())
    };
    eventually(PATIENCE, are_members, || format!("{replicas} members: {:#}", cluster.status()));
}

/// A pod that is in sync and does not lead.
pub fn follower(cluster: &Zue) -> String {
    let status = cluster.status();
    let isr = status["isr"].as_array().expect("a list").iter().filter_map(Value::as_str);
    let mut followers = isr.filter(|pod| status["leader"] != *pod);
    followers.next().expect("there is a follower").to_owned()
}

pub fn replica_id(cluster: &Zue, pod: &str) -> Option<String> {
    let status = cluster.status();
    let member = status["members"].as_array()?.iter().find(|member| member["pod"] == pod)?;
    member["replicaId"].as_str().map(str::to_owned)
}

/// The operator that holds the Lease.
pub fn acting_operator() -> Option<String> {
    let lease = get(&["-n", "zue-system", "lease", "zue-operator"]);
    lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
}
