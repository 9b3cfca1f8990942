//! The places of the fields of a frame, and the numbers of its kinds and flags.

/// CRC and length, in front of every frame.
pub(crate) const PREFIX_BYTES: usize = 8;

/// A record without producer, key, headers and value.
pub(crate) const RECORD_BYTES_MIN: usize = 40;

/// The bytes that a producer adds.
pub(crate) const PRODUCER_BYTES: usize = 24;

/// The place of the length, behind which all that it counts begins.
pub(crate) const LENGTH_AT: usize = 4;

/// The places of the kind and of the flags.
pub(crate) const KIND_AT: usize = 8;

pub(crate) const FLAGS_AT: usize = 9;

pub(crate) const KIND_RECORD: u8 = 1;

pub(crate) const KIND_EPOCH_START: u8 = 2;

pub(crate) const KIND_SNAPSHOT: u8 = 3;

pub(crate) const KIND_COMPACTED: u8 = 4;

pub(crate) const KIND_SYNC_MARK: u8 = 5;

pub(crate) const FLAG_MORE: u8 = 1;

pub(crate) const FLAG_KEY: u8 = 2;

pub(crate) const FLAG_PRODUCER: u8 = 4;

/// All that any kind of frame has.
pub(crate) const RECORD_FLAGS: u8 = FLAG_MORE | FLAG_KEY | FLAG_PRODUCER;

pub(crate) const FLAG_OLD_VOTERS: u8 = 1;
