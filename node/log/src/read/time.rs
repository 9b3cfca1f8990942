//! From a time to a place in the log. Timestamps never fall along the log, so two binary searches find it: over the segments, each of
//! which tells the time before it, and over the index of one of them.

use zue_core::Offset;

use crate::disk::Disk;
use crate::error::ReadError;
use crate::format::salvage::{Frames, Piece};
use crate::read::read_view::ReadView;
use crate::segment::part::Part;

impl<D: Disk> ReadView<D> {
    /// The offset of the first record that can be read and is no older; the log's end if all are older.
    pub(crate) fn offset_at(&self, timestamp_ms: u64) -> Result<Offset, ReadError> {
        let active = self.active_part();
        let parts: Vec<&Part<D>> = self.sealed.iter().chain([&active]).collect();
        // The last part that something older lies in front of: it holds the record, unless its end was removed or is damaged.
        let (mut from, mut to) = (0, parts.len());
        while to - from > 1 {
            let middle = from.midpoint(to);
            let older = match parts.get(middle..) {
                Some(parts) => time_before(parts)?.is_some_and(|before| before < timestamp_ms),
                None => false,
            };
            if older { from = middle } else { to = middle }
        }
        for part in parts.get(from..).unwrap_or_default() {
            if let Some(offset) = part.offset_at(timestamp_ms, self.log_start)? {
                return Ok(offset);
            }
        }
        Ok(active.end)
    }
}

/// A time that lies between that of the record before these parts and that of the first one in them.
fn time_before<D: Disk>(parts: &[&Part<D>]) -> Result<Option<u64>, ReadError> {
    for part in parts {
        let body = part.body()?;
        let known = match body.timestamp_ms {
            Some(known) => Some(known),
            None => part.first_record((body.data_start, part.segment.base()), |_, _| true)?.map(|(_, time)| time),
        };
        if known.is_some() {
            return Ok(known);
        }
    }
    Ok(None)
}

impl<D: Disk> Part<D> {
    fn offset_at(&self, timestamp_ms: u64, log_start: Offset) -> Result<Option<Offset>, ReadError> {
        let older = [self.last_older(timestamp_ms)?, self.near(log_start)?];
        let older = older.into_iter().flatten().max_by_key(|at| at.offset);
        let (data_start, base) = (self.body()?.data_start, self.segment.base());
        let from = older.map_or((data_start, base), |at| (at.position, Offset(at.offset)));
        Ok(self
            .first_record(from, |offset, time| offset >= log_start && time >= timestamp_ms)?
            .map(|(offset, _)| offset))
    }

    /// The first whole record from a frame on that is wanted, and its time.
    fn first_record(
        &self,
        (position, next): (u64, Offset),
        is_wanted: impl Fn(Offset, u64) -> bool,
    ) -> Result<Option<(Offset, u64)>, ReadError> {
        let segment = &*self.segment;
        let bytes = segment.view(position, self.bytes_end)?;
        for piece in Frames::new(&bytes, segment.mask, position, next, self.end) {
            match piece {
                Piece::Record(_, record) if is_wanted(record.offset, record.timestamp_ms) => {
                    return Ok(Some((record.offset, record.timestamp_ms)));
                }
                Piece::Record(..) | Piece::Compacted(..) => {}
                Piece::Damaged(damaged) => {
                    if let error @ ReadError::Disk(_) = segment.place.blame(damaged) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(None)
    }
}
