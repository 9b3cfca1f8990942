//! Making a backup: what is new is uploaded, then the manifest, and last what nobody needs is removed.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt as _;
use ring::digest::{SHA256, digest};
use zue_core::{ClusterId, EpochStart, Offset, ReplicaId};
use zue_log::{Disk, Piece, Reader};

use crate::error::{BackupError, Fault};
use crate::manifest::{EpochBegun, Kind, Manifest, Part, Segment};
use crate::names::{BackupId, PartName, SEGMENTS, manifests_of, segments_of};
use crate::plan::{Plan, Upload, Want, plan};
use crate::retention::{Keep, StoreContent, removable};
use crate::store::{Pace, Store, StoredObject};
use crate::{hex, wide};

/// The number of manifests that are read at a time.
const AT_ONCE: usize = 8;

/// A log that is to be backed up.
#[derive(Debug)]
pub struct Source<D: Disk> {
    /// Of the log.
    pub reader: Reader<D>,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Whose log it is.
    pub replica: ReplicaId,
    /// The end of what is committed, and durable here.
    pub commit_end: Offset,
    /// Up to where it is compacted.
    pub compacted: Offset,
}

/// A backup that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// Its name.
    pub id: BackupId,
    /// Its content.
    pub manifest: Manifest,
    /// The number of bytes that went to the store for it.
    pub uploaded: u64,
}

/// A log at one moment.
struct LogSnapshot<D: Disk> {
    pieces: Vec<Piece<D>>,
    starts: Vec<EpochStart>,
    log_start: Offset,
}

/// Makes a backup of all that is committed. It counts once its manifest is there, which is written last.
///
/// # Errors
/// When the log cannot be read, or is damaged; when the store fails.
pub async fn make<D: Disk>(
    store: &Store,
    source: &Source<D>,
    (kind, after, now_ms): (Kind, Option<BackupId>, u64),
    pace: &mut Pace,
) -> Result<Made, BackupError> {
    let Source { reader, cluster, replica, commit_end, compacted } = source;
    let owner = (*cluster, *replica);
    let (of_task, upto) = (reader.clone(), *commit_end);
    let taken = tokio::task::spawn_blocking(move || take(&of_task, upto)).await??;
    let listed = store.list(&segments_of(*cluster, *replica)).await?;
    let whole =
        listed.iter().filter_map(|found| PartName::parse(&found.object).filter(|name| name.bytes() == found.bytes));
    let names: Vec<PartName> = whole.collect();
    let wants: Vec<Want> = taken.pieces.iter().map(want).collect();
    let (mut segments, mut uploaded, mut last_ms) = (Vec::new(), 0, 0);
    for (mut piece, Plan { mut there, uploads }) in taken.pieces.into_iter().zip(plan(owner, &wants, &names)) {
        last_ms = piece.last_ms.unwrap_or(last_ms);
        for range in uploads {
            let (back, name, bytes) = read(owner, piece, range).await?;
            piece = back;
            uploaded += wide(bytes.len());
            store.put(&name.to_string(), bytes, pace).await?;
            there.push(name);
        }
        there.sort_by_key(|name| name.from);
        segments.push(segment(&piece, &there));
    }
    let end = segments.last().map_or(commit_end.0, |last| last.end);
    let manifest = Manifest {
        version: Manifest::VERSION,
        cluster: cluster.to_string(),
        replica: replica.to_string(),
        made_ms: now_ms,
        kind,
        after: after.map(|id| id.to_string()),
        log_start: taken.log_start.0.min(end),
        end,
        last_ms,
        compacted: compacted.0.min(end),
        epochs: taken.starts.iter().map(|start| EpochBegun { epoch: start.epoch.0, start: start.start.0 }).collect(),
        segments,
    };
    let bytes = manifest.encode();
    let id = BackupId::new(now_ms, *replica, &hex(digest(&SHA256, &bytes).as_ref()));
    store.create(&id.object(*cluster), bytes.into()).await?;
    Ok(Made { id, manifest, uploaded })
}

fn take<D: Disk>(reader: &Reader<D>, upto: Offset) -> Result<LogSnapshot<D>, BackupError> {
    // Before the pieces: what is trimmed between is there all the same.
    let log_start = reader.log_start();
    let (pieces, starts) = reader.pieces(upto)?;
    Ok(LogSnapshot { pieces, starts, log_start })
}

fn want<D: Disk>(piece: &Piece<D>) -> Want {
    let (base, generation, nonce) = (piece.base, piece.generation(), piece.nonce());
    Want { base, generation, nonce, bytes: piece.bytes, is_sealed: piece.is_sealed }
}

/// Reads and checks what is to be uploaded, on a thread where that may take its time.
async fn read<D: Disk>(
    (cluster, replica): (ClusterId, ReplicaId),
    piece: Piece<D>,
    range: Upload,
) -> Result<(Piece<D>, PartName, Bytes), BackupError> {
    let read = move || {
        let bytes = piece.read(range.clone())?;
        let sha256 = hex(digest(&SHA256, &bytes).as_ref());
        let Want { base, generation, nonce, .. } = want(&piece);
        let name = PartName { cluster, replica, base, generation, nonce, from: range.start, to: range.end, sha256 };
        Ok::<_, BackupError>((piece, name, bytes))
    };
    tokio::task::spawn_blocking(read).await?
}

fn segment<D: Disk>(piece: &Piece<D>, parts: &[PartName]) -> Segment {
    let part =
        |name: &PartName| Part { from: name.from, to: name.to, sha256: name.sha256.clone(), object: name.to_string() };
    Segment {
        base: piece.base.0,
        end: piece.end.0,
        sequence: piece.sequence(),
        generation: piece.generation(),
        nonce: format!("{:016x}", piece.nonce()),
        bytes: piece.bytes,
        before_ms: piece.before_ms,
        parts: parts.iter().map(part).collect(),
    }
}

impl Store {
    /// The clusters that have backups here.
    ///
    /// # Errors
    /// When the store does not tell.
    pub async fn clusters(&self) -> Result<Vec<ClusterId>, BackupError> {
        let found = self.list("").await?;
        let mut clusters: Vec<ClusterId> =
            found.iter().filter_map(|found| BackupId::parse(&found.object)).map(|(cluster, _)| cluster).collect();
        clusters.sort_unstable();
        clusters.dedup();
        Ok(clusters)
    }

    /// The names of a cluster's backups, the oldest first.
    ///
    /// # Errors
    /// When the store does not tell.
    pub async fn backups(&self, cluster: ClusterId) -> Result<Vec<BackupId>, BackupError> {
        let found = self.list(&manifests_of(cluster)).await?;
        let mut ids: Vec<BackupId> =
            found.iter().filter_map(|found| BackupId::parse(&found.object)).map(|(_, id)| id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The parts of a cluster's segments.
    ///
    /// # Errors
    /// When the store does not tell.
    pub async fn parts(&self, cluster: ClusterId) -> Result<Vec<StoredObject>, BackupError> {
        self.list(&format!("{cluster}/{SEGMENTS}/")).await
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// When it is not there, or is not what was put there.
    pub async fn manifest(&self, cluster: ClusterId, id: &BackupId) -> Result<Manifest, BackupError> {
        let object = id.object(cluster);
        let bytes = self.get(&object).await?;
        let found = hex(digest(&SHA256, &bytes).as_ref());
        let bad = |fault| BackupError::Object { object: object.clone(), fault };
        let expected = id.hash().unwrap_or_default();
        if !found.starts_with(expected) || expected.is_empty() {
            return Err(bad(Fault::Hash { expected: format!("{expected}…"), found }));
        }
        let manifest = Manifest::decode(&bytes).map_err(bad)?;
        if manifest.cluster_id() != Some(cluster) {
            return Err(bad(Fault::Manifest(format!("it is of cluster {}", manifest.cluster))));
        }
        Ok(manifest)
    }

    /// A manifest, or what is wrong with it.
    async fn read_manifest(
        &self,
        cluster: ClusterId,
        id: BackupId,
    ) -> Result<Result<(BackupId, Manifest), BackupError>, BackupError> {
        match self.manifest(cluster, &id).await {
            Err(error @ BackupError::Object { .. }) => Ok(Err(error)),
            read => read.map(|manifest| Ok((id, manifest))),
        }
    }

    /// All manifests of a cluster that are whole, and what is wrong with the others.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn manifests(
        &self,
        cluster: ClusterId,
    ) -> Result<(BTreeMap<BackupId, Manifest>, Vec<BackupError>), BackupError> {
        let ids = self.backups(cluster).await?;
        let read = ids.into_iter().map(|id| self.read_manifest(cluster, id).boxed());
        let (mut whole, mut bad) = (BTreeMap::new(), Vec::new());
        for read in Self::together(AT_ONCE, read).await? {
            match read {
                Ok((id, manifest)) => drop(whole.insert(id, manifest)),
                // Removed since it was listed.
                Err(BackupError::Object { fault: Fault::Missing, .. }) => {}
                Err(error) => bad.push(error),
            }
        }
        Ok((whole, bad))
    }

    /// Removes what is not to be kept: first backups, then objects that none of the others needs. Gives how many of each. Where a manifest
    /// cannot be read nothing but backups go: what it needs is not known.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tidy(&self, cluster: ClusterId, keep: Keep, now_ms: u64) -> Result<(usize, usize), BackupError> {
        let (backups, bad) = self.manifests(cluster).await?;
        let listed = self.parts(cluster).await?;
        // Listed behind the manifests: what is not named by one then may be of one to come, and is too young.
        let parts = listed.into_iter().map(|found| (found.object, found.put_ms)).collect();
        let (ids, dead) = removable(&StoreContent { backups, parts }, keep, now_ms);
        let objects: Vec<String> = ids.iter().map(|id| id.object(cluster)).collect();
        self.remove(&objects).await?;
        if !bad.is_empty() {
            return Ok((ids.len(), 0));
        }
        self.remove(&dead).await?;
        Ok((ids.len(), dead.len()))
    }
}
