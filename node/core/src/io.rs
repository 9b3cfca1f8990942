//! What goes into a replica and what comes out of it. Positions and facts only: the payload of an append or of frames stays
//! with the caller, who still has it at hand when the output of that very step asks for it to be written.

use alloc::vec::Vec;

use crate::history::{EpochStart, History};
use crate::producers::{Appended, ProducerId};
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

/// A monotonic time in milliseconds; only differences count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds since `earlier`; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Names a request that waits for a [`Reply`]; given by the caller, never used twice.
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
    /// Who votes; holds the leader.
    pub voters: Vec<ReplicaId>,
    /// How many voters commit.
    pub quorum: u32,
    /// The voters before, while a change of voters is unsettled.
    pub old_voters: Option<Vec<ReplicaId>>,
    /// Who is fed without being counted.
    pub learners: Vec<ReplicaId>,
}

/// A leader's first words to a follower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The leader's cluster.
    pub cluster: ClusterId,
    /// Who leads.
    pub leader: ReplicaId,
    /// The epoch; the last one of `history`.
    pub epoch: Epoch,
    /// The leader's epoch starts.
    pub history: History,
    /// The leader's log end.
    pub log: Tail,
    /// What the leader knows to be committed.
    pub commit_end: Offset,
}

/// What the frames of one message hold.
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
        /// Answered with [`Reply::Sealed`].
        request: RequestId,
        /// The cluster it speaks of; none at the first epoch.
        cluster: Option<ClusterId>,
        /// What to promise.
        epoch: Epoch,
    },
    /// A controller appoints this replica.
    Appoint {
        /// Answered with [`Reply::Appointed`].
        request: RequestId,
        /// The cluster; a blank replica adopts it.
        cluster: ClusterId,
        /// The terms of the epoch.
        terms: Terms,
    },
    /// A controller asks the leader to let `to` catch up wholly.
    HandOver {
        /// Answered with [`Reply::HandedOver`].
        request: RequestId,
        /// The epoch it leads.
        epoch: Epoch,
        /// Who is to lead next.
        to: ReplicaId,
        /// How long new appends are held, in milliseconds.
        deadline_ms: u64,
    },
    /// A client appends `count` records as one.
    Append {
        /// Answered with [`Reply::Appended`] once committed.
        request: RequestId,
        /// The producer and the first sequence.
        producer: Option<(ProducerId, u64)>,
        /// How many records; at least 1.
        count: u32,
    },
    /// All work on disk up to this ticket is durable.
    Persisted(Ticket),
    /// The disk failed: nothing more will be persisted.
    DiskFailed,
    /// Time passes.
    Tick,
    /// Leader: a follower has opened its log at `log` and is fed from there.
    Started {
        /// Who.
        from: ReplicaId,
        /// On which stream.
        session: Session,
        /// Its log end, after its cut.
        log: Tail,
        /// What of that is durable.
        durable: Tail,
    },
    /// Leader: a follower has made the log durable up to here.
    Acked {
        /// Who.
        from: ReplicaId,
        /// On which stream.
        session: Session,
        /// Up to where.
        durable: Tail,
    },
    /// Leader: the stream to a follower ended.
    Disconnected {
        /// Who.
        from: ReplicaId,
        /// Which stream.
        session: Session,
    },
    /// Follower: a leader opens a stream.
    Start {
        /// The stream.
        session: Session,
        /// What it says.
        start: Start,
    },
    /// Follower: frames that follow `prev`.
    Frames {
        /// The stream.
        session: Session,
        /// What they follow.
        prev: Tail,
        /// What they hold; checked before.
        facts: FrameFacts,
        /// What the leader knows to be committed.
        commit_end: Offset,
    },
    /// Follower: the leader lives.
    Heartbeat {
        /// The stream.
        session: Session,
        /// What the leader knows to be committed.
        commit_end: Offset,
        /// The leader's log end.
        log_end: Offset,
    },
    /// Follower: the leader's stream ended.
    StreamEnded {
        /// Which.
        session: Session,
    },
}

/// Work to be done, in this order. No output waits for another's success: success comes back as an input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make the promise durable, and the cluster if it is new.
    WritePromise {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// What is promised.
        epoch: Epoch,
        /// The only leader to follow in that epoch, once known.
        leader: Option<ReplicaId>,
        /// The cluster this replica belongs to.
        cluster: Option<ClusterId>,
    },
    /// Keep `depth` epoch starts and the records before `end`, atomically and durably.
    Cut {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// How many epoch starts stay.
        depth: usize,
        /// Where the records end.
        end: Offset,
    },
    /// Write an epoch start at the end of the log.
    WriteEpochStart {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// What to write.
        start: EpochStart,
    },
    /// Leader: write the records of the append of this step.
    WriteAppend {
        /// Its place in the disk's work.
        ticket: Ticket,
        /// Where they begin.
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
        /// What of it is durable.
        durable: Tail,
    },
    /// Follower: tell the leader what is durable.
    SendAck {
        /// The stream.
        session: Session,
        /// Up to where.
        durable: Tail,
    },
    /// Follower: refuse a stream and close it.
    Refuse {
        /// The stream.
        session: Session,
        /// Why.
        refusal: Refusal,
    },
    /// Leader: open a stream to each follower, and keep opening it until told to stop.
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

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The promise is durable.
    Sealed(crate::election::Sealed),
    /// The epoch start is durable and this replica leads.
    Appointed(EpochStart),
    /// The target holds all of the log.
    HandedOver(Tail),
    /// The records are committed.
    Appended {
        /// Where they begin.
        base: Offset,
        /// How many there are.
        count: u32,
        /// The epoch in which they were committed or found.
        epoch: Epoch,
        /// They were in the log already.
        duplicate: bool,
    },
    /// No.
    Refused(Refusal),
}

/// Why not.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A greater or equal epoch is promised.
    #[error("epoch {asked} is refused: epoch {promised} is promised")]
    Promised {
        /// What was asked for.
        asked: Epoch,
        /// What is promised.
        promised: Epoch,
    },
    /// The epoch has another leader.
    #[error("epoch {epoch} is led by {leader}")]
    OtherLeader {
        /// The epoch.
        epoch: Epoch,
        /// Its leader.
        leader: ReplicaId,
    },
    /// The epoch was led before; leadership does not survive a restart.
    #[error("epoch {0} has started here before; a new epoch is needed")]
    AlreadyStarted(Epoch),
    /// An appointment for an epoch that this replica has not promised.
    #[error("epoch {asked} was not sealed here: {promised} is promised")]
    NotSealed {
        /// What was asked for.
        asked: Epoch,
        /// What is promised.
        promised: Epoch,
    },
    /// The message is for another cluster.
    #[error("this replica belongs to cluster {ours}, the message to {theirs:?}")]
    OtherCluster {
        /// Ours.
        ours: ClusterId,
        /// The message's.
        theirs: Option<ClusterId>,
    },
    /// A replica without a cluster holds data.
    #[error("this replica holds data but belongs to no cluster")]
    NotBlank,
    /// Impossible terms or history.
    #[error("the message is impossible: {0}")]
    Impossible(&'static str),
    /// The leader's log parts from this one before its commit end.
    #[error("the logs part at offset {parted}, below the committed end {commit_end}")]
    Parted {
        /// Where.
        parted: Offset,
        /// Our commit end.
        commit_end: Offset,
    },
    /// The stream is not, or no longer, the one that is listened to.
    #[error("this stream is not, or no longer, the one that is followed")]
    OtherStream,
    /// Frames that do not follow the log's end.
    #[error("frames follow {prev}, the log's tail is {log}")]
    Gap {
        /// What they follow.
        prev: Tail,
        /// Where the log ends.
        log: Tail,
    },
    /// The disk or the log failed.
    #[error("the storage of this replica failed")]
    Failed,
    /// This replica does not lead.
    #[error("this replica does not lead")]
    NotLeader,
    /// Too few voters are in reach.
    #[error("{in_reach} of {voters} voters are in reach, {quorum} are needed")]
    NoQuorum {
        /// How many are in reach, the leader included.
        in_reach: usize,
        /// How many there are.
        voters: usize,
        /// How many are needed.
        quorum: u32,
    },
    /// New appends are held back while the leader hands over.
    #[error("the leader is handing over")]
    HandingOver,
    /// Too many appends are under way.
    #[error("{0} appends are under way, the most that may be")]
    Overloaded(usize),
    /// The leader lost its epoch while the append was under way: it may or may not have been kept.
    #[error("the leader stepped down while the append was under way")]
    SteppedDown,
    /// The hand-over did not finish in time.
    #[error("replica {0} did not catch up in time")]
    HandOverTimedOut(ReplicaId),
    /// The producer's sequence leaves a gap.
    #[error("sequence {found} leaves a gap: {expected} is next")]
    SequenceGap {
        /// What came.
        found: u64,
        /// What is next.
        expected: u64,
    },
    /// The producer is not, or no longer, known.
    #[error("the producer is not known any more")]
    UnknownProducer,
    /// The records are in the log, too far back to say where.
    #[error("the records of sequence {0} are in the log already, too far back to say where")]
    Duplicate(u64),
    /// A repeated append that is cut differently.
    #[error("sequence {first} to {last} overlaps earlier appends without repeating one")]
    Overlap {
        /// Its first sequence.
        first: u64,
        /// Its last sequence.
        last: u64,
    },
}
