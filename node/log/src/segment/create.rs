//! Segment files: their names, headers and creation. A file appears whole under its name or not at all, and nothing written
//! in it is ever overwritten.

use zue_core::{EpochStart, Offset, Producers};

use crate::config::RESERVE_BYTES;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, HeaderFault, Operation};
use crate::format::block::{self, BLOCK_BYTES};
use crate::format::encode::put_snapshot;
use crate::format::frame::Snapshot;
use crate::log::Log;
use crate::num::{Cursor, wide};
use crate::read::read_view::Part;
use crate::segment::preallocate::{Fill, Spare, fill};
use crate::segment::{Body, Segment};

pub(crate) const SEGMENT_TEMP: &str = "segment.next";
/// A file for a segment to come.
pub(crate) const SEGMENT_SPARE: &str = "segment.spare";
/// Room that is given up when a full disk has to take a segment all the same.
pub(crate) const RESERVE_FILE: &str = "reserve";
const RESERVE_FILE_BYTES: u64 = 64 << 10;
const KEPT: &str = "kept";
const MAGIC: [u8; 8] = *b"ZUE-SEG\n";
const FLAG_USED: u32 = 1;

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
    /// How often it was written anew, and where its valid bytes end since then; `None` if it is as it was made.
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
    /// How often it had been written anew then. Once it was again, it says itself where it ends.
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
        let prev = prev.map_or([0; 4], |Prev { base, sequence, end, generation }| [base.0, sequence, end, generation]);
        let rewritten = rewritten.map_or([0; 2], |Rewritten { generation, end }| [generation, end]);
        let words = [[nonce, sequence, base.0].as_slice(), &prev, &rewritten].concat();
        let fields: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        block::encode(MAGIC, if used { FLAG_USED } else { 0 }, &fields)
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

    /// How often it was written anew.
    pub(crate) fn generation(&self) -> u64 {
        self.rewritten.map_or(0, |rewritten| rewritten.generation)
    }

    /// Where its valid bytes end, given the segment that follows it. What that says of this generation counts: a cut may have taken
    /// some of the bytes.
    pub(crate) fn end_before(&self, next: &Self) -> u64 {
        let (generation, end) = next.prev.map_or((0, 0), |prev| (prev.generation, prev.end));
        self.rewritten.filter(|own| own.generation > generation).map_or(end, |own| own.end)
    }

    /// What the file's CRCs are masked with.
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

/// A segment that is to be made.
pub(crate) struct Draft<'a> {
    pub(crate) sequence: u64,
    pub(crate) base: Offset,
    pub(crate) prev: Option<Prev>,
    /// The epoch starts before it.
    pub(crate) starts: &'a [EpochStart],
    pub(crate) timestamp_ms: u64,
    /// Who appended what before it.
    pub(crate) producers: &'a Producers,
    /// What must find room in it besides header, snapshot and reserve.
    pub(crate) first_bytes: u64,
    /// How long the file is to be, if that is enough.
    pub(crate) file_bytes: u64,
    /// Whether it has to be made if it can be: a shorter file will do when the disk is full.
    pub(crate) may_be_short: bool,
    /// How much of the file to fill with zeroes at once, if it is made now.
    pub(crate) zero_bytes: u64,
}

/// A segment file with room reserved, not yet in the log.
pub(crate) struct Reserved<D: Disk> {
    spare: Spare<D::File>,
    /// What it is called until it is in the log.
    name: &'static str,
    header: Header,
    head: Vec<u8>,
    timestamp_ms: u64,
    zero_bytes: u64,
}

impl Draft<'_> {
    /// Reserves the room, in the spare file if that is large enough. What fails here has changed nothing.
    pub(crate) fn reserve<D: Disk>(
        &self,
        disk: &D,
        spare: &mut Option<Spare<D::File>>,
    ) -> Result<Reserved<D>, DiskError> {
        let Self {
            sequence,
            base,
            prev,
            starts,
            timestamp_ms,
            producers,
            first_bytes,
            file_bytes,
            may_be_short,
            zero_bytes,
        } = *self;
        let path = || disk.path(SEGMENT_TEMP);
        let nonce = disk.entropy().context(Operation::Random, path)?;
        let mut header = Header { nonce, sequence, base, prev, rewritten: None, used: false };
        let mut snapshot = Vec::new();
        let (starts, producers) = (starts.to_vec(), producers.encode());
        put_snapshot(&mut snapshot, &Snapshot { base, timestamp_ms, starts, producers }, header.mask());
        let head_bytes = wide(BLOCK_BYTES + snapshot.len());
        let least = head_bytes.saturating_add(first_bytes).saturating_add(RESERVE_BYTES);
        let spare = spare.take_if(|spare| least <= spare.file_bytes);
        header.used = spare.as_ref().is_some_and(|spare| spare.used);
        let head = [header.encode().as_slice(), &snapshot].concat();
        if let Some(spare) = spare {
            return Ok(Reserved { spare, name: SEGMENT_SPARE, header, head, timestamp_ms, zero_bytes });
        }
        // What it takes to follow another's log is made of the files that are kept, too.
        if !may_be_short {
            disk.may_hold_another().context(Operation::Create, path)?;
        }
        let reserve = |file_bytes: u64| {
            let file = disk.create(SEGMENT_TEMP).context(Operation::Create, path)?;
            if let Err(error) = file.allocate(file_bytes) {
                // Gives back what was reserved; if that fails too, the next open does it.
                let _ = disk.remove(SEGMENT_TEMP);
                return Err(error).context(Operation::Allocate, path);
            }
            Ok((file, file_bytes))
        };
        let (file, file_bytes) = match reserve(least.max(file_bytes)) {
            Err(_) if may_be_short => reserve(least).or_else(|error| match disk.remove(RESERVE_FILE) {
                Ok(()) => reserve(least),
                Err(_) => Err(error),
            })?,
            reserved => reserved?,
        };
        let spare = Spare { file, file_bytes, filled: 0, used: false };
        Ok(Reserved { spare, name: SEGMENT_TEMP, header, head, timestamp_ms, zero_bytes })
    }
}

impl<D: Disk> Log<D> {
    /// Makes the reserve again, or larger, if there is room: enough for a segment that a cut to here makes. Without it a full disk can
    /// do less, but nothing is wrong.
    pub(crate) fn keep_reserve(&self) {
        let starts = self.view.history.starts().to_vec();
        let snapshot = Snapshot { base: Offset(0), timestamp_ms: 0, starts, producers: self.producers.encode() };
        let mut head = vec![0; BLOCK_BYTES];
        put_snapshot(&mut head, &snapshot, 0);
        let need = wide(head.len()).saturating_add(RESERVE_BYTES).max(RESERVE_FILE_BYTES);
        let disk = &self.disk;
        match disk.open(RESERVE_FILE) {
            Ok(file) if file.len().is_ok_and(|bytes| bytes >= need) => {}
            // Without room it stays as it is.
            Ok(file) => drop(file.allocate(need)),
            Err(_) => {
                if let Ok(file) = disk.create(RESERVE_FILE)
                    && file.allocate(need).is_err()
                {
                    let _ = disk.remove(RESERVE_FILE);
                }
            }
        }
    }
}

impl<D: Disk> Reserved<D> {
    /// Puts the segment, which has no frames yet, into the log: when this returns, it is there durably.
    pub(crate) fn commit(self, disk: &D, index_interval: u32) -> Result<(Part<D>, Fill), DiskError> {
        let Self { spare, name, header, head, timestamp_ms, zero_bytes } = self;
        let Spare { file, file_bytes, filled, .. } = spare;
        let path = || disk.path(name);
        file.write_at(0, &head).context(Operation::Write, path)?;
        let filled = fill(&file, filled.max(wide(head.len())), zero_bytes.min(file_bytes));
        let filled = filled.context(Operation::Write, path)?;
        file.sync_data().context(Operation::Sync, path)?;
        let renamed = disk.rename(name, &segment_name(header.base));
        // Without room for the name, that of the file is given back.
        renamed.inspect_err(|_| drop(disk.remove(name))).context(Operation::Rename, path)?;
        disk.sync_dir().context(Operation::Sync, || disk.path(""))?;
        let segment = Segment::new(disk, file, file_bytes, header, index_interval);
        let data_start = wide(head.len());
        segment.begin(Body::new(data_start, Some(timestamp_ms)));
        Ok((Part { segment: segment.into(), bytes_end: data_start, end: header.base }, Fill::new(data_start, filled)))
    }
}
