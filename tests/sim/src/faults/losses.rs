//! Losses by faults, and so what may be lost: records that no voter need hold any more, and a majority. Whatever is not named here
//! must be there in the end.

mod acts;

use std::collections::{BTreeMap, BTreeSet};

use zue_core::quorum::majority;
use zue_core::{EpochStart, Offset, ReplicaId};

/// Records, from one offset to another.
pub(crate) type Range = (Offset, Offset);

const ALL: Range = (Offset(0), Offset(u64::MAX));

/// The parts of what replicas held that faults have taken.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Disks are lost and damaged however many are already.
    reckless: bool,
    /// Whose disk was emptied, or put back to an old copy.
    gone: BTreeSet<ReplicaId>,
    /// The damage to a disk since it was whole.
    damaged: BTreeMap<ReplicaId, Vec<Range>>,
    /// Up to where a replica has durably held what was committed.
    held: BTreeMap<ReplicaId, Offset>,
    /// The end up to which a replica has called records committed.
    committed: BTreeMap<ReplicaId, Offset>,
    /// The newest epoch start whose leader has committed anything.
    newest: Option<EpochStart>,
}

impl Losses {
    pub(crate) fn new(reckless: bool) -> Self {
        Self { reckless, ..Self::default() }
    }

    pub(crate) fn lose(&mut self, replica: ReplicaId) {
        self.gone.insert(replica);
        self.mend(replica);
    }

    pub(crate) fn damage(&mut self, replica: ReplicaId, ranges: Vec<Range>) {
        self.damaged.entry(replica).or_default().extend(ranges);
    }

    /// Its disk is whole again.
    pub(crate) fn mend(&mut self, replica: ReplicaId) {
        self.damaged.remove(&replica);
    }

    fn holds(&mut self, replica: ReplicaId, end: Offset) {
        let held = self.held.entry(replica).or_default();
        *held = end.max(*held);
    }

    /// Returns whether it holds records that are committed, and nothing of its disk was hurt.
    pub(crate) fn remembers(&self, replica: ReplicaId) -> bool {
        self.taken(replica).is_empty() && self.held.get(&replica).is_some_and(|end| *end > Offset(0))
    }

    /// Returns whether too few of those that the epoch start asks have kept their disk, or know all that they may have acknowledged, to
    /// elect or to commit.
    fn lacks_majority(&self, start: &EpochStart) -> bool {
        let is_sure = |id: &&ReplicaId| !self.taken(**id).iter().any(|(_, end)| *end == ALL.1);
        let left = |voters: &[ReplicaId]| voters.iter().filter(is_sure).count();
        let quorum = usize::try_from(start.quorum).unwrap_or(usize::MAX);
        left(&start.voters) < majority(start.voters.len()).max(quorum)
            || start.old_voters.as_ref().is_some_and(|old| left(old) < majority(old.len()))
    }

    /// The ranges that were taken from a disk.
    fn taken(&self, replica: ReplicaId) -> &[Range] {
        let all: &[Range] = &[ALL];
        if self.gone.contains(&replica) { all } else { self.damaged.get(&replica).map_or(&[], Vec::as_slice) }
    }

    /// Returns whether no voter need hold the committed record any more: each that did has lost it.
    fn may_lack(&self, start: &EpochStart, record: Offset) -> bool {
        let is_kept = |id: &ReplicaId| {
            let held = self.held.get(id).is_some_and(|end| record < *end);
            held && !is_in(self.taken(*id), record)
        };
        !start.voters.iter().chain(start.old_voters.iter().flatten()).any(is_kept)
    }
}

fn is_in(ranges: &[Range], record: Offset) -> bool {
    ranges.iter().any(|(from, end)| (*from..*end).contains(&record))
}
