//! Alerts that fire by real faults on Kubernetes, and clear; and the dashboard over all of it. A table tells of both in the end.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};
use zue_tests::programs::{Process, installed};
use zue_tests::replicas::eventually;
use zue_tests::watch::{Watch, Windows, alerts, appending};
use zue_tls::Role;

use crate::alone::{Outage, signal};
use crate::backed_up::{ACCESS, STORE, bucket, credentials};
use crate::changes::{expect_members, follower, switch_over};
use crate::kubernetes::{Cordon, NAME, OPEN_TO_TESTS, PATIENCE, Zue, apply, get, kubectl, pods, renew_namespace, run};
use crate::mounted::Mounted;
use crate::volumes::{LARGE, MOUNT, SMALL, VOLUME, Volumes, class, expect_asked, on};
use crate::{ports, prometheus};

const VOLUMES: &str = "watched";

const WINDOWS: Windows = Windows { short: "8s", long: "60s" };
/// Alerts that are made with processes of one machine alone (`watched/`): clocks that differ, and a thread that panics.
const ELSEWHERE: [&str; 2] = ["ZueClockOff", "ZueUpkeepEnded"];
const NAMESPACE: &str = "e2e-watched";

fn create() -> Zue {
    let storage = format!("{{size: {SMALL}, storageClassName: {}}}", class(VOLUMES));
    let log = "{segmentBytesMax: 64KiB, scrubBytesPerSecond: 64MiB, scrubInterval: 100ms}";
    let backup = format!("{{to: 's3://logs/watched', interval: 1s, {ACCESS}}}");
    let spec = format!("{OPEN_TO_TESTS}  config: {{log: {log}}}\n  backup: {backup}\n");
    renew_namespace(NAMESPACE);
    apply(NAMESPACE, &credentials().to_string()).expect("the Secret is taken");
    let mut cluster = Zue::create_in(&storage, NAMESPACE, 31290, &spec);
    cluster.mounted = Some(Mounted::of(NAMESPACE, NAME, "test"));
    expect_members(&cluster, 3);
    cluster
}

fn stop<'a>(machines: &[&'a str]) -> Outage<impl Fn() + use<'a>> {
    let machines = machines.to_vec();
    for machine in &machines {
        signal(machine, "-STOP", "zue-node");
    }
    Outage(move || {
        for machine in &machines {
            drop(run("docker", &["exec", machine, "pkill", "-CONT", "-x", "zue-node"]));
        }
    })
}

/// One node after the other hangs.
fn nodes_that_hang(cluster: &Zue, watch: &Watch) {
    let leader = cluster.leader();
    let followers: Vec<String> =
        pods().into_iter().filter(|pod| *pod != leader).map(|pod| cluster.node_of(&pod)).collect();
    let leader = cluster.node_of(&leader);
    let one = stop(&[&followers[0]]);
    let of_one = ["ZueTargetMissing", "ZueUnderReplicated", "ZuePeerUnreachable", "ZueReplicaLagging"];
    watch.expect_firing("a follower hangs", &of_one);
    let two = stop(&[&followers[1]]);
    let of_two = ["ZueBelowQuorum", "ZueAppendsFailing"];
    watch.expect_firing("both followers hang", &of_two);
    let three = stop(&[&leader]);
    let of_three = ["ZueClusterOffline", "ZueFailoverBlocked"];
    watch.expect_firing("all nodes hang", &of_three);
    drop((one, two, three));
    watch.expect_quiet();
}

/// Whoever leads hangs for as long as it takes to replace it.
fn failovers(cluster: &Zue, watch: &Watch) {
    let replaced = || {
        let leader = cluster.leader();
        let machine = cluster.node_of(&leader);
        let hangs = stop(&[&machine]);
        let another = || (cluster.status()["leader"].as_str()? != leader).then_some(());
        eventually(PATIENCE, another, || format!("another leads: {}", cluster.status()));
        drop(hangs);
        expect_members(cluster, 3);
        watch.firing().ok().filter(|firing| firing.contains("ZueFailoversRepeating"))
    };
    eventually(PATIENCE, replaced, || "failovers repeat".to_owned());
    watch.expect_firing("one leader after the other hangs", &["ZueFailoversRepeating"]);
}

fn no_operator(watch: &Watch) {
    let scale = |replicas: &str| {
        let count = format!("--replicas={replicas}");
        drop(run("kubectl", &["scale", "-n", "zue-system", "deployment/zue-operator", &count]));
    };
    scale("0");
    let back = Outage(|| scale("2"));
    watch.expect_firing("no operator runs", &["ZueOperatorAbsent"]);
    drop(back);
    watch.expect_cleared(&["ZueOperatorAbsent"]);
}

/// The store for backups goes, and comes back empty.
fn no_store(watch: &Watch) {
    kubectl(&["delete", "pod", "-n", STORE, "bucket", "--grace-period=0", "--force"]);
    watch.expect_firing("the bucket is away", &["ZueBackupFailing", "ZueBackupTooOld"]);
    bucket();
    watch.expect_cleared(&["ZueBackupFailing", "ZueBackupTooOld"]);
}

/// The operator has lost a right, and what it is told cannot be done.
fn an_operator_without_a_right(cluster: &Zue, watch: &Watch) {
    let role = get(&["clusterrole", "zue-operator"]);
    let mut without = role.clone();
    let rules = without["rules"].as_array_mut().expect("rules");
    for rule in
        rules.iter_mut().filter(|rule| rule["resources"].as_array().is_some_and(|of| of.contains(&json!("configmaps"))))
    {
        rule["verbs"] = json!(["get", "list", "watch"]);
    }
    let replace = |role: &Value| {
        let rules = json!({ "rules": role["rules"] }).to_string();
        kubectl(&["patch", "clusterrole", "zue-operator", "--type=merge", "-p", &rules]);
    };
    replace(&without);
    let back = Outage(|| replace(&role));
    // Not by a setting: no pod is to be replaced for it.
    let access = |name: &str| json!([{ "name": "test", "rights": ["append", "read", "admin"] }, { "name": name, "rights": ["read"] }]);
    cluster.patch(&json!({ "access": access("another") }));
    watch.expect_firing("the operator may not write ConfigMaps", &["ZueNotReconciled", "ZueOperatorErring"]);
    drop(back);
    watch.expect_cleared(&["ZueNotReconciled"]);
}

/// An image that is nowhere.
fn a_rollout_that_cannot_go_on(cluster: &Zue, watch: &Watch) {
    cluster.patch(&json!({ "image": "zue-node:nowhere" }));
    watch.expect_firing("an image that is nowhere", &["ZueRolloutStuck"]);
    cluster.patch(&json!({ "image": null }));
    watch.expect_cleared(&["ZueRolloutStuck"]);
    expect_members(cluster, 3);
}

/// A class of storage whose volumes do not grow, at first.
fn volumes_that_may_not_grow(cluster: &Zue, watch: &Watch) {
    let allow = |allow: bool| {
        let patch = json!({ "allowVolumeExpansion": allow }).to_string();
        kubectl(&["patch", "storageclass", &class(VOLUMES), "--type=merge", "-p", &patch]);
    };
    allow(false);
    cluster.patch(&json!({ "storage": { "size": LARGE } }));
    watch.expect_firing("a class that does not let volumes grow", &["ZueVolumeGrowthRefused"]);
    allow(true);
    expect_asked(cluster);
    watch.expect_cleared(&["ZueVolumeGrowthRefused"]);
}

/// The leader's disk fills up, little by little, and then wholly.
fn a_disk_that_fills_up(cluster: &Zue, watch: &Watch) {
    let machine = cluster.node_of(&cluster.leader());
    let filler = format!("{MOUNT}/filler");
    let empty = Outage(|| drop(on(&machine, &format!("rm -f {filler}"))));
    on(
        &machine,
        &format!("fallocate -l $(df --output=avail -B1 {MOUNT} | awk 'END {{print int($1 * 0.6)}}') {filler}"),
    )
    .expect("there is room");
    let filling = || {
        on(&machine, &format!("head -c 1M /dev/zero >>{filler}")).expect("there is still room");
        watch.firing().ok().filter(|firing| firing.contains("ZueDiskFillingUp"))
    };
    eventually(PATIENCE, filling, || "the disk is predicted to be full".to_owned());
    watch.expect_firing("a disk that fills up", &["ZueDiskFillingUp"]);
    drop(on(&machine, &format!("cat /dev/zero >>{filler}")));
    // More than what the present segment has room for.
    drop(cluster.zue(&["--deadline", "1s", "append"], format!("{}\n", ".".repeat(1023)).repeat(128).as_bytes()));
    watch.expect_firing("a disk that is full", &["ZueDiskAlmostFull", "ZueAppendsStalled"]);
    drop(empty);
    watch.expect_cleared(&["ZueDiskFillingUp", "ZueDiskAlmostFull", "ZueAppendsStalled"]);
}

/// Writes over the first byte of a record on a machine's disk.
fn flip(machine: &str, record: &str) {
    let script = format!(
        "at=$(grep -robUa -m1 '{record}' {VOLUME} | head -1)
         file=${{at%%:*}}; rest=${{at#*:}}; test -f \"$file\"
         printf '#' | dd of=\"$file\" bs=1 seek=${{rest%%:*}} conv=notrunc status=none"
    );
    on(machine, &script).expect("the record is on the disk");
}

/// Records that a disk has not kept: one that another replica has, and one that nobody has any more.
fn damage(cluster: &Zue, watch: &Watch) {
    let (kept, lost) = ("<a record that comes back>", "<a record that is lost everywhere>");
    for record in [kept, lost] {
        cluster.zue_ok(&["append", record], b"");
    }
    // More than a segment, so that no append goes to the same one.
    cluster.zue_ok(&["append"], format!("{}\n", ".".repeat(1023)).repeat(128).as_bytes());
    expect_members(cluster, 3);
    let leader = cluster.leader();
    let machines: Vec<String> = pods().iter().map(|pod| cluster.node_of(pod)).collect();
    let led = cluster.node_of(&leader);
    let others: Vec<&str> = machines.iter().map(String::as_str).filter(|machine| *machine != led).collect();
    let hang = stop(&others);
    flip(&led, kept);
    watch.expect_firing("a flipped bit, while the others hang", &["ZueRecordsDamaged"]);
    drop(hang);
    watch.expect_cleared(&["ZueRecordsDamaged"]);
    for machine in &machines {
        flip(machine, lost);
    }
    watch.expect_firing("the same byte damaged on all disks", &["ZueRecordsLost"]);
    // What nobody has is let go.
    let end = String::from_utf8(cluster.zue_ok(&["append", "behind it"], b"")).expect("an offset");
    cluster.zue_ok(&["trim", "--before", end.trim()], b"");
    watch.expect_cleared(&["ZueRecordsLost", "ZueRecordsDamaged"]);
}

/// Puts texts into the nodes' Secret, and has the kubelets look at it at once.
fn show(cluster: &Zue, texts: &Value) {
    let patch = json!({ "stringData": texts }).to_string();
    kubectl(&["patch", "secret", "-n", &cluster.namespace, &format!("{NAME}-tls"), "--type=merge", "-p", &patch]);
    let now = UNIX_EPOCH.elapsed().expect("it is later").as_millis();
    let now = format!("zue.io/looked-at={now}");
    for pod in pods() {
        drop(run("kubectl", &["annotate", "pod", "-n", &cluster.namespace, &pod, "--overwrite", &now]));
    }
}

/// Somebody puts something else into the nodes' Secret while the operator leaves the cluster alone.
fn certificates(cluster: &Zue, watch: &Watch) {
    cluster.annotate("zue.io/paused=true");
    let resume = Outage(|| cluster.annotate("zue.io/paused-"));
    let issued = ports::issued(&cluster.namespace, &ports::identity(&cluster.namespace, Role::Node));
    show(cluster, &json!({ "tls.crt": issued.certificate, "tls.key": issued.key }));
    watch.expect_firing("certificates of an hour, while the operator is paused", &["ZueCertificateExpiring"]);
    show(cluster, &json!({ "tls.crt": "no certificate" }));
    watch.expect_firing("a Secret with something else", &["ZueTlsFilesUnusable"]);
    drop(resume);
    show(cluster, &json!({}));
    watch.expect_cleared(&["ZueCertificateExpiring", "ZueTlsFilesUnusable"]);
}

/// Bytes that begin as TLS, and are none.
const NO_HELLO: &[u8] = b"\x16\x03\x01\x00\x05hello";

/// Somebody who does not get in comes again and again.
fn strangers(cluster: &Zue, watch: &Watch) {
    let server = cluster.servers.split(',').next().expect("there are three").to_owned();
    let come = || {
        for _ in 0..5 {
            let stranger = TcpStream::connect(&server).and_then(|mut stranger| stranger.write_all(NO_HELLO));
            stranger.expect("the port is open");
        }
        watch.firing().ok().filter(|firing| firing.contains("ZueClientsRefused"))
    };
    eventually(PATIENCE, come, || "strangers are refused".to_owned());
    watch.expect_firing("strangers at the port of the clients", &["ZueClientsRefused"]);
    watch.expect_cleared(&["ZueClientsRefused"]);
}

/// Has the syncs of the nodes on these machines changed as `strace` says, until it is dropped.
fn with_syncs(machines: &[String], change: &str) -> Process {
    let inject = format!("inject=fsync,fdatasync:{change}");
    let ids = machines.iter().flat_map(|machine| {
        let top = run("docker", &["top", machine, "-eo", "pid,comm"]).expect("the processes of a machine");
        let of_node = |line: &str| line.trim().strip_suffix("zue-node").map(|id| id.trim().to_owned());
        top.lines().filter_map(of_node).collect::<Vec<_>>()
    });
    let ids: Vec<String> = ids.flat_map(|id| ["-p".to_owned(), id]).collect();
    assert!(!ids.is_empty(), "nodes run on {machines:?}");
    let mut args = vec!["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject];
    args.extend(ids.iter().map(String::as_str));
    let log = std::env::temp_dir().join("zue-e2e-strace.log");
    Process::start(installed("strace").to_str().expect("a path of text"), &args, &log)
}

/// Disks that take their time for a sync, and one that fails.
fn syncs(cluster: &Zue, watch: &Watch) {
    let machines: Vec<String> = pods().iter().map(|pod| cluster.node_of(pod)).collect();
    let slow = with_syncs(&machines, "delay_enter=1200000");
    watch.expect_firing("syncs of 1.2 s", &["ZueFsyncSlow", "ZueCommitSlow"]);
    drop(slow);
    watch.expect_cleared(&["ZueFsyncSlow", "ZueCommitSlow"]);
    let one = follower(cluster);
    let failing = with_syncs(&[cluster.node_of(&one)], "error=EIO");
    watch.expect_firing("a sync that fails", &["ZueStorageFailed"]);
    drop(failing);
    kubectl(&["delete", "pod", "-n", &cluster.namespace, &one]);
    watch.expect_cleared(&["ZueStorageFailed"]);
    expect_members(cluster, 3);
}

/// A disk that is put back to what it was a while ago.
fn an_older_disk(cluster: &Zue, watch: &Watch) {
    let one = follower(cluster);
    let machine = cluster.node_of(&one);
    let away = |script: &str| {
        let held: Cordon = cluster.hold_down(&one);
        let ended = || run("docker", &["exec", &machine, "pgrep", "-x", "zue-node"]).is_err().then_some(());
        eventually(PATIENCE, ended, || format!("{one} has ended"));
        on(&machine, script).expect("its disk can be changed");
        drop(held);
    };
    away(&format!("rm -rf /var/zue-e2e.old; cp -a {VOLUME} /var/zue-e2e.old"));
    expect_members(cluster, 3);
    away(&format!("find {VOLUME} -mindepth 1 -delete; cp -a /var/zue-e2e.old/. {VOLUME}; rm -rf /var/zue-e2e.old"));
    watch.expect_firing("an older copy of a disk", &["ZueDiskRestored", "ZueNodeHasProblem"]);
    away(&format!("find {VOLUME} -mindepth 1 -delete"));
    watch.expect_cleared(&["ZueDiskRestored", "ZueNodeHasProblem"]);
    expect_members(cluster, 3);
}

#[test]
fn every_alert_fires_by_its_fault_and_clears_and_every_panel_has_data() {
    let volumes = Volumes::make(VOLUMES);
    bucket();
    let cluster = create();
    let watch = prometheus::watch(&cluster.namespace, WINDOWS);
    let stop_appending = appending(cluster.servers.clone(), cluster.flags());
    watch.expect_some("sum(zue_commit_duration_seconds_count)");
    watch.expect_quiet();
    switch_over(&cluster, &follower(&cluster));
    watch.expect_some("sum(zue_switchover_duration_seconds_count)");

    failovers(&cluster, &watch);
    strangers(&cluster, &watch);
    nodes_that_hang(&cluster, &watch);
    no_operator(&watch);
    no_store(&watch);
    syncs(&cluster, &watch);
    damage(&cluster, &watch);
    a_disk_that_fills_up(&cluster, &watch);
    volumes_that_may_not_grow(&cluster, &watch);
    an_operator_without_a_right(&cluster, &watch);
    certificates(&cluster, &watch);
    an_older_disk(&cluster, &watch);
    a_rollout_that_cannot_go_on(&cluster, &watch);
    watch.expect_quiet();
    stop_appending();

    let silent = watch.silent_panels(WINDOWS.short);
    watch.print_alerts();
    let unseen: BTreeSet<String> = alerts().difference(&watch.seen()).cloned().collect();
    assert_eq!(unseen, ELSEWHERE.map(str::to_owned).into());
    assert_eq!(silent, BTreeSet::new());
    drop((cluster, volumes));
}
