//! Three real nodes and a controller with TLS: everything that they show and believe is replaced while a client appends, and nobody
//! notices; and a running cluster is moved to TLS.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;
use zue_proto::v1::control_client::ControlClient;
use zue_proto::v1::{StatusRequest, TlsStatus};
use zue_tests::identities::{Identities, LIFE, write};
use zue_tests::load::Load;
use zue_tests::programs::{Process, free_ports, zue};
use zue_tests::replicas::{check_replicas_with, eventually, eventually_async};
use zue_tls::{Authority, Issued, Role};

const SOON: Duration = Duration::from_secs(30);
/// The time for which it takes until leader and controller show what they have: the one is told, the other looks at its files as often as
/// nodes do.
const SHOWN: Duration = Duration::from_millis(1500);

/// Three nodes and a controller.
struct Cluster {
    folder: TempDir,
    identities: Identities,
    base: u16,
    nodes: Vec<Process>,
    controller: Option<Process>,
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("a path of text")
}

impl Cluster {
    fn start(mode: &str) -> Self {
        let identities = Identities::of("ours");
        identities.allow("clients: [{name: shop, rights: [append, read]}]\n");
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut cluster = Self { folder, identities, base: free_ports(3, 10, 3), nodes: Vec::new(), controller: None };
        cluster.give_client();
        cluster.give_controller();
        cluster.nodes = (0..3).map(|n| cluster.node(n, mode)).collect();
        cluster.control(mode);
        cluster
    }

    fn port(&self, node: u16, kind: u16) -> String {
        format!("127.0.0.1:{}", self.base + 10 * node + kind)
    }

    fn servers(&self) -> String {
        (0..3).map(|n| self.port(n, 0)).collect::<Vec<_>>().join(",")
    }

    fn node(&self, n: u16, mode: &str) -> Process {
        let (name, [client, peer, metrics]) = (format!("zue-{n}"), [0, 1, 2].map(|kind| self.port(n, kind)));
        let [data, folder, access] =
            [self.folder.path().join(&name), self.identities.node(), self.identities.access()].map(text);
        let mut args =
            vec!["--name", &name, "--data-dir", &data, "--advertise-client", &client, "--listen-client", &client];
        args.extend(["--listen-peer", &peer, "--listen-metrics", &metrics, "--tls-mode", mode]);
        if mode != "Off" {
            args.extend(["--tls-folder", &folder, "--access-file", &access]);
        }
        Process::start("zue-node", &args, &self.folder.path().join(format!("{name}.log")))
    }

    fn control(&mut self, mode: &str) {
        self.controller = None;
        let list: Vec<String> = (0..3).map(|n| format!("zue-{n}={}/{}", self.port(n, 1), self.port(n, 0))).collect();
        let (list, state, tls) =
            (list.join(","), text(self.folder.path().join("state")), text(self.controller_folder()));
        let mut args = vec!["control", "--nodes", &list, "--state", &state];
        if mode != "Off" {
            args.extend(["--tls-folder", &tls, "--tls-mode", mode]);
        }
        self.controller = Some(Process::start("zue", &args, &self.folder.path().join("controller.log")));
    }

    fn controller_folder(&self) -> PathBuf {
        self.identities.folder_of("controller", &self.of(Role::Controller))
    }

    fn of(&self, role: Role) -> Issued {
        self.identities.peer(&self.identities.cluster.identity(role), LIFE)
    }

    /// The certificate of clients.
    fn give_client(&self) -> PathBuf {
        self.identities.folder_of("client", &self.identities.client("shop", LIFE))
    }

    fn give_controller(&self) {
        self.controller_folder();
    }

    fn flags(&self) -> Vec<String> {
        let folder = self.identities.access().with_file_name("client");
        let file = |flag: &str, name: &str| [flag.to_owned(), text(folder.join(name))];
        [file("--ca", "ca.crt"), file("--cert", "tls.crt"), file("--key", "tls.key")].concat()
    }

    /// The leader and its epoch.
    fn leader(&self, flags: &[String]) -> Option<(String, u64)> {
        let output = self.zue(flags, &["-o", "json", "status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut members = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let leader = members.find(|member| member["role"] == "leader")?;
        Some((leader["name"].as_str()?.to_owned(), leader["epoch"].as_u64()?))
    }

    fn expect_leader(&self, flags: &[String]) -> (String, u64) {
        eventually(SOON, || self.leader(flags), || "somebody leads".to_owned())
    }

    /// The number of times that a leader has told that the stream to a follower ended.
    fn streams_ended(&self) -> usize {
        let log = |n: usize| std::fs::read_to_string(self.folder.path().join(format!("zue-{n}.log")));
        let told = |log: String| log.matches("the stream to a follower ended").count();
        (0..3).map(|n| told(log(n).expect("it has a log"))).sum()
    }

    /// Restarts one node after the other, then the controller.
    fn restart(&mut self, mode: &str, flags: &[String]) {
        for n in 0..3_u16 {
            let at = usize::from(n);
            self.nodes[at].signal("TERM");
            self.nodes[at].wait();
            self.nodes[at] = self.node(n, mode);
            let health = || self.zue(flags, &["health"]).status.success().then_some(());
            eventually(SOON, health, || format!("all are in sync once zue-{n} is back, with {mode}"));
        }
        self.control(mode);
    }

    fn zue(&self, flags: &[String], args: &[&str]) -> Output {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        zue(&self.servers(), &[&flags, args].concat(), b"")
    }

    /// Waits until every node shows and believes what is in the files.
    async fn until_taken_up(&self, is_new: impl Fn(&TlsStatus) -> bool) {
        let own = self.identities.dial(Some(&self.of(Role::Controller)));
        for n in 0..3 {
            let channel: Channel = zue_proto::net::channel(&self.port(n, 1), &own).expect("it is an address");
            let taken = async || {
                let status = ControlClient::new(channel.clone()).status(StatusRequest {}).await.ok()?.into_inner();
                status.tls.filter(&is_new).map(drop)
            };
            eventually_async(SOON, taken, || format!("zue-{n} has taken the files up")).await;
        }
    }
}

fn bundle_hash(authorities: &[&Authority]) -> String {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("bundle");
    write(&path, &authorities.iter().map(|one| one.certificate()).collect::<String>());
    zue_tls::Bundle::read(&path).expect("it is one").sha256
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_authorities_are_replaced_three_times_under_load_and_nobody_notices() {
    let mut cluster = Cluster::start("Required");
    let flags = cluster.flags();
    let before = cluster.expect_leader(&flags);
    let load = Load::start_with(&cluster.servers(), &flags, "record", Duration::from_millis(2));
    load.expect_acks(100, SOON);
    let ended = cluster.streams_ended();
    for _ in 0..3 {
        // Both are believed, then the new ones are shown, then the old ones are believed no more.
        let (old_peers, old_clients) = cluster.identities.renew();
        let of = &cluster.identities;
        of.trust(&[&old_peers, &of.peers], &[&old_clients, &of.clients]);
        let both = bundle_hash(&[&old_peers, &of.peers]);
        // Whoever asks is still one of the old authority.
        let asking = old_peers.issue(&of.cluster.identity(Role::Controller), &zue_tls::Names::default(), LIFE);
        let asking = of.dial(Some(&asking.expect("it can be issued")));
        for n in 0..3 {
            let channel: Channel = zue_proto::net::channel(&cluster.port(n, 1), &asking).expect("it is an address");
            let taken = async || {
                let status = ControlClient::new(channel.clone()).status(StatusRequest {}).await.ok()?.into_inner();
                status.tls.filter(|tls| tls.peer_bundle_sha256 == both).map(drop)
            };
            eventually_async(SOON, taken, || format!("zue-{n} believes both")).await;
        }
        of.give_nodes(LIFE);
        cluster.give_client();
        cluster.give_controller();
        let shown = zue_tls::Leaf::read(&of.node().join("tls.crt"), &of.node().join("tls.key")).expect("it is there");
        cluster.until_taken_up(|tls| tls.certificate_sha256 == shown.sha256).await;
        tokio::time::sleep(SHOWN).await;
        of.trust(&[&of.peers], &[&of.clients]);
        cluster.give_client();
        cluster.give_controller();
        let new = bundle_hash(&[&of.peers]);
        cluster.until_taken_up(|tls| tls.peer_bundle_sha256 == new && tls.problem.is_empty()).await;
        load.expect_acks(100, SOON);
    }
    // Whoever stood on what is gone was told so as it went.
    load.expect_acks(100, SOON);
    assert_eq!(cluster.leader(&flags), Some(before), "the same leader in the same epoch");
    assert_eq!(cluster.streams_ended(), ended, "no follower has lost its leader's stream");
    let stall = load.take_stall();
    assert!(stall < Duration::from_secs(2), "no acknowledgement for {stall:?}");
    let acks = load.finish();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    check_replicas_with(&cluster.servers(), &flags, &["zue-0", "zue-1", "zue-2"].map(str::to_owned), &acks, SOON);
}

#[test]
fn nodes_elect_by_themselves_over_tls() {
    let mut cluster = Cluster::start("Required");
    let flags = cluster.flags();
    let (leader, epoch) = cluster.expect_leader(&flags);
    let kept = |n: usize| cluster.folder.path().join(format!("zue-{n}/standby.yaml")).exists();
    eventually(SOON, || (0..3).all(kept).then_some(()), || "all nodes are told how to stand by".to_owned());
    cluster.controller = None;
    let at = (0..3).find(|n| leader == format!("zue-{n}")).expect("it is one of them");
    cluster.nodes[at].kill();
    let another = || cluster.leader(&flags).filter(|(name, later)| *name != leader && *later > epoch);
    eventually(SOON, another, || "another leads".to_owned());
    let appended = cluster.zue(&flags, &["append", "x"]);
    assert!(appended.status.success(), "{}", String::from_utf8_lossy(&appended.stderr));
}

#[test]
fn a_running_cluster_is_moved_to_tls_and_no_append_fails() {
    let mut cluster = Cluster::start("Off");
    let flags = cluster.flags();
    cluster.expect_leader(&[]);
    let plain = Load::start(&cluster.servers(), "plain", Duration::from_millis(5));
    plain.expect_acks(50, SOON);
    cluster.restart("Permissive", &[]);
    plain.expect_acks(50, SOON);
    // Now clients can come with TLS, and all have to before nobody else is taken.
    let secured = Load::start_with(&cluster.servers(), &flags, "secured", Duration::from_millis(5));
    secured.expect_acks(50, SOON);
    plain.finish();
    cluster.restart("Required", &flags);
    secured.expect_acks(50, SOON);
    secured.finish();
    let refused = zue(&cluster.servers(), &["append", "x"], b"");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("this port requires TLS"), "{said}");
}
