//! `zue` against a real replica: how its commands end, and what they say then.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

static CLUSTERS: AtomicU16 = AtomicU16::new(0);

/// `zue dev`.
struct Dev {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
}

/// The first of three ports in a row that were free a moment ago.
fn free_ports() -> u16 {
    let place = u16::try_from(std::process::id() % 300).unwrap() * 64 + 4 * CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let is_free = |base: &u16| (0..3).all(|n| TcpListener::bind(("127.0.0.1", base + n)).is_ok());
    (40_000 + place..60_000).step_by(64).find(is_free).unwrap()
}

impl Dev {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), free_ports())
    }

    fn start_in(folder: tempfile::TempDir, port: u16) -> Self {
        Self::start_with(folder, port, "1", "1 replica is ready")
    }

    fn start_with(folder: tempfile::TempDir, port: u16, replicas: &str, ready: &str) -> Self {
        let mut child = command()
            .args(["dev", "--replicas", replicas, "--port", &port.to_string(), "--data"])
            .arg(folder.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.starts_with(ready), "{said}");
        Self { folder, child, port }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command();
        command.arg("--servers").arg(format!("127.0.0.1:{}", self.port)).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    /// Kills it, and starts it again after `meanwhile`.
    fn start_again(mut self, meanwhile: impl FnOnce()) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        meanwhile();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::start_in(folder, self.port)
    }

    fn count(&self) -> usize {
        self.run(&["read", "--raw"]).out.lines().count()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_zue"))
}

/// The end of a command, and what it said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap().success());
}

#[test]
fn verify_reads_every_replica_and_fails_where_one_is_missing() {
    // The ports of three nodes are ten apart: they lie where no other test's do.
    let is_free = |base: &u16| (0..23).all(|n| TcpListener::bind(("127.0.0.1", base + n)).is_ok());
    let port =
        (15_000 + u16::try_from(std::process::id() % 100).unwrap() * 40..20_000).step_by(40).find(is_free).unwrap();
    let dev = Dev::start_with(tempfile::tempdir().unwrap(), port, "3", "3 replicas are ready");
    let mut child = dev.command(&["append"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all("a line\n".repeat(5000).as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let Said { code, out, err } = dev.run(&["verify"]);
    assert!(code == 0 && out.ends_with("all 3 replicas hold the same\n"), "{out}{err}");
    assert!(out.contains("zue-0: 5000 records from 0 to 5000"), "{out}");
    let Said { code, out, .. } = dev.run(&["verify", "-o", "json", "--from", "100", "--to", "200"]);
    let parts: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(code == 0 && parts.len() == 3 && parts.iter().all(|part| part["records"] == 100), "{out}");

    let nobody = format!("127.0.0.1:{},127.0.0.1:1", dev.port);
    let Said { code, out, err } =
        said(command().args(["--servers", &nobody, "--deadline", "2s", "verify"]).output().unwrap());
    assert!(code == 1 && out.contains("127.0.0.1:1: it does not answer"), "{code}: {out}{err}");
}

#[test]
fn an_append_whose_reader_goes_away_says_how_far_it_has_come_and_fails() {
    let dev = Dev::start();
    let mut child = dev.command(&["append", "-o", "json"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"first\n").unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    // It stops reading.
    assert!((0..200_000).any(|n| writeln!(input, "{n}").is_err()));
    let Said { code, err, .. } = said(child.wait_with_output().unwrap());
    let appended = dev.count();
    assert_eq!(code, 1, "{err}");
    let told =
        format!("{appended} records were appended, as 0..{appended}; go on with record {} of the input", appended + 1);
    assert!(err.contains(&told) && appended < 200_000, "{told}: {err}");
}

#[test]
fn an_append_that_is_told_to_stop_says_how_far_it_has_come_and_ends_as_the_signal_would() {
    let dev = Dev::start();
    for (name, code, before) in [("INT", 130, 0), ("TERM", 143, 1000)] {
        let mut child = dev.command(&["append", "-o", "json"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        (0..1000).for_each(|n| writeln!(input, "{n}").unwrap());
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut acknowledged = 0;
        while acknowledged < 1000 {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            acknowledged += serde_json::from_str::<Value>(&line).unwrap()["count"].as_u64().unwrap();
        }
        signal(&child, name);
        let told = said(child.wait_with_output().unwrap());
        assert_eq!(told.code, code, "{told:?}");
        let range = format!("1000 records were appended, as {before}..{}; go on with record 1001", before + 1000);
        assert!(told.err.contains(&range), "{range}: {told:?}");
        drop(input);
    }
    assert_eq!(dev.count(), 2000);
}

#[test]
fn a_signal_that_was_ignored_when_the_program_was_started_stays_ignored() {
    let dev = Dev::start();
    let zue = dev.command(&["append"]);
    let mut child = Command::new("sh")
        .args(["-c", "trap '' INT; exec \"$0\" \"$@\""])
        .arg(zue.get_program())
        .args(zue.get_args())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    while dev.count() < 1 {}
    signal(&child, "INT");
    input.write_all(b"two\n").unwrap();
    drop(input);
    assert_eq!((child.wait().unwrap().code(), dev.count()), (Some(0), 2));
}

#[test]
fn a_read_that_is_told_to_stop_cuts_no_line_and_says_where_to_go_on() {
    let dev = Dev::start();
    dev.run(&["append", "one"]);
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = dev.command(&["tail", "-f"]).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "0\t-\tone\n");
        signal(&child, name);
        let told = said(child.wait_with_output().unwrap());
        assert_eq!((told.code, told.err.contains("go on with --from 1")), (code, true), "{told:?}");
    }
}

#[test]
fn a_command_that_nobody_reads_ends_soon_after_it_was_told_to() {
    let dev = Dev::start();
    let big = "x".repeat(200_000);
    for _ in 0..3 {
        assert_eq!(dev.run(&["append", &big[..100_000]]).code, 0);
    }
    let mut child = dev.command(&["read"]).spawn().unwrap();
    // It fills the pipe, and waits for the reader.
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    signal(&child, "TERM");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn what_was_appended_is_said_where_standard_output_is_full() {
    let dev = Dev::start();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let one = said(dev.command(&["append", "one"]).stdout(full()).output().unwrap());
    assert!(
        one.code == 1 && one.err.contains("the record was appended at offset 0") && one.err.contains("No space"),
        "{one:?}"
    );
    let mut child = dev.command(&["append", "--file", "-"]).stdin(Stdio::piped()).stdout(full()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"two\nthree\n").unwrap();
    let many = said(child.wait_with_output().unwrap());
    assert!(
        many.code == 1 && many.err.contains("2 records were appended, as 1..3") && many.err.contains("No space"),
        "{many:?}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_once_with_its_reason() {
    let dev = Dev::start();
    let told = dev.run(&["append", "--file", "/"]);
    assert_eq!(told.code, 1);
    assert_eq!(told.err.matches("Is a directory").count(), 1, "{}", told.err);
    assert!(told.err.contains("no record was appended") && told.err.contains("line 1"), "{}", told.err);
}

#[test]
fn output_as_json_is_json_or_refused() {
    let zue = |args: &[&str]| said(command().args(args).output().unwrap());
    let version: Value = serde_json::from_str(&zue(&["-o", "json", "version"]).out).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    for refused in [
        &["-o", "json", "read", "--raw"][..],
        &["-o", "json", "tail", "--raw"],
        &["-o", "json", "dev", "--data", "/nowhere"],
        &["-o", "json", "control", "--nodes", "a=h:1/h:2", "--state", "/nowhere"],
    ] {
        let told = zue(refused);
        assert!(told.code == 2 && told.err.contains("-o json"), "{refused:?}: {told:?}");
    }
}

#[test]
fn who_leads_already_is_told_so() {
    let dev = Dev::start();
    let told = dev.run(&["switchover", "--to", "zue-0"]);
    assert!(told.code == 0 && told.out.starts_with("zue-0 leads already"), "{told:?}");
}

#[test]
fn a_measurement_that_is_told_to_stop_prints_its_total_and_ends_as_the_signal_would() {
    let dev = Dev::start();
    let mut child = dev.command(&["bench", "--duration", "1h", "--every", "50ms"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.nth(1).unwrap().unwrap().contains('s'));
    signal(&child, "TERM");
    assert!(lines.map(Result::unwrap).last().unwrap().contains("total"));
    let told = said(child.wait_with_output().unwrap());
    assert!(told.code == 143 && told.err.contains("appends were answered"), "{told:?}");
    let large = dev.run(&["bench", "--size", "1MiB", "--batch", "65"]);
    assert!(large.code == 2 && large.err.contains("64MiB"), "{large:?}");
}

#[test]
fn a_command_that_waits_says_for_what_within_seconds_and_how_long_it_will() {
    let mut child = command()
        .args(["--servers", "127.0.0.1:1", "--deadline", "1m", "append", "one"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(line.contains("waiting") && line.contains("no server answers") && line.contains(" s more"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn one_who_follows_never_gives_up_says_so_and_goes_on_where_it_was() {
    let dev = Dev::start();
    assert_eq!(dev.run(&["append", "one"]).code, 0);
    let mut child = dev.command(&["tail", "-f"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(out.next().unwrap(), "0\t-\tone");
    let dev = dev.start_again(|| {
        let waiting = err.next().unwrap();
        assert!(waiting.contains("waiting") && waiting.contains("until it works"), "{waiting}");
    });
    assert!(err.any(|line| line.contains("it goes on")));
    assert_eq!(dev.run(&["append", "two"]).code, 0);
    assert_eq!(out.next().unwrap(), "1\t-\ttwo");
    signal(&child, "TERM");
    assert_eq!((child.wait().unwrap().code(), out.next()), (Some(143), None));
}

#[test]
fn health_has_a_line_and_a_code_for_scripts() {
    let dev = Dev::start();
    let well = dev.run(&["health"]);
    assert!(well.code == 0 && well.out.starts_with("ok: zue-0 leads"), "{well:?}");
    let json: Value = serde_json::from_str(&dev.run(&["-o", "json", "health"]).out).unwrap();
    assert_eq!((&json["level"], &json["quorum"], &json["in_reach"]), (&"ok".into(), &1.into(), &1.into()));
    let status = dev.run(&["status"]);
    assert!(status.code == 0 && status.out.contains("quorum: 1 of 1 voters are in reach, 1 are needed"), "{status:?}");
    let zue = |args: &[&str]| said(command().args(args).output().unwrap());
    let nobody = zue(&["--servers", "127.0.0.1:1", "health"]);
    assert!(nobody.code == 3 && nobody.out.starts_with("unknown: no server answers"), "{nobody:?}");
    assert_eq!((zue(&["health", "--bogus"]).code, zue(&["status", "--bogus"]).code), (3, 2));
}

#[test]
fn a_port_that_is_not_for_clients_is_told_at_once_with_the_one_that_is() {
    let dev = Dev::start();
    for (beside, right) in [(1, format!("serves clients at 127.0.0.1:{}", dev.port)), (2, "9440".to_owned())] {
        let begun = Instant::now();
        let servers = format!("127.0.0.1:{}", dev.port + beside);
        let told = said(command().args(["--servers", &servers, "append", "one"]).output().unwrap());
        assert!(told.code == 1 && told.err.contains(&right), "{told:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[test]
fn under_the_name_of_a_plugin_it_takes_the_plugins_commands_and_needs_kubectl() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-zue");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_zue"), &plugin).unwrap();
    let call = |args: &[&str]| {
        let output = Command::new(&plugin).args(args).env("PATH", folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (args, code, said) in [
        (&["status", "orders"][..], 1, "kubectl is not in PATH"),
        (&["tail", "orders", "-f"], 1, "kubectl is not in PATH"),
        (&["append", "orders", "--file", "events.log"], 2, "--file names a file in the pod"),
        (&["status", "--all-namespaces"], 2, "unexpected argument"),
        (&["status", "Orders"], 2, "lower-case letters"),
        (&["dev"], 2, "unrecognized subcommand"),
    ] {
        let (ended, error) = call(args);
        assert!(ended == Some(code) && error.contains(said), "{args:?}: {ended:?} {error}");
    }
}
