//! Real nodes and a real controller: a new cluster that begins with a log that was restored to one of them.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use zue_core::{Offset, ReplicaId, Tail};
use zue_log::{Log, LogConfig, OsDisk};
use zue_tests::programs::{zue, zue_ok};
use zue_tests::replicas::{eventually, read_lines};
use zue_tests::three::Cluster;

const SOON: Duration = Duration::from_secs(30);

fn open(dir: &Path, id: u128) -> Log<OsDisk> {
    let disk = OsDisk::new(dir).expect("the directory can be made");
    Log::open(disk, LogConfig::default(), ReplicaId(id)).expect("the log opens").0
}

/// Makes a log of what is in another up to some place: of a new replica, of no cluster.
fn restore(from: &Path, to: &Path, until: Offset) {
    let (old, mut new) = (open(from, 1), open(to, 0xbac0));
    let (reader, mut tail) = (old.reader(), Tail::default());
    while let Some(frames) = reader.read_frames(tail, reader.tail(), 1).expect("the log can be read") {
        if frames.tail().end > until {
            break;
        }
        tail = new.append(&frames).expect("there is room");
    }
    new.sync().expect("the disk is well");
    new.note_commit(tail.end);
    new.set_promise(tail.epoch, None, None).expect("nothing is promised yet");
    new.close().expect("the disk is well");
}

fn append(servers: &str, args: &[&str], input: &[u8]) -> Vec<Value> {
    let output = zue_ok(servers, &[&["--deadline", "30s", "-o", "json", "append"], args].concat(), input);
    output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn problem(status: &[Value], name: &str) -> String {
    let member = status.iter().find(|member| member["name"] == name);
    member.and_then(|member| member["problem"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn a_new_cluster_begins_with_the_restored_log_and_knows_a_retry_from_before() {
    let mut earlier = Cluster::start(&[]);
    // One append each: what is in one append is restored together, or not at all.
    let first = append(&earlier.servers(), &["a"], b"");
    let producer = first[0]["producer"].as_str().expect("a producer").to_owned();
    let send = |servers: &str, sequence: &str, value: &str| {
        let acks = append(servers, &["--producer", &producer, "--sequence", sequence, value], b"");
        (acks[0]["base_offset"].as_u64(), acks[0]["duplicate"] == true)
    };
    for (sequence, value) in [("1", "b"), ("2", "c"), ("3", "d")] {
        send(&earlier.servers(), sequence, value);
    }
    let (leader, epoch, _) = earlier.led_by().expect("somebody leads");
    (0..3).for_each(|n| earlier.kill(n));

    // The last one was not acknowledged yet at that point.
    let mut cluster = Cluster::start_prepared(None, &[], |new| restore(&earlier.data(leader), &new.data(2), Offset(3)));
    let (leader, next, _) = cluster.led_by().expect("somebody leads");
    assert_eq!(leader, 2, "whoever is preferred");
    assert!(next > epoch, "epoch {next} after {epoch}");
    let servers = cluster.servers();
    for n in 0..3 {
        assert_eq!(read_lines(&servers, &format!("zue-{n}"), 3, SOON), b"a\nb\nc\n", "zue-{n}");
    }
    // The retry of the third is known, and the fourth is new.
    assert_eq!(send(&servers, "2", "c"), (Some(2), true));
    assert_eq!(send(&servers, "3", "d"), (Some(3), false));
    append(&servers, &["e"], b"");
    // Whoever was fed goes on without it.
    cluster.kill(2);
    let led = || cluster.led_by().filter(|(leader, ..)| *leader != 2);
    eventually(SOON, led, || "another leads".to_owned());
    append(&servers, &["f"], b"");
    for n in 0..2 {
        assert_eq!(read_lines(&servers, &format!("zue-{n}"), 6, SOON), b"a\nb\nc\nd\ne\nf\n", "zue-{n}");
    }
}

#[test]
fn a_restored_log_joins_no_cluster_that_there_is_and_says_so() {
    let mut cluster = Cluster::start(&[]);
    append(&cluster.servers(), &[], b"a\nb\n");
    let restored = tempfile::tempdir().expect("a folder for the test");
    let (leader, ..) = cluster.led_by().expect("somebody leads");
    let other = (leader + 1) % 3;
    (0..3).for_each(|n| cluster.kill(n));
    restore(&cluster.data(leader), restored.path(), Offset(2));
    std::fs::remove_dir_all(cluster.data(other)).expect("its data can be removed");
    std::fs::rename(restored.keep(), cluster.data(other)).expect("the folders are on one disk");
    (0..3).for_each(|n| cluster.restart(n));
    append(&cluster.servers(), &["c"], b"");
    let name = format!("zue-{other}");
    let said = || {
        let problem = problem(&cluster.status(), &name);
        (problem.contains("its log was restored from a backup") && problem.contains("empty its disk"))
            .then_some(problem)
    };
    eventually(SOON, said, || format!("{name} says what it is: {:?}", cluster.status()));
    let refused = zue(&cluster.servers(), &["read", "--from", "0", "--raw", "--replica", &name], b"");
    assert!(!refused.status.success(), "what it holds is of no cluster");
}
