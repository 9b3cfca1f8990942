//! Waiting for what must come, and comparing what the replicas hold with what was acknowledged.

use std::time::{Duration, Instant};

use crate::acks::Acks;
use crate::programs::zue;

/// Asks until there is an answer.
///
/// # Panics
/// When there is none in time; `what` says what was waited for.
pub fn eventually<T>(within: Duration, mut ask: impl FnMut() -> Option<T>, what: impl Fn() -> String) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {within:?}: {}", what());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The same, where asking takes its time itself.
///
/// # Panics
/// When there is none in time; `what` says what was waited for.
pub async fn eventually_async<T>(
    within: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
    what: impl Fn() -> String,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {within:?}: {}", what());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All values of a replica, one a line, once it holds at least `lines` of them.
///
/// # Panics
/// When it does not in time.
pub fn read_lines(servers: &str, replica: &str, lines: usize, within: Duration) -> Vec<u8> {
    read_lines_with(servers, &[], replica, lines, within)
}

/// The same, asked with these flags.
///
/// # Panics
/// When it does not in time.
pub fn read_lines_with(servers: &str, flags: &[&str], replica: &str, lines: usize, within: Duration) -> Vec<u8> {
    let ask = || {
        let output = zue(servers, &[flags, &["read", "--from", "0", "--raw", "--replica", replica]].concat(), b"");
        let count = output.stdout.split(|byte| *byte == b'\n').count() - 1;
        (output.status.success() && count >= lines).then_some(output.stdout)
    };
    eventually(within, ask, || format!("{replica} holds {lines} records"))
}

/// Checks that every replica holds all that was acknowledged, once, where it was said to be, and that all hold the same.
///
/// # Panics
/// When one does not.
pub fn check_replicas(servers: &str, replicas: &[String], acks: &Acks, within: Duration) {
    check_replicas_with(servers, &[], replicas, acks, within);
}

/// The same, asked with these flags.
///
/// # Panics
/// When one does not.
pub fn check_replicas_with(servers: &str, flags: &[&str], replicas: &[String], acks: &Acks, within: Duration) {
    let read = |name: &String| read_lines_with(servers, flags, name, acks.len(), within);
    let logs: Vec<Vec<u8>> = replicas.iter().map(read).collect();
    for (log, name) in logs.iter().zip(replicas) {
        let lines = log.strip_suffix(b"\n").unwrap_or(log).split(|byte| *byte == b'\n');
        let records = lines.zip(0..).map(|(value, offset)| (offset, value));
        assert_eq!(acks.check(records), Vec::<String>::new(), "on {name}");
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "the replicas differ");
}
