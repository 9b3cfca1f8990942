//! The time that a controller waits for what, and how it pauses. Figures only.

use super::pause::Backoff;

/// The patience of a controller; milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// Between two looks.
    pub look_ms: u64,
    /// The time that a node may take to tell its status, or to take a small order, before it counts as silent.
    pub call_ms: u64,
    /// The time that the others are waited for once more than half of the nodes have told their status.
    pub look_grace_ms: u64,
    /// The time that a sealing waits for answers that are enough to choose.
    pub seal_ms: u64,
    /// The time that a sealing waits for the others once the answers are enough to choose.
    pub seal_grace_ms: u64,
    /// The time that a replica may take to write down the start of its leadership, at first and after failures in a row: one whose disk
    /// hangs gives way to another soon, and one whose disk is slow gets its time in the end.
    pub appoint: Backoff,
    /// The patience with the store.
    pub store: StorePatience,
    /// The time that a leader holds new appends for a hand-over before it goes on by itself.
    pub handover_deadline_ms: u64,
    /// The pause after a failed election, so that two controllers don't outbid each other for ever.
    pub election_retry: Backoff,
    /// The pause after an epoch that was to change the voters and did not, and between the steps towards a promise that is far ahead.
    pub members_retry: Backoff,
    /// The pause after a failed hand-over, and after an election for want of a quorum: the next leader may miss one as well.
    pub handover_retry: Backoff,
    /// The pause once another controller has begun an epoch of its own after one of this one: they may wish for different things.
    pub contested_retry: Backoff,
}

/// The patience with the store; milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StorePatience {
    /// The time that what is written down may take before the store counts as away.
    pub answer_ms: u64,
    /// The same while nobody leads.
    pub failover_ms: u64,
    /// The pause before a store that is away is asked again.
    pub retry: Backoff,
}

impl Default for Patience {
    fn default() -> Self {
        let backoff = |min_ms, max_ms| Backoff { min_ms, max_ms };
        Self {
            look_ms: 100,
            call_ms: 800,
            look_grace_ms: 100,
            seal_ms: 5000,
            seal_grace_ms: 200,
            appoint: backoff(1000, 10_000),
            store: StorePatience { answer_ms: 1000, failover_ms: 400, retry: backoff(1000, 10_000) },
            handover_deadline_ms: 2000,
            election_retry: backoff(100, 5000),
            members_retry: backoff(1000, 60_000),
            handover_retry: backoff(5000, 30_000),
            contested_retry: backoff(1000, 3_600_000),
        }
    }
}
