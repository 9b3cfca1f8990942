//! A majority of the replicas that is gone for good: what is lost is named, confirmed and given up, and the log goes on. And a leader that
//! is to be in one zone.

use std::time::Duration;

use serde_json::{Value, json};
use zue_tests::replicas::eventually;

use crate::changes::{expect_members, switch_over};
use crate::kubernetes::{NAME, PATIENCE, Zue, get, kubectl};

pub fn recovering(cluster: &Zue) -> (String, String) {
    let condition = cluster.condition("Recovering");
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

pub fn recorded(cluster: &Zue) -> Option<String> {
    cluster.status()["clusterId"].as_str().map(str::to_owned)
}

#[test]
fn a_log_goes_on_without_the_majority_of_its_replicas_once_that_is_confirmed_and_nothing_is_deleted() {
    let cluster = Zue::create("e2e-recover", 31250);
    expect_members(&cluster, 3);
    cluster.zue_ok(&["append"], b"a\nb\n");
    (0..3).for_each(|n| drop(cluster.read_lines(&format!("{NAME}-{n}"), 2)));
    let before = recorded(&cluster).expect("the cluster is written down");
    // Neither comes back: their volumes tie them to machines that take no pods.
    let cordons = [cluster.hold_down(&format!("{NAME}-0")), cluster.hold_down(&format!("{NAME}-1"))];
    // The one that is left may lead on: it commits nothing.
    let is_stuck = || (cluster.condition("Ready")["status"] == "False").then_some(());
    eventually(PATIENCE, is_stuck, || format!("no append is taken: {:#}", cluster.status()));

    let survivor = format!("{NAME}-2");
    cluster.annotate(&format!("zue.io/unsafe-recover={survivor}"));
    let asks = || Some(recovering(&cluster)).filter(|(reason, _)| reason == "ToBeConfirmed").map(|(_, said)| said);
    let said = eventually(PATIENCE, asks, || format!("it asks for a second word: {:#}", cluster.status()));
    assert!(said.contains("every record from 2 on is lost"), "{said}");
    let confirmation = said.rsplit(' ').next().expect("the command ends with it").to_owned();
    assert_eq!(confirmation, format!("zue.io/unsafe-recover={survivor}@2"));
    let pods = cluster.uids();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((cluster.uids(), recorded(&cluster)), (pods, Some(before.clone())), "nothing is done before");
    cluster.annotate(&confirmation);

    let begun = || (recovering(&cluster).0 == "OthersStopped").then_some(());
    eventually(2 * PATIENCE, begun, || format!("the log goes on: {:#}", cluster.status()));
    assert!(recorded(&cluster).is_some_and(|now| now != before), "the cluster is another");
    assert_eq!(cluster.uids().into_keys().collect::<Vec<_>>(), std::slice::from_ref(&survivor), "no other pod runs");
    cluster.zue_ok(&["--deadline", "60s", "append", "c"], b"");
    let claims = || {
        let claims = get(&["-n", &cluster.namespace, "pvc"]);
        claims["items"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(claims(), 3, "no volume is deleted");
    let annotations = get(&["-n", &cluster.namespace, "zue", NAME])["metadata"]["annotations"].clone();
    assert!(annotations["zue.io/unsafe-recover"].is_null(), "{annotations}");

    for ordinal in 0..2 {
        kubectl(&["delete", "pvc", "-n", &cluster.namespace, &format!("data-{NAME}-{ordinal}"), "--wait=false"]);
    }
    drop(cordons);
    expect_members(&cluster, 3);
    let is_over = || (cluster.status()["recovery"].is_null() && recovering(&cluster).0 == "NotAsked").then_some(());
    eventually(PATIENCE, is_over, || format!("it is over: {:#}", cluster.status()));
    for n in 0..3 {
        assert_eq!(cluster.read_lines(&format!("{NAME}-{n}"), 3), b"a\nb\nc\n", "{NAME}-{n}");
    }
}

#[test]
fn a_leader_goes_to_the_zone_that_is_named_and_stays_with_whom_a_person_asks_to_lead() {
    let zones = get(&["nodes"]);
    let zone_of = |machine: &str| -> Value {
        let nodes = zones["items"].as_array().expect("a list").iter();
        let mut of = nodes.filter(|node| node["metadata"]["name"] == machine);
        of.next().map(|node| node["metadata"]["labels"]["topology.kubernetes.io/zone"].clone()).unwrap_or_default()
    };
    let cluster = Zue::create("e2e-zone", 31260);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let target = format!("{NAME}-2");
    let zone = zone_of(&cluster.node_of(&target));
    assert!(zone.is_string(), "the machines are in zones");
    load.take_stall();
    cluster.patch(&json!({ "leader": { "preferredZone": zone } }));
    let is_home = || (cluster.status()["leader"] == target.as_str()).then_some(());
    eventually(PATIENCE, is_home, || format!("{target} leads: {:#}", cluster.status()));
    load.expect_acks(200, PATIENCE);
    println!("the longest stall on the way to a zone: {:?}", load.take_stall());
    expect_members(&cluster, 3);
    let other = format!("{NAME}-1");
    switch_over(&cluster, &other);
    std::thread::sleep(Duration::from_secs(45));
    assert_eq!(cluster.leader(), other, "whom a person asks to lead does so for a while");
    let message = cluster.condition("Reconciled");
    assert_eq!(message["status"], "True", "{message}");
    cluster.check(load);
}
