//! Every point at which a store or a program fails: no manifest ever names what is not whole, and no half of a restore opens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod common;

use common::bucket::{Bucket, Fate};
use common::{CLUSTER, NEW, fill, open, records, source};
use tempfile::tempdir;
use zue_backup::{BackupError, Kind, Made, Pace, RestoreOptions, Store, restore, verify};
use zue_log::{Log, OpenError, OsDisk};

async fn try_back_up(store: &Store, log: &Log<OsDisk>, now_ms: u64) -> Result<Made, BackupError> {
    let how = (Kind::Continuous, None, now_ms);
    zue_backup::make(store, &source(log, log.tail().end.0), how, &mut Pace::new(None)).await
}

/// That every manifest names whole objects alone; how many there are.
async fn all_are_whole(store: &Store, when: &str) -> usize {
    let ids = store.backups(CLUSTER).await.unwrap();
    for id in &ids {
        let verified = verify(store, CLUSTER, id).await.unwrap();
        assert_eq!(verified.bad, [], "{when}: {id}");
    }
    ids.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_put_no_manifest_names_what_is_not_whole() {
    for fate in [Fate::Lose, Fate::Repeat, Fate::Tear, Fate::Delay, Fate::Refuse] {
        for at in 0..6 {
            let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
            let (store, mut log) = (bucket.store(), open(dir.path()));
            fill(&mut log, 60);
            bucket.fault.set(at, fate, true);
            let first = try_back_up(&store, &log, 1_000).await;
            let puts = bucket.fault.seen();
            bucket.fault.clear();
            let when = format!("{fate:?} of PUT {at}");
            let is_harmless = at >= puts || matches!(fate, Fate::Repeat | Fate::Delay);
            assert_eq!(first.is_ok(), is_harmless, "{when}: {first:?}");
            let ids = store.backups(CLUSTER).await.unwrap();
            let (_, bad) = store.manifests(CLUSTER).await.unwrap();
            // A manifest that was torn itself is none.
            assert!(ids.len() - bad.len() <= 1 && bad.len() <= 1, "{when}: {bad:?}");
            if bad.is_empty() {
                all_are_whole(&store, &when).await;
            }
            // The next one makes good what was lost.
            let made = try_back_up(&store, &log, 2_000).await.unwrap();
            assert_eq!(verify(&store, CLUSTER, &made.id).await.unwrap().bad, [], "{when}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_at_any_request_leaves_whole_backups_alone() {
    for fate in [Fate::Hang, Fate::HangBehind] {
        let mut at = 0;
        loop {
            let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
            let (store, mut log) = (bucket.store(), open(dir.path()));
            fill(&mut log, 40);
            try_back_up(&store, &log, 1_000).await.unwrap();
            fill(&mut log, 30);
            bucket.fault.set(at, fate, false);
            let done = tokio::select! {
                made = try_back_up(&store, &log, 2_000) => Some(made.unwrap()),
                () = bucket.fault.hangs.notified() => None,
            };
            bucket.fault.clear();
            let when = format!("{fate:?} at request {at}");
            assert!(all_are_whole(&store, &when).await >= 1, "{when}");
            let made = try_back_up(&store, &log, 3_000).await.unwrap();
            assert_eq!(made.manifest.end, log.tail().end.0);
            all_are_whole(&store, &when).await;
            if done.is_some() {
                break;
            }
            at += 1;
        }
        assert!(at > 6, "{at} requests only");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_at_any_request_leaves_nothing_that_opens_and_can_be_begun_again() {
    let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    fill(&mut log, 60);
    let made = try_back_up(&store, &log, 1_000).await.unwrap();
    let expected = records(&log.reader());
    let options = RestoreOptions { replica: NEW, until: None };
    for at in 0.. {
        let target = tempdir().unwrap();
        bucket.fault.set(at, Fate::Hang, false);
        let done = tokio::select! {
            got = restore(&store, (CLUSTER, &made.id), target.path(), options) => Some(got.unwrap()),
            () = bucket.fault.hangs.notified() => None,
        };
        bucket.fault.clear();
        if done.is_none() {
            assert!(!target.path().join("meta").exists(), "request {at}");
            let names = std::fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".log")), "request {at}");
            restore(&store, (CLUSTER, &made.id), target.path(), options).await.unwrap();
        }
        let (restored, _) = Log::open(OsDisk::new(target.path()).unwrap(), common::config(), NEW).unwrap();
        assert_eq!(records(&restored.reader()), expected, "request {at}");
        if done.is_some() {
            assert!(at > 3, "{at} requests only");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_have_their_names_and_no_meta_file_do_not_open() {
    let dir = tempdir().unwrap();
    let mut log = open(dir.path());
    fill(&mut log, 60);
    log.close().unwrap();
    std::fs::remove_file(dir.path().join("meta")).unwrap();
    let error = Log::open(OsDisk::new(dir.path()).unwrap(), common::config(), NEW).unwrap_err();
    assert!(matches!(error, OpenError::NoMeta { .. }), "{error}");
}
