//! The fault in bytes that should be a frame.

use zue_core::{Epoch, OFFSET_MAX, OFFSETS_AHEAD_MAX, Offset};

use crate::format::layout::KIND_SYNC_MARK;
use crate::format::limits::LimitError;

/// Why bytes are not a frame, or not the frame that belongs there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The bytes end before the frame does.
    #[error("{have} bytes where a frame needs {need}")]
    Truncated {
        /// The number of bytes that the frame needs.
        need: u64,
        /// Their number.
        have: u64,
    },
    /// The CRC does not match.
    #[error("CRC {stored:08x} where the bytes give {computed:08x}")]
    Crc {
        /// The CRC in the frame, unmasked.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// A kind of frame that is unknown, or has no place there.
    #[error("a frame of kind {0}")]
    Kind(u8),
    /// Unknown flags.
    #[error("flags {flags:#04x} in a frame of kind {kind}")]
    Flags {
        /// The kind of the frame.
        kind: u8,
        /// Its flags.
        flags: u8,
    },
    /// The parts of the frame do not add up to its length.
    #[error("the parts of a frame do not add up to its length")]
    Layout,
    /// A header's name is not UTF-8.
    #[error("the name of a header is not UTF-8")]
    HeaderName,
    /// No voters, too many, or a quorum that is not more than half of them and at most all.
    #[error("quorum {quorum} of {voters} voters ({old_voters} old ones)")]
    Voters {
        /// The quorum.
        quorum: u32,
        /// The number of voters.
        voters: usize,
        /// The number of old voters.
        old_voters: usize,
    },
    /// A record that is not the next one.
    #[error("record {found} where record {expected} belongs")]
    Offset {
        /// The offset that is next.
        expected: Offset,
        /// The offset in the frame.
        found: Offset,
    },
    /// A record of another epoch than the one in force.
    #[error("a record of epoch {found} in epoch {expected}")]
    Epoch {
        /// The epoch in force.
        expected: Epoch,
        /// The epoch in the frame.
        found: Epoch,
    },
    /// An epoch start that cannot follow: its epoch is not greater, or it is not at the end, or it is inside an append.
    #[error("a start of epoch {epoch} at {start} where epoch {last_epoch} ends at {end}")]
    EpochStart {
        /// The epoch that would start.
        epoch: Epoch,
        /// The offset at which it would start.
        start: Offset,
        /// The epoch in force.
        last_epoch: Epoch,
        /// The offset at which it belongs.
        end: Offset,
    },
    /// A timestamp before the one of the record before.
    #[error("timestamp {found} ms after {previous} ms")]
    Timestamp {
        /// The timestamp before, ms since the Unix epoch.
        previous: u64,
        /// The timestamp in the frame.
        found: u64,
    },
    /// The records of one append are not of one producer with consecutive sequences.
    #[error("record {0} does not continue its append's producer and sequence")]
    Producer(Offset),
    /// The last append is not whole.
    #[error("the append that begins at {0} is not whole")]
    Unfinished(Offset),
    /// They take more offsets than a batch may.
    #[error("{count} offsets are taken at once, the most are {OFFSETS_AHEAD_MAX}")]
    TooManyOffsets {
        /// The number that they take.
        count: u64,
    },
    /// The record lies behind the last one that a log can have.
    #[error("record {0} lies behind offset {OFFSET_MAX}, the greatest there is")]
    LastOffset(Offset),
    /// There is no frame.
    #[error("there is no frame")]
    Empty,
    /// The segment's header is not what it was when the log was opened.
    #[error("the segment's header has changed")]
    Header,
    /// A snapshot that contradicts the segments before it.
    #[error("the segment's snapshot contradicts what is before it")]
    Snapshot,
    /// A limit is exceeded.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

impl Fault {
    /// Returns whether it is of a frame whose CRC is right and that only a later version of Zue can have written.
    pub fn is_of_later_version(&self) -> bool {
        match *self {
            Self::Kind(kind) => kind > KIND_SYNC_MARK,
            Self::Flags { .. } => true,
            _ => false,
        }
    }
}
