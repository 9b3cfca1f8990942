//! The meta file: who the replica is and what it has promised. Replaced as a whole, so that it is the old one or the new one.

use std::io;

use zue_core::{ClusterId, Epoch, LINEAGE_MAX, Lineage, Offset, Promise, RUNS_MAX, ReplicaId, Run, Runs, Tail};

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, HeaderFault, LogError, OpenError, Operation};
use crate::format::block;
use crate::num::wide;

pub(crate) const META_FILE: &str = "meta";
/// The next meta file. It is made ahead, so that a promise needs no room on a full disk.
pub(crate) const META_SPARE: &str = "meta.next";

const MAGIC: [u8; 8] = *b"ZUE-MET\n";
pub(crate) const META_BYTES: usize = 1024;
const FLAG_CLUSTER: u32 = 1;
const FLAG_LEADER: u32 = 2;
const FLAG_CLEAN: u32 = 4;
const FLAG_LAZY: u32 = 8;
const FLAG_SUSPECT: u32 = 16;
const FLAG_RESTORED: u32 = 32;
const FLAGS: u32 = FLAG_CLUSTER | FLAG_LEADER | FLAG_CLEAN | FLAG_LAZY | FLAG_SUSPECT | FLAG_RESTORED;
/// Stands where no replica is known.
const NONE: (ReplicaId, Run) = (ReplicaId(0), Run { starts: 0, nonce: 0 });

/// A replica's durable knowledge of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Its identity.
    pub replica: ReplicaId,
    /// The cluster it is of, once it is of one.
    pub cluster: Option<ClusterId>,
    /// The times that the log was opened.
    pub starts: Starts,
    /// The starts of other replicas that this one has heard of; behind the last one `NONE`.
    pub(crate) runs: [(ReplicaId, Run); RUNS_MAX],
    /// This disk was found to be restored from a copy.
    pub restored: bool,
    /// Its promise. Invariant: the epoch never falls, and one epoch has one leader.
    pub promise: Promise,
    /// Everything before this is committed and durable; more may be. Never falls.
    pub commit_end: Offset,
    /// The offset before which all is trimmed: it is not read any more, and may be gone. Never falls, and is at most the commit end.
    pub log_start: Offset,
    /// The tail at which the log may have ended before the disk lost or damaged a part of it: up to there it may have acknowledged what it
    /// does not hold. None once it holds as much again.
    pub suspect: Option<Tail>,
    /// Of the records before this, only the newest of each key are left.
    pub(crate) compacted: Offset,
    /// The durable part of the log when this was written.
    pub(crate) synced: Synced,
    /// Its last session.
    pub(crate) last_use: LastUse,
}

/// The times that a log was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Starts {
    /// The number.
    pub count: u64,
    /// The random numbers of the last starts, newest first: a copy of this disk would draw other numbers. 0 before the first.
    pub(crate) nonces: [u64; LINEAGE_MAX],
}

/// The part of the log that is known to be on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Synced {
    /// The active segment. A cut makes another, and what is said of this one no longer counts.
    pub(crate) sequence: u64,
    pub(crate) tail: Tail,
}

/// The use of a log since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastUse {
    /// The boot of the machine.
    pub(crate) boot: u128,
    /// Acknowledgements did not wait for the disk.
    pub(crate) lazy: bool,
    /// It was closed; not so while it is open, and after a crash.
    pub(crate) clean: bool,
}

impl Meta {
    /// Of a replica that has nothing yet.
    pub(crate) fn new(replica: ReplicaId, last_use: LastUse) -> Self {
        let (promise, synced) = (Promise::default(), Synced::default());
        Self {
            replica,
            cluster: None,
            starts: Starts::default(),
            runs: [NONE; RUNS_MAX],
            restored: false,
            promise,
            commit_end: Offset(0),
            log_start: Offset(0),
            suspect: None,
            compacted: Offset(0),
            synced,
            last_use,
        }
    }

    pub(crate) fn encode(&self) -> [u8; META_BYTES] {
        let Self { replica, cluster, starts: Starts { count, nonces }, promise, .. } = *self;
        let Promise { epoch, leader } = promise;
        let Self { commit_end, log_start, suspect, compacted, synced, last_use: LastUse { boot, lazy, clean }, .. } =
            *self;
        let Self { runs, restored, .. } = *self;
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(cluster.is_some(), FLAG_CLUSTER)
            | flag(leader.is_some(), FLAG_LEADER)
            | flag(clean, FLAG_CLEAN)
            | flag(lazy, FLAG_LAZY)
            | flag(suspect.is_some(), FLAG_SUSPECT)
            | flag(restored, FLAG_RESTORED);
        let (suspect, Synced { sequence, tail }) = (suspect.unwrap_or_default(), synced);
        let ids = [replica.0, cluster.map_or(0, |id| id.0), leader.map_or(0, |id| id.0), boot];
        let words = [
            count,
            epoch.0,
            commit_end.0,
            sequence,
            tail.epoch.0,
            tail.end.0,
            suspect.epoch.0,
            suspect.end.0,
            compacted.0,
            log_start.0,
        ];
        let runs = runs.map(|(id, run)| {
            [id.0.to_le_bytes().as_slice(), &run.starts.to_le_bytes(), &run.nonce.to_le_bytes()].concat()
        });
        let (nonces, words) = (nonces.map(u64::to_le_bytes).concat(), words.map(u64::to_le_bytes).concat());
        let fields = [ids.map(u128::to_le_bytes).concat(), words, nonces, runs.concat()].concat();
        let bytes = block::encode(MAGIC, flags, &fields);
        debug_assert_eq!(Self::decode(&bytes), Ok(*self), "a meta file that says something else");
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let (flags, mut fields) = block::decode::<META_BYTES>(bytes, MAGIC, FLAGS)?;
        let has = |flag| flags & flag != 0;
        let mut parse = || {
            let (replica, cluster, leader) = (fields.u128()?, fields.u128()?, fields.u128()?);
            let (boot, count, epoch, commit_end) = (fields.u128()?, fields.u64()?, fields.u64()?, fields.u64()?);
            let sequence = fields.u64()?;
            let mut tail = || Some(Tail { epoch: Epoch(fields.u64()?), end: Offset(fields.u64()?) });
            let (synced, suspect) = (Synced { sequence, tail: tail()? }, tail()?);
            let (compacted, log_start) = (Offset(fields.u64()?), Offset(fields.u64()?));
            let (mut nonces, mut runs) = ([0; LINEAGE_MAX], [NONE; RUNS_MAX]);
            for nonce in &mut nonces {
                *nonce = fields.u64()?;
            }
            for run in &mut runs {
                let id = ReplicaId(fields.u128()?);
                *run = (id, Run { starts: fields.u64()?, nonce: fields.u64()? });
            }
            Some(Self {
                replica: ReplicaId(replica),
                cluster: has(FLAG_CLUSTER).then_some(ClusterId(cluster)),
                starts: Starts { count, nonces },
                runs,
                restored: has(FLAG_RESTORED),
                promise: Promise { epoch: Epoch(epoch), leader: has(FLAG_LEADER).then_some(ReplicaId(leader)) },
                commit_end: Offset(commit_end),
                log_start,
                suspect: has(FLAG_SUSPECT).then_some(suspect),
                compacted,
                synced,
                last_use: LastUse { boot, lazy: has(FLAG_LAZY), clean: has(FLAG_CLEAN) },
            })
        };
        parse().ok_or(HeaderFault::Short)
    }

    /// Of the records before this, only the newest of each key are left.
    pub fn compacted(&self) -> Offset {
        self.compacted
    }

    /// The starts of this disk.
    pub fn lineage(&self) -> Lineage {
        let Starts { count, nonces } = self.starts;
        let known = usize::try_from(count).unwrap_or(usize::MAX);
        Lineage { starts: count, nonces: nonces.iter().copied().take(known).collect() }
    }

    /// The starts of other replicas that this one has heard of.
    pub fn runs(&self) -> Runs {
        self.runs.iter().copied().filter(|run| *run != NONE).collect()
    }

    /// The meta with one more start.
    pub(crate) fn started(&self, nonce: u64) -> Self {
        let Starts { count, mut nonces } = self.starts;
        nonces.rotate_right(1);
        if let Some(newest) = nonces.first_mut() {
            *newest = nonce;
        }
        let starts = Starts { count: count.saturating_add(1), nonces };
        assert!(starts.count > count, "a start is not told from the one before");
        Self { starts, ..*self }
    }

    /// The meta with these starts of others.
    pub(crate) fn with_runs(&self, runs: &Runs) -> Self {
        let mut all = [NONE; RUNS_MAX];
        debug_assert!(runs.iter().count() <= RUNS_MAX, "more starts are known than are written down");
        all.iter_mut().zip(runs.iter()).for_each(|(place, run)| *place = run);
        Self { runs: all, ..*self }
    }

    /// The meta with a promise and a cluster added.
    pub(crate) fn promise(
        &self,
        epoch: Epoch,
        leader: Option<ReplicaId>,
        cluster: Option<ClusterId>,
    ) -> Result<Self, LogError> {
        let Promise { epoch: promised, leader: bound } = self.promise;
        let rebound = epoch == promised && leader.is_some() && bound.is_some() && leader != bound;
        if epoch < promised || rebound {
            return Err(LogError::Promised { epoch, leader, promised, bound });
        }
        if let (Some(held), Some(asked)) = (self.cluster, cluster)
            && held != asked
        {
            return Err(LogError::OtherCluster { held, asked });
        }
        let leader = if epoch == promised { leader.or(bound) } else { leader };
        assert!(epoch >= promised, "a promise fell");
        assert!(epoch > promised || bound.is_none() || leader == bound, "an epoch is promised to two leaders");
        Ok(Self { promise: Promise { epoch, leader }, cluster: cluster.or(self.cluster), ..*self })
    }
}

/// Why the meta file was not replaced.
pub(crate) enum NotReplaced {
    NoRoom(DiskError),
    Disk(DiskError),
}

impl From<NotReplaced> for OpenError {
    fn from(error: NotReplaced) -> Self {
        match error {
            NotReplaced::NoRoom(error) | NotReplaced::Disk(error) => Self::Disk(error),
        }
    }
}

/// The meta file and its spare: they exchange their names, so that a promise needs no room.
#[derive(Debug)]
pub(crate) struct MetaFile<D: Disk> {
    disk: D,
    file: Option<D::File>,
    spare: Option<D::File>,
}

impl<D: Disk> MetaFile<D> {
    pub(crate) fn new(disk: D) -> Self {
        let long_enough = |file: &D::File| file.len().is_ok_and(|bytes| bytes >= wide(META_BYTES));
        let file = disk.open(META_FILE).ok();
        let spare = disk.open(META_SPARE).ok().filter(long_enough);
        Self { disk, file, spare }
    }

    /// Replaces the meta file, durably. Without room the old one is there, after another failure either.
    pub(crate) fn replace(&mut self, meta: &Meta) -> Result<(), NotReplaced> {
        let path = || self.disk.path(META_SPARE);
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => make_spare(&self.disk).map_err(NotReplaced::NoRoom)?,
        };
        let put = || {
            spare.write_at(0, &meta.encode()).context(Operation::Write, path)?;
            spare.sync_data().context(Operation::Sync, path)?;
            let exchanged = self.file.is_some() && self.disk.exchange(META_SPARE, META_FILE).is_ok();
            if !exchanged {
                // There is none yet, or the file system cannot exchange names.
                self.disk.rename(META_SPARE, META_FILE).context(Operation::Rename, path)?;
            }
            self.disk.sync_dir().context(Operation::Sync, || self.disk.path(""))?;
            Ok::<_, DiskError>(exchanged)
        };
        let exchanged = match put() {
            Ok(exchanged) => exchanged,
            Err(error) if error.is_no_room_for_name() => {
                self.spare = Some(spare);
                return Err(NotReplaced::NoRoom(error));
            }
            Err(error) => return Err(NotReplaced::Disk(error)),
        };
        let before = self.file.replace(spare);
        // Without a spare, the next replacement needs room.
        self.spare = if exchanged { before } else { make_spare(&self.disk).ok() };
        Ok(())
    }
}

fn make_spare<D: Disk>(disk: &D) -> Result<D::File, DiskError> {
    let spare = disk.create(META_SPARE).context(Operation::Create, || disk.path(META_SPARE))?;
    spare.allocate(wide(META_BYTES)).context(Operation::Allocate, || disk.path(META_SPARE))?;
    Ok(spare)
}

/// Reads the meta file; `None` if there is none.
pub(crate) fn read<D: Disk>(disk: &D) -> Result<Option<Result<Meta, HeaderFault>>, DiskError> {
    let path = || disk.path(META_FILE);
    let file = match disk.open(META_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.context(Operation::Open, path)?,
    };
    // However long it claims to be: nothing of it lies behind.
    let bytes = file.len().and_then(|bytes| file.read(0..bytes.min(wide(META_BYTES))));
    let bytes = bytes.context(Operation::Read, path)?;
    Ok(Some(Meta::decode(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn a_meta_file_that_has_no_room_for_its_name_keeps_its_spare() {
        let disk = SimDisk::new(1);
        let mut file = MetaFile::new(disk.clone());
        let meta = Meta::new(ReplicaId(1), LastUse { boot: 1, lazy: false, clean: false });
        // It is created, reserved, written, synced, renamed.
        disk.fail_at(4, io::ErrorKind::StorageFull);
        assert!(matches!(file.replace(&meta), Err(NotReplaced::NoRoom(_))));
        disk.set_room(Some(0));
        assert!(file.replace(&meta).is_ok());
        assert!(matches!(read(&disk), Ok(Some(Ok(_)))));
    }
}
