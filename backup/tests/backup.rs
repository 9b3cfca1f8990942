//! Backups through the real protocol, to a directory and to a bucket: what is uploaded, and what a restore gives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod common;

use common::bucket::Bucket;
use common::{CLUSTER, NEW, back_up, fill, ms, open, records, source, start_epoch};
use std::path::Path;
use tempfile::tempdir;
use zue_backup::{BackupError, Fault, Keep, Kind, Pace, RestoreOptions, Restored, Store, choose, restore, verify};
use zue_core::{Offset, ReplicaId};
use zue_log::{Log, OpenError, OsDisk, Until};

async fn restored(store: &Store, dir: &Path, until: Option<Until>) -> Result<Restored, BackupError> {
    let (backups, bad) = store.manifests(CLUSTER).await.unwrap();
    assert!(bad.is_empty(), "{bad:?}");
    let id = choose(&backups, until)?.clone();
    restore(store, (CLUSTER, &id), dir, RestoreOptions { replica: NEW, until }).await
}

fn reopened(dir: &Path) -> Log<OsDisk> {
    let (log, found) = Log::open(OsDisk::new(dir).unwrap(), common::config(), ReplicaId(0xbad)).unwrap();
    assert!(!found.initialised && found.damaged.is_empty() && found.suspect.is_none(), "{found:?}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_comes_back_from_a_directory_and_from_a_bucket() {
    let (bucket, folder) = (Bucket::start().await, tempdir().unwrap());
    for store in [bucket.store(), Store::open(&format!("file://{}", folder.path().display())).unwrap()] {
        let (dir, target) = (tempdir().unwrap(), tempdir().unwrap());
        let mut log = open(dir.path());
        fill(&mut log, 60);
        let committed = log.tail().end.0;
        let expected = records(&log.reader());
        fill(&mut log, 5);
        let how = (Kind::OnDemand, None, ms(1000));
        let made = zue_backup::make(&store, &source(&log, committed), how, &mut Pace::new(None)).await.unwrap();
        assert_eq!((made.manifest.end, made.manifest.last_ms), (committed, ms(committed - 2)));
        assert!(made.manifest.segments.len() > 2, "{:?}", made.manifest.segments);
        assert_eq!(verify(&store, CLUSTER, &made.id).await.unwrap().bad, []);

        let got = restored(&store, target.path(), None).await.unwrap();
        assert_eq!((got.tail.end.0, got.bytes), (committed, made.manifest.bytes()));
        let restored = reopened(target.path());
        assert_eq!(records(&restored.reader()), expected);
        assert_eq!((restored.meta().replica, restored.meta().cluster), (NEW, None));
        assert_eq!(restored.meta().commit_end.0, committed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_is_uploaded_and_another_start_knows_what_is_there() {
    let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
    let store = bucket.store();
    let mut log = open(dir.path());
    fill(&mut log, 60);
    let first = back_up(&store, &log, 1_000).await;
    assert_eq!(first.uploaded, first.manifest.bytes());
    assert_eq!(back_up(&bucket.store(), &log, 2_000).await.uploaded, 0);
    log.close().unwrap();
    let mut log = open(dir.path());
    fill(&mut log, 1);
    let third = back_up(&store, &log, 3_000).await;
    assert!(third.uploaded < 3_000, "{}", third.uploaded);
    assert_eq!(third.manifest.after.as_deref().map(|id| &id[..20]), Some("19700101T000002000Z-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_ends_at_the_offset_or_the_time_and_never_inside_an_append() {
    let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    let mut states = vec![(0, log.producers().encode())];
    for n in 0..90 {
        if n == 45 {
            start_epoch(&mut log, 2);
        }
        fill(&mut log, 1);
        states.push((log.tail().end.0, log.producers().encode()));
    }
    back_up(&store, &log, ms(10_000)).await;
    let all = records(&log.reader());
    let points = (0..=180).step_by(7).chain([180]).map(|at| (Until::Offset(Offset(at)), at / 2 * 2));
    // All records of an append are of its time.
    let times = (1..180).step_by(13).flat_map(|at| {
        let even = at / 2 * 2;
        [(Until::Time(ms(even)), even + 2), (Until::Time(ms(even) - 1), even)]
    });
    for (until, end) in points.chain(times) {
        let target = tempdir().unwrap();
        restored(&store, target.path(), Some(until)).await.unwrap();
        let got = reopened(target.path());
        assert_eq!(got.tail().end.0, end, "{until:?}");
        assert_eq!(records(&got.reader()), all[..usize::try_from(end).unwrap()], "{until:?}");
        let state = states.iter().find(|(at, _)| *at == end).unwrap();
        assert_eq!(got.producers().encode(), state.1, "{until:?}: another table of producers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_no_backup_has_is_refused_with_what_there_is() {
    let (bucket, dir, target) = (Bucket::start().await, tempdir().unwrap(), tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    fill(&mut log, 60);
    back_up(&store, &log, ms(0)).await;
    let refused = |error: BackupError| matches!(error, BackupError::OutOfReach { .. });
    assert!(refused(restored(&store, target.path(), Some(Until::Offset(Offset(121)))).await.unwrap_err()));
    assert!(refused(restored(&store, target.path(), Some(Until::Time(ms(5_000)))).await.unwrap_err()));
    log.trim(Offset(100)).unwrap();
    back_up(&store, &log, ms(20_000)).await;
    // The first backup has what the second one lacks.
    let got = restored(&store, target.path(), Some(Until::Offset(Offset(50)))).await.unwrap();
    assert_eq!((got.tail.end.0, got.log_start.0), (50, 0));
    let first = store.backups(CLUSTER).await.unwrap().remove(0);
    store.remove(&[first.object(CLUSTER)]).await.unwrap();
    let target = tempdir().unwrap();
    assert!(refused(restored(&store, target.path(), Some(Until::Offset(Offset(50)))).await.unwrap_err()));
    let got = restored(&store, target.path(), None).await.unwrap();
    assert_eq!((got.tail.end.0, got.log_start.0), (120, 100));
    assert_eq!(reopened(target.path()).log_start(), Offset(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_backups_that_reach_a_point_the_first_is_taken_and_without_one_the_newest() {
    let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    let mut made = Vec::new();
    for at in [0, 10_000, 20_000] {
        fill(&mut log, 30);
        made.push(back_up(&store, &log, ms(at)).await);
    }
    let (backups, _) = store.manifests(CLUSTER).await.unwrap();
    let chosen = |until| choose(&backups, until).unwrap();
    // What it has was compacted for less long than what a later one has.
    for (of, backup) in made.iter().enumerate() {
        let end = backup.manifest.end;
        assert_eq!(chosen(Some(Until::Offset(Offset(end)))), &backup.id, "up to its end {end}");
        assert_eq!(chosen(Some(Until::Offset(Offset(end - 1)))), &backup.id, "before its end {end}");
        assert_eq!(chosen(None) == &backup.id, of == made.len() - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_found_by_verify_and_by_restore() {
    let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    fill(&mut log, 60);
    let made = back_up(&store, &log, 1_000).await;
    let objects: Vec<String> = made.manifest.objects().map(str::to_owned).chain([made.id.object(CLUSTER)]).collect();
    for object in objects {
        let (file, target) = (bucket.file(&object), tempdir().unwrap());
        let whole = std::fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        *flipped.get_mut(whole.len() / 3).unwrap() ^= 0x10;
        std::fs::write(&file, &flipped).unwrap();
        let found = verify(&store, CLUSTER, &made.id).await.unwrap();
        assert_eq!(found.bad.iter().map(|bad| bad.object.as_str()).collect::<Vec<_>>(), [object.as_str()]);
        let options = RestoreOptions { replica: NEW, until: None };
        let error = restore(&store, (CLUSTER, &made.id), target.path(), options).await.unwrap_err();
        assert!(
            matches!(&error, BackupError::Object { object: named, fault: Fault::Hash { .. } } if *named == object),
            "{error}"
        );
        let opened = Log::open(OsDisk::new(target.path()).unwrap(), common::config(), NEW);
        assert!(opened.is_ok_and(|(_, found)| found.initialised), "nothing is there that opens as a log");
        std::fs::write(&file, &whole).unwrap();
    }
    assert_eq!(verify(&store, CLUSTER, &made.id).await.unwrap().bad, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_segment_of_another_log_in_the_place_of_one_is_found_by_verify_and_by_restore() {
    let (bucket, elsewhere, target) = (Bucket::start().await, Bucket::start().await, tempdir().unwrap());
    let (one, other) = (tempdir().unwrap(), tempdir().unwrap());
    let mut made = Vec::new();
    for (bucket, dir) in [(&bucket, &one), (&elsewhere, &other)] {
        let mut log = open(dir.path());
        fill(&mut log, 60);
        made.push(back_up(&bucket.store(), &log, 1_000).await);
    }
    let [object, alien] = [0, 1].map(|n: usize| made[n].manifest.objects().next().unwrap().to_owned());
    let alien = std::fs::read(elsewhere.file(&alien)).unwrap();
    assert_eq!(alien.len(), std::fs::read(bucket.file(&object)).unwrap().len(), "only its bytes tell them apart");
    std::fs::write(bucket.file(&object), alien).unwrap();
    let found = verify(&bucket.store(), CLUSTER, &made[0].id).await.unwrap();
    assert_eq!(found.bad.iter().map(|bad| bad.object.as_str()).collect::<Vec<_>>(), [object.as_str()]);
    let error = restored(&bucket.store(), target.path(), None).await.unwrap_err();
    assert!(matches!(&error, BackupError::Object { object: named, .. } if *named == object), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_log_itself_is_not_backed_up() {
    let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    fill(&mut log, 60);
    log.close().unwrap();
    let file = dir.path().join(format!("{:020}.log", 0));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[9_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let log = open(dir.path());
    let how = (Kind::Continuous, None, 1);
    let error = zue_backup::make(&store, &source(&log, 120), how, &mut Pace::new(None)).await.unwrap_err();
    assert!(matches!(error, BackupError::Log(_)), "{error}");
    assert_eq!(store.backups(CLUSTER).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_something_is_in_is_left_as_it_is() {
    let (bucket, dir, target) = (Bucket::start().await, tempdir().unwrap(), tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    fill(&mut log, 10);
    back_up(&store, &log, 1_000).await;
    std::fs::write(target.path().join("precious"), "x").unwrap();
    let refused = |error: BackupError| matches!(error, BackupError::NotEmpty { .. });
    assert!(refused(restored(&store, target.path(), None).await.unwrap_err()));
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 1);
    std::fs::remove_file(target.path().join("precious")).unwrap();
    std::fs::create_dir(target.path().join("lost+found")).unwrap();
    restored(&store, target.path(), None).await.unwrap();
    assert!(refused(restored(&store, target.path(), None).await.unwrap_err()), "a log is there now");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_is_needed_by_no_backup_that_stays() {
    let (bucket, dir) = (Bucket::start().await, tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    let mut last = None;
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    for n in 0..12 {
        fill(&mut log, 7);
        last = Some(back_up(&store, &log, now + n).await);
    }
    let keep = Keep { count: Some(1), ..Keep::default() };
    assert_eq!(store.tidy(CLUSTER, keep, now).await.unwrap(), (11, 0), "objects are too young");
    let later = now + zue_backup::GRACE_MS + 60_000;
    let (_, objects) = store.tidy(CLUSTER, keep, later).await.unwrap();
    assert!(objects > 0);
    assert_eq!(verify(&store, CLUSTER, &last.unwrap().id).await.unwrap().bad, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_restore_does_not_open_and_is_begun_again() {
    let (bucket, dir, target) = (Bucket::start().await, tempdir().unwrap(), tempdir().unwrap());
    let (store, mut log) = (bucket.store(), open(dir.path()));
    fill(&mut log, 60);
    let made = back_up(&store, &log, 1_000).await;
    restored(&store, target.path(), None).await.unwrap();
    // As a crash leaves it that comes after the names and before the meta file.
    for file in ["meta", "meta.next"] {
        let _ = std::fs::remove_file(target.path().join(file));
    }
    std::fs::create_dir(target.path().join("restore.unfinished")).unwrap();
    let error = Log::open(OsDisk::new(target.path()).unwrap(), common::config(), NEW).unwrap_err();
    assert!(matches!(error, OpenError::NoMeta { .. }), "{error}");
    let got = restored(&store, target.path(), None).await.unwrap();
    assert_eq!(got.tail.end.0, made.manifest.end);
    assert_eq!(records(&reopened(target.path()).reader()), records(&log.reader()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_in_pieces_comes_back_and_goes_at_the_rate_that_is_allowed() {
    let (bucket, dir, target) = (Bucket::start().await, tempdir().unwrap(), tempdir().unwrap());
    let store = bucket.store();
    let large = zue_log::LogConfig { segment_bytes_max: 10 << 20, ..common::config() };
    let (mut log, _) = Log::open(OsDisk::new(dir.path()).unwrap(), large, common::REPLICA).unwrap();
    start_epoch(&mut log, 1);
    fill(&mut log, 9_000);
    let (how, begun) = ((Kind::Continuous, None, 1), std::time::Instant::now());
    let mut pace = Pace::new(Some(12 << 20));
    let made = zue_backup::make(&store, &source(&log, 18_000), how, &mut pace).await.unwrap();
    assert!(made.uploaded > 18 << 20, "{}", made.uploaded);
    assert!(begun.elapsed().as_millis() > 1_200, "{:?}", begun.elapsed());
    restored(&store, target.path(), None).await.unwrap();
    assert_eq!(records(&reopened(target.path()).reader()), records(&log.reader()));
}
