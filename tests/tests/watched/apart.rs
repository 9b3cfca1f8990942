//! Three nodes with TLS, on small disks of their own that fill up, get slow and damage what they hold; certificates, strangers, and a
//! leader that is taken away again and again.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use zue_tests::identities::{Identities, LIFE, write};
use zue_tests::programs::{Process, free_ports, installed, program};
use zue_tests::replicas::eventually;
use zue_tests::three::{Cluster, SOON};
use zue_tests::watch::{Watch, Windows, appending};
use zue_tls::Role;

use crate::local::{LOOK, Prometheus, leader};

/// The place where the test is when it runs in mounts of its own.
const INSIDE: &str = "ZUE_WATCHED_INSIDE";
const NAME: &str = "apart::disks_certificates_and_strangers_set_off_alerts_that_clear";
const DISK_BYTES: u64 = 48 << 20;
/// A leader is taken away more than three times within the longer one.
const WINDOWS: Windows = Windows { short: "4s", long: "30s" };
/// Longer than any certificate that is about to expire.
const LONG: Duration = Duration::from_hours(24 * 30);

/// A disk in memory, which goes with the mounts of this process.
fn mount(at: &Path) {
    std::fs::create_dir_all(at).expect("a place for a disk");
    let size = format!("size={DISK_BYTES}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
    assert!(mounted.is_ok_and(|status| status.success()), "a disk is mounted at {}", at.display());
}

/// A cluster with TLS whose disks are small, with what its nodes show and believe.
fn start(identities: &Identities) -> Cluster {
    identities.allow("clients: [{name: shop, rights: [append, read, admin]}]\n");
    let controller = identities.peer(&identities.cluster.identity(Role::Controller), LIFE);
    let controller = identities.folder_of("controller", &controller);
    let client = identities.folder_of("client", &identities.client("shop", LIFE));
    let path = |path: &Path| path.to_str().expect("a path of text").to_owned();
    let flags = [("--ca", "ca.crt"), ("--cert", "tls.crt"), ("--key", "tls.key")];
    let flags = flags.iter().flat_map(|(flag, file)| [(*flag).to_owned(), path(&client.join(file))]).collect();
    let settings = format!(
        "tls: {{mode: Required, folder: {}}}\naccess: {{file: {}}}\n\
         log: {{segmentBytesMax: 32KiB, scrubBytesPerSecond: 64MiB, scrubInterval: 100ms}}\n",
        identities.node().display(),
        identities.access().display()
    );
    Cluster::start_prepared(None, &["--tls-mode", "Required", "--tls-folder", &path(&controller)], |new| {
        new.flags = flags;
        std::fs::write(new.settings(), settings).expect("the settings can be written");
        (0..3).for_each(|n| mount(&new.data(n)));
    })
}

/// The certificates that the nodes show and believe.
fn certificates(identities: &Identities, prometheus: &Watch) {
    prometheus.expect_firing("certificates of an hour", &["ZueCertificateExpiring"]);
    identities.give_nodes(LONG);
    prometheus.expect_cleared(&["ZueCertificateExpiring"]);
    let file = identities.node().join("tls.crt");
    let before = std::fs::read_to_string(&file).expect("there is a certificate");
    write(&file, "no certificate");
    prometheus.expect_firing("a certificate's file with something else", &["ZueTlsFilesUnusable"]);
    write(&file, &before);
    prometheus.expect_cleared(&["ZueTlsFilesUnusable"]);
}

/// Bytes that begin as TLS, and are none.
const NO_HELLO: &[u8] = b"\x16\x03\x01\x00\x05hello";

/// Somebody who does not get in comes again and again.
fn strangers(cluster: &Cluster, prometheus: &Watch) {
    let server = cluster.servers().split(',').next().expect("there are three").to_owned();
    let come = || {
        for _ in 0..5 {
            let stranger = TcpStream::connect(&server).and_then(|mut stranger| stranger.write_all(NO_HELLO));
            stranger.expect("the port is open");
        }
        prometheus.firing().ok().filter(|firing| firing.contains("ZueClientsRefused"))
    };
    eventually(SOON, come, || "strangers are refused".to_owned());
    prometheus.expect_firing("strangers at the port of the clients", &["ZueClientsRefused"]);
    prometheus.expect_cleared(&["ZueClientsRefused"]);
}

/// Has the syncs of these nodes' disks changed as `strace` says, until it is dropped.
fn with_syncs(cluster: &Cluster, nodes: &[usize], change: &str, log: &Path) -> Process {
    let inject = format!("inject=fsync,fdatasync:{change}");
    let ids = nodes.iter().map(|n| cluster.nodes[*n].as_ref().expect("it runs").id().to_string());
    let ids: Vec<String> = ids.flat_map(|id| ["-p".to_owned(), id]).collect();
    let mut args = vec!["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject];
    args.extend(ids.iter().map(String::as_str));
    Process::start(installed("strace").to_str().expect("a path of text"), &args, log)
}

/// Disks that take their time for a sync, and one that fails.
fn syncs(cluster: &mut Cluster, prometheus: &Watch, log: &Path) {
    let slow = with_syncs(cluster, &[0, 1, 2], "delay_enter=1200000", log);
    prometheus.expect_firing("syncs of 1.2 s", &["ZueFsyncSlow", "ZueCommitSlow"]);
    drop(slow);
    prometheus.expect_cleared(&["ZueFsyncSlow", "ZueCommitSlow"]);
    let one = (leader(cluster) + 1) % 3;
    let failing = with_syncs(cluster, &[one], "error=EIO", log);
    prometheus.expect_firing("a sync that fails", &["ZueStorageFailed"]);
    drop(failing);
    cluster.kill(one);
    cluster.restart(one);
    prometheus.expect_cleared(&["ZueStorageFailed"]);
}

/// Has the thread that looks after a node's log panic, as by a fault of the program.
const PANIC: &str = r#"
    symbol() { nm "$program" | awk -v name="$1" '$3 ~ name && !found++ { print $3 }' | grep .; }
    at=$(symbol '11maintenance.*6a_turn') panic=$(symbol '7raw_vec17capacity_overflow')
    "$gdb" -p "$id" -batch -nx -ex "break *&'$at'" -ex continue \
      -ex delete -ex "set language c" -ex "set \$pc = &'$panic'" -ex detach </dev/null
"#;

/// Nothing looks after the log of a node any more.
fn upkeep(cluster: &mut Cluster, prometheus: &Watch) {
    let one = (leader(cluster) + 1) % 3;
    let id = cluster.nodes[one].as_ref().expect("it runs").id().to_string();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", PANIC]);
    bash.env("gdb", installed("gdb"));
    let panics = bash.env("program", program("zue-node")).env("id", id).output().expect("bash runs");
    let said = String::from_utf8_lossy(&panics.stdout).into_owned() + &String::from_utf8_lossy(&panics.stderr);
    assert!(panics.status.success(), "{said}");
    prometheus.expect_firing("a thread that panics", &["ZueUpkeepEnded"]);
    cluster.kill(one);
    cluster.restart(one);
    prometheus.expect_cleared(&["ZueUpkeepEnded"]);
}

/// Flips a bit of a record on a disk, or flips it back.
fn flip(cluster: &Cluster, n: usize, record: &[u8]) {
    // All but the first byte, which is the one that is flipped.
    let rest = &record[1..];
    let found = || {
        std::fs::read_dir(cluster.data(n)).ok()?.flatten().find_map(|entry| {
            let bytes = std::fs::read(entry.path()).ok()?;
            let at = bytes.windows(rest.len()).position(|window| window == rest)?.checked_sub(1)?;
            Some((entry.path(), at, bytes[at]))
        })
    };
    let (path, at, byte) = eventually(SOON, found, || format!("the record is on the disk of zue-{n}"));
    let file = std::fs::File::options().write(true).open(path).expect("it can be written");
    file.write_all_at(&[byte ^ 4], u64::try_from(at).expect("a place in a file")).expect("it can be written");
}

/// Records that a disk has not kept: one that another replica has, and one that nobody has any more.
fn damage(cluster: &Cluster, prometheus: &Watch) {
    let (kept, lost) = (b"<a record that comes back>", b"<a record that is lost everywhere>");
    for record in [&kept[..], &lost[..]] {
        cluster.zue_ok(&["append"], record);
    }
    // More than a segment, so that no append goes to the same one.
    cluster.zue_ok(&["append"], format!("{}\n", ".".repeat(1023)).repeat(64).as_bytes());
    cluster.zue_ok(&["append", "the next segment"], b"");
    let led = leader(cluster);
    let others = [(led + 1) % 3, (led + 2) % 3];
    let signal = |name: &str| others.iter().for_each(|n| cluster.nodes[*n].as_ref().expect("it runs").signal(name));
    signal("STOP");
    flip(cluster, led, kept);
    prometheus.expect_firing("a flipped bit, while the others hang", &["ZueRecordsDamaged"]);
    signal("CONT");
    prometheus.expect_cleared(&["ZueRecordsDamaged"]);
    (0..3).for_each(|n| flip(cluster, n, lost));
    prometheus.expect_firing("the same bit flipped on all disks", &["ZueRecordsLost"]);
    // What nobody has is let go.
    let end = String::from_utf8(cluster.zue_ok(&["append", "behind it"], b"")).expect("an offset");
    cluster.zue_ok(&["trim", "--before", end.trim()], b"");
    prometheus.expect_cleared(&["ZueRecordsLost", "ZueRecordsDamaged"]);
}

/// The leader's disk fills up, little by little, and then wholly.
fn room(cluster: &Cluster, prometheus: &Watch) {
    let filler = cluster.data(leader(cluster)).join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file can be made");
    let piece = vec![b'.'; 1 << 20];
    let begun = Instant::now();
    let add_some = |file: &mut std::fs::File| {
        // Half of it at once, then some of it with each look.
        let pieces = if file.metadata().map_or(0, |file| file.size()) < DISK_BYTES / 2 { 28 } else { 1 };
        (0..pieces).for_each(|_| drop(file.write_all(&piece)));
    };
    let filling = || {
        add_some(&mut file);
        std::thread::sleep(LOOK);
        prometheus.firing().ok().filter(|firing| firing.contains("ZueDiskFillingUp"))
    };
    eventually(SOON, filling, || "the disk is predicted to be full".to_owned());
    println!("the disk fills up after {:?}", begun.elapsed());
    prometheus.expect_firing("a disk that fills up", &["ZueDiskFillingUp"]);
    while file.write_all(&piece).is_ok() {}
    while file.write_all(b".").is_ok() {}
    // More than what the present segment has room for.
    drop(cluster.zue(&["--deadline", "1s", "append"], format!("{}\n", ".".repeat(1023)).repeat(64).as_bytes()));
    prometheus.expect_firing("a disk that is full", &["ZueDiskAlmostFull", "ZueAppendsStalled"]);
    std::fs::remove_file(&filler).expect("it can go");
    drop(file);
    prometheus.expect_cleared(&["ZueDiskFillingUp", "ZueDiskAlmostFull", "ZueAppendsStalled"]);
}

/// Whoever leads is killed, as soon as all are there again.
fn failovers(cluster: &mut Cluster, prometheus: &Watch) {
    let killed = || {
        let led = leader(cluster);
        cluster.kill(led);
        eventually(SOON, || cluster.led_by().filter(|(now, ..)| *now != led), || "another leads".to_owned());
        cluster.restart(led);
        let health = || cluster.zue(&["health"], b"").status.success().then_some(());
        eventually(SOON, health, || "all are in sync".to_owned());
        prometheus.firing().ok().filter(|firing| firing.contains("ZueFailoversRepeating"))
    };
    eventually(2 * SOON, killed, || "failovers repeat".to_owned());
    prometheus.expect_firing("one leader after the other killed", &["ZueFailoversRepeating"]);
}

#[test]
fn disks_certificates_and_strangers_set_off_alerts_that_clear() {
    if std::env::var_os(INSIDE).is_none() {
        let mut unshare = Command::new("unshare");
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        unshare.arg("--mount").args((!is_root).then_some("--map-root-user"));
        unshare.arg(std::env::current_exe().expect("its own path")).args([NAME, "--exact", "--nocapture"]);
        let status = unshare.env(INSIDE, "1").status().expect("unshare is part of util-linux");
        assert!(status.success(), "it failed in mounts of its own: {status}");
        return;
    }
    let begun = Instant::now();
    let identities = Identities::of("apart");
    let mut cluster = start(&identities);
    let started = Prometheus::start(&cluster, free_ports(1, 1, 1), None, WINDOWS);
    let prometheus = &started.watch;
    let stop_appending = appending(cluster.servers(), cluster.flags.clone());
    prometheus.expect_some("sum(zue_commit_duration_seconds_count)");
    certificates(&identities, prometheus);
    prometheus.expect_quiet();
    failovers(&mut cluster, prometheus);
    strangers(&cluster, prometheus);
    syncs(&mut cluster, prometheus, &started.folder.path().join("strace.log"));
    damage(&cluster, prometheus);
    upkeep(&mut cluster, prometheus);
    room(&cluster, prometheus);
    prometheus.expect_quiet();
    stop_appending();
    // Those that the nodes without TLS, and with room, say nothing for.
    let silent = prometheus.silent_panels(WINDOWS.short);
    for panel in ["Certificates", "Waiting for the disk, failed or restored"] {
        assert!(!silent.contains(panel), "{silent:?}");
    }
    prometheus.print_alerts();
    println!("all of it took {:?}", begun.elapsed());
}
