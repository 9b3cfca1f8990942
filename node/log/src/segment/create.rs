//! Segment files: their names, headers and creation. A file appears whole under its name or not at all, and nothing written
//! in it is ever overwritten.

use zue_core::{EpochStart, Offset, Producers};

use crate::config::RESERVE_BYTES;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, Operation};
use crate::format::block::BLOCK_BYTES;
use crate::format::encode::put_snapshot;
use crate::format::frame::parse;
use crate::format::local::Snapshot;
use crate::num::wide;
use crate::segment::header::{Header, Prev, RESERVE_FILE, SEGMENT_SPARE, SEGMENT_TEMP, segment_name};
use crate::segment::part::Part;
use crate::segment::preallocate::{Preallocation, Spare, write_zeroes};
use crate::segment::{Body, Segment};

/// A segment that is to be made.
pub(crate) struct Draft<'a> {
    pub(crate) sequence: u64,
    pub(crate) base: Offset,
    pub(crate) prev: Option<Prev>,
    /// The epoch starts before it.
    pub(crate) starts: &'a [EpochStart],
    pub(crate) timestamp_ms: u64,
    /// The appends of the producers before it.
    pub(crate) producers: &'a Producers,
    /// The bytes that must find room in it besides header, snapshot and reserve.
    pub(crate) first_bytes: u64,
    /// The length of the file, if that is enough.
    pub(crate) file_bytes: u64,
    /// True if it has to be made if it can be: a shorter file will do when the disk is full.
    pub(crate) may_be_short: bool,
    /// The part of the file to fill with zeroes at once, if it is made now.
    pub(crate) zero_bytes: u64,
}

/// A segment file with room reserved, not yet in the log.
pub(crate) struct Reserved<D: Disk> {
    spare: Spare<D::File>,
    /// Its name until it is in the log.
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
        debug_assert!(
            starts.last().is_none_or(|last| last.start <= base),
            "an epoch starts behind the segment before which it does"
        );
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
        debug_assert!(parse(&snapshot, header.mask()).is_ok(), "a snapshot that is not read again");
        let head = [header.encode().as_slice(), &snapshot].concat();
        assert_eq!(wide(head.len()), head_bytes, "the head of a segment is longer than was counted");
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
        assert!(least <= file_bytes, "a segment has less room than it needs");
        let spare = Spare { file, file_bytes, filled: 0, used: false };
        Ok(Reserved { spare, name: SEGMENT_TEMP, header, head, timestamp_ms, zero_bytes })
    }
}

impl<D: Disk> Reserved<D> {
    /// Puts the segment, which has no frames yet, into the log: when this returns, it is there durably.
    pub(crate) fn commit(self, disk: &D, index_interval: u32) -> Result<(Part<D>, Preallocation), DiskError> {
        let Self { spare, name, header, head, timestamp_ms, zero_bytes } = self;
        let Spare { file, file_bytes, filled, .. } = spare;
        let path = || disk.path(name);
        assert!(wide(head.len()) <= file_bytes, "a segment is shorter than its head");
        file.write_at(0, &head).context(Operation::Write, path)?;
        let filled = write_zeroes(&file, filled.max(wide(head.len())), zero_bytes.min(file_bytes));
        let filled = filled.context(Operation::Write, path)?;
        file.sync_data().context(Operation::Sync, path)?;
        let renamed = disk.rename(name, &segment_name(header.base));
        // Without room for the name, that of the file is given back.
        renamed.inspect_err(|_| drop(disk.remove(name))).context(Operation::Rename, path)?;
        disk.sync_dir().context(Operation::Sync, || disk.path(""))?;
        debug_assert!(filled <= file_bytes, "a segment is filled behind its end");
        let segment = Segment::new(disk, file, file_bytes, header, index_interval);
        let data_start = wide(head.len());
        segment.begin(Body::new(data_start, Some(timestamp_ms)));
        Ok((
            Part { segment: segment.into(), bytes_end: data_start, end: header.base },
            Preallocation::new(data_start, filled),
        ))
    }
}
