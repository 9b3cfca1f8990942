//! Fates of disks, and those who have to do without.

use zue_core::{Epoch, ReplicaId};

use super::Checker;

impl Checker {
    pub(crate) fn electorate(&mut self, voters: &[ReplicaId], quorum: usize) {
        if !self.disks.electorates.iter().any(|(known, _)| known == voters) {
            self.disks.electorates.push((voters.to_vec(), quorum));
        }
    }

    pub(crate) fn electorates(&self) -> impl Iterator<Item = &(Vec<ReplicaId>, usize)> {
        self.disks.electorates.iter()
    }

    pub(crate) fn is_lost(&self, replica: ReplicaId) -> bool {
        self.disks.lost.contains(&replica)
    }

    /// Notes that what it holds may be damaged: electorates have to do without it, although it goes on.
    pub(crate) fn impair(&mut self, replica: ReplicaId) {
        self.disks.lost.insert(replica);
    }

    /// Notes that what it holds is whole again.
    pub(crate) fn mend(&mut self, replica: ReplicaId) {
        if !self.disks.restored.contains(&replica) {
            self.disks.lost.remove(&replica);
        }
    }

    pub(crate) fn lose(&mut self, replica: ReplicaId) {
        self.disks.lost.insert(replica);
        self.claims.replicas.remove(&replica);
    }

    /// Its disk is put back to an old copy: what it has said since binds nobody to believe it.
    pub(crate) fn restore(&mut self, replica: ReplicaId) {
        self.lose(replica);
        self.claims.bound.retain(|(bound, _), _| *bound != replica);
        self.disks.restored.insert(replica);
    }

    /// Its disk forgets all that it has promised beyond an epoch.
    pub(crate) fn forgets(&mut self, replica: ReplicaId, left: Epoch) {
        if let Some(told) = self.claims.replicas.get_mut(&replica) {
            told.sealed = told.sealed.min(left);
        }
    }

    /// Returns whether anybody has led that epoch.
    pub(crate) fn was_led(&self, epoch: Epoch) -> bool {
        self.epochs.leaders.contains_key(&epoch)
    }

    /// A replica says that its disk is an old copy.
    pub(crate) fn found_restored(&mut self, is_restored: bool) {
        self.ensure(is_restored, || "a disk that was never restored is taken for an old copy".to_owned());
    }
}
