//! Frames to bytes; the inverse of `frame`.

use zue_core::{Epoch, EpochStart, Offset};

use crate::format::layout::{
    FLAG_KEY, FLAG_MORE, FLAG_OLD_VOTERS, FLAG_PRODUCER, FLAGS_AT, KIND_EPOCH_START, KIND_RECORD, KIND_SNAPSHOT,
    KIND_SYNC_MARK, LENGTH_AT, PREFIX_BYTES, PRODUCER_BYTES, RECORD_BYTES_MIN,
};
use crate::format::limits::{Bounded, LimitError, Limits};
use crate::format::local::{Snapshot, SyncMark};
use crate::format::producer::Producer;

/// The length of a sync mark.
pub(crate) const SYNC_MARK_BYTES: usize = 40;
const _: () = assert!(SYNC_MARK_BYTES >= RECORD_BYTES_MIN, "a sync mark is taken for what is no frame");
/// The place of the count of headers.
const HEADER_COUNT_AT: usize = 10;
/// The bytes of a header besides its name and value: the length of either.
const HEADER_BYTES: usize = 2 + 4;

/// Puts the head of a frame, its CRC and length open, and gives where the frame begins.
pub(crate) fn open_frame(out: &mut Vec<u8>, kind: u8, flags: u8, key_bytes: u32) -> usize {
    let frame_at = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.extend_from_slice(&[kind, flags, 0, 0]);
    out.extend_from_slice(&key_bytes.to_le_bytes());
    frame_at
}

fn patch(out: &mut [u8], at: usize, bytes: &[u8]) {
    debug_assert!(at + bytes.len() <= out.len(), "a field is put behind its frame");
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Fills in the length and CRC of the frame that begins at `frame_at` and ends with `out`.
pub(crate) fn close_frame(out: &mut [u8], frame_at: usize) {
    debug_assert!(frame_at + RECORD_BYTES_MIN <= out.len(), "a frame is shorter than any");
    debug_assert!(u32::try_from(out.len() - frame_at).is_ok(), "a frame is longer than its length can say");
    let frame_bytes = u32::try_from(out.len() - frame_at - PREFIX_BYTES).unwrap_or(u32::MAX);
    patch(out, frame_at + LENGTH_AT, &frame_bytes.to_le_bytes());
    let crc = crc32fast::hash(out.get(frame_at + LENGTH_AT..).unwrap_or_default());
    patch(out, frame_at, &crc.to_le_bytes());
}

/// Says whether further records of the same append follow the one that begins at `frame_at`; before it is closed.
pub(crate) fn set_more(out: &mut [u8], frame_at: usize, more: bool) {
    debug_assert!(frame_at + FLAGS_AT < out.len(), "flags are put behind their frame");
    if let Some(flags) = out.get_mut(frame_at + FLAGS_AT) {
        *flags = if more { *flags | FLAG_MORE } else { *flags & !FLAG_MORE };
    }
}

/// The length of a record in a log, if it is within the limits: what [`crate::BatchBuilder::push`] adds to a batch, or why it refuses.
///
/// # Errors
/// A limit of a record.
pub fn record_bytes<'h>(
    key: Option<&[u8]>,
    value: &[u8],
    headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    has_producer: bool,
    limits: &Limits,
) -> Result<usize, LimitError> {
    let key_bytes = key.map_or(0, <[u8]>::len);
    Bounded::KeyBytes.check(key_bytes, limits.key_bytes_max)?;
    let mut payload_bytes = key_bytes.saturating_add(value.len());
    Bounded::RecordBytes.check(payload_bytes, limits.record_bytes_max)?;
    for (before, (name, value)) in headers.into_iter().enumerate() {
        Bounded::Headers.check(before + 1, limits.headers_max)?;
        Bounded::HeaderNameBytes.check(name.len(), limits.header_name_bytes_max)?;
        Bounded::HeaderValueBytes.check(value.len(), limits.header_value_bytes_max)?;
        payload_bytes = payload_bytes.saturating_add(HEADER_BYTES + name.len()).saturating_add(value.len());
    }
    Bounded::RecordBytes.check(payload_bytes, limits.record_bytes_max)?;
    let producer_bytes = if has_producer { PRODUCER_BYTES } else { 0 };
    Ok(payload_bytes.saturating_add(RECORD_BYTES_MIN + producer_bytes))
}

/// A record's frame, to be closed by [`close_frame`]. Within the limits, as [`record_bytes`] says.
pub(crate) struct RecordHead<'a> {
    pub(crate) offset: Offset,
    pub(crate) epoch: Epoch,
    pub(crate) timestamp_ms: u64,
    pub(crate) producer: Option<Producer>,
    pub(crate) key: Option<&'a [u8]>,
}

impl RecordHead<'_> {
    /// Puts the frame with the given value and headers, and gives where it begins.
    pub(crate) fn put<'h>(
        &self,
        out: &mut Vec<u8>,
        value: &[u8],
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> usize {
        let key = self.key.unwrap_or_default();
        debug_assert!(u32::try_from(key.len()).is_ok(), "a key is longer than its length can say");
        let flags =
            if self.key.is_some() { FLAG_KEY } else { 0 } | if self.producer.is_some() { FLAG_PRODUCER } else { 0 };
        let frame_at = open_frame(out, KIND_RECORD, flags, u32::try_from(key.len()).unwrap_or(u32::MAX));
        for word in [self.offset.0, self.epoch.0, self.timestamp_ms] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        if let Some(Producer { id, sequence }) = self.producer {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&sequence.to_le_bytes());
        }
        out.extend_from_slice(key);
        let count = put_headers(out, headers);
        out.extend_from_slice(value);
        patch(out, frame_at + HEADER_COUNT_AT, &count.to_le_bytes());
        frame_at
    }
}

fn put_headers<'h>(out: &mut Vec<u8>, headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> u16 {
    let mut count = 0_u16;
    for (name, value) in headers {
        debug_assert!(count < u16::MAX, "there are more headers than their number can say");
        debug_assert!(u16::try_from(name.len()).is_ok(), "a header's name is longer than its length can say");
        debug_assert!(u32::try_from(value.len()).is_ok(), "a header's value is longer than its length can say");
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(value);
        count = count.saturating_add(1);
    }
    count
}

/// The frame of an epoch start.
pub(crate) fn put_start(out: &mut Vec<u8>, start: &EpochStart) {
    let EpochStart { epoch, start, leader, voters, quorum, old_voters } = start;
    let flags = if old_voters.is_some() { FLAG_OLD_VOTERS } else { 0 };
    let old_voters = old_voters.as_deref().unwrap_or_default();
    let count = |ids: &[_]| u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let frame_at = open_frame(out, KIND_EPOCH_START, flags, 0);
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(&start.0.to_le_bytes());
    out.extend_from_slice(&leader.0.to_le_bytes());
    for word in [*quorum, count(voters), count(old_voters)] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for id in voters.iter().chain(old_voters) {
        out.extend_from_slice(&id.0.to_le_bytes());
    }
    close_frame(out, frame_at);
}

/// The frame of a snapshot. Its CRC is masked by `mask`.
pub(crate) fn put_snapshot(out: &mut Vec<u8>, snapshot: &Snapshot, mask: u32) {
    let Snapshot { base, timestamp_ms, starts, producers } = snapshot;
    debug_assert!(starts.is_sorted_by(|a, b| a.epoch < b.epoch), "epoch starts of a snapshot are out of order");
    let frame_at = open_frame(out, KIND_SNAPSHOT, 0, 0);
    out.extend_from_slice(&base.0.to_le_bytes());
    out.extend_from_slice(&timestamp_ms.to_le_bytes());
    out.extend_from_slice(&u32::try_from(starts.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&u32::try_from(producers.len()).unwrap_or(u32::MAX).to_le_bytes());
    for start in starts {
        put_start(out, start);
    }
    out.extend_from_slice(producers);
    close_frame(out, frame_at);
    mask_crc(out, frame_at, mask);
}

/// The frame of a sync mark.
pub(crate) fn put_sync_mark(out: &mut Vec<u8>, mark: SyncMark) {
    let SyncMark { position, tail } = mark;
    let frame_at = open_frame(out, KIND_SYNC_MARK, 0, 0);
    for word in [position, tail.epoch.0, tail.end.0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    debug_assert_eq!(out.len() - frame_at, SYNC_MARK_BYTES, "a sync mark takes other room than is counted for it");
    close_frame(out, frame_at);
}

/// Masks, or unmasks, the CRC of the frame that begins at `frame_at`.
pub(crate) fn mask_crc(out: &mut [u8], frame_at: usize, mask: u32) {
    debug_assert!(frame_at + LENGTH_AT <= out.len(), "a CRC is masked behind its frame");
    let Some(crc) = out.get_mut(frame_at..frame_at + 4) else { return };
    for (byte, mask) in crc.iter_mut().zip(mask.to_le_bytes()) {
        *byte ^= mask;
    }
}
