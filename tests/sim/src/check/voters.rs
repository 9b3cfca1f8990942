//! Changes of the voters from one epoch to the next.

use std::ops::Bound;

use zue_core::quorum::majority;
use zue_core::{Epoch, EpochStart, Offset, ReplicaId};

use super::Checker;
use crate::left::Begun;
use crate::node::process::Process;

impl Checker {
    /// Notes what was committed before there was a leader.
    pub(crate) fn must_hold(&mut self, end: Offset) {
        self.epochs.committed_in.insert(Epoch(0), end);
    }

    /// It all begins with a log that was restored, whose last epoch that is.
    pub(crate) fn begins_behind(&mut self, last: Epoch) {
        self.epochs.from_backup = Some(Begun { replica: None, last });
    }

    pub(crate) fn is_restored_to(&mut self, replica: ReplicaId) {
        self.epochs.from_backup = self.epochs.from_backup.map(|begun| Begun { replica: Some(replica), ..begun });
    }

    /// The first leader of a cluster that begins with a restored log is the one that it was restored to, in an epoch above all of it.
    pub(super) fn begins_with_the_restored(&mut self, replica: ReplicaId, epoch: Epoch) {
        let Some(Begun { replica: Some(restored), last }) = self.epochs.from_backup else { return };
        let is_first = self.epochs.leaders.keys().next() == Some(&epoch);
        self.ensure(!is_first || replica == restored, || format!("{replica:?} leads first, {restored:?} was restored"));
        self.ensure(epoch > last, || format!("epoch {epoch} begins behind epoch {last} of a restored log"));
    }

    /// Returns whether it is in the first epoch behind a restored log.
    pub(super) fn is_first(&self, process: &Process) -> bool {
        let before = process.replica().history().starts().iter().rev().nth(1);
        self.epochs.from_backup.zip(before).is_some_and(|(begun, before)| before.epoch <= begun.last)
    }

    /// Voters change only from settled ones: a majority of those, and of the ones before them, has said that it holds their start.
    pub(super) fn begins_from_settled(&mut self, starts: &[EpochStart]) {
        let [.., before, now] = starts else { return };
        if self.epochs.from_backup.is_some_and(|begun| before.epoch <= begun.last) {
            return; // Those are of another cluster.
        }
        // One that is not settled may go on under a leader that does not hold it: it was not a voter of those it would have removed.
        let goes_on = |(_, start): (&Epoch, &EpochStart)| {
            start.voters == now.voters && start.old_voters == now.old_voters && now.old_voters.is_some()
        };
        let between = (Bound::Excluded(before.epoch), Bound::Excluded(now.epoch));
        if before.voters == now.voters || self.epochs.begun.range(between).any(goes_on) {
            return;
        }
        for voters in std::iter::once(&before.voters).chain(&before.old_voters) {
            let had = voters.iter().filter(|id| self.epochs.holds.contains(&(**id, before.epoch))).count();
            let (needed, epochs) = (majority(voters.len()), (before.epoch, now.epoch));
            let what =
                || format!("the voters of epoch {} change in {}, held by {had}, not {needed}", epochs.0, epochs.1);
            self.ensure(had >= needed, what);
        }
    }
}
