//! A real Prometheus watches three real nodes, and what an operator would tell of them: alerts fire by real faults and clear, and every
//! query of the dashboard has an answer.
#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

mod apart;
mod local;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use zue_core::control::Step;
use zue_operator::cluster::Cluster as Resource;
use zue_operator::crd::ZueCluster;
use zue_operator::metrics::{Metrics, Sample};
use zue_operator::observe::view::{Observed, view};
use zue_operator::run::http;
use zue_operator::status;
use zue_proto::v1;
use zue_proto::v1::control_client::ControlClient;
use zue_tests::programs::{faketime, free_ports, zue_ok};
use zue_tests::three::Cluster;
use zue_tests::watch::{Watch, Windows, appending};

use local::{LOOK, Prometheus, leader};

/// Rates and counts look back as far as that.
const WINDOWS: Windows = Windows { short: "4s", long: "4s" };
/// The pods that it sees: what it knows of the nodes, they tell themselves.
const NO_PODS: [Arc<Pod>; 0] = [];

/// The metrics of an operator that acts for these nodes, by what they say themselves. It has no Kubernetes, and does nothing.
fn watch_nodes(peers: [String; 3], address: SocketAddr) -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::new().expect("the operator's metrics"));
    metrics.acts(true);
    let told = Arc::clone(&metrics);
    let mut resource = ZueCluster::new("zue", serde_json::from_value(json!({})).expect("an empty spec"));
    (resource.metadata.namespace, resource.metadata.uid) = (Some("shop".to_owned()), Some("u-1".to_owned()));
    let resource = Resource::new(&resource, "zue-node:test").expect("it makes sense");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    std::thread::spawn(move || {
        let routes = http::routes(Arc::clone(&told), Arc::new(AtomicBool::new(true)));
        runtime.spawn(async move { http::serve(address, routes).await.expect("the port is free") });
        runtime.block_on(async {
            loop {
                let begun = Instant::now();
                let nodes = futures::future::join_all(peers.iter().map(|peer| ask(peer))).await;
                let seen = Observed { nodes: &nodes, epoch: 0, step: &Step::Nothing, isr_before: &[] };
                let view = view(&resource, seen, &NO_PODS);
                let facts = status::facts(&resource, &view, &status::Workload::default());
                let sample = Sample { view, facts, stale_pods: 0, is_growth_refused: false };
                told.saw(&("shop".to_owned(), "zue".to_owned()), sample);
                told.reconciled(begun.elapsed(), false);
                tokio::time::sleep(LOOK).await;
            }
        });
    });
    metrics
}

async fn ask(peer: &str) -> Result<v1::StatusResponse, String> {
    let asking = async {
        let mut client = ControlClient::connect(format!("http://{peer}")).await.map_err(|error| error.to_string())?;
        let answer = client.status(v1::StatusRequest::default()).await.map_err(|error| error.to_string())?;
        Ok(answer.into_inner())
    };
    tokio::time::timeout(Duration::from_secs(1), asking).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "the disk is not copied");
}

/// Faults that hit one node, then a majority, then all and the operator.
fn take_nodes_away(cluster: &mut Cluster, prometheus: &Watch, operator: &Metrics, (one, other): (usize, usize)) {
    cluster.kill(one);
    prometheus.expect_firing(
        "a follower killed",
        &["ZueTargetMissing", "ZueUnderReplicated", "ZuePeerUnreachable", "ZueReplicaLagging"],
    );
    cluster.kill(other);
    prometheus.expect_firing("two of three killed", &["ZueBelowQuorum", "ZueAppendsFailing"]);
    cluster.kill(3 - one - other);
    operator.acts(false);
    prometheus.expect_firing("no operator acts", &["ZueOperatorAbsent"]);
    operator.acts(true);
    prometheus.expect_firing("all killed", &["ZueClusterOffline"]);
    (0..3).for_each(|n| cluster.restart(n));
    prometheus.expect_quiet();
}

/// The place where backups go from now on, in one step.
fn lead_backups(store: &Path, to: &Path) {
    let next = store.with_extension("next");
    std::os::unix::fs::symlink(to, &next).expect("a link can be made");
    std::fs::rename(&next, store).expect("it can take the place of another");
}

/// The place where backups go is a file for a while, where a directory has to be.
fn take_backups_away(prometheus: &Watch, store: &Path) {
    let (there, file) = (std::fs::read_link(store).expect("a link"), store.with_extension("file"));
    std::fs::write(&file, "in the way").expect("a file can be there");
    lead_backups(store, &file);
    prometheus.expect_firing("a file where backups go", &["ZueBackupFailing", "ZueBackupTooOld"]);
    lead_backups(store, &there);
    prometheus.expect_quiet();
}

/// A disk that is put back to what it was, and a clock that is wrong.
fn mislead_nodes(cluster: &mut Cluster, prometheus: &Watch, copy_of_one: &Path, (one, other): (usize, usize)) {
    cluster.kill(one);
    std::fs::remove_dir_all(cluster.data(one)).expect("the disk can go");
    copy(copy_of_one, &cluster.data(one));
    let preload = format!("LD_PRELOAD={}", faketime());
    cluster.kill(other);
    cluster.restart(one);
    cluster.restart_through(
        other,
        &["env", &preload, "FAKETIME=+1h", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"],
    );
    prometheus.expect_firing(
        "an older disk, and a clock of tomorrow",
        &["ZueDiskRestored", "ZueClockOff", "ZueNodeHasProblem"],
    );
    for n in [one, other] {
        cluster.kill(n);
    }
    std::fs::remove_dir_all(cluster.data(one)).expect("the disk can go");
    for n in [one, other] {
        cluster.restart(n);
    }
    prometheus.expect_quiet();
}

#[test]
fn real_faults_set_off_alerts_that_clear_and_every_panel_has_an_answer() {
    let began = Instant::now();
    let backups = tempfile::tempdir().expect("a folder for the test");
    let (store, there) = (backups.path().join("store"), backups.path().join("there"));
    std::fs::create_dir(&there).expect("a folder in it");
    lead_backups(&store, &there);
    let mut cluster = Cluster::start_prepared(None, &[], |new| {
        let settings = format!("backup: {{to: \"file://{}\", interval: 1s}}\n", store.display());
        std::fs::write(new.settings(), settings).expect("the settings can be written");
    });
    let port = free_ports(1, 2, 2);
    let at: SocketAddr = format!("127.0.0.1:{}", port + 1).parse().expect("an address");
    let operator = watch_nodes([0, 1, 2].map(|n| cluster.control_port(n)), at);
    let mut started = Prometheus::start(&cluster, port, Some(at), WINDOWS);
    // How full the disk of this machine is, and how fast that changes, is not this test's to say.
    started.watch.aside.extend(["ZueDiskAlmostFull", "ZueDiskFillingUp"]);
    let prometheus = &started.watch;
    let stop_appending = appending(cluster.servers(), Vec::new());
    prometheus.expect_some("sum(zue_commit_duration_seconds_count)");
    prometheus.expect_some("max(zue_cluster_isr_size) == 3");
    prometheus.expect_some("max(zue_backup_newest_timestamp_seconds)");
    prometheus.expect_quiet();

    let led = leader(&cluster);
    let (one, other) = ((led + 1) % 3, (led + 2) % 3);
    zue_ok(&cluster.servers(), &["switchover", "--to", &format!("zue-{one}")], b"");
    prometheus.expect_some("sum(zue_switchover_duration_seconds_count)");
    zue_ok(&cluster.servers(), &["switchover", "--to", &format!("zue-{led}")], b"");
    cluster.kill(one);
    let copy_of_one = started.folder.path().join("copy");
    copy(&cluster.data(one), &copy_of_one);
    cluster.restart(one);
    prometheus.expect_quiet();

    take_backups_away(prometheus, &store);
    take_nodes_away(&mut cluster, prometheus, &operator, (one, other));
    let led = leader(&cluster);
    cluster.kill(led);
    prometheus.expect_some("sum(increase(zue_failovers_total[4s]))");
    prometheus.expect_some("sum(zue_failover_duration_seconds_count)");
    cluster.restart(led);
    prometheus.expect_quiet();
    let led = leader(&cluster);
    let misled = if led == one { None } else { Some((one, 3 - one - led)) };
    let (one, other) = misled.unwrap_or_else(|| {
        zue_ok(&cluster.servers(), &["switchover", "--to", &format!("zue-{other}")], b"");
        (one, 3 - one - other)
    });
    mislead_nodes(&mut cluster, prometheus, &copy_of_one, (one, other));
    stop_appending();

    // These nodes have no TLS, and their disks have room.
    let expected = ["Certificates", "Waiting for the disk, failed or restored"].map(ToOwned::to_owned);
    assert_eq!(prometheus.silent_panels(WINDOWS.short), BTreeSet::from(expected));
    prometheus.print_alerts();
    println!("all of it took {:?}", began.elapsed());
}
