//! Backups under load, to an S3 server in the cluster: all volumes are deleted, and the log comes back up to an offset and up to a moment.
//! What backups cost the load.

use std::time::{Duration, SystemTime};

use serde_json::json;
use zue_tests::acks::Acks;
use zue_tests::load::Load;
use zue_tests::replicas::eventually;

use crate::kubernetes::{NAME, OPEN_TO_TESTS, PATIENCE, Zue, apply, get, image, kubectl, pods, renew_namespace};
use crate::mounted::Mounted;

pub const STORE: &str = "e2e-store";
const STORAGE: &str = "{size: 1Gi}";
/// The number of records that are acknowledged in front of each step.
const RECORDS: usize = 1500;
/// The number of pairs of phases that are compared, one with and one without backups, and the length of each.
const PAIRS: usize = 9;
const PHASE: Duration = Duration::from_secs(6);

/// The access to the bucket, as fields of a spec.
pub const ACCESS: &str =
    "endpoint: 'http://bucket.e2e-store.svc.cluster.local:9000', region: us-east-1, credentialsSecretName: bucket";

/// A Secret with what the bucket wants to be shown.
pub fn credentials() -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "bucket" },
        "stringData": { "AWS_ACCESS_KEY_ID": "zue", "AWS_SECRET_ACCESS_KEY": "not-a-secret" },
    })
}

/// Starts the S3 server, anew and empty.
pub fn bucket() {
    renew_namespace(STORE);
    let (repository, tag) = image("ZUE_BUCKET_IMAGE", "zue-bucket:test");
    let labels = json!({ "app": "bucket" });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "bucket", "labels": labels },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": { "fsGroup": 65532 },
            "containers": [{
                "name": "bucket",
                "image": format!("{repository}:{tag}"),
                "args": ["0.0.0.0:9000", "/store", "logs"],
                "envFrom": [{ "secretRef": { "name": "bucket" } }],
                "readinessProbe": { "tcpSocket": { "port": 9000 }, "periodSeconds": 1 },
                "volumeMounts": [{ "name": "store", "mountPath": "/store" }],
            }],
            "volumes": [{ "name": "store", "emptyDir": {} }],
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "bucket" },
        "spec": { "selector": labels, "ports": [{ "port": 9000 }] },
    });
    for object in [credentials(), pod, service] {
        apply(STORE, &object.to_string()).expect("the object is taken");
    }
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    kubectl(&["wait", "-n", STORE, "--for=condition=Ready", "pod/bucket", &timeout]);
}

/// A cluster that has the credentials of the bucket, with these lines of its spec.
fn cluster(namespace: &str, port: u16, spec: &str) -> Zue {
    renew_namespace(namespace);
    apply(namespace, &credentials().to_string()).expect("the Secret is taken");
    let mut zue = Zue::create_in(STORAGE, namespace, port, &format!("{OPEN_TO_TESTS}{spec}"));
    zue.mounted = Some(Mounted::of(namespace, NAME, "test"));
    zue
}

/// One whose log is backed up every two seconds.
fn backed_up(namespace: &str, port: u16) -> Zue {
    cluster(namespace, port, &format!("  backup: {{to: 's3://logs/e2e', interval: 2s, {ACCESS}}}\n"))
}

/// Waits until a backup has the log up to an offset, by the word of the status.
fn expect_backed_up(cluster: &Zue, end: u64) {
    let reaches = || (cluster.status()["backup"]["end"].as_u64()? >= end).then_some(());
    eventually(PATIENCE, reaches, || format!("a backup reaches {end}: {:#}", cluster.status()));
}

/// Asks for a backup by a resource, and waits for that end of it; gives its status.
fn asked_for(cluster: &Zue, phase: &str) -> serde_json::Value {
    let backup = json!({
        "apiVersion": "zue.io/v1alpha1",
        "kind": "ZueBackup",
        "metadata": { "name": "asked" },
        "spec": { "cluster": NAME },
    });
    let namespace = cluster.namespace.as_str();
    apply(namespace, &backup.to_string()).expect("the ZueBackup is taken");
    let is_over =
        || Some(get(&["-n", namespace, "zuebackup", "asked"])["status"].clone()).filter(|it| it["phase"] == phase);
    eventually(PATIENCE, is_over, || format!("it is {phase}: {}", get(&["-n", namespace, "zuebackup", "asked"])))
}

/// Deletes a cluster and all that it had on disks.
fn lose(cluster: &Zue) {
    let namespace = &cluster.namespace;
    kubectl(&["delete", "-n", namespace, "zue", NAME, "--wait=true"]);
    kubectl(&["delete", "-n", namespace, "pods,pvc", "--all", "--wait=true"]);
    let volumes = || {
        let all = get(&["pv"]);
        let of = |volume: &serde_json::Value| volume["spec"]["claimRef"]["namespace"] == namespace.as_str();
        (!all["items"].as_array()?.iter().any(of)).then_some(())
    };
    eventually(PATIENCE, volumes, || "no volume of it is left".to_owned());
}

/// A new cluster with what there is in the bucket of an earlier one, up to some point.
fn restored(namespace: &str, port: u16, id: &str, until: &str) -> Zue {
    let from = format!("{{backup: 's3://logs/e2e', clusterId: {id}, until: {until}, {ACCESS}}}");
    cluster(namespace, port, &format!("  bootstrap: {{from: {from}}}\n"))
}

/// Checks that each replica has just these records, each where it was said to be, and that the log goes on. How many those are.
fn expect_just(cluster: &Zue, all: &Acks, count: std::ops::RangeInclusive<u64>) -> u64 {
    let mut found = None;
    for pod in pods() {
        // The first pod has what was restored; the others copy it.
        let log = cluster.read_lines(&pod, usize::try_from(found.unwrap_or(*count.start())).expect("a length"));
        let lines: Vec<&[u8]> = log.strip_suffix(b"\n").unwrap_or(&log).split(|byte| *byte == b'\n').collect();
        let end = u64::try_from(lines.len()).expect("a length");
        assert!(count.contains(&end), "{pod} has {end} records, {count:?} were expected");
        let acks = all.before(end);
        assert_eq!(acks.len(), lines.len(), "{pod} has a record that nobody was told of");
        assert_eq!(acks.check((0..).zip(lines)), Vec::<String>::new(), "on {pod}");
        assert_eq!(*found.get_or_insert(end), end, "the replicas differ");
    }
    let end = found.expect("there are pods");
    assert_eq!(cluster.zue_ok(&["append", "it goes on"], b""), format!("{end}\n").into_bytes());
    end
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(since.as_millis()).expect("a number of milliseconds")
}

/// The moment as a resource has it.
fn moment(ms: u64) -> String {
    let time = k8s_openapi::jiff::Timestamp::from_millisecond(i64::try_from(ms).expect("a time")).expect("a time");
    format!("{time:.3}")
}

#[test]
fn with_all_volumes_gone_the_log_comes_back_up_to_an_offset_and_up_to_a_moment() {
    bucket();
    let cluster = backed_up("e2e-backed-up", 31300);
    let load = cluster.load();
    load.expect_acks(RECORDS, PATIENCE);
    // One that is in the middle of what was acknowledged, while the load goes on.
    let offset = u64::try_from(load.acked()).expect("a length");
    let made = asked_for(&cluster, "Done");
    assert!(made["end"].as_u64() >= Some(offset), "{offset} were committed before: {made}");
    assert_ne!(made["pod"], cluster.leader().as_str(), "a follower makes it");
    load.expect_acks(RECORDS, PATIENCE);
    let acked = u64::try_from(load.acked()).expect("a length");
    let at = now_ms();
    while now_ms() == at {
        std::thread::yield_now();
    }
    let fed = load.fed() + 1;
    load.expect_acks(RECORDS, PATIENCE);
    let id = cluster.status()["clusterId"].as_str().expect("it has begun").to_owned();
    expect_backed_up(&cluster, fed);
    let said = cluster.condition("BackedUp");
    assert_eq!((&said["status"], &said["reason"]), (&json!("True"), &json!("UpToDate")), "{said}");
    let acks = load.finish();
    lose(&cluster);

    let by_offset = restored("e2e-by-offset", 31310, &id, &format!("{{offset: {offset}}}"));
    expect_just(&by_offset, &acks, offset..=offset);
    assert_ne!(by_offset.status()["clusterId"], id.as_str(), "it is a log of its own");
    let refused = asked_for(&by_offset, "Failed");
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("names no store")), "{refused}");
    drop(by_offset);
    let by_time = restored("e2e-by-time", 31320, &id, &format!("{{time: '{}'}}", moment(at)));
    let end = expect_just(&by_time, &acks, acked..=fed);
    println!("{} acknowledged; restored to offset {offset}, and to a moment at which {acked} were: {end}", acks.len());
}

/// The number of records of a that cluster are acknowledged in one phase, while as many are appended as it takes.
fn phase(cluster: &Zue, name: &str) -> usize {
    let load = Load::start_with(&cluster.servers, &cluster.flags(), name, Duration::ZERO);
    load.expect_acks(100, PATIENCE);
    let before = load.acked();
    std::thread::sleep(PHASE);
    let count = load.acked() - before;
    drop(load.finish());
    count
}

#[test]
fn backups_cost_the_load_at_most_a_twentieth_of_its_rate() {
    bucket();
    let with = backed_up("e2e-with-backups", 31330);
    let without = cluster("e2e-without", 31340, "");
    let mut ratios = Vec::new();
    for n in 0..PAIRS {
        let both = [&with, &without];
        // Each goes first as often as the other.
        let order = if n % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut counts = [0; 2];
        for side in order {
            counts[side] = phase(both[side], &format!("load-{n}"));
        }
        println!("pair {n}: {} records with backups, {} without", counts[0], counts[1]);
        ratios.push(counts[0] as f64 / counts[1] as f64);
    }
    expect_backed_up(&with, 1);
    ratios.sort_by(f64::total_cmp);
    let median = ratios[PAIRS / 2];
    println!("the rate with backups to that without: {median:.3} (median of {PAIRS}: {ratios:.3?})");
    assert!(median >= 0.95, "{median:.3}");
}
