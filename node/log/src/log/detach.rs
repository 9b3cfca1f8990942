//! A log that leaves its cluster, because a majority of that is gone for good: it becomes the log of a new replica that is of no cluster,
//! like one that was restored, and the next cluster begins with it.

use zue_core::{Promise, ReplicaId, Tail};

use crate::disk::Disk;
use crate::error::LogError;
use crate::log::Log;
use crate::meta::{LastUse, Meta, Synced};

impl<D: Disk> Log<D> {
    /// Makes the log that of a new replica, which is of no cluster and has promised nobody anything, and closes it. All that is there
    /// counts as committed. Nobody knows the new replica: who is of the old cluster neither feeds it nor follows it.
    ///
    /// # Errors
    /// When the disk refuses; it is the old replica's then.
    pub fn detach(mut self, replica: ReplicaId) -> Result<Tail, LogError> {
        self.check_poison()?;
        assert_ne!(replica, self.meta.replica, "the new replica bears the id of the old one");
        self.sync_disk()?;
        self.writer.index.write_all();
        let tail = self.ends.tail;
        let leader = self.history().last().filter(|last| last.epoch == tail.epoch).map(|last| last.leader);
        // Greater than any promise of a log that leads: an epoch of the new cluster is above both.
        let epoch = self.meta.promise.epoch.max(tail.epoch);
        let promise = Promise { epoch, leader: leader.filter(|_| epoch == tail.epoch) };
        let Meta { log_start, compacted, last_use, .. } = self.meta;
        assert_eq!(self.ends.synced, tail, "not all of the log is on the disk");
        let (last_use, synced) = (LastUse { clean: true, ..last_use }, Synced { sequence: self.writer.sequence, tail });
        let own = Meta::new(replica, last_use);
        self.write_meta(&Meta { promise, commit_end: tail.end, log_start, compacted, synced, ..own })?;
        Ok(tail)
    }
}
