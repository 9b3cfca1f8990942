//! Troubles of a program that runs as a service: nobody takes its log lines, another still has its directory or its port,
//! no further file may be open.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use zue_tests::programs::{Process, free_ports, program, zue, zue_ok};
use zue_tests::replicas::eventually;

const SOON: Duration = Duration::from_secs(30);

/// A disk that is full.
fn full() -> File {
    File::options().write(true).open("/dev/full").expect("there is a full device")
}

/// A program with a standard error of its own, and nobody who takes its standard output; killed when dropped.
struct Service(Child);

impl Service {
    fn start(name: &str, args: &[&str], errors: impl Into<Stdio>) -> Self {
        let mut command = Command::new(program(name));
        command.args(args).env("RUST_LOG", "trace").stdin(Stdio::null()).stdout(full()).stderr(errors);
        Self(command.spawn().expect("it starts"))
    }

    /// Its end, if it has ended.
    fn ended(&mut self) -> Option<String> {
        self.0.try_wait().expect("it can be asked").map(|status| status.to_string())
    }

    fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn node_args(data: &Path, base: u16) -> Vec<String> {
    let [client, peer, metrics] = [0, 1, 2].map(|kind| format!("127.0.0.1:{}", base + kind));
    let name = format!("n{base}");
    let listen = ["--listen-client", &client, "--listen-peer", &peer, "--listen-metrics", &metrics];
    [&["--name", &name, "--data-dir", text(data)], &listen[..]].concat().into_iter().map(str::to_owned).collect()
}

fn start_node(folder: &TempDir, base: u16, errors: impl Into<Stdio>) -> Service {
    let args = node_args(&folder.path().join(format!("n{base}")), base);
    Service::start("zue-node", &args.iter().map(String::as_str).collect::<Vec<_>>(), errors)
}

/// A controller of one node.
fn control(folder: &TempDir, base: u16) -> Process {
    let state = folder.path().join("controller.json");
    let node = format!("n{base}=127.0.0.1:{}/127.0.0.1:{base}", base + 1);
    Process::start(
        "zue",
        &["control", "--nodes", &node, "--state", text(&state)],
        &folder.path().join("controller.log"),
    )
}

fn start_logged(data: &Path, base: u16, log: &Path) -> Process {
    let args = node_args(data, base);
    Process::start("zue-node", &args.iter().map(String::as_str).collect::<Vec<_>>(), log)
}

/// The answer of an address to a GET of this path, or nothing.
fn get(port: u16, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        drop(stream.set_read_timeout(Some(SOON)));
        drop(write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        drop(stream.read_to_string(&mut answer));
    }
    answer
}

/// The number of log that lines of the node were not written.
fn unwritten(base: u16) -> Option<u64> {
    let metrics = get(base + 2, "/metrics");
    let line = metrics.lines().find(|line| line.starts_with("zue_node_log_lines_left_out_total{why=\"unwritten\"}"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A pipe that nobody reads, or whose reader has gone.
fn pipe() -> (Stdio, ChildStderr) {
    // The errors of a program that writes none make a pipe without a system call of our own.
    let mut holder = Command::new("sleep").arg("0").stderr(Stdio::piped()).spawn().expect("sleep starts");
    let reader = holder.stderr.take().expect("it is piped");
    drop(holder.wait());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    let writer = File::options().write(true).open(path).expect("a pipe can be opened again");
    (writer.into(), reader)
}

#[test]
fn programs_whose_log_lines_nobody_takes_go_on_and_count_them() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let base = free_ports(3, 10, 3);
    let (closed, reader) = pipe();
    drop(reader);
    let (stuck, _reader) = pipe();
    let bases = [base, base + 10, base + 20];
    let mut services = vec![
        start_node(&folder, bases[0], full()),
        start_node(&folder, bases[1], closed),
        start_node(&folder, bases[2], stuck),
    ];
    let nodes = bases.map(|base| format!("n{base}=127.0.0.1:{}/127.0.0.1:{base}", base + 1)).join(",");
    let state = folder.path().join("controller.json");
    services.push(Service::start("zue", &["control", "--nodes", &nodes, "--state", text(&state)], full()));
    let servers = bases.map(|base| format!("127.0.0.1:{base}")).join(",");
    zue_ok(&servers, &["append", "before"], b"");
    let count = |base| move || unwritten(base).filter(|count| *count > 0);
    for base in bases {
        // Enough is said at this level to fill the pipe, and all that may wait for it.
        eventually(SOON, count(base), || format!("lines are counted by the node at {base}"));
    }
    for service in &mut services {
        assert_eq!(service.ended(), None, "it goes on without its log");
    }
    services[0].kill();
    // The controller lets another lead, which it says as well.
    zue_ok(&servers, &["append", "after"], b"");
    for service in services.iter_mut().skip(1) {
        assert_eq!(service.ended(), None, "it goes on without its log");
    }
    let error = Service::start("zue", &["--servers", "127.0.0.1:1", "status"], full()).0.wait().expect("it ends");
    assert_eq!(error.code(), Some(1), "its own exit code, whoever reads its errors");
}

#[test]
fn a_cluster_of_one_process_goes_on_without_its_output() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let base = free_ports(1, 3, 3);
    let (closed, reader) = pipe();
    drop(reader);
    let (data, port) = (folder.path().join("data"), base.to_string());
    let args = ["dev", "--data", text(&data), "--replicas", "1", "--port", &port];
    let mut dev = Service::start("zue", &args, closed);
    let servers = format!("127.0.0.1:{base}");
    eventually(SOON, || zue(&servers, &["append", "x"], b"").status.success().then_some(()), || "it serves".to_owned());
    assert_eq!(dev.ended(), None);
    let kill = Command::new("kill").arg(dev.0.id().to_string()).status();
    assert!(kill.is_ok_and(|status| status.success()));
    assert_eq!(dev.0.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_cluster_of_one_process_that_a_script_has_put_into_the_background_ends_at_an_interrupt() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let base = free_ports(1, 3, 3);
    let (data, port) = (folder.path().join("data"), base.to_string());
    let args = ["dev", "--data", text(&data), "--replicas", "1", "--port", &port];
    // A shell without job control starts them so.
    let ignoring = ["sh", "-c", "trap '' INT; exec \"$0\" \"$@\""];
    let mut dev = Process::start_through(&ignoring, "zue", &args, &folder.path().join("log"));
    dev.expect_line("Ctrl-C stops it", SOON);
    dev.signal("INT");
    assert_eq!(dev.wait(), 0);
}

#[test]
fn a_node_waits_for_the_one_before_it_alive_and_not_ready_and_takes_over_when_that_ends() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (data, base) = (folder.path().join("data"), free_ports(3, 10, 3));
    let log = |name: &str| folder.path().join(name);
    let mut first = start_logged(&data, base, &log("first.log"));
    let _controller = control(&folder, base);
    let servers = format!("127.0.0.1:{base}");
    zue_ok(&servers, &["append", "before"], b"");
    // The second has ports of its own, as another pod has; the third is where the first was.
    let mut second = start_logged(&data, base + 10, &log("second.log"));
    let ready = || Some(get(base + 12, "/readyz")).filter(|answer| answer.contains("is held by another process"));
    let told = eventually(SOON, ready, || format!("it says what it waits for: {}", get(base + 12, "/readyz")));
    assert!(told.contains("503") && told.contains(&format!("({}, zue-node)", first.id())), "{told}");
    assert!(get(base + 12, "/livez").contains("200 OK"), "it is alive");
    second.signal("TERM");
    assert_eq!(second.wait(), 0, "who waits can be stopped");
    let third = start_logged(&data, base, &log("third.log"));
    let waits =
        || std::fs::read_to_string(log("third.log")).ok().filter(|said| said.contains("waiting until it is free"));
    let said = eventually(SOON, waits, || "it waits for the port".to_owned());
    assert!(said.contains(&format!("127.0.0.1:{}", base + 2)) && said.contains("Address already in use"), "{said}");
    assert!(said.contains(&format!("({}, zue-node): waiting", first.id())), "{said}");
    first.kill();
    let read = || zue(&servers, &["read", "--raw"], b"").stdout == b"before\n";
    eventually(SOON, || read().then_some(()), || "the third serves what the first wrote".to_owned());
    zue_ok(&servers, &["append", "after"], b"");
    drop(third);
}

#[test]
fn a_cluster_of_one_process_waits_for_the_one_before_it_and_gives_up_after_a_while() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (data, port) = (folder.path().join("data"), free_ports(1, 3, 3).to_string());
    let args = ["dev", "--data", text(&data), "--replicas", "1", "--port", &port];
    let mut first = Process::start("zue", &args, &folder.path().join("first.log"));
    first.expect_line("Ctrl-C", SOON);
    let log = folder.path().join("second.log");
    let mut second = Process::start("zue", &args, &log);
    assert_eq!(second.wait(), 1);
    let said = std::fs::read_to_string(&log).expect("it said something");
    assert!(said.contains("waiting up to 5s") && said.contains("in use by another `zue dev`"), "{said}");
    let third = Process::start("zue", &args, &folder.path().join("third.log"));
    first.signal("TERM");
    third.expect_line("Ctrl-C", SOON);
    assert_eq!(first.wait(), 0);
}

#[test]
fn a_log_that_may_have_no_further_file_says_so_and_leaves_some_to_connections() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (data, base) = (folder.path().join("data"), free_ports(1, 3, 3));
    let config = folder.path().join("node.yaml");
    std::fs::write(&config, "log: {segmentBytesMax: 32KiB}\n").expect("the configuration can be written");
    let mut args = vec!["-c".to_owned(), "ulimit -n 64 && exec \"$0\" \"$@\"".to_owned()];
    args.extend([text(&program("zue-node")).to_owned(), "--config".to_owned(), text(&config).to_owned()]);
    args.extend(node_args(&data, base));
    let log = File::create(folder.path().join("node.log")).expect("the log can be written");
    let node = Service(Command::new("sh").args(&args).stdout(Stdio::null()).stderr(log).spawn().expect("it starts"));
    let controller = control(&folder, base);
    let servers = format!("127.0.0.1:{base}");
    zue_ok(&servers, &["append", "before"], b"");
    // Each makes a segment, until one has to wait; the next is told why.
    let line = "x".repeat(30_000);
    let refused = || {
        let output = zue(&servers, &["--deadline", "2s", "append"], line.as_bytes());
        Some(String::from_utf8_lossy(&output.stderr).into_owned())
            .filter(|said| said.contains("too many files are open"))
    };
    let said = eventually(SOON, refused, || "a log of so many segments does not fit into 64 files".to_owned());
    assert!(said.contains("raise `ulimit -n`") && !said.contains("disk is full"), "{said}");
    // It is heard as ever, also by who elects, however many clients come.
    let many: Vec<_> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", base)).expect("it is connected")).collect();
    drop(controller);
    let controller = control(&folder, base);
    controller.expect_line("controlling", SOON);
    assert!(get(base + 2, "/readyz").contains("200 OK"));
    drop(many);
    let status = zue_ok(&servers, &["-o", "json", "status"], b"");
    assert!(String::from_utf8_lossy(&status).contains("\"role\":\"leader\""), "it leads");
    // With fewer segments it goes on by itself.
    zue_ok(&servers, &["trim", "--before", "20"], b"");
    zue_ok(&servers, &["append", "after"], b"");
    drop(node);
    drop(controller);
}
