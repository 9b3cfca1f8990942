//! The work that waits in a replica: for its disk, for a commit, for a majority.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::types::incarnations::Runs;
use crate::types::io::{RequestId, Session};
use crate::types::output::{Output, Reply};
use crate::types::refusal::Refusal;
use crate::types::{Epoch, Offset, Tail};

/// The work that follows once the disk has done its work up to a ticket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Durable(Tail),
    Sealed(RequestId, Epoch),
    Appointed(RequestId, Epoch),
    Started(Session),
    Trimmed(Offset),
    Reset(Offset),
    Noted(Runs),
}

/// An append that waits for its commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Waiting {
    pub(crate) base: Offset,
    pub(crate) count: u32,
    pub(crate) duplicate: bool,
}

/// The reads that wait on a leader.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reads {
    /// Those that came before this epoch had committed anything: what is committed is not known before.
    pub(crate) early: Vec<RequestId>,
    /// By rising rounds: the round that has to be confirmed, who asks, and what was committed before.
    pub(crate) waiting: VecDeque<(u64, RequestId, Offset)>,
    /// By rising rounds: appends of producers that were opened where more was committed than is here, if this replica leads.
    pub(crate) strangers: VecDeque<(u64, RequestId)>,
}

impl Reads {
    pub(crate) fn len(&self) -> usize {
        self.early.len() + self.waiting.len()
    }

    /// Holds the invariants of what waits, as of the newest round. Once the epoch has committed something, nothing is early.
    pub(crate) fn check(&self, round: u64, is_settled: bool) {
        let last = |rounds: Option<u64>| rounds.unwrap_or_default();
        debug_assert!(self.waiting.iter().is_sorted_by_key(|(round, ..)| *round), "reads are out of order");
        debug_assert!(
            last(self.waiting.back().map(|(round, ..)| *round)) <= round,
            "a read waits for what nobody asks"
        );
        debug_assert!(
            self.strangers.iter().is_sorted_by_key(|(round, _)| *round),
            "appends of strangers are out of order"
        );
        debug_assert!(
            last(self.strangers.back().map(|(round, _)| *round)) <= round,
            "a stranger waits for what nobody asks"
        );
        debug_assert!(!is_settled || self.early.is_empty(), "a read waits for a commit that was");
    }

    /// Refuses all that wait, when it turns out that nobody can answer. A stranger may know a later leader.
    pub(crate) fn refuse(self, refusal: &Refusal, out: &mut Vec<Output>) {
        let readers = self.early.into_iter().chain(self.waiting.into_iter().map(|(_, request, _)| request));
        let strangers = self.strangers.into_iter().map(|(_, request)| (request, Refusal::NotLeader));
        let told = readers.map(|request| (request, refusal.clone())).chain(strangers);
        out.extend(told.map(|(request, refusal)| Output::Reply(request, Reply::Refused(refusal))));
    }
}

/// A leader's knowledge of trims.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Trims {
    /// Those that wait, by where the log is to start.
    pub(crate) waiting: BTreeSet<(Offset, RequestId)>,
    /// The offset at which the log of a follower starts: an earlier leader's decision. Followed once that much is known to be committed.
    pub(crate) told: Offset,
}
