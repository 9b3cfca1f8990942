//! Messages: calls of controllers and clients, their answers, and the two directions of a stream.

use bytes::Bytes;
use zue_core::control::machine::{NodeReport, StandbyTerms};
use zue_core::{
    ClusterId, Epoch, Lineage, Offset, ProducerId, ReplicaId, Reply, Run, Runs, Session, Start, Tail, Terms,
};

use crate::batch::{Batch, Record};
use crate::node::standby::Standby;

/// One end of the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Address {
    Machine(usize),
    Controller(usize),
    Clients,
}

/// The caller, and its call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Caller {
    Controller {
        controller: usize,
        /// The machine that it is on: a standby is at its node.
        address: Address,
        life: u64,
        /// The look, or the attempt.
        number: u64,
        looks: bool,
        ordinal: usize,
    },
    Producer {
        producer: usize,
        nonce: u64,
        sequence: u64,
        attempt: u64,
    },
    Reader,
    /// Has a snapshot of what came before.
    Snapshotter,
    /// Knows that everything before its floor is committed.
    Asker {
        floor: u64,
    },
    /// A process that lacks records.
    Repairer {
        machine: usize,
        life: u64,
        ask: u64,
        from: Offset,
    },
}

impl Caller {
    pub(crate) fn address(self) -> Address {
        match self {
            Self::Controller { address, .. } => address,
            Self::Repairer { machine, .. } => Address::Machine(machine),
            Self::Producer { .. } | Self::Reader | Self::Snapshotter | Self::Asker { .. } => Address::Clients,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Call {
        caller: Caller,
        target: Option<ReplicaId>,
        call: Call,
    },
    Answer {
        caller: Caller,
        answer: Answer,
    },
    /// From a leader to a follower.
    Down {
        session: Session,
        machine: usize,
        target: ReplicaId,
        body: Down,
    },
    /// From a follower to its leader.
    Up {
        session: Session,
        from: ReplicaId,
        body: Up,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Status,
    Seal {
        cluster: Option<ClusterId>,
        epoch: Epoch,
    },
    Appoint {
        cluster: ClusterId,
        terms: Terms,
        places: Vec<(ReplicaId, Option<usize>)>,
    },
    Learners {
        epoch: Epoch,
        learners: Vec<ReplicaId>,
        places: Vec<(ReplicaId, Option<usize>)>,
        /// By what the nodes are to stand by, if that is news.
        standby: Option<StandbyTerms>,
    },
    HandOver {
        epoch: Epoch,
        to: ReplicaId,
        deadline_ms: u64,
    },
    Append {
        producer: ProducerId,
        sequence: u64,
        count: u32,
    },
    Read {
        from: Offset,
        records_max: u64,
    },
    /// The end of the log, linearizably.
    End,
    Trim {
        before: Offset,
    },
    /// Committed records, for who has lost them.
    Fetch {
        cluster: ClusterId,
        from: Offset,
        upto: Offset,
    },
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "most answers are replies")]
pub(crate) enum Answer {
    Status(Box<NodeReport>),
    Reply(Reply),
    Records {
        from: Offset,
        end: Offset,
        records: Vec<Record>,
    },
    /// Frames of the records that were asked for, or of the first of them.
    Excerpt(Bytes),
    /// Nobody is there, or somebody else.
    Unreachable,
}

#[derive(Clone, Debug)]
pub(crate) enum Down {
    Start(Start),
    Frames { batch: Batch, commit_end: Offset, round: u64 },
    Heartbeat { commit_end: Offset, log_end: Offset, round: u64, log_start: Offset, agreed_ms: Option<u64> },
    Runs(Runs),
    Standby(Standby),
    Close,
}

#[derive(Clone, Debug)]
pub(crate) enum Up {
    Started { log: Tail, durable: Tail, lineage: Lineage, runs: Runs, clock_ms: u64 },
    Acked { durable: Tail, round: u64, run: Run, clock_ms: u64 },
    Trimmed { log_start: Offset },
    Refused { needs_origin: bool },
}
