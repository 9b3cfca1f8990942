//! The whole path on a real Kubernetes: the operator's chart, a ZueCluster, the command line, Prometheus, and things that break.
//!
//! Runs against the cluster that KUBECONFIG names, with the images of `ZUE_NODE_IMAGE`, `ZUE_OPERATOR_IMAGE`, `ZUE_PROMETHEUS_IMAGE` and
//! `ZUE_BUCKET_IMAGE`; `make e2e` makes all of it.

#![allow(
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::cast_precision_loss,
    clippy::as_conversions,
    unreachable_pub,
    reason = "this is a test: what is not there fails it"
)]

#[cfg(feature = "e2e-full")]
mod alone;
#[cfg(feature = "bench-kind")]
mod at_rest;
#[cfg(feature = "e2e-full")]
mod backed_up;
#[cfg(feature = "bench-kind")]
mod bench;
mod changes;
#[cfg(feature = "e2e-full")]
mod charts;
#[cfg(feature = "e2e-full")]
mod closed;
#[cfg(feature = "e2e-full")]
mod cut_off;
#[cfg(feature = "e2e-full")]
mod day_two;
#[cfg(feature = "e2e-full")]
mod deaths;
#[cfg(feature = "e2e-full")]
mod full;
#[cfg(feature = "e2e-full")]
mod garbage;
mod kubernetes;
mod mounted;
mod plugin;
#[cfg(feature = "e2e-full")]
mod policies;
mod ports;
mod prometheus;
#[cfg(feature = "e2e-full")]
mod recovered;
#[cfg(feature = "e2e-full")]
mod steps;
#[cfg(feature = "e2e-full")]
mod volumes;
#[cfg(feature = "e2e-full")]
mod watched;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kubernetes::{NAME, PATIENCE, Zue, apply, get, kubectl, operator, pods, renew_namespace, root};
use zue_proto::v1::{self, Reason};
use zue_tests::replicas::eventually;

/// Between two records of a load: about a thousand a second.
const PACE: Duration = Duration::from_millis(1);

#[test]
fn a_sample_becomes_a_cluster_on_three_nodes_that_kubectl_shows() {
    operator();
    renew_namespace("e2e-sample");
    let sample =
        std::fs::read_to_string(format!("{}/deploy/samples/zuecluster.yaml", root())).expect("the sample is there");
    apply("e2e-sample", &sample).expect("the sample is accepted");
    let name = get(&["-n", "e2e-sample", "zue"])["items"][0]["metadata"]["name"].as_str().expect("a name").to_owned();
    kubectl(&["wait", "-n", "e2e-sample", "--for=condition=Ready", &format!("zue/{name}"), "--timeout=180s"]);

    let pods = get(&["-n", "e2e-sample", "pods"]);
    let pods = pods["items"].as_array().expect("a list");
    let nodes: BTreeSet<_> = pods.iter().map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    assert_eq!((pods.len(), nodes.len()), (3, 3), "three pods on three nodes");
    let leader = format!("{name}-0");
    let role = |pod: &serde_json::Value| {
        let leads = pod["metadata"]["name"] == leader.as_str();
        pod["metadata"]["labels"]["zue.io/role"] == if leads { "leader" } else { "follower" }
    };
    eventually(
        PATIENCE,
        || get(&["-n", "e2e-sample", "pods"])["items"].as_array()?.iter().all(role).then_some(()),
        || "the pods are labelled with their roles".to_owned(),
    );

    // As the README says: who may use a pod appends and reads.
    let status = get(&["-n", "e2e-sample", "zue", &name])["status"].clone();
    assert_eq!(status["tlsMode"], "Required", "{status}");
    let in_pod = |args: &[&str]| kubectl(&[&["exec", "-n", "e2e-sample", &leader, "--", "zue"], args].concat());
    assert_eq!(in_pod(&["append", "hello"]), "0\n");
    assert_eq!(in_pod(&["read", "--from", "0", "--max", "1", "--raw"]), "hello\n");

    let full = || (get(&["-n", "e2e-sample", "zue", &name])["status"]["isr"].as_array()?.len() == 3).then_some(());
    eventually(PATIENCE, full, || "all three replicas are in sync".to_owned());
    let table = kubectl(&["get", "zue", "-n", "e2e-sample"]);
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().expect("a header"), ["NAME", "READY", "LEADER", "EPOCH", "ISR", "LAG", "ATTENTION", "AGE"]);
    let row = lines.next().expect("a row");
    let epoch: u64 = row[3].parse().expect("an epoch");
    assert_eq!((row[0], row[1], row[2], row[4], row[5]), (name.as_str(), "True", leader.as_str(), "3", "0"), "{table}");
    assert!(epoch >= 1, "{table}");
    let events = kubectl(&["get", "events", "-n", "e2e-sample"]);
    assert!(events.contains("LeaderElected"), "{events}");
    kubectl(&["delete", "namespace", "e2e-sample", "--wait=false"]);
}

/// 100,000 lines of real text: the sources of the libraries that this program was built from.
fn real_lines() -> Vec<u8> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let mut files = vec![];
    walk(&Path::new(&home.expect("cargo has a home")).join("registry/src"), &mut files);
    files.sort();
    let mut text = vec![];
    let mut lines = 0;
    for line in files.iter().flat_map(std::fs::read).collect::<Vec<_>>().concat().split(|byte| *byte == b'\n') {
        text.extend_from_slice(line);
        text.push(b'\n');
        lines += 1;
        if lines == 100_000 {
            return text;
        }
    }
    panic!("only {lines} lines of real text were found");
}

#[test]
fn a_hundred_thousand_real_lines_come_back_byte_for_byte_from_each_replica() {
    let cluster = Zue::create("e2e-lines", 31000);
    let text = real_lines();
    let begun = Instant::now();
    cluster.zue_ok(&["append"], &text);
    println!("appended 100,000 lines, {} bytes, in {:?}", text.len(), begun.elapsed());
    for pod in pods() {
        let read = cluster.read_lines(&pod, 100_000);
        assert!(read == text, "{pod} gives back something else than what was appended");
    }
}

#[test]
fn prometheus_sees_a_follower_leave_lag_and_return() {
    let cluster = Zue::create("e2e-isr", 31010);
    prometheus::start(&cluster.namespace);
    let labels = format!("namespace=\"{}\",cluster=\"{NAME}\"", cluster.namespace);
    let metric = |name: &str| format!("{name}{{{labels}}}");
    let isr = metric("zue_cluster_isr_size");
    let lag = format!("zue_replica_lag_records{{{labels},pod=\"{NAME}-2\"}}");
    let of_nodes = |name: &str| format!("sum({})", metric(name));
    let (shrinks, expands) = (of_nodes("zue_isr_shrinks_total"), of_nodes("zue_isr_expands_total"));
    prometheus::expect(&isr, |value| value == 3.0);
    let shrinks_before = prometheus::expect(&shrinks, |_| true);
    let expands_before = prometheus::expect(&expands, |_| true);

    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let held = Instant::now();
    let cordon = cluster.hold_down(&format!("{NAME}-2"));
    prometheus::expect(&isr, |value| value == 2.0);
    prometheus::expect(&lag, |value| value > 100.0);
    while held.elapsed() < Duration::from_secs(6) {
        load.expect_acks(200, PATIENCE); // Appends go on without the third replica.
    }
    println!("held down for {:?}, lag {:?}", held.elapsed(), prometheus::value(&lag));
    drop(cordon);
    prometheus::expect(&isr, |value| value == 3.0);
    load.expect_acks(200, PATIENCE);
    let acks = cluster.check(load);
    prometheus::expect(&lag, |value| value == 0.0);
    let shrunk = prometheus::expect(&shrinks, |_| true) - shrinks_before;
    let expanded = prometheus::expect(&expands, |_| true) - expands_before;
    assert_eq!((shrunk, expanded), (1.0, 1.0), "one left and came back");
    prometheus::expect("max(zue_commit_offset)", |value| value >= acks.len() as f64);
}

#[test]
fn a_deleted_leader_is_replaced_and_comes_back_with_its_data() {
    let cluster = Zue::create("e2e-leader", 31020);
    let leader = cluster.leader();
    let epoch = cluster.status()["epoch"].as_u64().expect("an epoch");
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let deleted = Instant::now();
    kubectl(&["delete", "pod", "-n", &cluster.namespace, &leader, "--wait=false"]);
    let replaced = || {
        let status = cluster.status();
        (status["epoch"].as_u64()? > epoch && status["leader"].as_str()? != leader).then_some(())
    };
    // How soon is for `make e2e-full` to say: here the machine may be busy with anything.
    eventually(PATIENCE, replaced, || format!("another leads; status: {}", cluster.status()));
    println!("another leads {:?} after {leader} was deleted", deleted.elapsed());
    load.expect_acks(500, PATIENCE);
    let whole = || (cluster.status()["isr"].as_array()?.len() == 3).then_some(());
    eventually(PATIENCE, whole, || format!("{leader} is back in sync; status: {}", cluster.status()));
    cluster.check(load);
}

#[test]
fn every_process_killed_at_once_comes_back_with_every_acknowledged_record() {
    let cluster = Zue::create("e2e-killed", 31030);
    let load = cluster.load();
    load.expect_acks(1000, PATIENCE);
    cluster.kill_all();
    load.expect_acks(200, PATIENCE);
    cluster.check(load);
}

#[test]
fn with_two_of_three_down_appends_fail_by_name_and_reads_go_on_until_one_returns() {
    let cluster = Zue::create("e2e-quorum", 31040);
    cluster.zue_ok(&["append", "before"], b"");
    let one = cluster.hold_down(&format!("{NAME}-1"));
    let two = cluster.hold_down(&format!("{NAME}-2"));
    let begun = Instant::now();
    let refused = cluster.zue(&["--deadline", "5s", "append", "during"], b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    assert!(said.contains("1 of 3 voters are in reach, 2 are needed"), "{said}");
    assert_eq!(cluster.zue_ok(&["read", "--from", "0", "--max", "1", "--raw"], b""), b"before\n");
    let unready = || {
        let conditions = cluster.status()["conditions"].clone();
        let ready = conditions.as_array()?.iter().find(|condition| condition["type"] == "Ready")?.clone();
        (ready["status"] == "False").then_some(())
    };
    eventually(PATIENCE, unready, || format!("the status says so: {}", cluster.status()));
    drop(one);
    cluster.zue_ok(&["--deadline", "120s", "append", "after"], b"");
    drop(two);
    let all = cluster.read_lines(&format!("{NAME}-2"), 2);
    assert!(all.starts_with(b"before\n") && all.ends_with(b"after\n"), "{}", String::from_utf8_lossy(&all));
}

#[test]
fn bad_input_is_refused_by_name_and_the_nodes_serve_on() {
    let cluster = Zue::create("e2e-bad", 31050);
    let manifest =
        |spec: &str| format!("apiVersion: zue.io/v1alpha1\nkind: ZueCluster\nmetadata: {{name: bad}}\nspec: {spec}\n");
    for (spec, field) in [
        ("{replicas: 3, quorum: 1}", "spec.quorum"),
        ("{replicas: 3, quorum: 4}", "spec.quorum"),
        ("{replicas: 0}", "spec.replicas"),
        ("{replicas: 3, leader: {ordinal: 3}}", "spec.leader.ordinal"),
        ("{replicas: 3, leader: {policy: Sometimes}}", "spec.leader.policy"),
        ("{replicas: 3, storage: {size: lots}}", "spec.storage.size"),
        ("{replicas: 3, colour: green}", "spec.colour"),
    ] {
        let said = apply(&cluster.namespace, &manifest(spec)).expect_err(spec);
        assert!(said.contains(field), "{spec}: {said}");
    }

    let refused = cluster.zue(&["append"], &vec![b'x'; 5 << 20]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("1048576"), "the limit is named: {said}");
    let refused = cluster.zue(&["read", "--from", "999999"], b"");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("999999"), "the offset is named: {said}");

    let first = cluster.servers.split(',').next().expect("there are three");
    let mut garbage = TcpStream::connect(first).expect("the port is open");
    drop(garbage.write_all(&[0xFF; 4096]));
    drop(garbage.shutdown(std::net::Shutdown::Write));
    garbage.set_read_timeout(Some(PATIENCE)).expect("a time to wait");
    drop(garbage.read_to_end(&mut vec![]));
    let idle: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(first).expect("the port is open")).collect();
    assert_eq!(cluster.zue_ok(&["append", "still here"], b""), b"0\n");
    drop(idle);
    wrong_epochs(&cluster);
    let restarts = get(&["-n", &cluster.namespace, "pods"]);
    let restarts = restarts["items"].as_array().expect("a list").iter();
    assert!(restarts.map(|pod| &pod["status"]["containerStatuses"][0]["restartCount"]).all(|count| count == 0));
}

/// A seal of an epoch that was promised before, of another cluster, or for another replica is refused, and nothing changes.
fn wrong_epochs(cluster: &Zue) {
    let forward = cluster.forward(&format!("{NAME}-1"), 9441);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut control = ports::control(&forward.address, &ports::controller(&cluster.namespace));
        let status = control.status(v1::StatusRequest {}).await.expect("a status").into_inner();
        let right = v1::SealRequest {
            protocol_version: zue_proto::PROTOCOL_VERSION,
            cluster_id: status.cluster_id.clone(),
            target: status.replica_id.clone(),
            epoch: status.promised,
        };
        let foreign = zue_proto::id_bytes(7);
        for (request, reason, named) in [
            (right.clone(), Reason::StaleEpoch, status.promised.to_string()),
            (v1::SealRequest { epoch: 0, ..right.clone() }, Reason::StaleEpoch, status.promised.to_string()),
            (v1::SealRequest { target: foreign.clone(), ..right.clone() }, Reason::WrongTarget, "7".to_owned()),
            (v1::SealRequest { cluster_id: foreign, epoch: 99, ..right.clone() }, Reason::WrongTarget, "7".to_owned()),
            (v1::SealRequest { protocol_version: 99, ..right.clone() }, Reason::WrongTarget, "99".to_owned()),
        ] {
            let refused = control.seal(request.clone()).await.expect_err("it is wrong");
            let error = zue_proto::error_of(&refused).unwrap_or_else(|| panic!("no facts in {refused}"));
            assert_eq!(error.reason(), reason, "{request:?}: {refused}");
            assert!(error.message.contains(&named), "{request:?}: {refused}");
        }
        let after = control.status(v1::StatusRequest {}).await.expect("a status").into_inner();
        assert_eq!((after.promised, after.role), (status.promised, status.role));
    });
    assert_eq!(cluster.zue_ok(&["append", "and here"], b""), b"1\n");
}
