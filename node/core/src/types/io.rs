//! What goes into a replica and what comes out of it. Positions and facts only: the payload of an append or of frames stays
//! with the caller, who still has it at hand when the output of that very step asks for it to be written.

use alloc::vec::Vec;

use crate::producers::{Appended, ProducerId};
use crate::replica::clocks::Shown;
use crate::replica::incarnations::{Lineage, Run, Runs};
pub use crate::types::Millis;
use crate::types::history::{EpochStart, History, Origin};
use crate::types::refusal::Refusal;
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

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
    /// What lies before is gone from the leader's log. All of it is committed.
    pub oldest: Offset,
    /// What a follower has to begin with that cannot be fed otherwise; given once it has said so. It begins at `oldest`.
    pub origin: Option<Origin>,
    /// The starts that the leader knows of, its own and the follower's among them.
    pub runs: Runs,
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
    /// A controller names those that the leader is to feed beside the voters; whom it named before and does not name now is fed no
    /// more. Lasts as long as the leadership.
    Learners {
        /// Answered with [`Reply::Learners`].
        request: RequestId,
        /// The epoch it leads.
        epoch: Epoch,
        /// Who is fed without being counted.
        learners: Vec<ReplicaId>,
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
        /// How long they are together, about: a follower that lacks many bytes is not in sync.
        bytes: u64,
    },
    /// A client wants to read all that is committed by now.
    ConfirmRead {
        /// Answered with [`Reply::ReadConfirmed`].
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
    /// What a wall clock showed.
    Clock(Shown),
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
        /// The starts of its disk.
        lineage: Lineage,
        /// The starts of other replicas that it knows of.
        runs: Runs,
    },
    /// Leader: a follower has made the log durable up to here.
    Acked {
        /// Who.
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
        /// The leader's newest round; repeated in the next acknowledgement.
        round: u64,
    },
    /// Follower: the leader lives.
    Heartbeat {
        /// The stream.
        session: Session,
        /// What the leader knows to be committed.
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
        /// Answered with [`Reply::Trimmed`].
        request: RequestId,
        /// The first offset to be kept.
        before: Offset,
    },
    /// Leader: a follower's log durably starts there.
    Trimmed {
        /// Whose.
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
        /// What to write.
        start: EpochStart,
    },
    /// Leader: write the records of the append of this step.
    WriteAppend {
        /// The append.
        request: RequestId,
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

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The promise is durable.
    Sealed(crate::control::election::Sealed),
    /// The epoch start is durable and this replica leads.
    Appointed(EpochStart),
    /// These learners are fed.
    Learners(Vec<ReplicaId>),
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
    /// This replica led when it was asked: whatever was committed then lies before this offset.
    ReadConfirmed {
        /// What is to be read.
        commit_end: Offset,
    },
    /// The log durably starts there, or later, on a quorum.
    Trimmed(Offset),
    /// No.
    Refused(Refusal),
}
