//! The inputs of a replica, and the words that outputs share with it. Positions and facts only: the payload of an append or of
//! frames stays with the caller, who still has it at hand when the output of that very step asks for it to be written.

use alloc::vec::Vec;

use crate::producers::{Appended, ProducerId};
use crate::types::history::{EpochStart, History, Origin};
use crate::types::incarnations::{Lineage, Run, Runs};
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

pub use crate::types::Millis;

/// Names a request that waits for a [`crate::Reply`]; given by the caller, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RequestId(pub u64);

/// Names one replication stream; given by the caller, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Session(pub u64);

/// Numbers the disk's work in the order in which it must be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Ticket(pub u64);

/// The terms of an epoch that a controller appoints a leader for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The epoch, as sealed.
    pub epoch: Epoch,
    /// The voters; holds the leader.
    pub voters: Vec<ReplicaId>,
    /// The number of voters that commit.
    pub quorum: u32,
    /// The voters before, while a change of voters is unsettled.
    pub old_voters: Option<Vec<ReplicaId>>,
}

/// A leader's handshake with a follower: the first message of its stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The leader's cluster.
    pub cluster: ClusterId,
    /// The leader.
    pub leader: ReplicaId,
    /// The epoch; the last one of `history`.
    pub epoch: Epoch,
    /// The leader's epoch starts.
    pub history: History,
    /// The leader's log end.
    pub log: Tail,
    /// The commit end, as the leader knows it.
    pub commit_end: Offset,
    /// The start of the leader's log; all before it is gone. All of it is committed.
    pub oldest: Offset,
    /// The origin for a follower that cannot be fed otherwise; given once it has said so. It begins at `oldest`.
    pub origin: Option<Origin>,
    /// The starts that the leader knows of, its own and the follower's among them.
    pub runs: Runs,
}

/// The content of the frames of one message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FrameFacts {
    /// The tail after them.
    pub end: Tail,
    /// The epoch starts among them.
    pub epoch_starts: Vec<EpochStart>,
    /// The appends among them that name a producer.
    pub appends: Vec<Appended>,
}

/// A fact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A controller asks for a promise.
    Seal {
        /// Answered with [`crate::Reply::Sealed`].
        request: RequestId,
        /// The cluster it speaks of; none at the first epoch.
        cluster: Option<ClusterId>,
        /// The promise to make.
        epoch: Epoch,
    },
    /// A controller appoints this replica.
    Appoint {
        /// Answered with [`crate::Reply::Appointed`].
        request: RequestId,
        /// The cluster; a blank replica adopts it.
        cluster: ClusterId,
        /// The terms of the epoch.
        terms: Terms,
    },
    /// A controller names those that the leader is to feed beside the voters; whom it named before and does not name now is fed no
    /// more. Lasts as long as the leadership.
    Learners {
        /// Answered with [`crate::Reply::Learners`].
        request: RequestId,
        /// The epoch it leads.
        epoch: Epoch,
        /// The replicas fed without being counted.
        learners: Vec<ReplicaId>,
    },
    /// A controller asks the leader to let `to` catch up wholly.
    HandOver {
        /// Answered with [`crate::Reply::HandedOver`].
        request: RequestId,
        /// The epoch it leads.
        epoch: Epoch,
        /// The next leader.
        to: ReplicaId,
        /// The time for which new appends are held, in milliseconds.
        deadline_ms: u64,
    },
    /// A client appends `count` records as one.
    Append {
        /// Answered with [`crate::Reply::Appended`] once committed.
        request: RequestId,
        /// The producer and the first sequence.
        producer: Option<(ProducerId, u64)>,
        /// The number of records; at least 1.
        count: u32,
        /// Their length together, about: a follower that lacks many bytes is not in sync.
        bytes: u64,
    },
    /// A client wants to read all that is committed by now.
    ConfirmRead {
        /// Answered with [`crate::Reply::ReadConfirmed`].
        request: RequestId,
    },
    /// All work on disk up to this ticket is durable.
    Persisted(Ticket),
    /// The promise of this ticket is durable, while work asked for before it still waits for room on the disk: a full replica votes.
    Promised(Ticket),
    /// Work for the disk waits for room; or waits no more.
    DiskFull(bool),
    /// Records within the log are damaged; or all are whole again.
    Damaged(bool),
    /// The disk failed: nothing more will be persisted.
    DiskFailed,
    /// Time passes.
    Tick,
    /// The time that a wall clock showed.
    Clock(ClockReading),
    /// Leader: a follower has opened its log at `log` and is fed from there.
    Started {
        /// The sender.
        from: ReplicaId,
        /// On which stream.
        session: Session,
        /// Its log end, after its cut.
        log: Tail,
        /// Its durable part.
        durable: Tail,
        /// The starts of its disk.
        lineage: Lineage,
        /// The starts of other replicas that it knows of.
        runs: Runs,
    },
    /// Leader: a follower has made the log durable up to here.
    Acked {
        /// The sender.
        from: ReplicaId,
        /// On which stream.
        session: Session,
        /// Up to where.
        durable: Tail,
        /// The greatest round it has heard of on this stream.
        round: u64,
        /// The start of its disk that says so.
        run: Run,
    },
    /// Leader: the stream to a follower ended.
    Disconnected {
        /// The sender.
        from: ReplicaId,
        /// The stream.
        session: Session,
    },
    /// Follower: a leader opens a stream.
    Start {
        /// The stream.
        session: Session,
        /// Its answer.
        start: Start,
    },
    /// Follower: frames that follow `prev`.
    Frames {
        /// The stream.
        session: Session,
        /// The tail that they follow.
        prev: Tail,
        /// Their content; checked before.
        facts: FrameFacts,
        /// The commit end, as the leader knows it.
        commit_end: Offset,
        /// The leader's newest round; repeated in the next acknowledgement.
        round: u64,
    },
    /// Follower: the leader lives.
    Heartbeat {
        /// The stream.
        session: Session,
        /// The commit end, as the leader knows it.
        commit_end: Offset,
        /// The leader's log end.
        log_end: Offset,
        /// The leader's newest round; repeated in the next acknowledgement.
        round: u64,
    },
    /// Follower: starts of replicas that the leader has learned of.
    Runs {
        /// The stream.
        session: Session,
        /// All that it knows of.
        runs: Runs,
    },
    /// Follower: the leader's stream ended.
    StreamEnded {
        /// Which.
        session: Session,
    },
    /// Leader: a client wants the log to start there.
    Trim {
        /// Answered with [`crate::Reply::Trimmed`].
        request: RequestId,
        /// The first offset to be kept.
        before: Offset,
    },
    /// Leader: a follower's log durably starts there.
    Trimmed {
        /// The sender.
        from: ReplicaId,
        /// Where.
        log_start: Offset,
    },
    /// Follower: the leader's log starts there.
    LogStart {
        /// The stream.
        session: Session,
        /// Where.
        log_start: Offset,
    },
}

/// The time that a wall clock showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockReading {
    /// Leader: a follower's.
    Follower {
        /// The sender.
        from: ReplicaId,
        /// The time that it showed.
        clock_ms: u64,
    },
    /// Follower: the leader has told the time that a majority's have reached.
    Agreed {
        /// The stream.
        session: Session,
        /// That time, if it is known.
        agreed_ms: Option<u64>,
    },
}
