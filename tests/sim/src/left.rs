//! Runs that begin with what an earlier cluster has left: its log up to some place, restored to the disk of one machine. All other disks
//! are empty, and some of the earlier producers try again what they appended last.

mod acts;

use std::collections::BTreeMap;

use zue_core::{Epoch, Offset, Origin, ProducerId, ProducerLimits, ReplicaId};

use crate::batch::{Batch, Record};
use crate::disk::{Storage, Work};

/// The course of runs that began with a restored log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FromBackup {
    /// Their number.
    pub runs: u64,
    /// The number of times that the restored replica started again before its first epoch start was durable.
    pub restarts: u64,
    /// The number of times that its appointment had died with it.
    pub died: u64,
    /// Appends from before that were tried again, and known.
    pub known: u64,
}

impl FromBackup {
    pub(crate) fn add(&mut self, more: &Self) {
        let Self { runs, restarts, died, known } = *more;
        self.runs += runs;
        self.restarts += restarts;
        self.died += died;
        self.known += known;
    }
}

/// The log that an earlier cluster has left.
#[derive(Debug)]
pub(crate) struct Left {
    /// Every record up to the place, also those that were trimmed.
    records: Vec<Record>,
    /// The start of the log, if it was trimmed.
    origin: Option<Origin>,
    batches: Vec<Batch>,
    /// The last append of each producer.
    appends: BTreeMap<ProducerId, (u64, u32)>,
    /// When.
    at: u64,
}

impl Left {
    /// The offset at which it ends.
    pub(crate) fn end(&self) -> Offset {
        Offset(u64::try_from(self.records.len()).unwrap_or(u64::MAX))
    }

    fn last(&self) -> Epoch {
        self.batches
            .last()
            .map_or_else(|| self.origin.as_ref().map_or(Epoch(0), |o| o.tail().epoch), |b| b.tail().epoch)
    }

    /// Puts it on an empty disk, as a restore does: with an id of its own, of no cluster.
    fn restore(&self, storage: &mut Storage, limits: ProducerLimits) {
        let opened = storage.open(limits, None);
        assert!(opened.is_ok(), "an empty disk opens");
        let origin = self.origin.clone().map(|origin| Work::Reset(Box::new(origin)));
        let log_start = self.origin.as_ref().map(|origin| Work::Trim(origin.at));
        let promise = Work::Promise { epoch: self.last(), leader: None, cluster: None };
        let batches = self.batches.iter().cloned().map(Work::Write);
        for work in origin.into_iter().chain(log_start).chain(batches) {
            assert!(storage.write(&work).is_ok(), "a disk without faults takes what was left");
        }
        storage.note_commit(self.end());
        assert!(storage.sync().is_ok() && storage.write(&promise).is_ok(), "a disk without faults syncs");
        storage.stop(None);
    }
}

/// Whom a restored log was put to, and what it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) replica: Option<ReplicaId>,
    /// The last epoch of the earlier cluster.
    pub(crate) last: Epoch,
}
