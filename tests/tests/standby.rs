//! Three real nodes whose controller is gone: they elect by themselves.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use zue_tests::load::Load;
use zue_tests::programs::{Process, free_ports, zue, zue_ok};
use zue_tests::replicas::{check_replicas, eventually};

const SOON: Duration = Duration::from_secs(30);
const PORTS: u16 = 3;

struct Cluster {
    folder: TempDir,
    base: u16,
    nodes: Vec<Option<Process>>,
    controller: Option<Process>,
}

impl Cluster {
    fn start(leadership: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut cluster =
            Self { folder, base: free_ports(3, PORTS, 3), nodes: vec![None, None, None], controller: None };
        (0..3).for_each(|n| cluster.restart(n));
        cluster.control(leadership);
        eventually(SOON, || cluster.led_by(), || "somebody leads".to_owned());
        // Every node keeps by what it stands by.
        let kept = |n: usize| cluster.folder.path().join(format!("zue-{n}/standby.yaml")).exists();
        eventually(SOON, || (0..3).all(kept).then_some(()), || "all nodes are told how to stand by".to_owned());
        cluster
    }

    fn port(&self, n: usize, kind: u16) -> String {
        format!("127.0.0.1:{}", self.base + PORTS * u16::try_from(n).expect("a few") + kind)
    }

    fn servers(&self) -> String {
        (0..3).map(|n| self.port(n, 0)).collect::<Vec<_>>().join(",")
    }

    fn restart(&mut self, n: usize) {
        let name = format!("zue-{n}");
        let data = self.folder.path().join(&name);
        let (client, peer, metrics) = (self.port(n, 0), self.port(n, 1), self.port(n, 2));
        let data = data.to_str().expect("a path of text");
        let listen = ["--listen-client", &client, "--listen-peer", &peer, "--listen-metrics", &metrics];
        let args = [&["--name", &name, "--data-dir", data, "--advertise-client", &client][..], &listen].concat();
        let log = self.folder.path().join(format!("{name}.log"));
        self.nodes[n] = Some(Process::start("zue-node", &args, &log));
    }

    fn control(&mut self, leadership: &[&str]) {
        let list: Vec<String> = (0..3).map(|n| format!("zue-{n}={}/{}", self.port(n, 1), self.port(n, 0))).collect();
        let (list, state) = (list.join(","), self.folder.path().join("controller"));
        let args = ["control", "--nodes", &list, "--state", state.to_str().expect("a path of text")];
        let log = self.folder.path().join("controller.log");
        self.controller = Some(Process::start("zue", &[&args, leadership].concat(), &log));
    }

    fn status(&self) -> Vec<Value> {
        let output = zue(&self.servers(), &["-o", "json", "status"], b"");
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Who leads, in which epoch, and who elected it.
    fn led_by(&self) -> Option<(usize, u64, String)> {
        let status = self.status();
        let leader = status.iter().find(|member| member["role"] == "leader")?;
        let ordinal = leader["name"].as_str()?.strip_prefix("zue-")?.parse().ok()?;
        Some((ordinal, leader["epoch"].as_u64()?, leader["elected_by"].as_str()?.to_owned()))
    }
}

#[test]
fn without_a_controller_the_nodes_elect_and_one_that_comes_back_agrees() {
    let mut cluster = Cluster::start(&[]);
    let load = Load::start(&cluster.servers(), "load", Duration::from_millis(5));
    for round in 0..2 {
        cluster.controller.take();
        let (leader, epoch, _) = eventually(SOON, || cluster.led_by(), || "somebody leads".to_owned());
        cluster.nodes[leader].take();
        let begun = Instant::now();
        let others = || cluster.led_by().filter(|(other, later, _)| *other != leader && *later > epoch);
        let (elected, later, by) = eventually(SOON, others, || format!("{:?}", cluster.status()));
        zue_ok(&cluster.servers(), &["append", &format!("x{round}")], b"");
        println!("round {round}: zue-{elected} leads {later} after {:?}, elected by {by}", begun.elapsed());
        assert!(by.starts_with("zue-"), "{by} elected it");
        cluster.restart(leader);
        cluster.control(&[]);
        let agrees = || {
            let status = cluster.status();
            let in_epoch = status.iter().filter(|member| member["epoch"].as_u64() == Some(later)).count();
            (in_epoch == 3).then_some(())
        };
        eventually(SOON, agrees, || format!("all are in epoch {later}: {:?}", cluster.status()));
    }
    let acks = load.finish();
    let names = ["zue-0", "zue-1", "zue-2"].map(str::to_owned);
    check_replicas(&cluster.servers(), &names, &acks, SOON);
}
