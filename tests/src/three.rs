//! Three real nodes and their controller, each ended at will.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::programs::{Process, free_ports, zue, zue_ok};
use crate::replicas::eventually;

/// The time that anything may take that must come.
pub const SOON: Duration = Duration::from_secs(30);
const PORTS: u16 = 3;

/// Three nodes, and the controller beside them.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    base: u16,
    /// The domain behind the name of a node where the others and the controller look for it; its address if there is none.
    domain: Option<&'static str>,
    /// The flags by which a command shows who it is, and whom it believes.
    pub flags: Vec<String>,
    /// The nodes that run.
    pub nodes: Vec<Option<Process>>,
    /// The controller, if it runs.
    pub controller: Option<Process>,
}

impl Cluster {
    /// Three nodes that know how to stand by. `leadership` is for the controller.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn start(leadership: &[&str]) -> Self {
        Self::start_named(None, leadership)
    }

    /// The same, where replicas are looked for by a name in this domain.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn start_named(domain: Option<&'static str>, leadership: &[&str]) -> Self {
        Self::start_prepared(domain, leadership, |_| ())
    }

    /// The same, once the disks and the settings are prepared.
    ///
    /// # Panics
    /// When they do not get there.
    pub fn start_prepared(domain: Option<&'static str>, leadership: &[&str], prepare: impl FnOnce(&mut Self)) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (flags, nodes) = (Vec::new(), vec![None, None, None]);
        let mut cluster = Self { folder, base: free_ports(3, PORTS, 3), domain, flags, nodes, controller: None };
        prepare(&mut cluster);
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

    fn peer(&self, n: usize) -> String {
        let address = self.port(n, 1);
        let named = self.domain.zip(address.rsplit_once(':'));
        named.map_or(address.clone(), |(domain, (_, port))| format!("zue-{n}.{domain}:{port}"))
    }

    /// The servers that clients ask.
    pub fn servers(&self) -> String {
        (0..3).map(|n| self.port(n, 0)).collect::<Vec<_>>().join(",")
    }

    /// The port of a node's metrics.
    pub fn metrics(&self, n: usize) -> String {
        self.port(n, 2)
    }

    /// The port at which controllers reach a node.
    pub fn control_port(&self, n: usize) -> String {
        self.port(n, 1)
    }

    /// The disk of a node.
    pub fn data(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("zue-{n}"))
    }

    /// The file that a node reads before its flags, if it is there: settings for all of them.
    pub fn settings(&self) -> PathBuf {
        self.folder.path().join("node.yaml")
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&mut self, n: usize) {
        self.nodes[n] = None;
    }

    /// Starts a node, on the disk that it had.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn restart(&mut self, n: usize) {
        self.restart_through(n, &[]);
    }

    /// The same, by a program that takes its own arguments and then becomes the node.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn restart_through(&mut self, n: usize, through: &[&str]) {
        let name = format!("zue-{n}");
        let data = self.data(n);
        let (client, peer, metrics) = (self.port(n, 0), self.port(n, 1), self.port(n, 2));
        let data = data.to_str().expect("a path of text");
        let listen = ["--listen-client", &client, "--listen-peer", &peer, "--listen-metrics", &metrics];
        let args = [&["--name", &name, "--data-dir", data, "--advertise-client", &client][..], &listen].concat();
        let settings = self.settings();
        let file = settings.to_str().filter(|_| settings.exists()).map(|file| ["--config", file]);
        let args = [file.as_ref().map_or(&[][..], |file| &file[..]), &args].concat();
        let log = self.folder.path().join(format!("{name}.log"));
        self.nodes[n] = Some(Process::start_through(through, "zue-node", &args, &log));
    }

    /// Starts the controller.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn control(&mut self, leadership: &[&str]) {
        let list: Vec<String> = (0..3).map(|n| format!("zue-{n}={}/{}", self.peer(n), self.port(n, 0))).collect();
        let (list, state) = (list.join(","), self.folder.path().join("controller"));
        let args = ["control", "--nodes", &list, "--state", state.to_str().expect("a path of text")];
        let log = self.folder.path().join("controller.log");
        self.controller = Some(Process::start("zue", &[&args, leadership].concat(), &log));
    }

    /// Runs `zue` to its end.
    pub fn zue(&self, args: &[&str], input: &[u8]) -> Output {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).chain(args.iter().copied()).collect();
        zue(&self.servers(), &flags, input)
    }

    /// The same, which must succeed; gives its standard output.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn zue_ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).chain(args.iter().copied()).collect();
        zue_ok(&self.servers(), &flags, input)
    }

    /// The status of each node that answers.
    pub fn status(&self) -> Vec<Value> {
        let output = self.zue(&["-o", "json", "status"], b"");
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The leader, its epoch, and who elected it.
    pub fn led_by(&self) -> Option<(usize, u64, String)> {
        let status = self.status();
        let leader = status.iter().find(|member| member["role"] == "leader")?;
        let ordinal = leader["name"].as_str()?.strip_prefix("zue-")?.parse().ok()?;
        Some((ordinal, leader["epoch"].as_u64()?, leader["elected_by"].as_str()?.to_owned()))
    }
}
