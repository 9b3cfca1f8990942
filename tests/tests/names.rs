//! Three real nodes that know each other by name, and whose server of names falls silent: failover does not need it.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use zue_tests::programs::zue_ok;
use zue_tests::replicas::eventually;
use zue_tests::three::{Cluster, SOON};

/// Set in the world of a test's own.
const INSIDE: &str = "ZUE_NAMES_INSIDE";
/// The time in which appends go on.
const GOES_ON: Duration = Duration::from_secs(3);
const DOMAIN: &str = "nodes.test";

/// A server of names at the usual port, where every name of the domain leads to loopback; until it is silenced.
struct Names {
    answers: Arc<AtomicBool>,
}

impl Names {
    fn serve() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").expect("the port is free in this world");
        let answers = Arc::new(AtomicBool::new(true));
        let goes_on = Arc::clone(&answers);
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if goes_on.load(Ordering::Relaxed) {
                    socket.send_to(&answer(&question[..length]), from).expect("loopback is up");
                }
            }
        });
        Self { answers }
    }

    fn fall_silent(&self) {
        self.answers.store(false, Ordering::Relaxed);
    }
}

/// One address of type A for each name, and none of another type. RFC 1035, 4.1.
fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let name = question[HEADER..].iter().position(|byte| *byte == 0).expect("a name ends with an empty label");
    let end = HEADER + name + 5;
    let is_ipv4 = question[end - 4..end - 2] == [0, 1];
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(&question[HEADER..end]);
    if is_ipv4 {
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {args:?}");
}

/// Runs a test again in namespaces of its own, where the server of names is its own. Whether this is there.
fn is_in_own_world(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_none() {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount"]).args((!is_root).then_some("--map-root-user"));
        unshare.arg(std::env::current_exe().expect("a test knows its own path")).args([test, "--exact", "--nocapture"]);
        let status = unshare.env(INSIDE, "yes").status().expect("unshare is part of util-linux");
        assert!(status.success(), "{test} in a world of its own");
        return false;
    }
    run("ip", &["link", "set", "lo", "up"]);
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (file, text) in [("resolv.conf", "nameserver 127.0.0.1\n"), ("nsswitch.conf", "hosts: files dns\n")] {
        let (own, there) = (folder.path().join(file), Path::new("/etc").join(file));
        std::fs::write(&own, text).expect("it can be written");
        if there.exists() {
            run("mount", &["--bind", &own.to_string_lossy(), &there.to_string_lossy()]);
        }
    }
    true
}

/// Kills the leader once no name resolves, and gives how long the next append takes.
fn kill_the_leader(cluster: &mut Cluster, names: &Names, is_controlled: bool) -> Duration {
    let (leader, epoch, _) = eventually(SOON, || cluster.led_by(), || "somebody leads".to_owned());
    names.fall_silent();
    if !is_controlled {
        cluster.controller.take();
    }
    cluster.nodes[leader].take();
    let begun = Instant::now();
    zue_ok(&cluster.servers(), &["append", "after"], b"");
    let took = begun.elapsed();
    let (elected, later, by) = eventually(SOON, || cluster.led_by(), || format!("{:?}", cluster.status()));
    println!(
        "zue-{elected} leads {later} instead of zue-{leader} {epoch}, elected by {by}: appends went on after {took:?}"
    );
    assert_eq!(by.starts_with("zue-"), !is_controlled, "{by} elected it");
    // The one that was killed comes back, and is fed.
    cluster.restart(leader);
    let is_whole = || {
        let status = cluster.status();
        let in_epoch = status.iter().filter(|member| member["epoch"].as_u64() == Some(later)).count();
        (in_epoch == 3).then_some(())
    };
    eventually(SOON, is_whole, || format!("all are in epoch {later}: {:?}", cluster.status()));
    took
}

#[test]
fn with_a_silent_server_of_names_the_controller_replaces_a_leader() {
    if is_in_own_world("with_a_silent_server_of_names_the_controller_replaces_a_leader") {
        let names = Names::serve();
        let mut cluster = Cluster::start_named(Some(DOMAIN), &[]);
        let took = kill_the_leader(&mut cluster, &names, true);
        assert!(took < GOES_ON, "{took:?}");
    }
}

#[test]
fn with_a_silent_server_of_names_and_no_controller_the_nodes_replace_a_leader() {
    if is_in_own_world("with_a_silent_server_of_names_and_no_controller_the_nodes_replace_a_leader") {
        let names = Names::serve();
        let mut cluster = Cluster::start_named(Some(DOMAIN), &["--standby-after", "300ms"]);
        let took = kill_the_leader(&mut cluster, &names, false);
        assert!(took < GOES_ON, "{took:?}");
        // Where the others are is kept: it is known after a start of all.
        (0..3).for_each(|n| _ = cluster.nodes[n].take());
        (0..3).for_each(|n| cluster.restart(n));
        let begun = Instant::now();
        zue_ok(&cluster.servers(), &["append", "again"], b"");
        println!("appends went on {:?} after a start of all", begun.elapsed());
    }
}
