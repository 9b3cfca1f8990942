//! Looking after a log that nobody has open: what it rests on besides its records, and what opening it would do. Over an
//! [`crate::Overlay`] nothing is changed.

use std::io;
use std::path::PathBuf;

use zue_core::{Offset, ProducerLimits, ReplicaId};

use crate::config::LogConfig;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, DiskError, OpenError, Operation, ReadError};
use crate::format::frame::peek;
use crate::format::layout::KIND_RECORD;
use crate::log::Log;
use crate::meta::META_FILE;
use crate::num::length;
use crate::recovery::open::Recovered;
use crate::segment::header::{base_of, index_name};
use crate::segment::index::{self, Entry};
use crate::segment::part::Part;

/// An index file that is not what its segment gives. It holds nothing that the segment does not: the log makes it again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct BadIndex {
    /// The file.
    pub path: PathBuf,
    /// The fault in it.
    pub fault: IndexFault,
}

/// The fault in an index file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IndexFault {
    /// It is not there, or empty: so it is after some crashes, too.
    #[error("it is not there, or empty")]
    Missing,
    /// Its bytes are not what was written for this segment.
    #[error("damaged at byte {0}")]
    Damaged(u64),
    /// An entry of it names a place where its record is not.
    #[error("the entry at byte {position} says that record {offset} is where it is not")]
    Wrong {
        /// Of the entry in the index file.
        position: u64,
        /// The offset that the entry names.
        offset: Offset,
    },
}

/// Returns whether there is a log in the directory, in whatever state.
///
/// # Errors
/// When it cannot be listed.
pub fn holds_log<D: Disk>(disk: &D) -> io::Result<bool> {
    let is_of_log = |name: &String| name == META_FILE || base_of(name, ".log").is_some();
    Ok(disk.list()?.iter().any(is_of_log))
}

/// Opens a log that is there as a replica would, with the same repairs, and looks at every segment once, so that each has its index
/// again. Over an [`crate::Overlay`] it shows what that would do.
///
/// # Errors
/// As [`Log::open`]; also when a segment cannot be read.
pub fn repair<D: Disk>(disk: D) -> Result<(Log<D>, Recovered), OpenError> {
    // Nothing that is remembered is to be forgotten by this: the settings of the replica are not known here.
    let producers = ProducerLimits { producers_max: usize::MAX, appends_max: usize::MAX, all_appends_max: usize::MAX };
    let config = LogConfig { producers, ..LogConfig::default() };
    let (log, recovered) = Log::open(disk, config, ReplicaId(0))?;
    for part in &*log.view.sealed {
        // Not all of it would be looked at, and what is whole would be believed.
        if let Some(IndexFault::Wrong { .. } | IndexFault::Damaged(_)) = index_fault(part, &log.disk)? {
            let name = index_name(part.segment.base());
            log.disk.remove(&name).context(Operation::Remove, || log.disk.path(&name))?;
        }
        // Damage is named by a verifier.
        if let Err(ReadError::Disk(error)) = part.body() {
            return Err(error.into());
        }
    }
    Ok((log, recovered))
}

/// Checks the index files of a log as they are on `disk`; gives those that are bad, oldest first.
///
/// # Errors
/// When the disk refuses.
pub fn bad_indexes<D: Disk>(log: &Log<D>, disk: &impl Disk) -> Result<Vec<BadIndex>, DiskError> {
    let mut bad = Vec::new();
    for part in log.view.parts() {
        let path = disk.path(&index_name(part.segment.base()));
        bad.extend(index_fault(&part, disk)?.map(|fault| BadIndex { path, fault }));
    }
    Ok(bad)
}

/// The fault in a segment's index file as it is on `disk`.
fn index_fault<D: Disk>(part: &Part<D>, disk: &impl Disk) -> Result<Option<IndexFault>, DiskError> {
    let name = index_name(part.segment.base());
    let path = || disk.path(&name);
    let file = match disk.open(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(IndexFault::Missing)),
        file => file.context(Operation::Open, path)?,
    };
    let (header, bytes_max) = (&part.segment.header, index::bytes_max(part.segment.file_bytes));
    let (have, bytes) =
        file.len().and_then(|have| Ok((have, file.read(0..have.min(bytes_max))?))).context(Operation::Read, path)?;
    match index::decode(&bytes, header.nonce, part.segment.mask) {
        _ if bytes.is_empty() => Ok(Some(IndexFault::Missing)),
        Ok(_) if have > bytes_max => Ok(Some(IndexFault::Damaged(bytes_max))),
        Ok(entries) => first_wrong(part, &entries),
        Err(position) => Ok(Some(IndexFault::Damaged(position))),
    }
}

/// The first entry that names a place in the log where its record is not. What was cut may still have entries, and so may what is
/// known to be damaged.
fn first_wrong<D: Disk>(part: &Part<D>, entries: &[Entry]) -> Result<Option<IndexFault>, DiskError> {
    let segment = &part.segment;
    let bytes = segment.file.view(0..part.bytes_end).context(Operation::Read, || segment.place.path.clone())?;
    let is_there = |entry: &Entry| {
        let frame = bytes.get(length(entry.position)..).and_then(peek);
        frame.is_some_and(|frame| {
            (frame.kind, frame.first_word, frame.timestamp_ms) == (KIND_RECORD, entry.offset, entry.timestamp_ms)
        })
    };
    let damaged = segment.place.damaged();
    let is_damaged =
        |entry: &Entry| damaged.iter().any(|damaged| damaged.from.0 <= entry.offset && entry.offset < damaged.to.0);
    let within = entries.iter().enumerate().filter(|(_, entry)| entry.position < part.bytes_end && !is_damaged(entry));
    let wrong = within.into_iter().find(|(_, entry)| !is_there(entry));
    Ok(wrong.map(|(at, entry)| IndexFault::Wrong { position: index::position_of(at), offset: Offset(entry.offset) }))
}
