//! Why a replica says no, as facts.

use crate::types::{ClusterId, EPOCHS_AHEAD_MAX, Epoch, OFFSET_MAX, Offset, ReplicaId, Tail};

/// Why not.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A greater or equal epoch is promised.
    #[error("epoch {asked} is refused: the promised epoch is {promised}")]
    Promised {
        /// The epoch asked for.
        asked: Epoch,
        /// The promise.
        promised: Epoch,
    },
    /// The epoch lies further above the promised one than a replica goes at once.
    #[error(
        "epoch {asked} is refused: epoch {promised} is promised, and an epoch may lie at most {EPOCHS_AHEAD_MAX} above that; \
         take a lower one"
    )]
    TooFarAhead {
        /// The epoch asked for.
        asked: Epoch,
        /// The promise.
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
    #[error("epoch {asked} was not sealed here: the promised epoch is {promised}")]
    NotSealed {
        /// The epoch asked for.
        asked: Epoch,
        /// The promise.
        promised: Epoch,
    },
    /// An appointment that may rest on what this replica no longer holds.
    #[error("epoch {0} was sealed before this replica started, and it may have lost data since; seal a higher one")]
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
        "this replica holds a restored log and belongs to no cluster: it can begin a new cluster, but cannot join one"
    )]
    NotBlank,
    /// Impossible terms or history.
    #[error("the message is impossible: {0}")]
    Impossible(&'static str),
    /// The voters of an epoch are not those before, give or take one.
    #[error("the voters of epoch {epoch} do not follow from those of epoch {before}: voters change one at a time")]
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
    #[error("this replica does not follow this stream, or no longer")]
    OtherStream,
    /// Frames that do not follow the log's end.
    #[error("frames follow {prev}, the log's tail is {log}")]
    Gap {
        /// The tail that they follow.
        prev: Tail,
        /// The end of the log.
        log: Tail,
    },
    /// The leader has forgotten what would follow this log: it has to begin anew, and needs to be told with what.
    #[error("the leader's log starts at {oldest}, past this replica's end; full resync required")]
    NeedsOrigin {
        /// The oldest that the leader has.
        oldest: Offset,
    },
    /// A trim of what is not committed.
    #[error("a trim before {before} is not within {log_start} and {commit_end}, the end of what is committed")]
    TrimOutOfRange {
        /// The offset at which the log was to start.
        before: Offset,
        /// The start of the log.
        log_start: Offset,
        /// The end of what is committed.
        commit_end: Offset,
    },
    /// No offsets are left for so many records.
    #[error(
        "the log ends at offset {end}, and {count} more records would pass {OFFSET_MAX}, the greatest there is: begin a new log"
    )]
    OffsetsUsedUp {
        /// The end of the log.
        end: Offset,
        /// The number of records that were to be appended.
        count: u32,
    },
    /// The disk or the log failed.
    #[error("the storage of this replica failed")]
    Failed,
    /// The disk was restored from a copy.
    #[error("this disk was restored from an older copy: its promises and acknowledgements since then are lost")]
    Restored,
    /// This replica does not lead.
    #[error("this replica does not lead")]
    NotLeader,
    /// Too few voters are in reach.
    #[error("{in_reach} of {voters} voters are in reach, {quorum} are needed")]
    NoQuorum {
        /// The number in reach, the leader included.
        in_reach: usize,
        /// Their number.
        voters: usize,
        /// The number needed.
        quorum: u32,
    },
    /// Too few voters are in reach, for so long that what waits for them is told so: it may yet be committed.
    #[error("{in_reach} of {voters} voters are in reach, {quorum} are needed; it may yet be committed")]
    LostQuorum {
        /// The number in reach, the leader included.
        in_reach: usize,
        /// Their number.
        voters: usize,
        /// The number needed.
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
    #[error("{0} appends are under way, which is the limit")]
    Overloaded(usize),
    /// Too many reads wait to be confirmed.
    #[error("{0} reads wait for confirmation, which is the limit")]
    TooManyReads(usize),
    /// The producer has as many appends under way as are remembered.
    #[error("the producer has {0} appends under way, which is the limit")]
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
        /// The sequence that came.
        found: u64,
        /// The sequence that is next.
        expected: u64,
    },
    /// The producer is not, or no longer, known.
    #[error(
        "the producer is unknown or forgotten, so this server cannot tell whether it appended this before. Read the log to find \
         out, and open another producer"
    )]
    UnknownProducer,
    /// The producer was forgotten for appends that are not committed yet.
    #[error("appends under way displace this producer once they commit: try again")]
    PerhapsForgotten,
    /// The records are in the log, too far back to say where.
    #[error("the records of sequence {0} are in the log already, but their offsets are no longer known")]
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
