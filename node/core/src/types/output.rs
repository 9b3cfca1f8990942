//! The outputs of a replica: work to be done, and answers.

use alloc::vec::Vec;

use crate::types::history::{EpochStart, Origin};
use crate::types::incarnations::Runs;
use crate::types::io::{RequestId, Session, Ticket};
use crate::types::refusal::Refusal;
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

/// Work to be done, in this order. No output waits for another's success: success comes back as an input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make the promise durable, and the cluster if it is new.
    WritePromise {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// The promise.
        epoch: Epoch,
        /// The only leader to follow in that epoch, once known.
        leader: Option<ReplicaId>,
        /// The cluster this replica belongs to.
        cluster: Option<ClusterId>,
    },
    /// Make durable what is known of the starts of replicas.
    WriteRuns {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// All that is known.
        runs: Runs,
    },
    /// Make durable that this disk was restored from a copy: it takes part in nothing any more.
    WriteRestored {
        /// Its place in the disk's work.
        ticket: Ticket,
    },
    /// Make durable that it has acknowledged nothing beyond that in that epoch, should it be suspected.
    WriteSuspect(Ticket, Tail),
    /// Keep the prefix of the log with that tail, atomically and durably.
    Cut {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// The tail of what stays.
        to: Tail,
    },
    /// Let the log start there, durably. All before is committed, and written by now.
    Trim {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// The first offset to be kept.
        before: Offset,
    },
    /// Forget the whole log and begin anew, atomically and durably.
    Reset {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// With what.
        origin: Origin,
    },
    /// Write an epoch start at the end of the log.
    WriteEpochStart {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// The data to write.
        start: EpochStart,
    },
    /// Leader: write the records of the append of this step.
    WriteAppend {
        /// The append.
        request: RequestId,
        /// Its place in the disk's work.
        ticket: Ticket,
        /// The offset at which they begin.
        base: Offset,
        /// The epoch they carry.
        epoch: Epoch,
    },
    /// Follower: write the frames of this step.
    WriteFrames {
        /// Its place in the disk's work.
        ticket: Ticket,
    },
    /// Answer a request.
    Reply(RequestId, Reply),
    /// Follower: tell the leader where its log ends.
    SendStarted {
        /// The stream.
        session: Session,
        /// The log end.
        log: Tail,
        /// Its durable part.
        durable: Tail,
    },
    /// Follower: tell the leader what is durable.
    SendAck {
        /// The stream.
        session: Session,
        /// Up to where.
        durable: Tail,
        /// The greatest round heard of on this stream.
        round: u64,
    },
    /// Follower: tell the leader where the log durably starts.
    SendTrimmed {
        /// The stream.
        session: Session,
        /// Where.
        log_start: Offset,
    },
    /// Follower: refuse a stream and close it.
    Refuse {
        /// The stream.
        session: Session,
        /// Why.
        refusal: Refusal,
    },
    /// Leader: open a stream to each follower, and keep opening it until told to stop. Comes again when the learners change: who is
    /// not named any more is fed no more, the other streams go on.
    Lead {
        /// The epoch.
        epoch: Epoch,
        /// Whom to feed.
        followers: Vec<ReplicaId>,
    },
    /// No longer lead: end the streams to the followers.
    StepDown,
    /// Records before this offset are committed and may be read.
    Committed(Offset),
}

impl Output {
    /// The place of the work in that of the disk, if it is work for the disk.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::WritePromise { ticket, .. }
            | Self::WriteRuns { ticket, .. }
            | Self::WriteRestored { ticket }
            | Self::WriteSuspect(ticket, _)
            | Self::Cut { ticket, .. }
            | Self::Trim { ticket, .. }
            | Self::Reset { ticket, .. }
            | Self::WriteEpochStart { ticket, .. }
            | Self::WriteAppend { ticket, .. }
            | Self::WriteFrames { ticket } => Some(*ticket),
            _ => None,
        }
    }
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The promise is durable.
    Sealed(crate::types::sealed::Sealed),
    /// The epoch start is durable and this replica leads.
    Appointed(EpochStart),
    /// These learners are fed.
    Learners(Vec<ReplicaId>),
    /// The target holds all of the log.
    HandedOver(Tail),
    /// The records are committed.
    Appended {
        /// The offset at which they begin.
        base: Offset,
        /// Their number.
        count: u32,
        /// The epoch in which they were committed or found.
        epoch: Epoch,
        /// They were in the log already.
        duplicate: bool,
    },
    /// This replica led when it was asked: whatever was committed then lies before this offset.
    ReadConfirmed {
        /// The records to read.
        commit_end: Offset,
    },
    /// The log durably starts there, or later, on a quorum.
    Trimmed(Offset),
    /// No.
    Refused(Refusal),
}
