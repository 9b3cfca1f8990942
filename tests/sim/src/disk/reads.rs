//! Reads of a log, beside what was written to it.

use zue_core::{Offset, ProducerLimits, Tail};
use zue_log::ReadError;

use crate::batch::{Batch, Record};
use crate::disk::{Storage, WorkError};

impl Storage {
    /// Compares the log with what was written to it, as far as it can be read; gives what was compacted away.
    pub(crate) fn compare(&self, limits: ProducerLimits) -> Result<Vec<Offset>, WorkError> {
        let origin = self.origin(limits).map_err(|error| WorkError::Wrong(error.to_string()))?;
        let (mut records, mut gone, mut at) = (Vec::new(), Vec::new(), origin.tail());
        let written = self.records.range(origin.at, self.records.end());
        loop {
            match self.read_frames(at, 64 << 10) {
                Ok(Some(batch)) => {
                    records.extend_from_slice(batch.records());
                    gone.extend_from_slice(batch.gone());
                    at = batch.tail();
                }
                Ok(None) if records == written => return Ok(gone),
                Err(_) if self.harm.any && written.starts_with(&records) => return Ok(gone),
                Ok(None) => {
                    let (is, was) = (records.len(), written.len());
                    return Err(WorkError::Wrong(format!(
                        "{:?} reads {is} records, other than the {was} written",
                        self.id()
                    )));
                }
                Err(error) => return Err(WorkError::Wrong(error.to_string())),
            }
        }
    }

    /// The frames after `from`, about as many as `bytes_max` hold, at least one; none if nothing follows.
    pub(crate) fn read_frames(&self, from: Tail, bytes_max: usize) -> Result<Option<Batch>, ReadError> {
        let reader = self.log().reader();
        let Some(frames) = reader.read_frames(from, reader.tail(), bytes_max)? else { return Ok(None) };
        let (begin, end) = (frames.prev().end, frames.tail().end);
        // What is trimmed is read no more, but still replicated; what was compacted away is known from before.
        let start = begin.max(self.must.trimmed).min(end);
        let mut records = self.records.range(begin, end).to_vec();
        let mut gone = Vec::new();
        let mut read = self.read(start, end)?.into_iter().peekable();
        for record in records.iter_mut().filter(|record| record.offset >= start) {
            match read.next_if(|read| read.offset == record.offset) {
                Some(read) => *record = read,
                None => gone.push(record.offset),
            }
        }
        Ok(Some(Batch::new(frames, records.into(), gone.into())))
    }

    /// The records in `from..upto`, but those that were compacted away.
    pub(crate) fn read(&self, from: Offset, upto: Offset) -> Result<Vec<Record>, ReadError> {
        let reader = self.log().reader();
        let mut records = Vec::new();
        let mut at = from;
        while at < upto {
            let chunk = reader.read(at, upto, 4 << 10)?;
            for record in chunk.records() {
                records.push(Record::of(&record?));
            }
            if chunk.end() == at {
                break;
            }
            at = chunk.end();
        }
        Ok(records)
    }
}
