//! Which segments of a directory are the log, and whether they are whole. Changes nothing.

use std::collections::BTreeMap;

use zue_core::Offset;

use crate::block::BLOCK_BYTES;
use crate::body::{Body, Segment};
use crate::config::LogConfig;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, HeaderFault, OpenError, Operation, ReadError};
use crate::frame::Fault;
use crate::index::{self, IndexWriter, Spacing};
use crate::meta::Meta;
use crate::num::wide;
use crate::scan::{State, any_frame, used};
use crate::segment::{Header, Prev, base_of, index_name, segment_name};
use crate::view::Part;

/// How much of the old bytes in a file that was used before is searched for frames that were not acknowledged.
const USED_BYTES_MAX: usize = 16 << 20;

/// A segment file whose header is good.
pub(crate) struct Candidate<F> {
    file: F,
    file_bytes: u64,
    header: Header,
}

/// The segments of the log, oldest first. All but the last end where the next one says.
pub(crate) type Chain<F> = Vec<Candidate<F>>;

/// A log whose active segment was checked.
pub(crate) struct Checked<D: Disk> {
    pub(crate) sealed: Vec<Part<D>>,
    pub(crate) active: Part<D>,
    /// Of the active segment's index.
    pub(crate) spacing: Spacing,
    pub(crate) state: State,
    /// What is behind the last whole append, and not zero.
    pub(crate) torn_bytes: u64,
    /// There are good frames among it.
    pub(crate) suspect: bool,
    /// The log has to go on in another segment, so that what is left behind its end never counts.
    pub(crate) renew: bool,
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
        let bytes = file.read(0..file_bytes.min(wide(BLOCK_BYTES))).context(Operation::Read, path)?;
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

/// Checks the active segment, every byte of it, and that the others reach as far as they should. What is in them is checked when
/// it is read.
pub(crate) fn check<D: Disk>(
    disk: &D,
    config: &LogConfig,
    meta: &Meta,
    mut chain: Chain<D::File>,
) -> Result<Checked<D>, OpenError> {
    let followers: Vec<Header> = chain.iter().skip(1).map(|next| next.header).collect();
    let last = chain.pop().expect("a chain has a last segment");
    let seal = |(candidate, next): (Candidate<D::File>, &Header)| {
        let segment = candidate.segment(disk, config);
        let bytes_end = next.prev.map_or(0, |Prev { end, .. }| end);
        if bytes_end > segment.file_bytes {
            let fault = Fault::Truncated { need: bytes_end, have: segment.file_bytes };
            return Err(segment.damage(segment.file_bytes, segment.base()..next.base, fault));
        }
        Ok(Part { segment: segment.into(), bytes_end, end: next.base })
    };
    let sealed = chain.into_iter().zip(&followers).map(seal).collect::<Result<_, _>>()?;
    if meta.session.clean_end.is_none() {
        last.file.settle().context(Operation::Sync, || disk.path(&segment_name(last.header.base)))?;
    }
    let segment = last.segment(disk, config);
    let (snapshot, data_start) = segment.snapshot().map_err(into_open)?;
    let body = Body::new(data_start, snapshot.timestamp_ms);
    // What a clean close has seen is durable, like what is committed.
    let durable_end = meta.commit_end.max(meta.session.clean_end.unwrap_or_default());
    let mut state = State::at_start(snapshot, config.producers)
        .map_err(|fault| segment.damage(wide(BLOCK_BYTES), segment.base()..durable_end, fault))?;
    let bytes = segment.file.view(data_start..segment.file_bytes).context(Operation::Read, || segment.path.clone())?;
    let mut spacing = Spacing::new(config.index_interval_bytes, data_start);
    let found = state.scan(&bytes, segment.mask, data_start, &mut spacing);
    body.extend_index(&found.entries);
    segment.begin(body);
    let (tail, bytes_end) = (state.order.tail, data_start + wide(found.bytes));
    if tail.end < durable_end {
        let fault = found.fault.unwrap_or(Fault::Empty);
        return Err(segment.damage(bytes_end, tail.end..durable_end, fault).into());
    }
    let rest = bytes.get(found.bytes..).unwrap_or_default();
    // Behind the log in a file that was used before are old bytes: whether any of them is torn cannot be told.
    let old = segment.header.used;
    let torn = rest.get(..if old { rest.len().min(USED_BYTES_MAX) } else { used(rest) }).unwrap_or_default();
    let closed = meta.session.clean_end == Some(tail.end);
    let suspect = !(old && closed) && any_frame(torn, segment.mask, tail);
    let (torn_bytes, renew) = if old { (0, !closed) } else { (wide(torn.len()), !torn.is_empty()) };
    let active = Part { segment: segment.into(), bytes_end, end: tail.end };
    Ok(Checked { sealed, active, spacing, state, torn_bytes, suspect, renew })
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
    let entries = active.index();
    let read = || {
        let file = disk.open(&name).ok()?;
        let bytes = file.read(0..file.len().ok()?).ok()?;
        let found = index::decode(&bytes, header.nonce, mask)?;
        entries.starts_with(&found).then_some((file, found.len()))
    };
    if let Some((file, count)) = read() {
        let mut writer = IndexWriter::resume(file, mask, count);
        writer.extend(entries.get(count..).unwrap_or_default());
        return writer;
    }
    let mut writer = IndexWriter::new(disk.create(&name).ok(), header.nonce, mask, &entries);
    writer.write_all();
    writer
}
