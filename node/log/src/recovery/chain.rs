//! The segments of a directory that are the log, and whether they are whole. Changes nothing.

use std::collections::BTreeMap;

use zue_core::{Offset, Tail};

use crate::config::LogConfig;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Damage, HeaderFault, Later, OpenError, Operation, ReadError};
use crate::format::block::BLOCK_BYTES;
use crate::format::fault::Fault;
use crate::format::salvage::DamagedRange;
use crate::meta::Meta;
use crate::num::wide;
use crate::recovery::scan::State;
use crate::recovery::tail_check::{Active, Forbids, LogFacts, check_tail};
use crate::segment::header::{Header, base_of, index_name, segment_name};
use crate::segment::index::{self, IndexWriter, Spacing};
use crate::segment::part::Part;
use crate::segment::{Body, Segment};

/// A segment file whose header is good.
pub(crate) struct Candidate<F> {
    pub(crate) file: F,
    pub(crate) file_bytes: u64,
    pub(crate) header: Header,
}

/// The segments of the log, oldest first. All but the last end where the next one says.
pub(crate) type Chain<F> = Vec<Candidate<F>>;

/// A log whose active segment was looked at.
pub(crate) struct Checked<D: Disk> {
    pub(crate) sealed: Vec<Part<D>>,
    pub(crate) active: Part<D>,
    /// The position at which its frames begin.
    pub(crate) data_start: u64,
    /// Of the active segment's index.
    pub(crate) spacing: Spacing,
    pub(crate) state: State,
    pub(crate) damaged: Vec<Damage>,
    pub(crate) suspect: Option<Tail>,
    /// The number of bytes behind the last whole append that are not zero.
    pub(crate) torn_bytes: u64,
    /// The log has to go on in another segment, so that what is left behind its end never counts.
    pub(crate) renew: bool,
}

/// The segment files by the bases in their names, also those whose headers are bad.
pub(crate) type SegmentFiles<F> = BTreeMap<Offset, Result<Candidate<F>, HeaderFault>>;

/// Reads the header of every segment file. Also looks at the heads of the index files, for what a later version has written.
pub(crate) fn read_headers<D: Disk>(disk: &D, names: &[String]) -> Result<SegmentFiles<D::File>, OpenError> {
    names
        .iter()
        .filter(|name| base_of(name, ".index").is_some())
        .try_for_each(|name| check_index_version(disk, name))?;
    let read = |base: Offset, name: &str| {
        let path = || disk.path(name);
        let file = disk.open(name).context(Operation::Open, path)?;
        let file_bytes = file.len().context(Operation::Read, path)?;
        let bytes = file.read(0..file_bytes.min(wide(BLOCK_BYTES))).context(Operation::Read, path)?;
        let header = Header::decode(&bytes)
            .and_then(|header| if header.base == base { Ok(header) } else { Err(HeaderFault::Name) });
        match header {
            Err(what @ HeaderFault::Later(_)) => Err(what.of(path())),
            header => Ok((base, header.map(|header| Candidate { file, file_bytes, header }))),
        }
    };
    names.iter().filter_map(|name| base_of(name, ".log").map(|base| read(base, name))).collect()
}

/// An index that cannot be read is made again.
fn check_index_version<D: Disk>(disk: &D, name: &str) -> Result<(), OpenError> {
    let head = || {
        let file = disk.open(name)?;
        file.read(0..file.len()?.min(wide(index::HEADER_BYTES)))
    };
    let later = head().ok().and_then(|head| index::later_version(&head));
    later.map_or(Ok(()), |version| Err(OpenError::Later { path: disk.path(name), what: Later::Version(version) }))
}

/// The segments that are the log: the one made last, and those it follows. Those that hold nothing from the log's start on may be there
/// or not. The others were cut away. `known` is the greatest sequence that the meta file tells of.
pub(crate) fn chain<D: Disk>(
    disk: &D,
    (log_start, known): (Offset, u64),
    found: SegmentFiles<D::File>,
) -> Result<Chain<D::File>, OpenError> {
    let (mut all, mut bad) = (BTreeMap::new(), BTreeMap::new());
    for (base, header) in found {
        match header {
            Ok(candidate) => {
                all.insert(base, candidate);
            }
            Err(what) => {
                bad.insert(base, what);
            }
        }
    }
    let newest = all.iter().max_by_key(|(_, candidate): &(_, &Candidate<_>)| candidate.header.sequence);
    let is_newest_here = newest.is_some_and(|(_, newest)| newest.header.sequence >= known);
    // What was trimmed may come back after a crash, whole or not. Whatever is made later has a base from the log's start on.
    if let Some((base, what)) = bad.iter().find(|(base, _)| **base >= log_start || !is_newest_here) {
        return Err(what.of(disk.path(&segment_name(*base))));
    }
    let newest = newest.map(|(base, _)| *base);
    let mut chain: Chain<D::File> = newest.and_then(|base| all.remove(&base)).into_iter().collect();
    while let Some(Header { base, sequence, prev: Some(prev), .. }) = chain.last().map(|last| last.header) {
        let follows = |found: &Candidate<_>| {
            let Header { sequence: found_sequence, .. } = found.header;
            // A file from before it was written anew has other bytes than this one follows.
            let generation = found.header.generation();
            (found_sequence, prev.generation) == (prev.sequence, prev.generation.min(generation))
                && prev.sequence < sequence
                && prev.base < base
        };
        match all.remove(&prev.base).filter(follows) {
            Some(found) => chain.push(found),
            // Those before were trimmed, and may be gone, or damaged.
            None if base <= log_start => break,
            None => {
                let damaged = bad.get(&prev.base).map(|what| what.of(disk.path(&segment_name(prev.base))));
                let gap = || OpenError::MissingSegment { path: disk.path(&segment_name(base)), missing: prev.base };
                return Err(damaged.unwrap_or_else(gap));
            }
        }
    }
    chain.reverse();
    let rises =
        |a: &Candidate<_>, b: &Candidate<_>| a.header.base < b.header.base && a.header.sequence < b.header.sequence;
    assert!(chain.is_sorted_by(rises), "a segment follows one that was made later, or lies behind it");
    Ok(chain)
}

/// Looks at every byte of the active segment, and whether the others reach as far as they should. What is in them is checked when
/// it is read.
pub(crate) fn check<D: Disk>(
    disk: &D,
    config: &LogConfig,
    meta: &Meta,
    mut chain: Chain<D::File>,
) -> Result<Checked<D>, OpenError> {
    let followers: Vec<Header> = chain.iter().skip(1).map(|next| next.header).collect();
    let last = chain.pop().expect("a chain has a last segment");
    let (found, known) = (last.header.sequence, meta.synced.sequence);
    if found < known {
        return Err(OpenError::NewestGone { dir: disk.path(""), found, known });
    }
    let segments = chain.into_iter().map(|candidate| candidate.segment(disk, config));
    let sealed: Vec<Part<D>> = segments.zip(&followers).map(|(segment, next)| seal(segment, next)).collect();
    if !meta.last_use.clean {
        last.file.settle().context(Operation::Sync, || disk.path(&segment_name(last.header.base)))?;
    }
    let damaged = sealed.iter().flat_map(|part| part.segment.place.damaged()).collect();
    check_active(last.segment(disk, config), (sealed, damaged), config, meta)
}

/// A segment that is followed by another, which says where it ends. A file that is shorter is damaged.
fn seal<D: Disk>(segment: Segment<D>, next: &Header) -> Part<D> {
    let (need, have) = (segment.header.end_before(next), segment.file_bytes);
    let (from, to) = (segment.base(), next.base);
    if need > have {
        let fault = Fault::Truncated { need, have };
        segment.place.note(DamagedRange { position: have, until: have, from, to, fault });
    }
    Part { segment: segment.into(), bytes_end: need.min(have), end: to }
}

/// Looks at every byte of the last segment: what of it is in the log, and what may be lost.
fn check_active<D: Disk>(
    segment: Segment<D>,
    (sealed, mut damaged): (Vec<Part<D>>, Vec<Damage>),
    config: &LogConfig,
    meta: &Meta,
) -> Result<Checked<D>, OpenError> {
    let (snapshot, data_start) = segment.snapshot().map_err(into_open)?;
    let body = Body::new(data_start, Some(snapshot.timestamp_ms));
    let base = segment.base();
    let position = wide(BLOCK_BYTES);
    let in_snapshot =
        |fault| segment.place.damage(DamagedRange { position, until: position, from: base, to: base, fault });
    let mut state = State::at_start(snapshot, config.producers).map_err(in_snapshot)?;
    let bytes = segment.view(data_start, segment.file_bytes).map_err(into_open)?;
    let mut spacing = Spacing::new(config.index_interval_bytes, data_start);
    // Of a segment that was made since, the meta file says nothing.
    let is_told_of = segment.header.sequence == meta.synced.sequence;
    let synced = if is_told_of { meta.synced.tail } else { state.sequence.tail };
    let (closed, used) = (is_told_of && meta.last_use.clean, segment.header.used);
    let known = LogFacts { commit_end: meta.commit_end, synced, closed, used };
    let active = Active { bytes: &bytes, mask: segment.mask, position: data_start };
    let tail_check = check_tail(&mut state, active, &mut spacing, known);
    let tail_check = tail_check.map_err(|forbids| match forbids {
        Forbids::HistoryGap(damaged) => OpenError::HistoryGap(segment.place.damage(damaged)),
        Forbids::Later { position, fault } => {
            OpenError::Later { path: segment.place.path.clone(), what: Later::Frame { position, fault } }
        }
    });
    // Before anything is made of it.
    segment.place.all_could_be_read()?;
    let tail_check = tail_check?;
    body.lookup.extend(&tail_check.entries);
    damaged.extend(tail_check.ranges.iter().map(|damaged| segment.place.damage(*damaged)));
    tail_check
        .ranges
        .iter()
        .filter(|damaged| damaged.from < state.sequence.tail.end)
        .for_each(|damaged| drop(segment.place.note(*damaged)));
    segment.begin(body);
    let (torn_bytes, renew) = (wide(tail_check.torn_bytes), tail_check.renew);
    let bytes_end = data_start.saturating_add(wide(tail_check.bytes));
    assert!(bytes_end <= segment.file_bytes, "more is in a segment than its file holds");
    let active = Part { segment: segment.into(), bytes_end, end: state.sequence.tail.end };
    Ok(Checked { sealed, active, data_start, spacing, state, damaged, suspect: tail_check.suspect, torn_bytes, renew })
}

impl<F: DiskFile> Candidate<F> {
    fn segment<D: Disk<File = F>>(self, disk: &D, config: &LogConfig) -> Segment<D> {
        let Self { file, file_bytes, header } = self;
        Segment::new(disk, file, file_bytes, header, config.index_interval_bytes)
    }
}

fn into_open(error: ReadError) -> OpenError {
    match error {
        ReadError::Damaged(damage) => OpenError::Damaged(damage),
        ReadError::Disk(error) => OpenError::Disk(error),
        error => unreachable!("a segment is not asked for records yet: {error}"),
    }
}

/// Compares the active segment's index file with what the segment gives, and makes it again if it differs. It may lag.
pub(crate) fn check_index<D: Disk>(disk: &D, active: &Segment<D>) -> IndexWriter<D::File> {
    let (header, mask, name) = (&active.header, active.mask, index_name(active.base()));
    let entries = active.held_index();
    let read = || {
        let file = disk.open(&name).ok()?;
        let bytes_max = index::position_of(entries.len());
        let bytes = file.len().ok().filter(|bytes| *bytes <= bytes_max)?;
        let bytes = file.read(0..bytes).ok()?;
        let found = index::decode(&bytes, header.nonce, mask).ok()?;
        entries.starts_with(&found).then_some((file, found.len()))
    };
    if let Some((file, count)) = read() {
        let mut writer = IndexWriter::resume(file, header.nonce, mask, count);
        writer.extend(entries.get(count..).unwrap_or_default());
        return writer;
    }
    let mut writer = IndexWriter::new(disk.create(&name).ok(), header.nonce, mask, &entries);
    writer.write_all();
    writer
}
