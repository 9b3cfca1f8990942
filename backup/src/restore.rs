//! From a backup to a directory that a replica opens. Which segments it takes is a rule; the rest downloads, checks, cuts, and names the
//! files last: a restore that ended on its way leaves nothing that opens.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;
use zue_core::{ClusterId, Offset, ReplicaId, Tail};
use zue_log::{Adopted, CutPlace, Disk as _, DiskFile as _, OsDisk, Until, adopt, cut_place};

use crate::error::{BackupError, Fault};
use crate::manifest::{Manifest, Part, Segment};
use crate::names::BackupId;
use crate::store::Store;
use crate::verify::Hash;

/// The number of objects that are downloaded at a time.
const AT_ONCE: usize = 8;
/// The directory in which a log is put together, inside the one that it is for.
const UNFINISHED: &str = "restore.unfinished";
/// By how much a backup must be younger than a time to hold all that was appended by then: clocks differ.
const CLOCKS_MS: u64 = 10_000;

/// The log that is asked for; all that there is without a point.
pub type Point = Option<Until>;

/// The parameters of a restore.
#[derive(Clone, Copy, Debug)]
pub struct RestoreOptions {
    /// The new replica.
    pub replica: ReplicaId,
    /// The point up to which the log is to reach.
    pub until: Point,
}

/// A log that was restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The resulting tail.
    pub tail: Tail,
    /// The start of the log.
    pub log_start: Offset,
    /// The time of its last record, ms since the Unix epoch.
    pub last_ms: u64,
    /// The number of bytes that were downloaded.
    pub bytes: u64,
    /// It was compacted up to there, behind its end: of keys that were written again between, earlier records may be missing.
    pub compacted: Option<Offset>,
}

/// The backup that gives the log until a point: the first that reaches it, as what a later one has was trimmed or compacted for longer.
/// Without a point the newest one.
///
/// # Errors
/// When none does.
pub fn choose(backups: &BTreeMap<BackupId, Manifest>, until: Point) -> Result<&BackupId, BackupError> {
    let Some(until) = until else {
        let newest = backups.values().map(|manifest| (manifest.end, manifest.made_ms)).max();
        let is_newest = |(_, manifest): &(_, &Manifest)| Some((manifest.end, manifest.made_ms)) == newest;
        let found = backups.iter().find(is_newest).map(|(id, _)| id);
        return found.ok_or_else(|| out_of_reach(Until::Time(0), "there is none".to_owned()));
    };
    let reaching = |manifest: &&Manifest| reaches(manifest, until);
    let all = || backups.values().filter(reaching);
    let is_in = |(_, manifest): &(_, &Manifest)| reaches(manifest, until) && begins_before(manifest, until);
    match backups.iter().find(is_in) {
        Some((id, _)) => Ok(id),
        None if all().next().is_some() => {
            let start = all().map(|manifest| manifest.log_start).min().unwrap_or_default();
            Err(out_of_reach(
                until,
                format!("what lies before offset {start} was trimmed before the first backup that is kept"),
            ))
        }
        None => {
            let end = backups.values().map(|manifest| (manifest.end, manifest.last_ms)).max().unwrap_or_default();
            let why = format!("the newest ends at offset {}, with a record of {} ms since 1970", end.0, end.1);
            Err(out_of_reach(until, why))
        }
    }
}

fn out_of_reach(until: Until, why: String) -> BackupError {
    BackupError::OutOfReach { until, why }
}

/// Returns whether it holds all that was in the log before the point.
fn reaches(manifest: &Manifest, until: Until) -> bool {
    match until {
        Until::Offset(offset) => manifest.end >= offset.0,
        Until::Time(ms) => manifest.last_ms > ms || manifest.made_ms > ms.saturating_add(CLOCKS_MS),
    }
}

/// Returns whether the point is not in what was trimmed.
fn begins_before(manifest: &Manifest, until: Until) -> bool {
    match until {
        Until::Offset(offset) => manifest.log_start <= offset.0,
        Until::Time(ms) => {
            let mut segments = manifest.segments.iter();
            let first = segments.rfind(|segment| segment.base <= manifest.log_start);
            manifest.log_start == 0 || first.is_some_and(|first| first.before_ms <= ms)
        }
    }
}

/// The segments that the log until the point takes: all that begin before it, at least the first.
pub fn takes(manifest: &Manifest, until: Point) -> &[Segment] {
    let begins_before = |segment: &Segment| match until {
        None => true,
        Some(Until::Offset(offset)) => segment.base < offset.0,
        Some(Until::Time(ms)) => segment.before_ms <= ms,
    };
    let count = manifest.segments.partition_point(begins_before).max(1);
    manifest.segments.get(..count).unwrap_or(&manifest.segments)
}

/// Makes a log of a backup in a directory that is empty or not there; one in which a restore was not finished counts as empty. The log is
/// of a new replica, which is of no cluster.
///
/// # Errors
/// When something is in the directory; when the store fails, an object is not what was put there, or the disk refuses. No log is there then.
pub async fn restore(
    store: &Store,
    (cluster, id): (ClusterId, &BackupId),
    dir: &Path,
    options: RestoreOptions,
) -> Result<Restored, BackupError> {
    let RestoreOptions { replica, until } = options;
    let manifest = store.manifest(cluster, id).await?;
    let segments = takes(&manifest, until).to_vec();
    let unfinished = begin(dir)?;
    // Held to the end: no node begins a log of its own here meanwhile.
    let disk = OsDisk::new(dir).map_err(|source| on_disk("open", dir, source))?;
    let lock = disk.lock().map_err(|source| on_disk("lock", dir, source))?;
    let mut bytes = 0;
    let downloads = segments.iter().flat_map(|segment| {
        let file = unfinished.join(file_name(segment));
        segment.parts.iter().map(move |part| (file.clone(), part.clone()))
    });
    let downloads: Vec<(PathBuf, Part)> = downloads.collect();
    for (file, part) in &downloads {
        bytes += part.to - part.from;
        if part.from == 0 {
            create(file)?;
        }
    }
    download_all(store, downloads).await?;
    let (dir, log_start, compacted) = (dir.to_owned(), Offset(manifest.log_start), Offset(manifest.compacted));
    let finish = move || {
        let place = cut(&unfinished, &segments, until)?;
        if place.tail.end < log_start {
            let why = format!("what lies before offset {log_start} was trimmed before that backup");
            return Err(out_of_reach(until.unwrap_or(Until::Offset(place.tail.end)), why));
        }
        put_in_place(&dir, &unfinished, &segments)?;
        let tail = adopt(&disk, Adopted { replica, log_start, compacted })?;
        // It tells of a restore that is not finished only where there is no meta file.
        let _ = fs::remove_dir(&unfinished);
        drop(lock);
        let compacted = Some(compacted).filter(|compacted| *compacted > tail.end);
        Ok(Restored { tail, log_start, last_ms: place.timestamp_ms, bytes, compacted })
    };
    tokio::task::spawn_blocking(finish).await?
}

/// Downloads the parts, several at a time and each on a thread of its own: to hash and to write them takes longer than to read them.
async fn download_all(store: &Store, parts: Vec<(PathBuf, Part)>) -> Result<(), BackupError> {
    // Those that are under way end with it.
    let mut downloads = JoinSet::new();
    for (path, part) in parts {
        if downloads.len() >= AT_ONCE
            && let Some(done) = downloads.join_next().await
        {
            done??;
        }
        downloads.spawn(download(store.clone(), path, part));
    }
    while let Some(done) = downloads.join_next().await {
        done??;
    }
    Ok(())
}

async fn download(store: Store, path: PathBuf, part: Part) -> Result<(), BackupError> {
    let file = File::options().write(true).open(&path).map_err(|source| on_disk("open", &path, source))?;
    let mut hash = Hash::new();
    let write = |at: u64, piece: &bytes::Bytes| {
        hash.take(piece);
        file.write_all_at(piece, part.from + at).map_err(|source| on_disk("write", &path, source))
    };
    store.read(&part.object, part.to - part.from, write).await?;
    hash.check(&part)
}

fn file_name(segment: &Segment) -> String {
    format!("{:020}.log", segment.base)
}

/// Returns whether a restore to this directory was begun and not finished: what is there is no log yet.
pub fn is_unfinished(dir: &Path) -> bool {
    dir.join(UNFINISHED).exists() && !dir.join("meta").exists()
}

/// Makes the directory and, in it, the one where the log is put together; what an unfinished restore has left is removed.
fn begin(dir: &Path) -> Result<PathBuf, BackupError> {
    let unfinished = dir.join(UNFINISHED);
    let make = |path: &Path| {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| on_disk("make", path, source))
    };
    make(dir)?;
    let names = |dir: &Path| -> Result<Vec<String>, BackupError> {
        let list = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, io::Error>>);
        let list = list.map_err(|source| on_disk("list", dir, source))?;
        Ok(list.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    let found = names(dir)?;
    let was_begun = found.iter().any(|name| name == UNFINISHED);
    // A file system's own folder, and the lock, do not count; nor, without a meta file, what a restore had begun to put in its place.
    let is_ours = |name: &str| {
        matches!(name, UNFINISHED | "lock" | "lost+found")
            || (was_begun && (name.strip_suffix(".log").is_some_and(is_base) || name == "meta.next"))
    };
    if let Some(entry) = found.iter().find(|name| !is_ours(name)) {
        return Err(BackupError::NotEmpty { dir: dir.to_owned(), entry: entry.clone() });
    }
    for name in found.iter().filter(|name| name.strip_suffix(".log").is_some() || *name == "meta.next") {
        let path = dir.join(name);
        fs::remove_file(&path).map_err(|source| on_disk("remove", &path, source))?;
    }
    if was_begun {
        fs::remove_dir_all(&unfinished).map_err(|source| on_disk("remove", &unfinished, source))?;
    }
    make(&unfinished)?;
    Ok(unfinished)
}

fn is_base(name: &str) -> bool {
    name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())
}

fn create(path: &Path) -> Result<(), BackupError> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| on_disk("make", path, source))
}

/// Cuts the last segment at the point; where the log ends then.
fn cut(unfinished: &Path, segments: &[Segment], until: Point) -> Result<CutPlace, BackupError> {
    let until = until.unwrap_or(Until::Offset(zue_core::OFFSET_MAX));
    let disk = OsDisk::new(unfinished).map_err(|source| on_disk("open", unfinished, source))?;
    let segment = segments.last().map(file_name).unwrap_or_default();
    let path = unfinished.join(&segment);
    let object =
        segments.last().and_then(|last| last.parts.first()).map(|part| part.object.clone()).unwrap_or_default();
    let place = {
        // Mapped, and not any more when the file is cut.
        let file = disk.open(&segment).map_err(|source| on_disk("open", &path, source))?;
        let bytes =
            file.len().and_then(|bytes| file.view(0..bytes)).map_err(|source| on_disk("read", &path, source))?;
        cut_place(&bytes, until).map_err(|bad| BackupError::Object { object, fault: Fault::Segment(bad) })?
    };
    let file = File::options().write(true).open(&path).map_err(|source| on_disk("open", &path, source))?;
    file.set_len(place.bytes).map_err(|source| on_disk("cut", &path, source))?;
    Ok(place)
}

/// Has the files on the disk, then under their names. They are no log yet: there is no meta file.
fn put_in_place(dir: &Path, unfinished: &Path, segments: &[Segment]) -> Result<(), BackupError> {
    let sync =
        |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(|source| on_disk("sync", path, source));
    for segment in segments {
        sync(&unfinished.join(file_name(segment)))?;
    }
    sync(unfinished)?;
    for segment in segments {
        let (from, to) = (unfinished.join(file_name(segment)), dir.join(file_name(segment)));
        fs::rename(&from, &to).map_err(|source| on_disk("rename", &from, source))?;
    }
    sync(dir)
}

fn on_disk(what: &'static str, path: &Path, source: io::Error) -> BackupError {
    BackupError::Disk { what, path: path.to_owned(), source }
}
