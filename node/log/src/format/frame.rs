//! The frame, the unit of the log: the same bytes on the wire and on every replica; on disk only its CRC is masked.
//! Looks at one frame at a time; the order of frames is `sequence`'s. README.md has the layout.

use zue_core::{Epoch, EpochStart, Offset, ReplicaId, Tail};

use crate::format::compacted_range::{CompactedRange, parse_compacted};
use crate::format::fault::Fault;
use crate::format::layout::{
    FLAG_KEY, FLAG_MORE, FLAG_OLD_VOTERS, FLAG_PRODUCER, KIND_COMPACTED, KIND_EPOCH_START, KIND_RECORD, KIND_SNAPSHOT,
    KIND_SYNC_MARK, LENGTH_AT, PREFIX_BYTES, RECORD_BYTES_MIN, RECORD_FLAGS,
};
use crate::format::limits::VOTERS_MAX;
use crate::format::local::{Snapshot, SyncMark};
use crate::format::producer::Producer;
use crate::num::{Cursor, length, wide};

/// A record, borrowed from the frame it is in. Its CRC has been checked.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its place in the log: it lies between this offset and the next.
    pub offset: Offset,
    /// The epoch it was appended in.
    pub epoch: Epoch,
    /// When its leader took it, ms since the Unix epoch; never falls along the log.
    pub timestamp_ms: u64,
    /// Further records of the same append follow.
    pub more: bool,
    /// The sender.
    pub producer: Option<Producer>,
    /// Its key; an empty one is not the same as none.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
    headers: &'a [u8],
    header_count: u16,
}

impl<'a> RecordView<'a> {
    /// The headers, in order.
    pub fn headers(&self) -> Headers<'a> {
        Headers(Cursor(self.headers))
    }

    /// Returns whether it is the same record, borrowed from the same bytes.
    fn is_as(&self, other: &Self) -> bool {
        let place = |record: &Self| (record.offset, record.epoch, record.timestamp_ms, record.more);
        let content =
            |record: &Self| (record.producer, record.key.map(<[u8]>::as_ptr_range), record.value.as_ptr_range());
        place(self) == place(other) && content(self) == content(other)
    }

    /// The number of headers.
    pub fn header_count(&self) -> u16 {
        self.header_count
    }

    /// Bytes of key, value and headers, which [`crate::Limits::record_bytes_max`] bounds.
    pub fn payload_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.len() + self.headers.len()
    }
}

/// The headers of a record: name and value.
#[derive(Clone)]
pub struct Headers<'a>(Cursor<'a>);

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        header(&mut self.0)?.ok()
    }
}

/// Takes one header; `None` when there is too little left.
fn header<'a>(cursor: &mut Cursor<'a>) -> Option<Result<(&'a str, &'a [u8]), Fault>> {
    let name_bytes = cursor.u16()?;
    let name = cursor.slice(usize::from(name_bytes))?;
    let value_bytes = cursor.u32()?;
    let value = cursor.slice(length(value_bytes.into()))?;
    Some(std::str::from_utf8(name).map(|name| (name, value)).map_err(|_| Fault::HeaderName))
}

/// One checked frame.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Record(RecordView<'a>),
    Start(EpochStart),
    Snapshot(Snapshot),
    Compacted(CompactedRange),
    SyncMark(SyncMark),
}

impl Frame<'_> {
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Record(_) => KIND_RECORD,
            Self::Start(_) => KIND_EPOCH_START,
            Self::Snapshot(_) => KIND_SNAPSHOT,
            Self::Compacted(_) => KIND_COMPACTED,
            Self::SyncMark(_) => KIND_SYNC_MARK,
        }
    }
}

/// The facts of a frame that are known without checking its CRC: enough to walk past it.
#[derive(Clone, Copy)]
pub(crate) struct Peek {
    /// The frame's length, prefix included; the bytes reach that far.
    pub(crate) bytes: usize,
    pub(crate) kind: u8,
    /// Of a record or gap: whether further records of its append follow.
    pub(crate) more: bool,
    /// The offset of a record, or that of a gap's first; an epoch start's epoch.
    pub(crate) first_word: u64,
    /// The offset behind a record or gap.
    pub(crate) end: u64,
    /// A record's timestamp.
    pub(crate) timestamp_ms: u64,
}

impl Peek {
    /// Returns whether it takes offsets.
    pub(crate) fn takes_offsets(&self) -> bool {
        matches!(self.kind, KIND_RECORD | KIND_COMPACTED)
    }

    /// Returns whether it is, or stands for, that record.
    pub(crate) fn holds(&self, offset: Offset) -> bool {
        self.first_word <= offset.0 && offset.0 < self.end
    }
}

/// Looks at the frame that `bytes` begin with; `None` if they cannot begin with a whole one.
pub(crate) fn peek(bytes: &[u8]) -> Option<Peek> {
    let mut cursor = Cursor(bytes.get(LENGTH_AT..)?);
    let total = length(cursor.u32()?.into()).checked_add(PREFIX_BYTES)?;
    let (kind, flags) = (cursor.u8()?, cursor.u8()?);
    let _counts = cursor.array::<6>()?;
    let (first_word, _epoch, third_word) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    if total < RECORD_BYTES_MIN || total > bytes.len() || !matches!(kind, KIND_RECORD..=KIND_SYNC_MARK) {
        return None;
    }
    let more = matches!(kind, KIND_RECORD | KIND_COMPACTED) && flags & FLAG_MORE != 0;
    let end = if kind == KIND_COMPACTED { cursor.u64()? } else { first_word.saturating_add(1) };
    Some(Peek { bytes: total, kind, more, first_word, end, timestamp_ms: third_word })
}

/// The record that `bytes` begin with, and its length: the short way for what is read most, a record without headers; `None` says
/// nothing of the bytes.
#[inline]
pub(crate) fn record(bytes: &[u8], mask: u32) -> Option<(RecordView<'_>, usize)> {
    let mut cursor = Cursor(bytes.first_chunk::<RECORD_BYTES_MIN>()?.as_slice());
    let (stored, frame_bytes) = (cursor.u32()?, cursor.u32()?);
    let (kind, flags, header_count, key_bytes) = (cursor.u8()?, cursor.u8()?, cursor.u16()?, cursor.u32()?);
    if kind != KIND_RECORD || flags & !RECORD_FLAGS != 0 || header_count != 0 {
        return None;
    }
    let total = length(frame_bytes.into()).checked_add(PREFIX_BYTES)?;
    if crc32fast::hash(bytes.get(LENGTH_AT..total)?) != stored ^ mask {
        return None;
    }
    let (offset, epoch, timestamp_ms) = (Offset(cursor.u64()?), Epoch(cursor.u64()?), cursor.u64()?);
    let body = Cursor(bytes.get(RECORD_BYTES_MIN..total)?);
    let record = finish_record(body, (offset, epoch, timestamp_ms), flags, 0, key_bytes).ok()?;
    debug_assert!(
        matches!(parse(bytes, mask), Ok((Frame::Record(full), length)) if length == total && full.is_as(&record)),
        "the short way gives another record"
    );
    Some((record, total))
}

/// Checks the frame that `bytes` begin with, and gives its length. The CRC is expected to be masked by `mask`: 0 on the wire.
pub(crate) fn parse(bytes: &[u8], mask: u32) -> Result<(Frame<'_>, usize), Fault> {
    let truncated = |need| Fault::Truncated { need: wide(need), have: wide(bytes.len()) };
    let mut cursor = Cursor(bytes);
    let (Some(stored), Some(frame_bytes)) = (cursor.u32(), cursor.u32()) else {
        return Err(truncated(PREFIX_BYTES));
    };
    let total = length(frame_bytes.into()).saturating_add(PREFIX_BYTES);
    let checked = bytes.get(LENGTH_AT..total).ok_or(truncated(total))?;
    let (stored, computed) = (stored ^ mask, crc32fast::hash(checked));
    if stored != computed {
        return Err(Fault::Crc { stored, computed });
    }
    parse_unchecked(checked.get(PREFIX_BYTES - LENGTH_AT..).unwrap_or_default()).map(|frame| (frame, total))
}

/// Parses a frame by all that is behind its prefix, whatever its CRC.
pub(crate) fn parse_unchecked(body: &[u8]) -> Result<Frame<'_>, Fault> {
    let mut cursor = Cursor(body);
    let mut head = || Some((cursor.u8()?, cursor.u8()?, cursor.u16()?, cursor.u32()?));
    let (kind, flags, header_count, key_bytes) = head().ok_or(Fault::Layout)?;
    if kind != KIND_RECORD && (header_count != 0 || key_bytes != 0) {
        return Err(Fault::Layout);
    }
    let known = match kind {
        KIND_RECORD => RECORD_FLAGS,
        KIND_EPOCH_START => FLAG_OLD_VOTERS,
        KIND_SNAPSHOT | KIND_SYNC_MARK => 0,
        KIND_COMPACTED => FLAG_MORE | FLAG_PRODUCER,
        _ => return Err(Fault::Kind(kind)),
    };
    if flags & !known != 0 {
        return Err(Fault::Flags { kind, flags });
    }
    match kind {
        KIND_RECORD => parse_record(cursor, flags, header_count, key_bytes).map(Frame::Record),
        KIND_EPOCH_START => parse_start(cursor, flags).map(Frame::Start),
        KIND_SNAPSHOT => parse_snapshot(cursor).map(Frame::Snapshot),
        KIND_COMPACTED => parse_compacted(cursor, flags).map(Frame::Compacted),
        _ => parse_sync_mark(cursor).map(Frame::SyncMark),
    }
}

fn parse_record(mut body: Cursor<'_>, flags: u8, header_count: u16, key_bytes: u32) -> Result<RecordView<'_>, Fault> {
    let mut place = || Some((Offset(body.u64()?), Epoch(body.u64()?), body.u64()?));
    let place = place().ok_or(Fault::Layout)?;
    finish_record(body, place, flags, header_count, key_bytes)
}

#[inline]
fn finish_record(
    mut body: Cursor<'_>,
    (offset, epoch, timestamp_ms): (Offset, Epoch, u64),
    flags: u8,
    header_count: u16,
    key_bytes: u32,
) -> Result<RecordView<'_>, Fault> {
    let mut parse = || {
        let producer = match flags & FLAG_PRODUCER {
            0 => None,
            _ => Some(Producer { id: body.u128()?, sequence: body.u64()? }),
        };
        let key = body.slice(length(key_bytes.into()))?;
        let headers = body.0;
        for _ in 0..header_count {
            if let Err(fault) = header(&mut body)? {
                return Some(Err(fault));
            }
        }
        let headers = headers.get(..headers.len() - body.0.len())?;
        let key = match flags & FLAG_KEY {
            0 if key_bytes != 0 => return None,
            0 => None,
            _ => Some(key),
        };
        let (more, value) = (flags & FLAG_MORE != 0, body.0);
        Some(Ok(RecordView { offset, epoch, timestamp_ms, more, producer, key, value, headers, header_count }))
    };
    parse().ok_or(Fault::Layout)?
}

fn parse_start(mut body: Cursor<'_>, flags: u8) -> Result<EpochStart, Fault> {
    let mut parse = || {
        let (epoch, start, leader) = (Epoch(body.u64()?), Offset(body.u64()?), ReplicaId(body.u128()?));
        let (quorum, voters, old_voters) = (body.u32()?, body.u32()?, body.u32()?);
        let has_old = flags & FLAG_OLD_VOTERS != 0;
        if body.0.len() != (length(voters.into()).checked_add(length(old_voters.into()))?).checked_mul(16)?
            || (!has_old && old_voters != 0)
        {
            return None;
        }
        let mut ids = |count| (0..count).map(|_| body.u128().map(ReplicaId)).collect::<Option<Vec<_>>>();
        let voters = ids(voters)?;
        let old_voters = ids(old_voters)?;
        Some(EpochStart { epoch, start, leader, voters, quorum, old_voters: has_old.then_some(old_voters) })
    };
    let start = parse().ok_or(Fault::Layout)?;
    check_voters(&start)?;
    Ok(start)
}

fn parse_snapshot(mut body: Cursor<'_>) -> Result<Snapshot, Fault> {
    let mut head = || Some((Offset(body.u64()?), body.u64()?, body.u32()?, body.u32()?));
    let (base, timestamp_ms, start_count, extension_bytes) = head().ok_or(Fault::Layout)?;
    let mut starts = Vec::new();
    for _ in 0..start_count {
        let (Frame::Start(start), bytes) = parse(body.0, 0)? else { return Err(Fault::Layout) };
        starts.push(start);
        body.slice(bytes).ok_or(Fault::Layout)?;
    }
    if body.0.len() != length(extension_bytes.into()) {
        return Err(Fault::Layout);
    }
    Ok(Snapshot { base, timestamp_ms, starts, producers: body.0.to_vec() })
}

fn parse_sync_mark(mut body: Cursor<'_>) -> Result<SyncMark, Fault> {
    let mut parse = || {
        let (position, epoch, end) = (body.u64()?, Epoch(body.u64()?), Offset(body.u64()?));
        Some(SyncMark { position, tail: Tail { epoch, end } })
    };
    parse().filter(|_| body.0.is_empty()).ok_or(Fault::Layout)
}

/// Voters that can elect and commit: what is encoded and what is decoded must both pass.
pub(crate) fn check_voters(start: &EpochStart) -> Result<(), Fault> {
    let (voters, old_voters) = (start.voters.len(), start.old_voters.as_ref().map_or(0, Vec::len));
    let quorum = length(start.quorum.into());
    if voters > VOTERS_MAX || old_voters > VOTERS_MAX || quorum > voters || quorum <= voters / 2 {
        return Err(Fault::Voters { quorum: start.quorum, voters, old_voters });
    }
    Ok(())
}
