//! The header of a segment file, and the names of the files.

use zue_core::Offset;

use crate::error::HeaderFault;
use crate::format::block::{self, BLOCK_BYTES};
use crate::num::Cursor;

pub(crate) const SEGMENT_TEMP: &str = "segment.next";

/// A file for a segment to come.
pub(crate) const SEGMENT_SPARE: &str = "segment.spare";

/// A segment that is being written anew.
pub(crate) const SEGMENT_REWRITTEN: &str = "segment.anew";

/// Room that is given up when a full disk has to take a segment all the same.
pub(crate) const RESERVE_FILE: &str = "reserve";

pub(crate) const KEPT: &str = "kept";

pub(crate) const MAGIC: [u8; 8] = *b"ZUE-SEG\n";

pub(crate) const FLAG_USED: u32 = 1;

/// The fixed part of a segment file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// Random; enters every CRC of the file, so that no other file's bytes pass for this one's.
    pub(crate) nonce: u64,
    /// Rises with every segment made in the directory. The log is the segment with the highest, and what that one follows.
    pub(crate) sequence: u64,
    pub(crate) base: Offset,
    /// The segment before; `None` if the log starts here.
    pub(crate) prev: Option<Prev>,
    /// The number of times it was written anew, and where its valid bytes end since then; `None` if it is as it was made.
    pub(crate) rewritten: Option<Rewritten>,
    /// The file was a segment before: what is behind the log's end is not zeroes but old bytes, whose CRCs are masked otherwise.
    pub(crate) used: bool,
}

/// The segment before, and how much of it is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Prev {
    pub(crate) base: Offset,
    /// Never 0: that says in the file that there is none.
    pub(crate) sequence: u64,
    /// The position at which its valid bytes end. What is behind was cut away.
    pub(crate) end: u64,
    /// The number of times it had been written anew then. Once it was again, it says itself where it ends.
    pub(crate) generation: u64,
}

/// A segment that was written anew, without what was compacted away or with what was repaired. It has the identity of the one whose
/// place it took: base, sequence and what it follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rewritten {
    /// Rises each time; never 0: that says in the file that it was not.
    pub(crate) generation: u64,
    /// The position at which its valid bytes end.
    pub(crate) end: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let Self { nonce, sequence, base, prev, rewritten, used } = *self;
        assert!(prev.is_none_or(|prev| prev.sequence != 0), "a segment follows one that reads as none");
        assert!(rewritten.is_none_or(|own| own.generation != 0), "a rewritten segment reads as one that was not");
        let prev = prev.map_or([0; 4], |Prev { base, sequence, end, generation }| [base.0, sequence, end, generation]);
        let rewritten = rewritten.map_or([0; 2], |Rewritten { generation, end }| [generation, end]);
        let words = [[nonce, sequence, base.0].as_slice(), &prev, &rewritten].concat();
        let fields: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let bytes = block::encode(MAGIC, if used { FLAG_USED } else { 0 }, &fields);
        debug_assert_eq!(Self::decode(&bytes), Ok(*self), "a header that says something else");
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let (flags, mut fields) = block::decode::<BLOCK_BYTES>(bytes, MAGIC, FLAG_USED)?;
        let used = flags & FLAG_USED != 0;
        let mut parse = || {
            let (nonce, sequence, base) = (fields.u64()?, fields.u64()?, Offset(fields.u64()?));
            let (prev_base, prev_sequence) = (Offset(fields.u64()?), fields.u64()?);
            let (end, generation) = (fields.u64()?, fields.u64()?);
            let prev = Prev { base: prev_base, sequence: prev_sequence, end, generation };
            let prev = Some(prev).filter(|prev| prev.sequence != 0);
            let rewritten = Rewritten { generation: fields.u64()?, end: fields.u64()? };
            let rewritten = Some(rewritten).filter(|rewritten| rewritten.generation != 0);
            Some(Self { nonce, sequence, base, prev, rewritten, used })
        };
        parse().ok_or(HeaderFault::Short)
    }

    /// The number of times it was written anew.
    pub(crate) fn generation(&self) -> u64 {
        self.rewritten.map_or(0, |rewritten| rewritten.generation)
    }

    /// The position at which its valid bytes end, given the segment that follows it. What that says of this generation counts: a cut may
    /// have taken some of the bytes.
    pub(crate) fn end_before(&self, next: &Self) -> u64 {
        let (generation, end) = next.prev.map_or((0, 0), |prev| (prev.generation, prev.end));
        self.rewritten.filter(|own| own.generation > generation).map_or(end, |own| own.end)
    }

    /// The mask of the file's CRCs.
    pub(crate) fn mask(&self) -> u32 {
        let nonce = self.nonce.to_le_bytes();
        let mut halves = Cursor(&nonce);
        halves.u32().unwrap_or_default() ^ halves.u32().unwrap_or_default()
    }
}

/// The name of the segment file with that base.
pub(crate) fn segment_name(base: Offset) -> String {
    format!("{:020}.log", base.0)
}

/// The name of its index file.
pub(crate) fn index_name(base: Offset) -> String {
    format!("{:020}.index", base.0)
}

/// The name under which a segment file is kept whose own name goes to another.
pub(crate) fn kept_name(header: &Header) -> String {
    format!("{:020}-{}.{KEPT}", header.base.0, header.sequence)
}

pub(crate) fn is_kept(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension == KEPT)
}

/// The base in the name of a segment or index file.
pub(crate) fn base_of(name: &str, extension: &str) -> Option<Offset> {
    let digits = name.strip_suffix(extension)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok().map(Offset))
        .flatten()
}
