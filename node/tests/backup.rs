//! Continuous backups of running nodes: who makes them, who takes over, and what a store that is away costs.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, append_all};
use tempfile::tempdir;
use zue_backup::{RestoreOptions, Store, choose, restore, verify};
use zue_core::ReplicaId;
use zue_log::{Log, LogConfig, OsDisk};
use zue_settings::{BackupSettings, NodeConfig, Time};

async fn led(settings: BackupSettings) -> Cluster {
    let mut cluster = Cluster::start(3, |config: &mut NodeConfig| config.backup = settings.clone()).await;
    assert_eq!(cluster.elect(Some(0)).await, 0);
    cluster.settle(0).await;
    cluster
}

fn every_second(to: String) -> BackupSettings {
    BackupSettings { to: Some(to), interval: Time::from_millis(1_000), ..BackupSettings::default() }
}

fn made(cluster: &Cluster, ordinal: usize) -> u64 {
    cluster.nodes[ordinal].as_ref().map_or(0, |node| node.metrics().backups.get())
}

async fn wait(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_follower_makes_backups_and_the_next_one_takes_over() {
    let (place, target) = (tempdir().unwrap(), tempdir().unwrap());
    let url = format!("file://{}/store", place.path().display());
    let mut cluster = led(every_second(url.clone())).await;
    for n in 0..20 {
        append_all(&mut cluster.client(0).await, vec![format!("{n}").into_bytes()]).await;
    }
    let newest = |ordinal: usize| cluster.nodes[ordinal].as_ref().unwrap().metrics().backup_newest_end.get();
    wait("a backup of all that is committed", || newest(1) >= 20).await;
    wait("all that lead or follow know of it", || (0..3).all(|ordinal| newest(ordinal) >= 20)).await;
    assert_eq!((made(&cluster, 0), made(&cluster, 2)), (0, 0), "another made one");
    cluster.stop(1).await;
    append_all(&mut cluster.client(0).await, vec![b"20".to_vec()]).await;
    wait("another takes over", || made(&cluster, 2) > 0).await;
    assert_eq!(made(&cluster, 0), 0, "the leader is the last to");

    let store = Store::open(&url).unwrap();
    let id = store.clusters().await.unwrap()[0];
    let (backups, bad) = store.manifests(id).await.unwrap();
    assert!(bad.is_empty() && backups.len() >= 2, "{backups:?}");
    for backup in backups.keys() {
        assert_eq!(verify(&store, id, backup).await.unwrap().bad, []);
    }
    let options = RestoreOptions { replica: ReplicaId(77), until: None };
    let restored = restore(&store, (id, choose(&backups, None).unwrap()), target.path(), options).await.unwrap();
    assert_eq!(restored.tail.end.0, 21);
    let (log, _) = Log::open(OsDisk::new(target.path()).unwrap(), LogConfig::default(), ReplicaId(1)).unwrap();
    let chunk = log.reader().read(zue_core::Offset(0), restored.tail.end, 1 << 20).unwrap();
    let values: Vec<Vec<u8>> = chunk.records().map(|record| record.unwrap().value.to_vec()).collect();
    assert_eq!(values, (0..21).map(|n| format!("{n}").into_bytes()).collect::<Vec<_>>());
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_fails_backups_and_never_appends() {
    // A port that nobody listens on: it is free again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = BackupSettings {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        region: Some("r".to_owned()),
        ..every_second("s3://bucket/prefix".to_owned())
    };
    let mut cluster = led(away).await;
    let failing = |ordinal: usize| cluster.nodes[ordinal].as_ref().unwrap().metrics().backup_failing.get();
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE * 3 && failing(1) == 0 {
        let one = Instant::now();
        append_all(&mut cluster.client(0).await, vec![b"x".to_vec()]).await;
        assert!(one.elapsed() < Duration::from_secs(3), "an append waited for the store");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(failing(1), 1);
    let metrics = cluster.nodes[1].as_ref().unwrap().metrics();
    let count = |reason: &&str| metrics.backup_failures.with_label_values(&[reason]).get();
    assert!(zue_backup::BackupError::REASONS.iter().map(count).sum::<u64>() > 0);
    let stopping = Instant::now();
    cluster.stop_all().await;
    assert!(stopping.elapsed() < Duration::from_secs(10), "a node waited for the store to stop");
}
