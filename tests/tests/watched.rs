//! A real Prometheus watches three real nodes, and what an operator would tell of them: alerts fire by real faults and clear, and every
//! query of the dashboard has an answer.
#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tempfile::TempDir;
use zue_core::control::Step;
use zue_operator::cluster::Cluster as Resource;
use zue_operator::crd::ZueCluster;
use zue_operator::metrics::{Metrics, Sample};
use zue_operator::view::{Seen, view};
use zue_operator::{http, status};
use zue_proto::v1;
use zue_proto::v1::control_client::ControlClient;
use zue_tests::programs::{Process, faketime, free_ports, prometheus, zue, zue_ok};
use zue_tests::replicas::eventually;
use zue_tests::three::{Cluster, SOON};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/zue-operator/files");
/// What it sees of them it is told by themselves.
const NO_PODS: [Arc<Pod>; 0] = [];
/// How often everybody is looked at.
const LOOK: Duration = Duration::from_millis(200);

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
                let seen = Seen { nodes: &nodes, epoch: 0, step: &Step::Nothing, isr_before: &[] };
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

/// A Prometheus that looks twice a second.
struct Prometheus {
    address: String,
    folder: TempDir,
    _process: Process,
}

/// The rules as they are, but that an hour is some seconds.
fn hurried(rules: &str) -> String {
    let mut rules = rules.replace("zue_replica_lag_seconds) > 15", "zue_replica_lag_seconds) > 2");
    rules = rules.replace("> 900 + 10 *", "> 1 + 5 *");
    for window in ["[2m]", "[5m]", "[15m]", "[30m]", "[1h]", "[6h]"] {
        rules = rules.replace(window, "[4s]");
    }
    let hurry = |line: &str| {
        let (before, _) = line.split_once("for: ").unwrap_or((line, ""));
        if before.trim().is_empty() && before != line { format!("{before}for: 1s") } else { line.to_owned() }
    };
    rules.lines().map(hurry).collect::<Vec<_>>().join("\n")
}

impl Prometheus {
    fn start(cluster: &Cluster, port: u16, operator: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = |name: &str| folder.path().join(name).to_str().expect("a path of text").to_owned();
        let rules = std::fs::read_to_string(Path::new(FILES).join("alerts.yaml")).expect("there are rules");
        std::fs::write(file("alerts.yaml"), hurried(&rules)).expect("they can be written");
        let node = |n: usize| {
            let labels = json!({"namespace": "shop", "cluster": "zue", "pod": format!("zue-{n}")});
            json!({"targets": [cluster.metrics(n)], "labels": labels})
        };
        let of_operator =
            json!({"targets": [operator.to_string()], "labels": {"namespace": "zue-system", "pod": "operator"}});
        let config = json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "250ms"},
            "rule_files": [file("alerts.yaml")],
            "scrape_configs": [
                {"job_name": "nodes", "static_configs": (0..3).map(node).collect::<Vec<_>>()},
                {"job_name": "operator", "honor_labels": true, "static_configs": [of_operator]},
            ],
        });
        std::fs::write(file("prometheus.yml"), config.to_string()).expect("it can be written");
        let address = format!("127.0.0.1:{port}");
        let (config, data) = (format!("--config.file={}", file("prometheus.yml")), file("data"));
        let (data, listen) = (format!("--storage.tsdb.path={data}"), format!("--web.listen-address={address}"));
        let program = prometheus("prometheus");
        let log = folder.path().join("log");
        let process = Process::start(program.to_str().expect("a path of text"), &[&config, &data, &listen], &log);
        Self { address, folder, _process: process }
    }

    /// What it answers to a query; an error if it cannot be asked.
    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let encode =
            |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", value.bytes().map(encode).collect::<String>());
        let query: Vec<String> = parameters.iter().map(pair).collect();
        let request = format!("GET /api/v1/{path}?{} HTTP/1.0\r\n\r\n", query.join("&"));
        let mut answer = String::new();
        let mut stream = TcpStream::connect(&self.address).map_err(|error| error.to_string())?;
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let answer: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        if answer["status"] == "success" {
            Ok(answer["data"]["result"].clone())
        } else {
            Err(answer["error"].to_string())
        }
    }

    fn firing(&self) -> Result<BTreeSet<String>, String> {
        let alerts = self.ask("query", &[("query", "ALERTS{alertstate=\"firing\"}")])?;
        let name = |alert: &Value| alert["metric"]["alertname"].as_str().expect("a name").to_owned();
        // How full the disk of this machine is, and how fast that changes, is not this test's to say.
        let is_of_room = |name: &String| name == "ZueDiskAlmostFull" || name == "ZueDiskFillingUp";
        Ok(alerts.as_array().expect("series").iter().map(name).filter(|name| !is_of_room(name)).collect())
    }

    fn expect(&self, what: &str, mut is_met: impl FnMut(&BTreeSet<String>) -> bool) {
        let begun = Instant::now();
        let firing = || self.firing().ok().filter(|firing| is_met(firing));
        let firing = eventually(SOON, firing, || format!("{what}; {:?} fire", self.firing()));
        println!("{what} after {:?}: {firing:?}", begun.elapsed());
    }

    /// Waits until all of these fire.
    fn expect_firing(&self, alerts: &[&str]) {
        self.expect(&format!("{alerts:?} fire"), |firing| alerts.iter().all(|alert| firing.contains(*alert)));
    }

    fn expect_quiet(&self) {
        self.expect("all is quiet", BTreeSet::is_empty);
    }

    /// Waits until a query has a value above 0.
    fn expect_some(&self, query: &str) {
        let more = || {
            let answer = self.ask("query", &[("query", query)]).ok()?;
            answer[0]["value"][1].as_str()?.parse::<f64>().ok().filter(|value| *value > 0.0)
        };
        println!("{query}: {}", eventually(SOON, more, || query.to_owned()));
    }
}

/// Every panel of the dashboard with its queries, for all namespaces and clusters.
fn panels() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(Path::new(FILES).join("dashboard.json")).expect("there is a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    let text_of = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut panels = BTreeMap::new();
    for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
        let queries = panel["targets"].as_array().expect("queries").iter().map(|target| {
            let query = text_of(&target["expr"]).replace("$__rate_interval", "4s");
            query.replace("$namespace", ".*").replace("$cluster", ".*")
        });
        assert!(panels.insert(text_of(&panel["title"]), queries.collect()).is_none(), "two panels: {}", panel["title"]);
    }
    panels
}

/// Something appends all the time, and is not held up by what fails.
fn appending(servers: String) -> impl FnOnce() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let appending = std::thread::spawn(move || {
        while stopped.recv_timeout(LOOK).is_err_and(|why| why == std::sync::mpsc::RecvTimeoutError::Timeout) {
            drop(zue(&servers, &["--deadline", "1s", "append", "x"], b""));
            drop(zue(&servers, &["--deadline", "1s", "read", "--max", "5"], b""));
        }
    });
    move || {
        drop(stop);
        appending.join().expect("it ends");
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "the disk is not copied");
}

fn leader(cluster: &Cluster) -> usize {
    eventually(SOON, || cluster.led_by(), || "somebody leads".to_owned()).0
}

/// Faults that hit one node, then a majority, then all and the operator.
fn take_nodes_away(cluster: &mut Cluster, prometheus: &Prometheus, operator: &Metrics, (one, other): (usize, usize)) {
    cluster.kill(one);
    prometheus.expect_firing(&["ZueTargetMissing", "ZueUnderReplicated", "ZuePeerUnreachable", "ZueReplicaLagging"]);
    cluster.kill(other);
    prometheus.expect_firing(&["ZueBelowQuorum", "ZueAppendsFailing"]);
    cluster.kill(3 - one - other);
    operator.acts(false);
    prometheus.expect_firing(&["ZueOperatorAbsent"]);
    operator.acts(true);
    prometheus.expect_firing(&["ZueClusterOffline"]);
    (0..3).for_each(|n| cluster.restart(n));
    prometheus.expect_quiet();
}

/// Where backups go from now on, in one step.
fn lead_backups(store: &Path, to: &Path) {
    let next = store.with_extension("next");
    std::os::unix::fs::symlink(to, &next).expect("a link can be made");
    std::fs::rename(&next, store).expect("it can take the place of another");
}

/// Where backups go is a file for a while, where a directory has to be.
fn take_backups_away(prometheus: &Prometheus, store: &Path) {
    let (there, file) = (std::fs::read_link(store).expect("a link"), store.with_extension("file"));
    std::fs::write(&file, "in the way").expect("a file can be there");
    lead_backups(store, &file);
    prometheus.expect_firing(&["ZueBackupFailing", "ZueBackupTooOld"]);
    lead_backups(store, &there);
    prometheus.expect_quiet();
}

/// A disk that is put back to what it was, and a clock that is wrong.
fn mislead_nodes(cluster: &mut Cluster, prometheus: &Prometheus, copy_of_one: &Path, (one, other): (usize, usize)) {
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
    prometheus.expect_firing(&["ZueDiskRestored", "ZueClockOff", "ZueNodeHasProblem"]);
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
    let prometheus = Prometheus::start(&cluster, port, at);
    let stop_appending = appending(cluster.servers());
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
    let copy_of_one = prometheus.folder.path().join("copy");
    copy(&cluster.data(one), &copy_of_one);
    cluster.restart(one);
    prometheus.expect_quiet();

    take_backups_away(&prometheus, &store);
    take_nodes_away(&mut cluster, &prometheus, &operator, (one, other));
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
    mislead_nodes(&mut cluster, &prometheus, &copy_of_one, (one, other));
    stop_appending();

    let unix = |at: std::time::SystemTime| at.duration_since(std::time::UNIX_EPOCH).expect("it is later").as_secs();
    let now = std::time::SystemTime::now();
    let (from, to) = (unix(now - began.elapsed()).to_string(), unix(now).to_string());
    let mut silent = BTreeSet::new();
    for (title, queries) in panels() {
        for query in queries {
            let asked = [("query", query.as_str()), ("start", &from), ("end", &to), ("step", "1")];
            let answer =
                prometheus.ask("query_range", &asked).unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
            if answer.as_array().is_some_and(Vec::is_empty) {
                silent.insert(title.clone());
            }
        }
    }
    // These nodes have no TLS, and their disks have room.
    let expected = ["Certificates", "Waiting for the disk, failed or restored"].map(ToOwned::to_owned);
    assert_eq!(silent, BTreeSet::from(expected));
    println!("all of it took {:?}", began.elapsed());
}
