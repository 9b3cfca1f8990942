//! How the voters may change from one epoch to the next.

use std::ops::Bound;

use zue_core::quorum::majority;
use zue_core::{Epoch, EpochStart};

use super::Checker;

impl Checker {
    /// Voters change only from settled ones: a majority of those, and of the ones before them, has said that it holds their start.
    pub(super) fn begins_from_settled(&mut self, starts: &[EpochStart]) {
        let [.., before, now] = starts else { return };
        // One that is not settled may go on under a leader that does not hold it: it was not a voter of those it would have removed.
        let goes_on = |(_, start): (&Epoch, &EpochStart)| {
            start.voters == now.voters && start.old_voters == now.old_voters && now.old_voters.is_some()
        };
        let between = (Bound::Excluded(before.epoch), Bound::Excluded(now.epoch));
        if before.voters == now.voters || self.begun.range(between).any(goes_on) {
            return;
        }
        for voters in std::iter::once(&before.voters).chain(&before.old_voters) {
            let had = voters.iter().filter(|id| self.holds.contains(&(**id, before.epoch))).count();
            let (needed, epochs) = (majority(voters.len()), (before.epoch, now.epoch));
            let what =
                || format!("the voters of epoch {} change in {}, held by {had}, not {needed}", epochs.0, epochs.1);
            self.ensure(had >= needed, what);
        }
    }
}
