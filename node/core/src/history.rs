//! Epoch starts, and where two histories part. Knows nothing of who asks.

use alloc::vec::Vec;

use crate::types::{Epoch, Offset, ReplicaId};

/// How many voters there may be at most.
pub const VOTERS_MAX: usize = 9;

/// The start of an epoch, a frame of the log that takes no offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch that starts.
    pub epoch: Epoch,
    /// The offset at which it starts: the leader's log end when it was appointed.
    pub start: Offset,
    /// Who leads it.
    pub leader: ReplicaId,
    /// Who counts for commits and elections; never empty.
    pub voters: Vec<ReplicaId>,
    /// How many voters must hold a record before it is committed; more than half of them.
    pub quorum: u32,
    /// The voters before, while a change of voters is unsettled.
    pub old_voters: Option<Vec<ReplicaId>>,
}

impl EpochStart {
    /// What is wrong with this epoch start, if anything.
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
    /// Where it would have started.
    pub start: Offset,
    /// The last epoch held.
    pub last_epoch: Epoch,
    /// Where that one starts.
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

    /// How many epoch starts there are.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the first `depth` epoch starts.
    pub fn cut(&mut self, depth: usize) {
        self.0.truncate(depth);
    }

    /// The newest epoch start that a log prefix with last epoch `epoch` holds.
    pub fn at(&self, epoch: Epoch) -> Option<&EpochStart> {
        self.0.iter().rev().find(|start| start.epoch == epoch)
    }

    /// Where this log and another part: how many epoch starts they share, and the end of the records they share.
    pub fn common(&self, end: Offset, other: &Self, other_end: Offset) -> (usize, Offset) {
        let depth = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count();
        if depth == 0 {
            return (0, Offset(0));
        }
        let end_of_shared = |history: &Self, end| history.0.get(depth).map_or(end, |next| next.start);
        (depth, end_of_shared(self, end).min(end_of_shared(other, other_end)))
    }
}
