//! A node whose log has more segments than files may be open.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use zue_core::{Offset, ReplicaId};
use zue_log::{BatchBuilder, Limits, Log, LogConfig, OsDisk, SEGMENT_BYTES_MIN};

/// A log of at least so many segments.
fn fill(dir: &Path, segments: usize) {
    let config = LogConfig { segment_bytes_max: SEGMENT_BYTES_MIN, ..LogConfig::default() };
    let (mut log, _) = Log::open(OsDisk::new(dir).unwrap(), config, ReplicaId(7)).unwrap();
    let count = || std::fs::read_dir(dir).unwrap().filter(|entry| is_segment(&entry.as_ref().unwrap().path())).count();
    while count() < segments {
        let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
        builder.push(None, &vec![b'v'; 20_000], [], None).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
    }
    assert!(log.tail().end > Offset(0));
    log.close().unwrap();
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "log")
}

/// A node that a shell starts after it has set its limits.
fn start(limit: &str, dir: &Path) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{limit} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_zue-node"), "--data-dir"]);
    shell.arg(dir).args(["--name", "zue-0", "--listen-client", "127.0.0.1:0", "--listen-peer", "127.0.0.1:0"]);
    shell.args(["--listen-metrics", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_log_of_more_segments_than_files_may_be_open_is_opened_if_that_can_be_raised_and_else_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 70);
    let refused = start("ulimit -n 64", dir.path()).wait_with_output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for part in ["Too many open files", "may have 64 open files", "raise `ulimit -n`", "log.segmentBytesMax", ".log"] {
        assert!(said.lines().last().unwrap().contains(part), "{said}");
    }
    assert!(said.contains("WARN") && said.contains("few files may be open"), "{said}");
    let mut node = start("ulimit -Sn 64", dir.path());
    let mut lines = BufReader::new(node.stderr.take().unwrap()).lines().map(Result::unwrap);
    let is_open = lines.any(|line| line.contains("the log is open"));
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(is_open, "the node does not raise its limit");
}
