//! A producer that goes on while things break: one `zue append` process fed line by line, and what it says was acknowledged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::acks::Acks;
use crate::programs::program;

/// A running producer.
#[derive(Debug)]
pub struct Load {
    child: Child,
    stop: Arc<AtomicBool>,
    fed: Arc<AtomicU64>,
    feeder: JoinHandle<()>,
    acks: Arc<Mutex<Acks>>,
    pace: Arc<Mutex<Pace>>,
    reader: JoinHandle<()>,
    said: JoinHandle<String>,
}

/// When the newest acknowledgement came, and the longest time without one.
#[derive(Debug)]
struct Pace {
    last: Instant,
    stall: Duration,
}

impl Pace {
    fn acked(&mut self) {
        let now = Instant::now();
        self.stall = self.stall.max(now - self.last);
        self.last = now;
    }
}

impl Load {
    /// Appends `{name}-{n}` for n = 0, 1, … with `pause` between two, until stopped.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(servers: &str, name: &str, pause: Duration) -> Self {
        Self::start_with(servers, &[], name, pause)
    }

    /// The same, with these flags.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start_with(servers: &str, flags: &[String], name: &str, pause: Duration) -> Self {
        let mut command = Command::new(program("zue"));
        command.args(["--servers", servers, "--deadline", "120s", "-o", "json"]).args(flags).arg("append");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("zue starts");
        let stdin = child.stdin.take().expect("its input is piped");
        let stdout = BufReader::new(child.stdout.take().expect("its output is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("its errors are piped"));
        let (stop, fed, acks) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<Mutex<Acks>>::default());
        let pace = Arc::new(Mutex::new(Pace { last: Instant::now(), stall: Duration::ZERO }));
        let feeder = std::thread::spawn({
            let (stop, fed, name) = (Arc::clone(&stop), Arc::clone(&fed), name.to_owned());
            move || feed(stdin, &name, pause, &stop, &fed)
        });
        let reader = std::thread::spawn({
            let (acks, pace, name) = (Arc::clone(&acks), Arc::clone(&pace), name.to_owned());
            move || read_acks(stdout.lines().map_while(Result::ok), &name, &acks, &pace)
        });
        let said = std::thread::spawn(move || stderr.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"));
        Self { child, stop, fed, feeder, acks, pace, reader, said }
    }

    /// The number of records that are acknowledged so far.
    ///
    /// # Panics
    /// When the reader of the answers has panicked.
    pub fn acked(&self) -> usize {
        self.acks.lock().expect("the reader lives").len()
    }

    /// The number of records that were handed to the producer so far.
    pub fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    /// The longest time without an acknowledgement since this was last asked, up to now.
    ///
    /// # Panics
    /// When the reader of the answers has panicked.
    pub fn take_stall(&self) -> Duration {
        let mut pace = self.pace.lock().expect("the reader lives");
        std::mem::take(&mut pace.stall).max(pace.last.elapsed())
    }

    /// Waits until `more` further records are acknowledged.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn expect_acks(&self, more: usize, within: Duration) {
        let (goal, end) = (self.acked() + more, Instant::now() + within);
        while self.acked() < goal {
            assert!(Instant::now() < end, "{} records acknowledged after {within:?}, {goal} expected", self.acked());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the input, waits until all that was fed is acknowledged, and gives the acknowledgements.
    ///
    /// # Panics
    /// When the program fails or leaves anything unanswered.
    pub fn finish(mut self) -> Acks {
        self.stop.store(true, Ordering::Relaxed);
        self.feeder.join().expect("the feeder ends");
        let status = self.child.wait().expect("zue can be waited for");
        self.reader.join().expect("the answers are as expected");
        let said = self.said.join().expect("its errors are text");
        assert!(status.success(), "the producer ended with {status}: {said}");
        let acks = self.acks.lock().expect("the reader has ended").clone();
        assert_eq!(
            u64::try_from(acks.len()).ok(),
            Some(self.fed.load(Ordering::Relaxed)),
            "records fed and acknowledged"
        );
        acks
    }
}

fn feed(mut stdin: ChildStdin, name: &str, pause: Duration, stop: &AtomicBool, fed: &AtomicU64) {
    let mut n = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        if writeln!(stdin, "{name}-{n}").and_then(|()| stdin.flush()).is_err() {
            return; // It has ended; `finish` says how.
        }
        n += 1;
        fed.store(n, Ordering::Relaxed);
        std::thread::sleep(pause);
    }
}

/// Each answer names the first offset and the count of the lines that it acknowledges, in the order in which they were fed.
fn read_acks(lines: impl Iterator<Item = String>, name: &str, acks: &Mutex<Acks>, pace: &Mutex<Pace>) {
    let mut n = 0_u64;
    for line in lines {
        let answer: serde_json::Value = serde_json::from_str(&line).expect("an answer is JSON");
        let field = |key: &str| answer.get(key).and_then(serde_json::Value::as_u64);
        let (Some(base), Some(count)) = (field("base_offset"), field("count")) else { panic!("no offsets in {line}") };
        pace.lock().expect("nobody panics with it").acked();
        for offset in base..base + count {
            acks.lock().expect("nobody panics with it").note(format!("{name}-{n}").into_bytes(), offset);
            n += 1;
        }
    }
}
