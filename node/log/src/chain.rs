//! Which segments of a directory are the log, and whether they are whole. Changes nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use zue_core::Offset;

use crate::block::BLOCK_BYTES;
use crate::config::LogConfig;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Damage, DiskError, HeaderFault, OpenError, Operation};
use crate::frame::{Fault, Frame, Snapshot, parse};
use crate::index::{self, IndexWriter, Spacing};
use crate::meta::Meta;
use crate::num::{length, wide};
use crate::scan::{Found, State, any_frame, used};
use crate::segment::{Extent, Header, Prev, Segment, base_of, index_name, segment_name};
use crate::view::Part;

/// A segment file whose header is good.
pub(crate) struct Candidate<F> {
    file: F,
    file_bytes: u64,
    header: Header,
}

/// The segments of the log, oldest first. All but the last end where the next one says.
pub(crate) type Chain<F> = Vec<Candidate<F>>;

/// A log all of whose bytes were checked.
pub(crate) struct Checked<F> {
    pub(crate) sealed: Vec<Part<F>>,
    pub(crate) active: Part<F>,
    /// Of the active segment's index.
    pub(crate) spacing: Spacing,
    pub(crate) state: State,
    /// What is behind the last whole append, and not zero.
    pub(crate) torn_bytes: u64,
    /// There are good frames among it.
    pub(crate) suspect: bool,
}

/// Reads the header of every segment file.
pub(crate) fn read_headers<D: Disk>(
    disk: &D,
    names: &[String],
) -> Result<BTreeMap<Offset, Candidate<D::File>>, OpenError> {
    let read = |base: Offset, name: &str| {
        let path = || disk.path(name);
        let file = disk.open(name).context(Operation::Open, path)?;
        let file_bytes = file.len().context(Operation::Read, path)?;
        let bytes = file.view(0..file_bytes.min(wide(BLOCK_BYTES))).context(Operation::Read, path)?;
        let header = Header::decode(&bytes)
            .and_then(|header| if header.base == base { Ok(header) } else { Err(HeaderFault::Name) });
        let header = header.map_err(|what| OpenError::BadHeader { path: path(), what })?;
        Ok((base, Candidate { file, file_bytes, header }))
    };
    names.iter().filter_map(|name| base_of(name, ".log").map(|base| read(base, name))).collect()
}

/// The segments that are the log: the one made last, and those it follows. The others were cut away.
pub(crate) fn chain<D: Disk>(
    disk: &D,
    mut all: BTreeMap<Offset, Candidate<D::File>>,
) -> Result<Chain<D::File>, OpenError> {
    let newest = all.iter().max_by_key(|(_, candidate)| candidate.header.sequence).map(|(base, _)| *base);
    let mut chain: Chain<D::File> = newest.and_then(|base| all.remove(&base)).into_iter().collect();
    while let Some(Header { base, sequence, prev: Some(prev), .. }) = chain.last().map(|last| last.header) {
        let found = all
            .remove(&prev.base)
            .filter(|found| found.header.sequence == prev.sequence && prev.sequence < sequence && prev.base < base);
        chain.push(found.ok_or_else(|| OpenError::Gap { path: disk.path(&segment_name(base)), missing: prev.base })?);
    }
    chain.reverse();
    Ok(chain)
}

/// Checks every byte of the log.
pub(crate) fn check<D: Disk>(
    disk: &D,
    config: &LogConfig,
    meta: &Meta,
    mut chain: Chain<D::File>,
) -> Result<Checked<D::File>, OpenError> {
    let followers: Vec<Header> = chain.iter().skip(1).map(|next| next.header).collect();
    let last = chain.pop().expect("a chain has a last segment");
    let (mut state, mut sealed) = (None, Vec::new());
    for (candidate, next) in chain.into_iter().zip(followers) {
        let loaded = load(disk, candidate)?;
        let mut now = loaded.enter(state.take(), next.base)?;
        let end = next.prev.map_or(0, |Prev { end, .. }| end);
        let (found, _) = loaded.scan(&mut now, end, next.base, config)?;
        let tail = now.order.tail;
        if loaded.extent.data_start + wide(found.bytes) != end || tail.end != next.base {
            return Err(loaded.damage_after(&found, tail.end..next.base).into());
        }
        sealed.push(loaded.part(&found, tail.end));
        state = Some(now);
    }
    let last = if meta.session.clean_end.is_some() { last } else { settle(disk, last)? };
    let loaded = load(disk, last)?;
    // What a clean close has seen is durable, like what is committed.
    let durable_end = meta.commit_end.max(meta.session.clean_end.unwrap_or_default());
    let mut state = loaded.enter(state, durable_end)?;
    let (found, spacing) = loaded.scan(&mut state, loaded.extent.file_bytes, durable_end, config)?;
    let tail = state.order.tail;
    if tail.end < durable_end {
        return Err(loaded.damage_after(&found, tail.end..durable_end).into());
    }
    let rest = loaded.bytes.get(length(loaded.extent.data_start) + found.bytes..).unwrap_or_default();
    let torn = rest.get(..used(rest)).unwrap_or_default();
    let (torn_bytes, suspect) = (wide(torn.len()), any_frame(torn, loaded.header.mask(), tail));
    Ok(Checked { sealed, active: loaded.part(&found, tail.end), spacing, state, torn_bytes, suspect })
}

/// A segment whose header and snapshot are good.
struct Loaded<F> {
    segment: Segment<F>,
    bytes: Bytes,
    header: Header,
    extent: Extent,
    snapshot: Snapshot,
}

/// Opens the file anew, and sees to it that what is read of it is what the disk holds.
fn settle<D: Disk>(disk: &D, candidate: Candidate<D::File>) -> Result<Candidate<D::File>, DiskError> {
    let Candidate { file, file_bytes, header } = candidate;
    let name = segment_name(header.base);
    let path = || disk.path(&name);
    // With the file goes its map, which would keep pages in memory.
    drop(file);
    let file = disk.open(&name).context(Operation::Open, path)?;
    file.settle().context(Operation::Sync, path)?;
    Ok(Candidate { file, file_bytes, header })
}

fn load<D: Disk>(disk: &D, candidate: Candidate<D::File>) -> Result<Loaded<D::File>, OpenError> {
    let Candidate { file, file_bytes, header } = candidate;
    let path = disk.path(&segment_name(header.base));
    let bytes = file.view(0..file_bytes).context(Operation::Read, || path.clone())?;
    let snapshot = match parse(bytes.get(BLOCK_BYTES..).unwrap_or_default(), header.mask()) {
        Ok((Frame::Snapshot(snapshot), length)) if snapshot.base == header.base => Ok((snapshot, length)),
        Ok(_) => Err(Fault::Snapshot),
        Err(fault) => Err(fault),
    };
    let (snapshot, length) = snapshot.map_err(|fault| {
        let (path, position, from) = (path.clone(), wide(BLOCK_BYTES), header.base);
        Damage { path, position, from, to: from, fault }
    })?;
    let extent = Extent { file_bytes, data_start: wide(BLOCK_BYTES + length), timestamp_ms: snapshot.timestamp_ms };
    Ok(Loaded { segment: Segment::new(file, path, header, extent), bytes, header, extent, snapshot })
}

impl<F: DiskFile> Loaded<F> {
    /// The state at the segment's base; `before` is the state at the end of the one before it.
    fn enter(&self, before: Option<State>, end: Offset) -> Result<State, Damage> {
        let entered = match before {
            None => State::at_start(self.snapshot.clone()),
            Some(mut state) => state.enter(self.snapshot.clone()).map(|()| state),
        };
        entered.map_err(|fault| self.segment.damage(wide(BLOCK_BYTES), self.header.base..end, fault))
    }

    /// Scans the frames up to the position.
    fn scan(
        &self,
        state: &mut State,
        bytes_end: u64,
        end: Offset,
        config: &LogConfig,
    ) -> Result<(Found, Spacing), Damage> {
        let Extent { file_bytes, data_start, .. } = self.extent;
        let frames = self.bytes.get(length(data_start)..length(bytes_end)).ok_or_else(|| {
            let fault = Fault::Truncated { need: bytes_end, have: file_bytes };
            self.segment.damage(file_bytes, self.header.base..end, fault)
        })?;
        let mut spacing = Spacing::new(config.index_interval_bytes, data_start);
        let found = state.scan(frames, self.header.mask(), data_start, &mut spacing);
        self.segment.extend_index(&found.entries);
        Ok((found, spacing))
    }

    fn damage_after(&self, found: &Found, doubtful: std::ops::Range<Offset>) -> Damage {
        let position = self.extent.data_start + wide(found.bytes);
        self.segment.damage(position, doubtful, found.fault.unwrap_or(Fault::Empty))
    }

    fn part(self, found: &Found, end: Offset) -> Part<F> {
        let bytes_end = self.extent.data_start + wide(found.bytes);
        Part { segment: self.segment.into(), bytes_end, end }
    }
}

/// Compares an index file with what its segment gives, and makes it again if it differs; says whether it did. That of the active
/// segment may lag.
pub(crate) fn check_index<D: Disk>(disk: &D, part: &Part<D::File>, active: bool) -> (IndexWriter<D::File>, bool) {
    let (entries, header, mask) = (part.segment.index(), &part.segment.header, part.segment.mask);
    let name = index_name(header.base);
    let read = || {
        let file = disk.open(&name).ok()?;
        let bytes = file.view(0..file.len().ok()?).ok()?;
        let found = index::decode(&bytes, header.nonce, mask)?;
        let good = if active { entries.starts_with(&found) } else { entries == found };
        good.then_some((file, found.len()))
    };
    if let Some((file, count)) = read() {
        let mut writer = IndexWriter::resume(file, mask, count);
        writer.extend(entries.get(count..).unwrap_or_default());
        return (writer, false);
    }
    let mut writer = IndexWriter::new(disk.create(&name).ok(), header.nonce, mask, &entries);
    writer.write_all();
    (writer, true)
}
