//! A process that maps a log and is sent a signal that is not about its maps. A file of its own: what is forked holds the locks of the
//! process for a moment.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use std::io::BufRead;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::{ID, SMALL, append, read_all};
use zue_log::{Log, OsDisk};

const CHILD: &str = "ZUE_LOG_TEST_CHILD";

/// Not a test of its own: what the next one runs as a process.
#[test]
fn child_with_a_mapped_log() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (mut log, _) = Log::open(OsDisk::new(&dir).unwrap(), SMALL, ID).unwrap();
    append(&mut log, &["mapped"]);
    assert_eq!(read_all(&log).len(), 1);
    println!("mapped");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn a_bus_error_elsewhere_does_what_it_always_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_with_a_mapped_log", "--nocapture"])
        .env(CHILD, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("mapped")), "the child does not get there");
    // The first one that is not a fault only takes away the handler that Rust itself has installed.
    let ended = (0..200).find_map(|_| {
        let sent = Command::new("kill").args(["-BUS", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        child.try_wait().unwrap()
    });
    let _ = child.kill();
    assert_eq!(ended.and_then(|status| status.signal()), Some(7));
}
