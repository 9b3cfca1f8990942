//! Why a replica says no, as facts.

use crate::types::{ClusterId, EPOCHS_AHEAD_MAX, Epoch, OFFSET_MAX, Offset, ReplicaId, Tail};

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
    /// The epoch lies further above the promised one than a replica goes at once.
    #[error(
        "epoch {asked} is refused: epoch {promised} is promised, and an epoch may lie at most {EPOCHS_AHEAD_MAX} above that; \
         take a lower one"
    )]
    TooFarAhead {
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
    /// An appointment that may rest on what this replica no longer holds.
    #[error(
        "epoch {0} was sealed before this replica started, and it may have lost something since; seal a higher one"
    )]
    SealedBeforeStart(Epoch),
    /// The message is for another cluster.
    #[error("this replica belongs to cluster {ours}, the message to {theirs:?}")]
    OtherCluster {
        /// Ours.
        ours: ClusterId,
        /// The message's.
        theirs: Option<ClusterId>,
    },
    /// A replica without a cluster holds a log: it was restored from a backup, and begins a cluster or none.
    #[error(
        "this replica holds a log that was restored, and belongs to no cluster: a new cluster begins with it, and it joins none that \
         there is"
    )]
    NotBlank,
    /// Impossible terms or history.
    #[error("the message is impossible: {0}")]
    Impossible(&'static str),
    /// The voters of an epoch are not those before, give or take one.
    #[error("the voters of epoch {epoch} do not follow from those of epoch {before}: one at a time may come or go")]
    OtherVoters {
        /// The epoch.
        epoch: Epoch,
        /// The one before it in the log.
        before: Epoch,
    },
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
    /// The leader has forgotten what would follow this log: it has to begin anew, and needs to be told with what.
    #[error("what follows this log is gone from the leader's, which starts at {oldest}: this one has to begin anew")]
    NeedsOrigin {
        /// The oldest that the leader has.
        oldest: Offset,
    },
    /// A trim of what is not committed.
    #[error("a trim before {before} is not within {log_start} and {commit_end}, the end of what is committed")]
    TrimOutOfRange {
        /// Where the log was to start.
        before: Offset,
        /// Where it starts.
        log_start: Offset,
        /// The end of what is committed.
        commit_end: Offset,
    },
    /// No offsets are left for so many records.
    #[error(
        "the log ends at offset {end}, and {count} more records would pass {OFFSET_MAX}, the greatest there is: begin a new log"
    )]
    OffsetsUsedUp {
        /// Where the log ends.
        end: Offset,
        /// How many records were to be appended.
        count: u32,
    },
    /// The disk or the log failed.
    #[error("the storage of this replica failed")]
    Failed,
    /// The disk was restored from a copy.
    #[error(
        "this disk was restored from an older copy of it, and has forgotten what it promised and acknowledged since"
    )]
    Restored,
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
    /// Too few voters are in reach, for so long that what waits for them is told so: it may yet be committed.
    #[error("{in_reach} of {voters} voters are in reach, {quorum} are needed; it may yet be committed")]
    LostQuorum {
        /// How many are in reach, the leader included.
        in_reach: usize,
        /// How many there are.
        voters: usize,
        /// How many are needed.
        quorum: u32,
    },
    /// New appends are held back while a new leader connects to its followers: it does not know yet whether it reaches enough of them,
    /// nor what their clocks show.
    #[error("the leader is new, and is connecting to its followers")]
    Connecting,
    /// New appends are held back while the leader hands over.
    #[error("the leader is handing over")]
    HandingOver,
    /// Too many appends are under way.
    #[error("{0} appends are under way, the most that may be")]
    Overloaded(usize),
    /// Too many reads wait to be confirmed.
    #[error("{0} reads wait to be confirmed, the most that may")]
    TooManyReads(usize),
    /// The producer has as many appends under way as are remembered.
    #[error("the producer has {0} appends under way, the most that may be")]
    ProducerOverloaded(usize),
    /// The leader lost its epoch while the request was under way: an append may or may not have been kept.
    #[error("the leader stepped down while the request was under way")]
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
    #[error(
        "the producer is not known, or not any more: whether it has appended this before is not known here. Open another; \
         whether this is in the log can be read there"
    )]
    UnknownProducer,
    /// The producer was forgotten for appends that are not committed yet.
    #[error("the producer is forgotten if what is under way is committed: try again")]
    PerhapsForgotten,
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
