//! Three nodes whose files are damaged and compacted while they run: what one replica has whole comes back on the others, what none
//! has is reported, and everything else stays readable.

#![allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "this is a test: what is not there fails it"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, append_all, error_of, read_all, request};
use zue_proto::v1::{self, Reason};
use zue_settings::{ByteSize, NodeConfig, Time};

const RECORDS: usize = 100;

/// Small segments, read again all the time.
fn scrubbed(config: &mut NodeConfig) {
    config.log.segment_bytes_max = ByteSize(32 << 10);
    config.log.scrub_bytes_per_second = ByteSize(64 << 20);
    config.log.scrub_interval = Time::from_millis(100);
}

async fn led(change: impl Fn(&mut NodeConfig)) -> Cluster {
    let mut cluster = Cluster::start(3, change).await;
    assert_eq!(cluster.elect(Some(0)).await, 0);
    cluster.settle(0).await;
    cluster
}

fn text(n: usize) -> Vec<u8> {
    let mut text = format!("<record {n}>").into_bytes();
    text.resize(2000, b'.');
    text
}

async fn fill(cluster: &Cluster) {
    append_all(&mut cluster.client(0).await, (0..RECORDS).map(text).collect()).await;
    for ordinal in 0..3 {
        cluster.until(ordinal, "committed", |status| status.commit_end >= RECORDS as u64).await;
    }
}

/// Flips a bit of the record in the replica's files, as a fault of its disk would.
fn damage(cluster: &Cluster, ordinal: usize, record: usize) {
    let needle = format!("<record {record}>").into_bytes();
    for entry in fs::read_dir(&cluster.configs[ordinal].data_dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            let file = fs::File::options().write(true).open(path).unwrap();
            return file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
        }
    }
    panic!("record {record} is in no file of replica {ordinal}");
}

async fn until_metric(cluster: &Cluster, ordinal: usize, name: &str, wished: impl Fn(u64) -> bool) {
    let begun = Instant::now();
    while !wished(cluster.metric(ordinal, name)) {
        let is = cluster.metric(ordinal, name);
        assert!(begun.elapsed() < PATIENCE, "{name} of {ordinal} is {is}: {}", cluster.status(ordinal).await.problem);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_on_the_leader_and_on_a_follower_is_found_and_comes_back() {
    let mut cluster = led(scrubbed).await;
    fill(&cluster).await;
    let held = read_all(&mut cluster.client(2).await, 0).await;
    assert_eq!(held.len(), RECORDS);
    damage(&cluster, 0, 7);
    damage(&cluster, 1, 40);
    damage(&cluster, 1, 41);
    for (ordinal, ranges) in [(0, 1), (1, 1)] {
        until_metric(&cluster, ordinal, "zue_repaired_ranges_total", |repaired| repaired >= ranges).await;
        cluster.until(ordinal, "repaired", |status| status.problem.is_empty()).await;
        assert!(cluster.metric(ordinal, "zue_corrupt_ranges_total") >= ranges);
        assert!(cluster.metric(ordinal, "zue_scrub_bytes_total") > 0);
        assert_eq!(read_all(&mut cluster.client(ordinal).await, 0).await, held, "replica {ordinal}");
    }
    append_all(&mut cluster.client(0).await, vec![b"after".to_vec()]).await;
    // What was repaired is on the disk.
    cluster.stop(1).await;
    cluster.restart(1).await;
    assert_eq!(read_all(&mut cluster.client(1).await, 0).await[..RECORDS], held);
    assert_eq!(cluster.metric(1, "zue_corrupt_ranges_total"), 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_replica_has_is_reported_as_lost_and_everything_around_it_is_read() {
    let mut cluster = led(scrubbed).await;
    fill(&cluster).await;
    let held = read_all(&mut cluster.client(2).await, 0).await;
    for ordinal in 0..3 {
        damage(&cluster, ordinal, 7);
    }
    damage(&cluster, 1, 8);
    for ordinal in 0..3 {
        until_metric(&cluster, ordinal, "zue_lost_ranges", |lost| lost == 1).await;
        cluster
            .until(ordinal, "reported", |status| {
                status.problem.contains("records 7 to 8 are in doubt") || status.problem.contains("no other replica")
            })
            .await;
        assert_eq!(read_all(&mut cluster.client(ordinal).await, 8).await, held[8..], "replica {ordinal}");
        let request = v1::ReadRequest { from: 7, ..v1::ReadRequest::default() };
        let refused = match cluster.client(ordinal).await.read(request).await {
            Err(status) => status,
            Ok(mut responses) => loop {
                match responses.get_mut().message().await {
                    Err(status) => break status,
                    Ok(response) => assert!(response.unwrap().records.is_empty()),
                }
            },
        };
        assert_eq!(error_of(&refused).0, Reason::Corrupt);
    }
    append_all(&mut cluster.client(0).await, vec![b"what is damaged keeps nobody from appending".to_vec()]).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_log_keeps_the_newest_of_each_key_and_feeds_a_follower_that_was_away() {
    let mut cluster = led(|config| {
        scrubbed(config);
        config.log.compaction = true;
        config.replication.inline_catchup_records = 0;
    })
    .await;
    cluster.stop(2).await;
    let mut newest = BTreeMap::new();
    for n in 0..RECORDS {
        let key = format!("key {}", n % 7);
        newest.insert(key.clone(), text(n));
        let record = v1::NewRecord { key: Some(key.into()), value: text(n).into(), headers: vec![] };
        cluster.client(0).await.append(request(vec![record])).await.unwrap();
    }
    let begun = Instant::now();
    for ordinal in [0, 1] {
        while read_all(&mut cluster.client(ordinal).await, 0).await.len() > 40 {
            assert!(begun.elapsed() < PATIENCE, "replica {ordinal} is not compacted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    cluster.restart(2).await;
    cluster.settle(0).await;
    for ordinal in 0..3 {
        cluster.until(ordinal, "committed", |status| status.commit_end >= RECORDS as u64).await;
        let mut found = BTreeMap::new();
        for record in read_all(&mut cluster.client(ordinal).await, 0).await {
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            found.insert(key, record.value.to_vec());
        }
        assert_eq!(found, newest, "replica {ordinal}");
        assert_eq!(cluster.metric(ordinal, "zue_corrupt_ranges_total"), 0);
    }
    assert!(read_all(&mut cluster.client(2).await, 0).await.len() < 60, "it was fed from a compacted log");
    cluster.stop_all().await;
}
