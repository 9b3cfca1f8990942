//! Deeds of a cluster, whatever went wrong.

/// The work of one run, or of many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Done {
    /// Leaderships.
    pub elections: u64,
    /// Leaders that nodes elected by themselves.
    pub by_standbys: u64,
    /// Records committed.
    pub committed: u64,
    /// Appends answered.
    pub acknowledged: u64,
    /// Reads answered.
    pub reads: u64,
    /// Linearizable ones among the clients' questions that were answered.
    pub linearizable: u64,
    /// Trims answered.
    pub trims: u64,
    /// Replicas that began anew where their leader's log begins.
    pub resets: u64,
    /// Records that were trimmed because of their age.
    pub aged_out: u64,
}

impl Done {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { elections, by_standbys, committed, acknowledged, reads, linearizable, trims, resets, aged_out } =
            *other;
        self.elections += elections;
        self.by_standbys += by_standbys;
        self.committed += committed;
        self.acknowledged += acknowledged;
        self.reads += reads;
        self.linearizable += linearizable;
        self.trims += trims;
        self.resets += resets;
        self.aged_out += aged_out;
    }
}

/// The losses by faults that no rule can bring back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Runs in which that was committed records: all voters that held them lost them.
    pub records: u64,
    /// Those in which a person had to trim the log behind such records.
    pub trimmed: u64,
    /// Runs that a person would have had to give up.
    pub given_up: u64,
}

impl Lost {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { records, trimmed, given_up } = *other;
        self.records += records;
        self.trimmed += trimmed;
        self.given_up += given_up;
    }
}
