//! Epoch starts, and where two histories part. Knows nothing of who asks.

use alloc::vec::Vec;

use crate::producers::Producers;
use crate::types::{Epoch, Offset, ReplicaId, Tail};

/// The largest number of voters.
pub const VOTERS_MAX: usize = 9;

/// The start of an epoch, a frame of the log that takes no offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch that starts.
    pub epoch: Epoch,
    /// The offset at which it starts: the leader's log end when it was appointed.
    pub start: Offset,
    /// Its leader.
    pub leader: ReplicaId,
    /// The voters: they count for commits and elections; never empty.
    pub voters: Vec<ReplicaId>,
    /// The number of voters that must hold a record before it is committed; more than half of them.
    pub quorum: u32,
    /// The voters before, while a change of voters is unsettled.
    pub old_voters: Option<Vec<ReplicaId>>,
}

impl EpochStart {
    /// The fault in this epoch start, if anything.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check(&self) -> Result<(), &'static str> {
        let count = self.voters.len();
        let distinct =
            |ids: &[ReplicaId]| ids.iter().enumerate().all(|(n, id)| !ids.iter().skip(n + 1).any(|x| x == id));
        let quorum = usize::try_from(self.quorum).unwrap_or(usize::MAX);
        match () {
            () if self.epoch == Epoch(0) => Err("epoch 0 is before the first"),
            () if count == 0 => Err("it has no voters"),
            () if count > VOTERS_MAX => Err("it has too many voters"),
            () if !distinct(&self.voters) => Err("a voter is named twice"),
            () if !self.voters.contains(&self.leader) => Err("its leader is no voter"),
            () if quorum <= count / 2 || quorum > count => {
                Err("its quorum is not more than half and at most all of the voters")
            }
            () if self
                .old_voters
                .as_ref()
                .is_some_and(|old| old.is_empty() || old.len() > VOTERS_MAX || !distinct(old)) =>
            {
                Err("its old voters are none, too many, or named twice")
            }
            () => Ok(()),
        }
    }

    /// Those of whom a majority each elects: the voters, and the voters before while a change is unsettled.
    pub fn electorates(&self) -> impl Iterator<Item = &Vec<ReplicaId>> + Clone {
        core::iter::once(&self.voters).chain(&self.old_voters)
    }

    /// Returns whether a replica is one of them.
    pub fn elects(&self, id: ReplicaId) -> bool {
        self.electorates().flatten().any(|elector| *elector == id)
    }

    /// Returns whether its voters follow from those of the epoch start before it in a log, as any choice of a leader has them: the same, or
    /// one more or less with the ones before as old voters, or those that a change was made from. A change that was not settled may be
    /// carried on from a log that does not hold its start, and so one step further is allowed.
    pub fn follows(&self, before: &Self) -> bool {
        let is_base = |voters: &Vec<ReplicaId>| before.electorates().any(|base| difference(base, voters) == 0);
        match &self.old_voters {
            None => is_base(&self.voters),
            Some(old) => {
                let is_carried_on = before.old_voters.as_ref().is_some_and(|before| difference(before, old) == 0)
                    && difference(&before.voters, &self.voters) == 0;
                is_carried_on || (difference(old, &self.voters) == 1 && (is_base(old) || is_base(&self.voters)))
            }
        }
    }

    /// Returns whether it names the replica: as its leader, a voter, or one of those before.
    pub fn names(&self, replica: ReplicaId) -> bool {
        self.leader == replica
            || self.voters.contains(&replica)
            || self.old_voters.iter().flatten().any(|old| *old == replica)
    }
}

/// The number of replicas that are in one and not in the other.
fn difference(a: &[ReplicaId], b: &[ReplicaId]) -> usize {
    let without = |a: &[ReplicaId], b: &[ReplicaId]| a.iter().filter(|id| !b.contains(id)).count();
    without(a, b) + without(b, a)
}

/// The epoch starts that a log holds, in log order: epochs strictly rise, start offsets never fall.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History(Vec<EpochStart>);

/// An epoch start that cannot follow the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("epoch {epoch} at offset {start} cannot follow epoch {last_epoch} at offset {last_start}")]
pub struct OutOfOrder {
    /// The refused epoch.
    pub epoch: Epoch,
    /// The offset at which it would have started.
    pub start: Offset,
    /// The last epoch held.
    pub last_epoch: Epoch,
    /// The offset at which that one starts.
    pub last_start: Offset,
}

impl History {
    /// A history of the given starts.
    ///
    /// # Errors
    /// The first start that is out of order.
    pub fn new(starts: Vec<EpochStart>) -> Result<Self, OutOfOrder> {
        let mut history = Self::default();
        for start in starts {
            history.push(start)?;
        }
        Ok(history)
    }

    /// Adds an epoch start at the end.
    ///
    /// # Errors
    /// When its epoch is not greater, or its start lies before the last one's.
    pub fn push(&mut self, next: EpochStart) -> Result<(), OutOfOrder> {
        let (last_epoch, last_start) = self.last().map_or_else(Default::default, |last| (last.epoch, last.start));
        if next.epoch <= last_epoch || next.start < last_start {
            return Err(OutOfOrder { epoch: next.epoch, start: next.start, last_epoch, last_start });
        }
        self.0.push(next);
        debug_assert!(self.0.is_sorted_by(|a, b| a.epoch < b.epoch && a.start <= b.start), "a history is out of order");
        Ok(())
    }

    /// The newest epoch start.
    pub fn last(&self) -> Option<&EpochStart> {
        self.0.last()
    }

    /// The newest epoch; 0 before the first.
    pub fn last_epoch(&self) -> Epoch {
        self.last().map_or(Epoch(0), |last| last.epoch)
    }

    /// All epoch starts, oldest first.
    pub fn starts(&self) -> &[EpochStart] {
        &self.0
    }

    /// The number of epoch starts.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether one of them names the replica.
    pub fn names(&self, replica: ReplicaId) -> bool {
        self.0.iter().any(|start| start.names(replica))
    }

    /// Returns whether an epoch start behind these begins a new cluster with a log that was restored: it names nobody that the log names,
    /// as a replica that is restored has a new id, and so has each that is blank. And it has the restored one as the voters before: until
    /// enough of the others hold the log, nobody is elected without it.
    pub fn is_left_by(&self, next: &EpochStart) -> bool {
        let restored = core::slice::from_ref(&next.leader);
        let is_asked = next.voters == restored || next.old_voters.as_deref() == Some(restored);
        is_asked && !next.voters.iter().any(|voter| self.names(*voter))
    }

    /// Keeps the epoch starts up to that epoch.
    pub fn cut(&mut self, last: Epoch) {
        self.0.truncate(self.0.partition_point(|start| start.epoch <= last));
        debug_assert!(self.last_epoch() <= last, "a cut has left a later epoch");
    }

    /// Forgets what a log that begins at `log_start` does not need: keeps the epoch start that the last record before it was
    /// appended in, and all later ones. As that record is committed, every later leader has that epoch start.
    pub fn trim(&mut self, log_start: Offset) {
        let (begun, last) = (self.0.partition_point(|start| start.start < log_start), self.last_epoch());
        self.0.drain(..begun.saturating_sub(1));
        debug_assert_eq!(self.last_epoch(), last, "a trim has taken the newest epoch start");
        debug_assert!(
            self.0.get(1).is_none_or(|second| second.start >= log_start),
            "a trim has left what is not needed"
        );
    }

    /// The newest epoch start that a log prefix with last epoch `epoch` holds.
    pub fn at(&self, epoch: Epoch) -> Option<&EpochStart> {
        self.0.iter().rev().find(|start| start.epoch == epoch)
    }

    /// The longest prefix that this log and another share. None if they share no epoch start: then it is the empty log, or, where
    /// one of them was trimmed, not known.
    pub fn common(&self, end: Offset, other: &Self, other_end: Offset) -> Option<Tail> {
        // What a trimmed log has forgotten, it shares: both hold the first epoch start that it has kept, or they share none.
        let first = self.first_epoch().max(other.first_epoch());
        let (ours, theirs) = (self.since(first), other.since(first));
        let depth = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
        let epoch = ours.get(depth.checked_sub(1)?)?.epoch;
        let end_of_shared = |starts: &[EpochStart], end| starts.get(depth).map_or(end, |next| next.start);
        debug_assert!(
            self.at(epoch).is_some_and(|shared| other.at(epoch) == Some(shared)),
            "an epoch start is not shared"
        );
        Some(Tail { epoch, end: end_of_shared(ours, end).min(end_of_shared(theirs, other_end)) })
    }

    fn first_epoch(&self) -> Epoch {
        self.0.first().map_or(Epoch(0), |first| first.epoch)
    }

    fn since(&self, first: Epoch) -> &[EpochStart] {
        self.0.split_at(self.0.partition_point(|start| start.epoch < first)).1
    }
}

/// The beginning of a log that lacks what lies before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The first offset there is.
    pub at: Offset,
    /// The epoch starts before it, from the one on that the last record before it was appended in.
    pub history: History,
    /// The timestamp of that record, in milliseconds since the Unix epoch; 0 if it is not known.
    pub timestamp_ms: u64,
    /// The appends of the producers before it.
    pub producers: Producers,
}

impl Origin {
    /// The tail of a log that holds nothing more.
    pub fn tail(&self) -> Tail {
        Tail { epoch: self.history.last_epoch(), end: self.at }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn start(voters: &[u128], old_voters: Option<&[u128]>) -> EpochStart {
        let ids = |ids: &[u128]| ids.iter().copied().map(ReplicaId).collect::<Vec<_>>();
        let (epoch, start, leader) = (Epoch(1), Offset(0), ReplicaId(1));
        EpochStart { epoch, start, leader, voters: ids(voters), quorum: 2, old_voters: old_voters.map(ids) }
    }

    #[test]
    fn voters_change_by_one_from_those_before_and_by_nothing_else() {
        let three = start(&[1, 2, 3], None);
        let growing = start(&[1, 2, 3, 4], Some(&[1, 2, 3]));
        let follow = |before: &EpochStart, voters: &[u128], old: Option<&[u128]>| start(voters, old).follows(before);
        assert!(follow(&three, &[3, 1, 2], None));
        assert!(follow(&three, &[1, 2, 3, 4], Some(&[1, 2, 3])) && follow(&three, &[1, 2], Some(&[1, 2, 3])));
        for voters in [vec![1], vec![1, 2], vec![1, 2, 3, 4], vec![9], vec![1, 2, 9]] {
            assert!(!follow(&three, &voters, None), "{voters:?}");
        }
        assert!(!follow(&three, &[1, 2, 3, 4, 5], Some(&[1, 2, 3])), "two at once");
        assert!(!follow(&three, &[1, 2, 9], Some(&[1, 2, 3])), "one for another");
        // It goes on, is settled, is changed further, or was never known to the leader.
        assert!(follow(&growing, &[1, 2, 3, 4], Some(&[1, 2, 3])) && follow(&growing, &[1, 2, 3, 4], None));
        assert!(follow(&growing, &[1, 3, 4], Some(&[1, 2, 3, 4])));
        assert!(follow(&growing, &[1, 2, 3], None) && follow(&growing, &[1, 2, 3, 5], Some(&[1, 2, 3])));
        assert!(!follow(&growing, &[4, 5], Some(&[4])) && !follow(&growing, &[4], None));
    }
}
