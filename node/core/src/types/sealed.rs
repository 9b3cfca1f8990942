//! A replica's answer to a seal.

use crate::types::history::EpochStart;
use crate::types::incarnations::{Lineage, Runs};
use crate::types::{ClusterId, Offset, ReplicaId, Tail};

/// A replica's answer to a seal: its promise is on disk, and it acknowledges nothing of a lower epoch any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// The replica that answers.
    pub replica: ReplicaId,
    /// The cluster it belongs to; none before its first epoch.
    pub cluster: Option<ClusterId>,
    /// The newest epoch start it holds durably.
    pub last: Option<EpochStart>,
    /// The durable part of the log; covers every acknowledgement it ever sent.
    pub durable: Tail,
    /// The commit end, as it knows it.
    pub commit_end: Offset,
    /// The tail at which its log may have ended before its disk lost or damaged a part of it: up to there it may have acknowledged what it
    /// does not hold any more. Above `durable`; none once it holds as much again.
    pub suspect: Option<Tail>,
    /// Records within its log are damaged. What it holds counts all the same: it may be committed. But it is not to lead while another
    /// holds all that may be: it cannot feed what it cannot read, and does not know who appended it.
    pub damaged: bool,
    /// The starts of its disk.
    pub lineage: Lineage,
    /// The starts of others that it knows of, durably.
    pub runs: Runs,
}

impl Sealed {
    /// Returns whether it holds nothing at all, and never did. A cluster that was named to it without an epoch start counts for nothing:
    /// that appointment died.
    pub fn is_blank(&self) -> bool {
        self.last.is_none() && self.durable == Tail::default() && self.suspect.is_none()
    }

    /// Returns whether it holds a log, and belongs to no cluster: it was restored from a backup.
    pub fn is_seed(&self) -> bool {
        self.cluster.is_none() && (self.last.is_some() || self.durable != Tail::default())
    }

    /// Returns whether it has all that was restored to it.
    pub(crate) fn is_whole(&self) -> bool {
        self.suspect.is_none() && !self.damaged
    }
}
