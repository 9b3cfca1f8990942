//! Three real nodes and a real controller on loopback: killed, stopped, starved and fed nonsense.

#![allow(
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "this is a test: what is not there fails it"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use zue_tests::acks::Acks;
use zue_tests::load::Load;
use zue_tests::programs::{Process, faketime, free_ports, zue, zue_ok};
use zue_tests::replicas::{check_replicas, eventually, read_lines};

const SOON: Duration = Duration::from_secs(20);
/// The nodes' configuration, in the folder of a test.
const CONFIG: &str = "node.yaml";

/// Three nodes and a controller, each a process of its own.
struct Cluster {
    folder: TempDir,
    base: u16,
    nodes: Vec<Option<Process>>,
    _controller: Process,
}

impl Cluster {
    /// Starts everything and waits until the first node leads.
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with further arguments for the controller.
    fn start_with(control: &[&str]) -> Self {
        Self::start_as("{}", control)
    }

    /// The same, with this configuration of the nodes.
    fn start_as(config: &str, control: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        configure(&folder, config);
        let base = free_ports(3, 10, 3);
        let nodes: Vec<_> = (0..3).map(|n| Some(start_node(&folder, base, n))).collect();
        let list: Vec<String> =
            (0..3).map(|n| format!("zue-{n}=127.0.0.1:{}/127.0.0.1:{}", base + 10 * n + 1, base + 10 * n)).collect();
        let state = folder.path().join("controller.json");
        let list = list.join(",");
        let args = ["control", "--nodes", &list, "--state", state.to_str().expect("a path of text")];
        let args = [&args, control].concat();
        let controller = Process::start("zue", &args, &folder.path().join("controller.log"));
        let cluster = Self { folder, base, nodes, _controller: controller };
        cluster.expect_leader("zue-0");
        cluster
    }

    fn servers(&self) -> String {
        (0..3).map(|n| format!("127.0.0.1:{}", self.base + 10 * n)).collect::<Vec<_>>().join(",")
    }

    fn kill(&mut self, n: usize) {
        self.nodes[n].take().expect("it runs").kill();
    }

    fn restart(&mut self, n: u16) {
        self.nodes[usize::from(n)] = Some(start_node(&self.folder, self.base, n));
    }

    fn status(&self) -> serde_json::Value {
        let output = zue(&self.servers(), &["-o", "json", "status"], b"");
        let text = String::from_utf8_lossy(&output.stdout);
        let members = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        serde_json::Value::Array(members)
    }

    /// The leader and its epoch.
    fn leader(&self) -> Option<(usize, u64)> {
        let status = self.status();
        let leader = status.as_array()?.iter().find(|member| member["role"] == "leader")?;
        let ordinal = leader["name"].as_str()?.strip_prefix("zue-")?.parse().ok()?;
        Some((ordinal, leader["epoch"].as_u64()?))
    }

    /// The epoch in which `name` leads, if it does.
    fn led_by(&self, name: &str) -> Option<u64> {
        let status = self.status();
        let leader = status.as_array()?.iter().find(|member| member["role"] == "leader")?;
        if leader["name"] == name { leader["epoch"].as_u64() } else { None }
    }

    fn expect_leader(&self, name: &str) -> u64 {
        eventually(SOON, || self.led_by(name), || format!("{name} leads; status: {}", self.status()))
    }

    fn check(&self, acks: &Acks) {
        let names = ["zue-0", "zue-1", "zue-2"].map(str::to_owned);
        check_replicas(&self.servers(), &names, acks, SOON);
    }
}

/// Sets the file of nodes that start from here on.
fn configure(folder: &TempDir, config: &str) {
    std::fs::write(folder.path().join(CONFIG), config).expect("the configuration can be written");
}

fn start_node(folder: &TempDir, base: u16, n: u16) -> Process {
    start_node_through(&[], folder, base, n)
}

fn start_node_through(through: &[&str], folder: &TempDir, base: u16, n: u16) -> Process {
    let config = folder.path().join(CONFIG);
    let name = format!("zue-{n}");
    let port = |kind: u16| format!("127.0.0.1:{}", base + 10 * n + kind);
    let data = folder.path().join(&name);
    let args = [
        "--config",
        config.to_str().expect("a path of text"),
        "--name",
        &name,
        "--data-dir",
        data.to_str().expect("a path of text"),
        "--listen-client",
        &port(0),
        "--listen-peer",
        &port(1),
        "--listen-metrics",
        &port(2),
        "--advertise-client",
        &port(0),
    ];
    Process::start_through(through, "zue-node", &args, &folder.path().join(format!("{name}.log")))
}

#[test]
fn a_killed_static_leader_comes_back_at_a_higher_epoch_and_nothing_is_lost_or_doubled() {
    let mut cluster = Cluster::start_with(&["--policy", "static"]);
    let before = cluster.expect_leader("zue-0");
    let load = Load::start(&cluster.servers(), "load", Duration::from_micros(500));
    for _ in 0..3 {
        load.expect_acks(200, SOON);
        cluster.kill(0);
        cluster.restart(0);
    }
    load.expect_acks(200, SOON);
    let acks = load.finish();
    assert!(cluster.expect_leader("zue-0") > before);
    cluster.check(&acks);
}

#[test]
fn a_killed_leader_is_replaced_by_another_and_nothing_is_lost_or_doubled() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster.servers(), "load", Duration::from_micros(500));
    let mut last_epoch = 0;
    for _ in 0..3 {
        load.expect_acks(200, SOON);
        let (leader, epoch) = eventually(SOON, || cluster.leader(), || format!("one leads: {}", cluster.status()));
        assert!(epoch > last_epoch, "epoch {epoch} after {last_epoch}");
        last_epoch = epoch;
        cluster.kill(leader);
        // Dead, it is not there to lead again.
        load.expect_acks(200, SOON);
        let (next, _) = eventually(SOON, || cluster.leader(), || format!("one leads: {}", cluster.status()));
        assert_ne!(next, leader);
        cluster.restart(u16::try_from(leader).expect("there are three"));
    }
    cluster.check(&load.finish());
}

#[test]
fn a_leader_that_hangs_is_replaced_and_follows_when_it_goes_on() {
    let cluster = Cluster::start();
    let load = Load::start(&cluster.servers(), "load", Duration::from_micros(500));
    load.expect_acks(200, SOON);
    let leader = cluster.nodes[0].as_ref().expect("it runs");
    leader.signal("STOP");
    // No connection breaks: the voters and the client have to notice the silence.
    load.expect_acks(500, Duration::from_secs(4));
    let (next, _) = eventually(SOON, || cluster.leader(), || format!("one leads: {}", cluster.status()));
    assert_ne!(next, 0);
    leader.signal("CONT");
    load.expect_acks(200, SOON);
    cluster.check(&load.finish());
}

#[test]
fn a_switchover_moves_the_leadership_and_no_append_fails() {
    let cluster = Cluster::start();
    let servers = cluster.servers();
    let load = Load::start(&servers, "load", Duration::from_micros(500));
    for name in ["zue-2", "zue-1", "zue-1", "zue-0"] {
        load.expect_acks(200, SOON);
        let said = zue_ok(&servers, &["-o", "json", "switchover", "--to", name], b"");
        let switched: serde_json::Value = serde_json::from_slice(&said).expect("an answer is JSON");
        assert_eq!(switched["leader"], name);
        assert_eq!(cluster.led_by(name), switched["epoch"].as_u64());
    }
    cluster.check(&load.finish());

    let refused = zue(&servers, &["switchover", "--to", "zue-9"], b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("there are: zue-0, zue-1, zue-2"), "{said}");
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_before() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster.servers(), "load", Duration::from_micros(500));
    for leader in [0_usize, 1] {
        load.expect_acks(200, SOON);
        let is_in_sync = |status: &serde_json::Value| {
            status.as_array().is_some_and(|all| all.iter().all(|member| member["in_sync"] == true))
        };
        eventually(
            SOON,
            || is_in_sync(&cluster.status()).then_some(()),
            || format!("all are in sync: {}", cluster.status()),
        );
        let mut stopping = cluster.nodes[leader].take().expect("it runs");
        stopping.signal("TERM");
        assert_eq!(stopping.wait(), 0);
        // It has not waited in vain: somebody leads already.
        let (next, _) = cluster.leader().expect("another leads");
        assert_ne!(next, leader);
        cluster.restart(u16::try_from(leader).expect("there are three"));
        if next != 1 {
            zue_ok(&cluster.servers(), &["switchover", "--to", "zue-1"], b"");
        }
    }
    load.expect_acks(200, SOON);
    cluster.check(&load.finish());
}

#[test]
fn all_killed_at_once_come_back_with_every_acknowledged_record() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster.servers(), "load", Duration::from_micros(500));
    load.expect_acks(500, SOON);
    for n in 0..3 {
        cluster.kill(n);
    }
    for n in 0..3 {
        cluster.restart(n);
    }
    load.expect_acks(200, SOON);
    cluster.check(&load.finish());
}

#[test]
fn a_replica_that_comes_back_alone_serves_what_was_committed() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster.servers(), "load", Duration::from_millis(1));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        load.expect_acks(100, SOON);
    }
    for n in 0..3 {
        cluster.kill(n);
    }
    cluster.restart(2);
    let alone = read_lines(&cluster.servers(), "zue-2", 100, SOON);
    assert!(alone.starts_with(b"load-0\nload-1\n"), "{}", String::from_utf8_lossy(&alone));
    for n in 0..2 {
        cluster.restart(n);
    }
    cluster.check(&load.finish());
}

#[test]
fn a_stopped_follower_stalls_nobody() {
    let cluster = Cluster::start();
    let load = Load::start(&cluster.servers(), "load", Duration::from_micros(500));
    load.expect_acks(300, SOON);
    let stopped = cluster.nodes[2].as_ref().expect("it runs");
    stopped.signal("STOP");
    // The original waited five seconds for each append now. Four of them bound the time for 2,000 here.
    load.expect_acks(2000, SOON);
    stopped.signal("CONT");
    cluster.check(&load.finish());
}

#[test]
fn without_a_quorum_appends_fail_by_name_reads_go_on_and_one_more_replica_heals_it() {
    let mut cluster = Cluster::start();
    zue_ok(&cluster.servers(), &["append", "before"], b"");
    cluster.kill(1);
    cluster.kill(2);
    let begun = Instant::now();
    let refused = zue(&cluster.servers(), &["--deadline", "3s", "append", "during"], b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert!(said.contains("1 of 3 voters are in reach, 2 are needed"), "{said}");
    let first = zue_ok(&cluster.servers(), &["read", "--from", "0", "--max", "1", "--raw"], b"");
    assert_eq!(first, b"before\n");
    cluster.restart(1);
    zue_ok(&cluster.servers(), &["append", "after"], b"");
    let all = zue_ok(&cluster.servers(), &["read", "--from", "0", "--raw"], b"");
    assert!(all.ends_with(b"after\n"), "{}", String::from_utf8_lossy(&all));
}

/// The end of a command, and all that it said.
fn told(cluster: &Cluster, args: &[&str]) -> (Option<i32>, String) {
    let output = zue(&cluster.servers(), args, b"");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn status_and_health_tell_of_a_dead_follower_at_once_and_of_a_lost_quorum_by_their_exit_codes() {
    let mut cluster = Cluster::start();
    let is_well = || (told(&cluster, &["health"]).0 == Some(0)).then_some(());
    eventually(SOON, is_well, || told(&cluster, &["health"]).1);
    cluster.kill(2);
    // Its last word was no older than a heartbeat; that its stream has ended is known at once.
    let is_late = || (cluster.status()[2]["in_sync"] == false).then_some(());
    eventually(Duration::from_secs(1), is_late, || cluster.status().to_string());
    let (code, said) = told(&cluster, &["health"]);
    assert!(code == Some(1) && said.contains("zue-2 is not in sync"), "{code:?} {said}");
    assert_eq!(told(&cluster, &["status"]).0, Some(0));
    cluster.kill(1);
    let is_below = || (told(&cluster, &["status"]).0 == Some(1)).then_some(());
    eventually(SOON, is_below, || told(&cluster, &["status"]).1);
    let said = told(&cluster, &["status"]).1;
    assert!(said.contains("quorum: 1 of 3 voters are in reach, 2 are needed"), "{said}");
    let (code, said) = told(&cluster, &["health"]);
    assert!(
        code == Some(2) && said.starts_with("critical: 1 of 3 voters are in reach, 2 are needed"),
        "{code:?} {said}"
    );
    // The leader dies, and one voter comes back alone, or the other: nobody can be elected.
    cluster.restart(1);
    let heals = || (told(&cluster, &["health"]).0 == Some(1)).then_some(());
    eventually(SOON, heals, || told(&cluster, &["health"]).1);
    cluster.kill(0);
    let (code, said) = told(&cluster, &["--deadline", "3s", "append", "during"]);
    assert!(code == Some(1) && said.contains("2 of 3 voters do not answer") && !said.contains("advertise"), "{said}");
}

#[test]
fn an_append_under_way_when_the_quorum_goes_is_told_so_and_is_kept_once_when_it_is_back() {
    let cluster = Cluster::start();
    zue_ok(&cluster.servers(), &["append", "before"], b"");
    let followers = || [1, 2].map(|n| cluster.nodes[n].as_ref().expect("it runs"));
    for follower in followers() {
        follower.signal("STOP");
    }
    let log = cluster.folder.path().join("append.log");
    let begun = Instant::now();
    let mut append = Process::start("zue", &["--servers", &cluster.servers(), "append", "during"], &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    // It would wait for ten seconds, were it not told.
    let is_told = || said().contains("1 of 3 voters are in reach, 2 are needed").then_some(());
    eventually(Duration::from_secs(9), is_told, || format!("{}, after {:?}", said(), begun.elapsed()));
    for follower in followers() {
        follower.signal("CONT");
    }
    assert_eq!(append.wait(), 0, "{}", said());
    assert_eq!(zue_ok(&cluster.servers(), &["read", "--raw"], b""), b"before\nduring\n");
}

#[test]
fn one_who_follows_survives_a_restart_of_all_nodes_and_neither_loses_nor_doubles_a_record() {
    let mut cluster = Cluster::start();
    let log = cluster.folder.path().join("tail.log");
    let load = Load::start(&cluster.servers(), "load", Duration::from_millis(1));
    load.expect_acks(100, SOON);
    let follow =
        Process::start("zue", &["--servers", &cluster.servers(), "tail", "-f", "-n", "1000000", "--raw"], &log);
    for _ in 0..2 {
        load.expect_acks(200, SOON);
        for n in 0..3 {
            cluster.kill(n);
        }
        let is_waiting = || std::fs::read_to_string(&log).unwrap_or_default().contains("waiting").then_some(());
        eventually(SOON, is_waiting, || "it says that it waits".to_owned());
        for n in 0..3 {
            cluster.restart(n);
        }
        load.expect_acks(200, SOON);
    }
    cluster.check(&load.finish());
    let all = zue_ok(&cluster.servers(), &["read", "--raw"], b"");
    for expected in String::from_utf8_lossy(&all).lines() {
        assert_eq!(follow.next_line(SOON), expected);
    }
}

#[test]
fn nonsense_gets_a_clear_error_and_the_node_serves_on() {
    let cluster = Cluster::start();
    let servers = cluster.servers();
    let oversized = vec![b'x'; 5 << 20];
    let refused = zue(&servers, &["append"], &oversized);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("1048576"), "the limit is named: {said}");

    let refused = zue(&servers, &["read", "--from", "999999"], b"");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("999999"), "the offset is named: {said}");

    for port in [cluster.base, cluster.base + 1, cluster.base + 2] {
        let mut garbage = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
        drop(garbage.write_all(&[0xFF; 4096]));
        drop(garbage.shutdown(std::net::Shutdown::Write));
        garbage.set_read_timeout(Some(SOON)).expect("a time to wait");
        let mut answer = vec![];
        drop(garbage.read_to_end(&mut answer));
    }
    let idle: Vec<TcpStream> =
        (0..500).map(|_| TcpStream::connect(("127.0.0.1", cluster.base)).expect("the port is open")).collect();
    let offset = zue_ok(&servers, &["append", "still here"], b"");
    assert_eq!(offset, b"0\n");
    drop(idle);
    assert_eq!(zue(&servers, &["append", "--no-such-flag"], b"").status.code(), Some(2));
}

#[test]
fn one_hundred_thousand_lines_come_back_byte_for_byte_from_each_replica() {
    let cluster = Cluster::start();
    let mut text = String::new();
    for n in 0..100_000 {
        let fill = "x".repeat(n % 120);
        text.push_str(if n % 17 == 0 { "" } else { &fill });
        text.push_str(&n.to_string());
        text.push('\n');
        text.push_str(if n % 10 == 0 { "\n" } else { "" });
    }
    zue_ok(&cluster.servers(), &["append"], text.as_bytes());
    let lines = text.lines().count();
    for name in ["zue-0", "zue-1", "zue-2"] {
        let read = read_lines(&cluster.servers(), name, lines, SOON);
        assert!(read == text.as_bytes(), "{name} gives back something else than what was appended");
    }
}

/// Offset, key and value, as `-o json` gives a record: the latter two in base64.
type Line = (u64, Option<String>, String);

fn line(text: &str) -> Line {
    let record: serde_json::Value = serde_json::from_str(text).expect("a record is JSON");
    let text = |field: &str| record[field].as_str().map(str::to_owned);
    (record["offset"].as_u64().expect("a record has an offset"), text("key"), text("value").expect("it has a value"))
}

fn read_from(cluster: &Cluster, replica: &str, from: u64) -> Vec<Line> {
    let from = from.to_string();
    let args = ["-o", "json", "read", "--replica", replica, "--from", &from];
    String::from_utf8_lossy(&zue_ok(&cluster.servers(), &args, b"")).lines().map(line).collect()
}

#[test]
fn a_compacted_log_is_read_as_the_newest_of_each_key_from_any_offset_and_followed_behind_its_gaps() {
    const KEYS: [&str; 4] = ["a", "b", "c", "d"];
    let names = ["zue-0", "zue-1", "zue-2"];
    let segments = |compaction: bool| format!("log: {{segmentBytesMax: 32KiB, compaction: {compaction}}}");
    let mut cluster = Cluster::start_as(&segments(false), &[]);
    let servers = cluster.servers();
    let lines = |what: &str, count: usize| {
        (0..count).map(|n| format!("{what} {n} {}\n", "x".repeat(200))).collect::<Vec<_>>().concat().into_bytes()
    };
    for round in 0..4 {
        for key in KEYS {
            zue_ok(&servers, &["append", "--key", key], &lines(&format!("{key}{round}"), 40));
        }
        zue_ok(&servers, &["append", "without a key"], b"");
    }
    // All versions lie in front of the newest segment, which stays as it is.
    zue_ok(&servers, &["append"], &lines("last", 200));
    let all = read_from(&cluster, "zue-0", 0);
    assert_eq!(all.len(), 4 * (4 * 40 + 1) + 200);
    let is_newest = |(offset, key, _): &&Line| key.is_none() || !all.iter().any(|(o, k, _)| o > offset && k == key);
    let newest: Vec<Line> = all.iter().filter(is_newest).cloned().collect();
    assert_eq!(newest.len(), 4 + 4 + 200);

    for n in 0..3 {
        cluster.kill(n);
    }
    configure(&cluster.folder, &segments(true));
    for n in 0..3 {
        cluster.restart(n);
    }
    for name in names {
        let is_compacted = || (read_from(&cluster, name, 0) == newest).then_some(());
        eventually(SOON, is_compacted, || {
            format!("{name} has the newest of each key: {:?}", read_from(&cluster, name, 0))
        });
        // In the middle of a gap, at its last offset, and behind it.
        for from in [20, 159, 160, 161, 300, 482, 483, 642] {
            let behind: Vec<Line> = newest.iter().filter(|(offset, ..)| *offset >= from).cloned().collect();
            assert_eq!(read_from(&cluster, name, from), behind, "{name} from {from}");
        }
    }

    let log = cluster.folder.path().join("tail.log");
    let args = ["--servers", &servers, "-o", "json", "tail", "--follow", "--lines"];
    let follow = |lines: &str| Process::start("zue", &[&args[..], &[lines]].concat(), &log);
    // From the first offset, and from the middle of a gap.
    let following = [(0, follow("100000")), (300, follow(&(all.len() - 300).to_string()))];
    for (from, process) in &following {
        for expected in newest.iter().filter(|(offset, ..)| offset >= from) {
            assert_eq!(line(&process.next_line(SOON)), *expected, "followed from {from}");
        }
    }
    let end = u64::try_from(all.len()).expect("a few");
    // "a" and "news" in base64.
    let news = (end, Some("YQ==".to_owned()), "bmV3cw==".to_owned());
    zue_ok(&servers, &["append", "--key", "a", "news"], b"");
    for (from, process) in &following {
        assert_eq!(line(&process.next_line(SOON)), news, "followed from {from}");
    }
}

/// The greatest timestamp that a replica reads.
fn newest_timestamp(cluster: &Cluster, replica: &str) -> u64 {
    let text = zue_ok(&cluster.servers(), &["-o", "json", "read", "--replica", replica, "--from", "0"], b"");
    let timestamp =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a record")["timestamp_ms"].as_u64();
    String::from_utf8_lossy(&text).lines().filter_map(timestamp).max().expect("there are records")
}

fn unix_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970");
    u64::try_from(since.as_millis()).expect("and long before the end of time")
}

#[test]
fn a_leader_whose_clock_is_an_hour_ahead_trims_nothing_young_and_stamps_nothing_far_ahead_and_says_so() {
    let kept_for = |age: &str| format!("log: {{segmentBytesMax: 32KiB, retentionAge: {age}}}");
    let mut cluster = Cluster::start_as(&kept_for("10m"), &[]);
    let lines = |what: &str| (0..40).map(|n| format!("{what} {n} {}\n", "x".repeat(4000))).collect::<Vec<_>>().concat();
    zue_ok(&cluster.servers(), &["append"], lines("before").as_bytes());

    let preload = format!("LD_PRELOAD={}", faketime());
    let ahead = ["env", &preload, "FAKETIME=+1h", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"];
    cluster.kill(1);
    // It has not seen them come: it knows their timestamps, and the clocks.
    cluster.nodes[1] = Some(start_node_through(&ahead, &cluster.folder, cluster.base, 1));
    let row = |cluster: &Cluster, name: &str| {
        let status = cluster.status();
        status.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name).cloned()).unwrap_or_default()
    };
    let says = |cluster: &Cluster, what: &str| {
        row(cluster, "zue-1")["problem"].as_str().is_some_and(|problem| problem.contains(what)).then_some(())
    };
    let is_ahead = "ahead of the time that a majority of the voters' clocks have reached";
    eventually(SOON, || (row(&cluster, "zue-1")["in_sync"] == true).then_some(()), || "zue-1 is in sync".to_owned());
    zue_ok(&cluster.servers(), &["switchover", "--to", "zue-1"], b"");
    cluster.expect_leader("zue-1");
    zue_ok(&cluster.servers(), &["append"], lines("after").as_bytes());
    // It looks for what is to go every two seconds.
    std::thread::sleep(Duration::from_secs(6));
    for name in ["zue-0", "zue-1", "zue-2"] {
        assert_eq!(row(&cluster, name)["log_start"], 0, "{name} has trimmed what is seconds old");
    }

    let newest = newest_timestamp(&cluster, "zue-0");
    assert!(newest <= unix_ms() + 10_000, "{newest} at {}", unix_ms());
    eventually(SOON, || says(&cluster, is_ahead), || format!("zue-1 leads, and says it: {}", cluster.status()));
    zue_ok(&cluster.servers(), &["switchover", "--to", "zue-0"], b"");
    cluster.expect_leader("zue-0");
    eventually(SOON, || says(&cluster, is_ahead), || format!("zue-1 follows, and says it: {}", cluster.status()));

    // What is old goes all the same.
    for n in 0..3 {
        cluster.kill(n);
    }
    configure(&cluster.folder, &kept_for("2s"));
    cluster.restart(0);
    cluster.restart(2);
    cluster.nodes[1] = Some(start_node_through(&ahead, &cluster.folder, cluster.base, 1));
    for name in ["zue-0", "zue-1", "zue-2"] {
        let has_gone = || row(&cluster, name)["log_start"].as_u64().filter(|log_start| *log_start > 0).map(|_| ());
        eventually(SOON, has_gone, || format!("{name} has trimmed what is old: {}", cluster.status()));
    }
}

#[test]
fn zue_dev_starts_stops_on_sigterm_and_keeps_the_data() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let base = free_ports(3, 10, 3);
    let data = folder.path().join("data");
    let port = base.to_string();
    let args = ["dev", "--data", data.to_str().expect("a path of text"), "--replicas", "3", "--port", &port];
    let servers = format!("127.0.0.1:{base}");
    for (n, value) in ["first", "second"].into_iter().enumerate() {
        let mut dev = Process::start("zue", &args, &folder.path().join("dev.log"));
        dev.expect_line("zue append", SOON);
        assert_eq!(zue_ok(&servers, &["append", value], b""), format!("{n}\n").into_bytes());
        dev.signal("TERM");
        assert_eq!(dev.wait(), 0);
    }
    let mut dev = Process::start("zue", &args, &folder.path().join("dev.log"));
    dev.expect_line("zue append", SOON);
    assert_eq!(zue_ok(&servers, &["read", "--from", "0", "--raw"], b""), b"first\nsecond\n");
    dev.signal("INT");
    assert_eq!(dev.wait(), 0);
}

#[test]
fn what_is_appended_again_under_its_name_by_another_process_is_kept_once() {
    let cluster = Cluster::start();
    let servers = cluster.servers();
    let acks = |args: &[&str], input: &[u8]| -> Vec<serde_json::Value> {
        let output = zue_ok(&servers, &[&["-o", "json", "append"], args].concat(), input);
        output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    };
    let first = acks(&[], b"a\nb\nc\n");
    assert!(first.iter().all(|ack| ack["duplicate"] == false), "{first:?}");
    let producer = first[0]["producer"].as_str().expect("a producer");
    // As if nothing had been heard of the second record and the third.
    let again = acks(&["--producer", producer, "--sequence", "1"], b"b\nc\nd\ne\n");
    let told =
        |ack: &serde_json::Value| (ack["base_offset"].as_u64(), ack["sequence"].as_u64(), ack["duplicate"] == true);
    let told: Vec<_> = again.iter().take(3).map(told).collect();
    assert_eq!(told, [(Some(1), Some(1), true), (Some(2), Some(2), true), (Some(3), Some(3), false)]);
    let one = acks(&["--producer", producer, "--sequence", "4", "e"], b"");
    assert_eq!((one[0]["base_offset"].as_u64(), one[0]["duplicate"] == true), (Some(4), true));
    assert_eq!(zue_ok(&servers, &["-o", "json", "read"], b"").split(|byte| *byte == b'\n').count(), 6, "five lines");
}
