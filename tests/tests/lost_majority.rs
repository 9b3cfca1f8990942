//! Real nodes and a real controller: a majority is gone with its disks, the log that is left begins a new cluster, and then one of the
//! others comes back.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use zue_tests::programs::{zue, zue_ok};
use zue_tests::replicas::{eventually, read_lines};
use zue_tests::three::Cluster;

const SOON: Duration = Duration::from_secs(30);

fn append(servers: &str, args: &[&str], input: &[u8]) -> Vec<Value> {
    let output = zue_ok(servers, &[&["--deadline", "30s", "-o", "json", "append"], args].concat(), input);
    output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn detach(dir: &Path, args: &[&str]) -> Value {
    let dir = dir.to_str().expect("a path of text");
    let output = zue_ok("127.0.0.1:1", &[&["-o", "json", "log", "detach", dir], args].concat(), b"");
    serde_json::from_slice(&output).expect("it says what it did")
}

fn swap(one: &Path, other: &Path) {
    let between = one.with_extension("between");
    std::fs::rename(one, &between).expect("the folders are on one disk");
    if other.exists() {
        std::fs::rename(other, one).expect("the folders are on one disk");
    }
    std::fs::rename(&between, other).expect("the folders are on one disk");
}

#[test]
fn the_log_that_is_left_begins_a_new_cluster_and_a_replica_that_comes_back_takes_part_in_nothing() {
    let mut cluster = Cluster::start(&[]);
    let servers = cluster.servers();
    let first = append(&servers, &["a"], b"");
    let producer = first[0]["producer"].as_str().expect("a producer").to_owned();
    append(&servers, &["--producer", &producer, "--sequence", "1", "b"], b"");
    (0..3).for_each(|n| drop(read_lines(&servers, &format!("zue-{n}"), 2, SOON)));
    // The third does not have what the others acknowledge now.
    cluster.kill(2);
    append(&servers, &["--producer", &producer, "--sequence", "2", "lost"], b"");
    let epoch = cluster.led_by().expect("somebody leads").1;
    cluster.controller = None;
    (0..2).for_each(|n| cluster.kill(n));

    // Their disks are gone, as far as anybody knows.
    let kept: Vec<_> = (0..2).map(|n| cluster.data(n).with_extension("kept")).collect();
    (0..2).for_each(|n| swap(&cluster.data(n), &kept[n]));
    let said = detach(&cluster.data(2), &[]);
    assert_eq!((&said["done"], &said["end"]), (&false.into(), &2.into()), "{said}");
    let old = said["cluster"].as_str().expect("it is of a cluster").to_owned();
    let done = detach(&cluster.data(2), &["--cluster", &old]);
    assert_eq!(done["done"], true, "{done}");
    let state = cluster.data(0).with_file_name("controller");
    std::fs::remove_dir_all(&state).or_else(|_| std::fs::remove_file(&state)).expect("the record can be removed");
    (0..3).for_each(|n| cluster.restart(n));
    cluster.control(&[]);
    let led = eventually(SOON, || cluster.led_by().filter(|(_, now, _)| *now > epoch), || "the log goes on".to_owned());
    assert_eq!(led.0, 2, "whoever is preferred");
    append(&servers, &["c"], b"");
    for n in 0..3 {
        assert_eq!(read_lines(&servers, &format!("zue-{n}"), 3, SOON), b"a\nb\nc\n", "zue-{n}");
    }
    // A retry from before: what is there is known, and what is lost is not taken for new without a word.
    let retry = |sequence: &str, value: &str| {
        zue(
            &servers,
            &["--deadline", "10s", "-o", "json", "append", "--producer", &producer, "--sequence", sequence, value],
            b"",
        )
    };
    let known: Value = serde_json::from_slice(&retry("1", "b").stdout).expect("it is answered");
    assert_eq!((&known["base_offset"], &known["duplicate"]), (&1.into(), &true.into()), "{known}");

    // One that was given up comes back, at the address that it had: it takes part in nothing, and the others go on without it.
    cluster.kill(0);
    swap(&kept[0], &cluster.data(0));
    cluster.restart(0);
    let problem = |n: usize| {
        let status = cluster.status();
        let member = status.iter().find(|member| member["name"] == format!("zue-{n}").as_str());
        member.and_then(|member| member["problem"].as_str()).unwrap_or_default().to_owned()
    };
    let refused = || problem(0).contains(&old).then_some(());
    eventually(SOON, refused, || format!("it says of which cluster it is: {:?}", cluster.status()));
    append(&servers, &["d"], b"");
    for n in 1..3 {
        assert_eq!(read_lines(&servers, &format!("zue-{n}"), 4, SOON), b"a\nb\nc\nd\n", "zue-{n}");
    }
    let held = zue(&servers, &["read", "--from", "2", "--max", "1", "--raw", "--replica", "zue-0"], b"");
    assert_ne!(held.stdout, b"c\n", "it is fed by the new cluster");
    // Its disk is as it was: what was lost can be looked for there. With the blank one it is a member again.
    cluster.kill(0);
    swap(&cluster.data(0), &kept[0]);
    cluster.restart(0);
    assert_eq!(read_lines(&servers, "zue-0", 4, SOON), b"a\nb\nc\nd\n");
    let lost = zue_ok(&servers, &["log", "dump", kept[0].to_str().expect("a path of text")], b"");
    assert!(String::from_utf8_lossy(&lost).contains("lost"), "{}", String::from_utf8_lossy(&lost));
}
