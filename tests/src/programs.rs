//! Runs this project's programs as real processes, each ended by its own id.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// The path of a program of this project: from `ZUE_BIN_DIR`, else beside this test's own. A whole path stays as it is.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let beside = || {
        let mut own = std::env::current_exe().expect("a test knows its own path");
        own.pop();
        if own.ends_with("deps") {
            own.pop();
        }
        own
    };
    let folder = std::env::var_os("ZUE_BIN_DIR").map_or_else(beside, PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

/// The folder for what builds and measurements leave: `CARGO_TARGET_DIR`, else `target` where the program was started.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts a program; its standard output is read line by line, its errors go to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, args: &[&str], log: &Path) -> Self {
        Self::start_in(None, name, args, log)
    }

    /// The same, in a network namespace of this name.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_in(network: Option<&str>, name: &str, args: &[&str], log: &Path) -> Self {
        let network = network.map(|network| format!("--net=/run/netns/{network}"));
        let through: Vec<&str> = network.iter().flat_map(|network| ["nsenter", network]).collect();
        Self::start_through(&through, name, args, log)
    }

    /// The same, by a program that takes its own arguments and then becomes this one.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_through(through: &[&str], name: &str, args: &[&str], log: &Path) -> Self {
        let errors = std::fs::File::options().create(true).append(true).open(log).expect("the log can be written");
        let mut command = through.split_first().map_or_else(
            || Command::new(program(name)),
            |(first, more)| {
                let mut command = Command::new(first);
                command.args(more).arg(program(name));
                command
            },
        );
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let output = child.stdout.take().expect("its output is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that contains `text`.
    ///
    /// # Panics
    /// When the program ends or the time passes before.
    pub fn expect_line(&self, text: &str, within: Duration) -> String {
        let end = std::time::Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(error) => panic!("no line with {text:?} within {within:?}: {error}"),
            }
        }
    }

    /// Its next line.
    ///
    /// # Panics
    /// When the program ends or the time passes before.
    pub fn next_line(&self, within: Duration) -> String {
        self.lines.recv_timeout(within).unwrap_or_else(|error| panic!("no line within {within:?}: {error}"))
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Sends a signal by name, such as `TERM` or `STOP`.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "SIG{name} did not reach {}", self.id());
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Panics
    /// When it has none: a signal ended it.
    pub fn wait(&mut self) -> i32 {
        self.child.wait().expect("a child can be waited for").code().expect("it ended by itself")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first line that these commands print, which have the functions of `tests/kind/lib.sh`.
fn found_by(commands: &str) -> String {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("kind/lib.sh");
    // One at a time: two that install would be in each other's way.
    let script = format!("set -e; . \"$0\"; exec 8>\"$cache/.programs.lock\"; flock 8; {commands}");
    let found = Command::new("bash").args(["-c", &script]).arg(&lib).output().expect("bash runs");
    assert!(found.status.success(), "{commands}: {}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8_lossy(&found.stdout).lines().next().unwrap_or_default().to_owned()
}

/// The library that gives a program another clock, installed if need be as `tests/kind/lib.sh` does.
///
/// # Panics
/// When it cannot be installed.
pub fn faketime() -> String {
    found_by("programs faketime=faketime; dpkg -L libfaketime | grep 'MT\\.so'")
}

/// A program with a package of its own name, such as `strace`, installed if need be as `tests/kind/lib.sh` does.
///
/// # Panics
/// When it cannot be installed.
pub fn installed(name: &str) -> PathBuf {
    PathBuf::from(found_by(&format!("programs {name}={name}; command -v {name}")))
}

/// `prometheus` or `promtool`, unpacked if need be as `tests/kind/lib.sh` does.
///
/// # Panics
/// When it cannot be had.
pub fn prometheus(program: &str) -> PathBuf {
    PathBuf::from(found_by(&format!(
        "(flock 9; unpacked prometheus prometheus promtool) 9>\"$cache/.prometheus.lock\" >&2; command -v {program}"
    )))
}

/// Runs `zue` to its end, with `input` as its standard input.
///
/// # Panics
/// When it cannot be started.
pub fn zue(servers: &str, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program("zue"));
    command.arg("--servers").arg(servers).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("zue starts");
    let mut stdin = child.stdin.take().expect("its input is piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // It may end without reading all: that is for the caller to judge by the exit code.
        drop(stdin.write_all(&input));
    });
    let output = child.wait_with_output().expect("zue can be waited for");
    feeder.join().expect("the feeder ends");
    output
}

/// The same, which must succeed; gives its standard output.
///
/// # Panics
/// When it fails, with what it said.
pub fn zue_ok(servers: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let output = zue(servers, args, input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "zue {args:?} ended with {}: {said}", output.status);
    output.stdout
}

/// The number of ports that a test may take, and of tests of one process that have a place of their own.
const PLACE_PORTS: u16 = 32;
const PLACES: u16 = 64;
static CALLS: AtomicU16 = AtomicU16::new(0);

/// `count` ports that were free a moment ago, all on loopback, `step` apart from each other, with `each` in a row.
///
/// # Panics
/// When none are found.
pub fn free_ports(count: u16, step: u16, each: u16) -> u16 {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let block_is_free = |base: &u16| (0..count).all(|n| (0..each).all(|m| is_free(base + n * step + m)));
    // Tests of this process each get a place of their own, since a port that is free now may be about to be taken; other
    // processes start elsewhere and rarely meet.
    let call = CALLS.fetch_add(1, Ordering::Relaxed) % PLACES;
    let start = 20_000 + u16::try_from(std::process::id() % 200).unwrap_or_default() * 64 + call * PLACE_PORTS;
    assert!(count * step <= PLACE_PORTS, "{count} times {step} ports do not fit into {PLACE_PORTS}");
    let bases = (start..60_000).step_by(usize::from(PLACES * PLACE_PORTS));
    bases.into_iter().find(block_is_free).expect("there are free ports")
}
