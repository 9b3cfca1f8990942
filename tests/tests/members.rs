//! Real nodes and a real controller: replicas that lose their disk, come and go under load.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use zue_tests::load::Load;
use zue_tests::programs::{Process, free_ports, zue, zue_ok};
use zue_tests::replicas::{check_replicas, eventually};

const SOON: Duration = Duration::from_mins(1);
/// From one node's first port to the next one's.
const PORTS: u16 = 6;

/// Some nodes, and the controller of them, each a process of its own.
struct Cluster {
    folder: TempDir,
    base: u16,
    nodes: Vec<Option<Process>>,
    controller: Option<Process>,
}

fn name(n: usize) -> String {
    format!("zue-{n}")
}

impl Cluster {
    fn start(nodes: usize, replicas: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let base = free_ports(u16::try_from(nodes).expect("a few"), PORTS, 3);
        let mut cluster = Self { folder, base, nodes: (0..nodes).map(|_| None).collect(), controller: None };
        for n in 0..nodes {
            cluster.restart(n);
        }
        cluster.scale(replicas);
        cluster.expect_members(replicas);
        cluster
    }

    fn port(&self, n: usize, kind: u16) -> String {
        format!("127.0.0.1:{}", self.base + PORTS * u16::try_from(n).expect("a few") + kind)
    }

    fn restart(&mut self, n: usize) {
        let data = self.folder.path().join(name(n));
        let (client, peer, metrics, name) = (self.port(n, 0), self.port(n, 1), self.port(n, 2), name(n));
        let data = data.to_str().expect("a path of text");
        let listen = ["--listen-client", &client, "--listen-peer", &peer, "--listen-metrics", &metrics];
        let args = [&["--name", &name, "--data-dir", data, "--advertise-client", &client][..], &listen].concat();
        let log = self.folder.path().join(format!("{name}.log"));
        self.nodes[n] = Some(Process::start("zue-node", &args, &log));
    }

    fn kill(&mut self, n: usize) {
        self.nodes[n].take().expect("it runs").kill();
    }

    /// Its disk is another one from now on, and empty.
    fn wipe(&mut self, n: usize) {
        self.kill(n);
        fs::remove_dir_all(self.folder.path().join(name(n))).expect("its data can be removed");
        self.restart(n);
    }

    /// A controller that wishes for so many replicas takes over from the one before.
    fn scale(&mut self, replicas: usize) {
        if let Some(mut before) = self.controller.take() {
            before.kill();
        }
        let node = |n: usize| format!("{}={}/{}", name(n), self.port(n, 1), self.port(n, 0));
        let list: Vec<String> = (0..self.nodes.len()).map(node).collect();
        let (list, replicas) = (list.join(","), replicas.to_string());
        let state = self.folder.path().join("controller");
        let state = state.to_str().expect("a path of text");
        let args = ["control", "--nodes", &list, "--state", state, "--replicas", &replicas];
        self.controller = Some(Process::start("zue", &args, &self.folder.path().join("controller.log")));
    }

    fn servers(&self) -> String {
        (0..self.nodes.len()).map(|n| self.port(n, 0)).collect::<Vec<_>>().join(",")
    }

    fn status(&self) -> Vec<Value> {
        let output = zue(&self.servers(), &["-o", "json", "status"], b"");
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn controller_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("controller.log")).unwrap_or_default()
    }

    /// Waits until the first nodes are the voters, all in sync, nobody else is a member, and those before have no say any more.
    fn expect_members(&self, replicas: usize) {
        let are_members = || {
            let status = self.status();
            let is_as_wished = |n: usize| {
                let row = status.iter().find(|row| row["name"] == name(n));
                let votes = row.is_some_and(|row| row["role"] == "leader" || row["role"] == "follower");
                let in_sync = row.is_some_and(|row| row["in_sync"] == true);
                let is_member = row.is_some_and(|row| row["role"] == "learner");
                if n < replicas { votes && in_sync } else { !votes && !is_member }
            };
            let log = self.controller_log();
            let is_settled = log.lines().rfind(|line| line.contains(" vote")).is_none_or(|l| l.contains("settled"));
            (is_settled && status.iter().any(|row| row["role"] == "leader") && (0..self.nodes.len()).all(is_as_wished))
                .then_some(())
        };
        eventually(SOON, are_members, || format!("{replicas} members; status: {:#?}", self.status()));
    }

    fn leader(&self) -> usize {
        let leads = |n: &usize| self.status().iter().any(|row| row["role"] == "leader" && row["name"] == name(*n));
        eventually(SOON, || (0..self.nodes.len()).find(leads), || "a leader".to_owned())
    }

    fn names(replicas: usize) -> Vec<String> {
        (0..replicas).map(name).collect()
    }
}

#[test]
fn a_replica_whose_disk_is_lost_rejoins_by_itself_and_votes_again() {
    let mut cluster = Cluster::start(3, 3);
    let load = Load::start(&cluster.servers(), "load", Duration::from_micros(500));
    load.expect_acks(500, SOON);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    cluster.wipe(follower);
    load.expect_acks(500, SOON);
    cluster.expect_members(3);
    // With one of the other two gone, its vote is needed.
    let other = (leader + 2) % 3;
    cluster.kill(other);
    load.expect_acks(200, SOON);
    cluster.restart(other);
    cluster.expect_members(3);
    // The leader's own disk is no different.
    let leader = cluster.leader();
    cluster.wipe(leader);
    load.expect_acks(200, SOON);
    cluster.expect_members(3);
    check_replicas(&cluster.servers(), &Cluster::names(3), &load.finish(), SOON);
}

#[test]
fn a_cluster_scaled_from_1_to_3_to_5_to_3_to_1_under_load_loses_and_doubles_nothing() {
    let mut cluster = Cluster::start(5, 1);
    let load = Load::start(&cluster.servers(), "load", Duration::from_micros(500));
    for replicas in [3, 5, 3, 1] {
        load.expect_acks(200, SOON);
        cluster.scale(replicas);
        cluster.expect_members(replicas);
    }
    // Those that were removed are not needed any more, and say that they were.
    let removed = cluster.status().into_iter().find(|row| row["name"] == "zue-1").expect("it answers");
    assert!(removed["problem"].as_str().is_some_and(|said| said.starts_with("no member since epoch")), "{removed}");
    // What they hold is old: a read there is sent to a member, and the client goes there.
    let servers = cluster.port(1, 0);
    let stale = zue(&servers, &["--deadline", "2s", "read", "--from", "0", "--max", "1", "--replica", "zue-1"], b"");
    let said = String::from_utf8_lossy(&stale.stderr).into_owned();
    assert!(!stale.status.success() && said.contains("no member since epoch") && said.contains("zue-0 at"), "{said}");
    zue_ok(&servers, &["read", "--from", "0", "--max", "1"], b"");
    for n in 1..5 {
        cluster.kill(n);
    }
    load.expect_acks(200, SOON);
    check_replicas(&cluster.servers(), &Cluster::names(1), &load.finish(), SOON);
}

#[test]
fn zue_dev_takes_another_number_of_replicas_and_a_lost_directory() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let base = free_ports(3, 10, 3);
    let data = folder.path().join("data");
    let servers = format!("127.0.0.1:{base},127.0.0.1:{},127.0.0.1:{}", base + 10, base + 20);
    let start = |replicas: &str| {
        let port = base.to_string();
        let args = ["dev", "--data", data.to_str().expect("a path of text"), "--replicas", replicas, "--port", &port];
        let dev = Process::start("zue", &args, &folder.path().join("dev.log"));
        dev.expect_line("zue append", SOON);
        dev
    };
    let in_sync = || {
        let output = zue(&servers, &["-o", "json", "status"], b"");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter(|line| line.contains("\"in_sync\":true")).count()
    };
    let stop = |mut dev: Process| {
        dev.signal("TERM");
        assert_eq!(dev.wait(), 0);
    };
    let append = |value: &str, offset: u64| {
        assert_eq!(zue_ok(&servers, &["append", value], b""), format!("{offset}\n").into_bytes());
    };
    let expect = |count: usize| {
        eventually(SOON, || (in_sync() == count).then_some(()), || format!("{count} in sync, not {}", in_sync()));
    };
    let dev = start("1");
    append("one", 0);
    stop(dev);
    let dev = start("3");
    expect(3);
    append("three", 1);
    stop(dev);
    fs::remove_dir_all(data.join("zue-1")).expect("its data can be removed");
    let dev = start("3");
    expect(3);
    append("again", 2);
    stop(dev);
    let dev = start("1");
    let left = || fs::read_to_string(data.join("replicas")).is_ok_and(|text| text == "1\n").then_some(());
    eventually(SOON, left, || "one replica is left".to_owned());
    append("alone", 3);
    assert_eq!(zue_ok(&servers, &["read", "--from", "0", "--raw"], b""), b"one\nthree\nagain\nalone\n");
    stop(dev);
    assert!(data.join("zue-2").exists(), "nothing is deleted");
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the controller said:\n{}\nthe status is {:#?}", self.controller_log(), self.status());
        }
    }
}
