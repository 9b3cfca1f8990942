//! The state that a replica starts with, and whether that makes it a member of a cluster.

use crate::producers::Producers;
use crate::types::history::{EpochStart, History};
use crate::types::incarnations::KnownStarts;
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

/// The limits a replica keeps to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// When a follower is in sync and in reach.
    pub sync: SyncLimits,
    /// The number of appends that may wait for their commit.
    pub waiting_max: usize,
    /// The number of reads that may wait to be confirmed.
    pub reads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sync: SyncLimits::default(), waiting_max: 16 * 1024, reads_max: 1024 }
    }
}

/// The promise: no epoch below, and in that epoch no other leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promise {
    /// The lowest epoch that may still be followed.
    pub epoch: Epoch,
    /// The only leader to follow in it, once known.
    pub leader: Option<ReplicaId>,
}

impl Promise {
    /// Returns whether another may follow this one: epochs never fall, and one that is bound to a leader stays so.
    pub(crate) fn allows(self, next: Self) -> bool {
        next.epoch > self.epoch || (next.epoch == self.epoch && (self.leader.is_none() || self.leader == next.leader))
    }

    /// Returns whether a replica that names a cluster is of it, with `last` as its newest epoch start. A cluster begins with an epoch
    /// start: one that was only named, by an appointment that died, binds nobody. That is so of a replica that holds none; and of a
    /// restored one that was to lead a later epoch than the restored log has: nobody is appointed by the terms of a log that does not name
    /// it.
    pub fn binds(&self, replica: ReplicaId, last: Option<&EpochStart>) -> bool {
        let is_to_lead = |last: &EpochStart| self.leader == Some(replica) && self.epoch > last.epoch;
        last.is_some_and(|last| !is_to_lead(last) || last.names(replica))
    }
}

/// The state that a replica finds on its disk when it starts.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Its identity.
    pub id: ReplicaId,
    /// Its cluster; none before its first epoch.
    pub cluster: Option<ClusterId>,
    /// Its promise.
    pub promise: Promise,
    /// The epoch starts in its log.
    pub history: History,
    /// The end of its log, all of it durable.
    pub log: Tail,
    /// The commit end, as it knew it; at most the log's end.
    pub commit_end: Offset,
    /// The start of its log; at most that.
    pub log_start: Offset,
    /// The appends of the producers.
    pub producers: Producers,
    /// The tail at which its log may have ended before the disk lost or damaged a part of it.
    pub suspect: Option<Tail>,
    /// True if records within its log are damaged.
    pub damaged: bool,
    /// The starts that it knows of.
    pub starts: KnownStarts,
    /// True if it was found to be restored from a copy.
    pub restored: bool,
}

/// When a follower counts as in sync, and when as in reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncLimits {
    /// A follower that holds the epoch's start and is at most this many records behind is in sync, while its disk gets on...
    pub lag_records_max: u64,
    /// ...and if these records are at most this many bytes: few of them may be much.
    pub lag_bytes_max: u64,
    /// So is one that was caught up within this time; not heard from for as long, it is neither in sync nor in reach.
    pub lag_ms_max: u64,
}

impl Default for SyncLimits {
    fn default() -> Self {
        Self { lag_records_max: 1000, lag_bytes_max: 16 << 20, lag_ms_max: 2000 }
    }
}
