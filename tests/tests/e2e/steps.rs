//! Whatever step all operators die at, those that follow take the next one: each thing that is asked for comes to its end, and nothing of
//! what was acknowledged is lost.

use serde_json::{Value, json};
use zue_tests::load::Load;
use zue_tests::replicas::eventually;

use crate::alone::signal;
use crate::changes::{expect_members, follower, replica_id};
use crate::cut_off::machine_of_the_acting_operator;
use crate::day_two::has_members;
use crate::deaths::Deaths;
use crate::kubernetes::{NAME, PATIENCE, Zue, apply, get, kubectl, pods, renew_namespace, run};
use crate::recovered;
use crate::volumes::{self, LARGE, Volumes};

fn begin(namespace: &str, port: u16) -> (Zue, Load) {
    let cluster = Zue::create(namespace, port);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    (cluster, load)
}

/// Checks that what was acknowledged is there, and lets the operators live for the next test.
fn end(cluster: &Zue, load: Load) {
    expect_members(cluster, 3);
    load.expect_acks(200, PATIENCE);
    cluster.check(load);
    machine_of_the_acting_operator();
}

#[test]
fn replicas_come_go_and_are_replaced_whatever_step_the_operators_die_at() {
    let (cluster, load) = begin("e2e-steps", 31350);
    let mut deaths = Deaths::of(&cluster);
    for replicas in [5, 3] {
        let ask = || cluster.patch(&json!({ "replicas": replicas }));
        deaths.at_each_step_of(&format!("{replicas} replicas"), ask, || has_members(&cluster, replicas));
    }
    let lost = follower(&cluster);
    let before = replica_id(&cluster, &lost).expect("it has answered");
    let is_replaced = || replica_id(&cluster, &lost).is_some_and(|id| id != before) && has_members(&cluster, 3);
    deaths.at_each_step_of("a replacement", || cluster.annotate(&format!("zue.io/replace={lost}")), is_replaced);
    end(&cluster, load);
}

#[test]
fn pods_are_rolled_and_a_pause_is_kept_whatever_step_the_operators_die_at() {
    let (cluster, load) = begin("e2e-steps-roll", 31360);
    let mut deaths = Deaths::of(&cluster);
    let mut roll = |what: &str, ask: &dyn Fn()| {
        let before = cluster.uids();
        let is_rolled = || {
            let now = cluster.uids();
            now.len() == 3 && now.iter().all(|(pod, uid)| before.get(pod) != Some(uid)) && has_members(&cluster, 3)
        };
        deaths.at_each_step_of(what, ask, is_rolled);
    };
    roll("another setting", &|| cluster.patch(&json!({ "config": { "limits": { "connectionsMax": 900 } } })));
    roll("another image", &|| cluster.patch(&json!({ "image": again() })));

    let is_paused = || cluster.condition("Paused")["status"] == "True";
    deaths.at_each_step_of(
        "a pause",
        || {
            cluster.annotate("zue.io/paused=true");
            cluster.patch(&json!({ "replicas": 5 }));
            signal(&cluster.node_of(&cluster.leader()), "-KILL", "zue-node");
        },
        is_paused,
    );
    let uids = cluster.uids();
    load.expect_acks(5000, PATIENCE);
    assert_eq!(cluster.uids(), uids, "nothing is touched");
    let ask = || cluster.annotate("zue.io/paused-");
    deaths.at_each_step_of("the end of a pause", ask, || has_members(&cluster, 5));
    cluster.patch(&json!({ "replicas": 3 }));
    end(&cluster, load);
}

/// The nodes' image by another name: on every machine.
fn again() -> String {
    let (repository, tag) = crate::kubernetes::image("ZUE_NODE_IMAGE", "zue-node:test");
    let full = |tag: &str| format!("docker.io/library/{repository}:{tag}");
    for machine in crate::alone::machines() {
        let tagged =
            volumes::on(&machine, &format!("ctr -n k8s.io images tag --force {} {}", full(&tag), full("again")));
        tagged.expect("the image is there");
    }
    format!("{repository}:again")
}

#[test]
fn volumes_grow_whatever_step_the_operators_die_at() {
    // Claims that a run which failed has left would take the volumes.
    renew_namespace("e2e-steps-grow");
    let volumes = Volumes::make("steps");
    let cluster = volumes.create("e2e-steps-grow", 31370);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let mut deaths = Deaths::of(&cluster);
    let is_asked = || {
        let set = run("kubectl", &["get", "-n", &cluster.namespace, "statefulset", NAME, "-o", "json"]);
        let set: Value = set.ok().and_then(|set| serde_json::from_str(&set).ok()).unwrap_or_default();
        let template = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
        *template == LARGE && volumes::asked(&cluster) == Some(3) && cluster.status()["storageSize"] == LARGE
    };
    deaths.at_each_step_of("larger volumes", || cluster.patch(&json!({ "storage": { "size": LARGE } })), is_asked);
    volumes.grow(&cluster.namespace);
    end(&cluster, load);
}

#[test]
fn a_majority_is_given_up_whatever_step_the_operators_die_at() {
    let cluster = Zue::create("e2e-steps-recover", 31380);
    expect_members(&cluster, 3);
    cluster.zue_ok(&["append"], b"a\nb\n");
    for pod in &pods() {
        cluster.read_lines(pod, 2);
    }
    let before = recovered::recorded(&cluster).expect("the cluster is written down");
    let cordons = [cluster.hold_down(&format!("{NAME}-0")), cluster.hold_down(&format!("{NAME}-1"))];
    let survivor = format!("{NAME}-2");
    let mut deaths = Deaths::of(&cluster);
    let asks = || recovered::recovering(&cluster).0 == "ToBeConfirmed";
    deaths.at_each_step_of(
        "a recovery that is asked for",
        || cluster.annotate(&format!("zue.io/unsafe-recover={survivor}")),
        asks,
    );
    assert_eq!(recovered::recorded(&cluster).as_ref(), Some(&before), "nothing is done before it is confirmed");
    let confirm = || cluster.annotate(&format!("zue.io/unsafe-recover={survivor}@2"));
    deaths.at_each_step_of("a recovery that is confirmed", confirm, || {
        recovered::recovering(&cluster).0 == "OthersStopped"
    });
    assert!(recovered::recorded(&cluster).is_some_and(|now| now != before), "the cluster is another");
    cluster.zue_ok(&["--deadline", "60s", "append", "c"], b"");
    let come_back = || {
        for ordinal in 0..2 {
            kubectl(&["delete", "pvc", "-n", &cluster.namespace, &format!("data-{NAME}-{ordinal}"), "--wait=false"]);
        }
        drop(cordons);
    };
    let is_over = || has_members(&cluster, 3) && recovered::recovering(&cluster).0 == "NotAsked";
    deaths.at_each_step_of("replicas that come back empty", come_back, is_over);
    for pod in pods() {
        assert_eq!(cluster.read_lines(&pod, 3), b"a\nb\nc\n", "{pod}");
    }
    machine_of_the_acting_operator();
}

/// Without TLS: the client that goes on would otherwise need what the cluster that is made anew gives out.
#[test]
fn a_cluster_that_is_deleted_in_a_failover_and_made_anew_loses_nothing_whatever_step_the_operators_die_at() {
    let cluster = Zue::create_with("e2e-steps-deleted", 31390, "  tls: {mode: \"Off\"}\n");
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let mut deaths = Deaths::of(&cluster);
    let before = cluster.uids();
    let delete = || {
        signal(&cluster.node_of(&cluster.leader()), "-KILL", "zue-node");
        kubectl(&["delete", "-n", &cluster.namespace, "zue", NAME, "--wait=true"]);
        apply(&cluster.namespace, &cluster.manifest).expect("the manifest is right");
    };
    let is_new = || {
        let now = cluster.uids();
        now.len() == 3
            && now.values().all(|uid| !before.values().any(|before| before == uid))
            && has_members(&cluster, 3)
    };
    deaths.at_each_step_of("a deleted cluster that is made anew", delete, is_new);
    let leader = cluster.leader();
    let epoch = cluster.status()["epoch"].as_u64();
    let is_replaced = || cluster.status()["epoch"].as_u64() > epoch && has_members(&cluster, 3);
    deaths.at_each_step_of("a failover", || signal(&cluster.node_of(&leader), "-KILL", "zue-node"), is_replaced);
    let ready = || (get(&["-n", &cluster.namespace, "zue", NAME])["status"]["readyReplicas"] == 3).then_some(());
    eventually(PATIENCE, ready, || format!("all are ready: {:#}", cluster.status()));
    end(&cluster, load);
}
