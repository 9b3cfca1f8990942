//! Opening a log: from files to what they amount to. Finds the segments that are the log, checks the active one, cuts away a torn
//! tail. The others are checked as they are read, so that opening does not take longer for a longer log.
//! Damage to what was durable is reported and left as it is.

use std::io;
use std::sync::Arc;

use zue_core::{Epoch, History, Offset, Producers, ReplicaId, Tail};

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::{Context, Damage, DiskError, LogError, OpenError, Operation};
use crate::log::cut::Point;
use crate::log::former;
use crate::log::writer::Writer;
use crate::log::{Beside, Ends, Log, share};
use crate::meta::{self, LastUse, META_FILE, Meta, MetaFile};
use crate::read::read_view::ReadView;
use crate::recovery::agreement::disagreement;
use crate::recovery::chain::{Checked, SegmentFiles, chain, check, check_index, read_headers};
use crate::segment::create::Draft;
use crate::segment::header::{
    SEGMENT_REWRITTEN, SEGMENT_SPARE, SEGMENT_TEMP, base_of, is_kept, kept_name, segment_name,
};
use crate::segment::preallocate::Preallocation;

/// The part of the first segment that is filled when it is made: later ones are prepared while the log is used.
const FIRST_FILL_BYTES_MAX: u64 = 64 << 20;

/// The findings and actions of opening a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// The directory was empty: this is a new replica.
    pub initialised: bool,
    /// Bytes behind the last whole append, which were cut away.
    pub cut_bytes: u64,
    /// The damage, as far as it was looked at. Committed records among it are in the log and cannot be read; others are behind
    /// its end, and their bytes are kept as long as they are suspect.
    pub damaged: Vec<Damage>,
    /// The tail at which the log may have ended before the disk lost or damaged a part of it, now or earlier: up to there it may have
    /// acknowledged what it does not hold. As in [`Meta::suspect`].
    pub suspect: Option<Tail>,
    /// The machine has stopped while acknowledgements did not wait for the disk, or the disk has dropped what was written: any of them
    /// may be forgotten.
    pub may_have_forgotten: bool,
}

impl<D: Disk> Log<D> {
    /// Opens the log in the disk's directory; makes one of a replica named `fresh_id` if the directory is empty.
    ///
    /// # Errors
    /// When another process has it open, or what was durable is damaged or gone. No record is removed or changed
    /// then.
    pub fn open(disk: D, config: LogConfig, fresh_id: ReplicaId) -> Result<(Self, Recovered), OpenError> {
        config.validate()?;
        let lock = lock(&disk)?;
        // What a process before this one has renamed must not be undone by a crash once this one has built on it.
        disk.sync_dir().context(Operation::Sync, || disk.path(""))?;
        let boot = disk.boot_id().context(Operation::BootId, || disk.path(""))?;
        // A process that was stopped, or could not sync, may have left names there that the disk does not have yet.
        disk.sync_dir().context(Operation::Sync, || disk.path(""))?;
        let names = disk.list().context(Operation::List, || disk.path(""))?;
        let last_use = LastUse { boot, lazy: !config.durability.waits_for_disk(), clean: false };
        let (mut meta_file, meta, initialised) = own_meta(&disk, &names, &Meta::new(fresh_id, last_use))?;
        let found = segments(&disk, &config, &meta, &names)?;
        let chain = chain(&disk, (meta.log_start, meta.synced.sequence), found)?;
        if meta.last_use.lazy && !meta.last_use.clean {
            // What cannot be written now is dropped, and that is told once: a second try would miss nothing.
            let last_use = LastUse { boot: NO_BOOT, ..meta.last_use };
            meta_file.replace(&Meta { last_use, ..meta })?;
        }
        let checked = check(&disk, &config, &meta, chain)?;
        let recovered = Recovered { initialised, ..judge(&disk, &meta, boot, &checked)? };
        // Nothing was found that forbids to open: only from here on the log is changed.
        let (renew, suspect) = (checked.renew, recovered.suspect);
        let mut log = Self::assemble(disk, config, (meta, meta_file), lock, checked);
        if renew {
            log.go_on_elsewhere(suspect)?;
        }
        let nonce = log.disk.entropy().context(Operation::Random, || log.disk.path(META_FILE))?;
        log.replace_meta(&Meta { suspect, last_use, ..log.meta.started(nonce) }).map_err(into_open)?;
        log.remove_dead(&names);
        log.check_opened();
        Ok((log, recovered))
    }

    /// Notes that no more than that was acknowledged in that epoch, should it be suspected. Durable on return.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn bound_suspect(&mut self, within: Tail) -> Result<(), LogError> {
        self.check_poison()?;
        let bound = |suspect: Tail| if suspect.epoch == within.epoch { suspect.min(within) } else { suspect };
        let suspect = self.meta.suspect.map(bound);
        if suspect == self.meta.suspect { Ok(()) } else { self.replace_meta(&Meta { suspect, ..self.meta }) }
    }

    /// Holds what is true of a log that was just opened: all of it is on the disk, all that was committed is in it, and readers see it.
    fn check_opened(&self) {
        self.check();
        self.view.check();
        let Ends { tail, synced, commit_end, .. } = self.ends;
        assert_eq!(synced, tail, "a log is opened that is not all on the disk");
        assert!(self.meta.commit_end <= commit_end && commit_end <= tail.end, "what is committed is not in the log");
        assert!(self.meta.suspect.is_none_or(|suspect| suspect > tail), "what is in the log is called lost");
        assert!(self.meta.promise.epoch >= tail.epoch, "the log is of a later epoch than is promised");
        assert!(self.meta.starts.count > 0, "a start was not counted");
        debug_assert!(!self.meta.last_use.clean, "a log counts as closed that is open");
    }

    /// Ends the log where what is whole ends, and goes on in another segment. What may have been acknowledged is written down first, and
    /// its bytes stay.
    fn go_on_elsewhere(&mut self, suspect: Option<Tail>) -> Result<(), OpenError> {
        // They may take the room that the cut needs.
        for name in [SEGMENT_TEMP, SEGMENT_SPARE, SEGMENT_REWRITTEN] {
            let _ = self.disk.remove(name);
        }
        let (part, history) = (self.view.active_part(), History::clone(&self.view.history));
        if suspect.is_some() {
            // Not closed any more: whoever opens it next has to look again.
            let last_use = LastUse { clean: false, ..self.meta.last_use };
            self.replace_meta(&Meta { suspect, last_use, ..self.meta }).map_err(into_open)?;
            if part.end == part.segment.base() {
                // The new segment takes its name.
                let (name, kept) = (segment_name(part.end), kept_name(&part.segment.header));
                self.disk.link(&name, &kept).context(Operation::Link, || self.disk.path(&kept))?;
                self.disk.sync_dir().context(Operation::Sync, || self.disk.path(""))?;
            }
        }
        let timestamp_ms = self.ends.timestamp_ms;
        self.cut_at(Point { part, timestamp_ms }, history).map_err(into_open)
    }

    /// Removes what is left over in the directory, and makes the reserve again.
    fn remove_dead(&mut self, names: &[String]) {
        for name in names.iter().filter(|name| self.is_dead(name)) {
            let _ = self.disk.remove(name);
        }
        self.beside.former = former::newest(names);
        self.keep_reserve();
    }

    /// Returns whether the file is left over from a cut, from a segment that was not finished, or from a question that is settled.
    fn is_dead(&self, name: &str) -> bool {
        if is_kept(name) {
            return self.meta.suspect.is_none();
        }
        let base = base_of(name, ".log").or_else(|| base_of(name, ".index"));
        let alive =
            |base| self.view.active.base() == base || self.view.sealed.iter().any(|part| part.segment.base() == base);
        let is_spare = name == SEGMENT_SPARE && self.beside.spare.is_none();
        base.map_or(is_spare || [SEGMENT_TEMP, SEGMENT_REWRITTEN].contains(&name), |base| !alive(base))
    }

    fn assemble(
        disk: D,
        config: LogConfig,
        (meta, meta_file): (Meta, MetaFile<D>),
        lock: D::Lock,
        checked: Checked<D>,
    ) -> Self {
        let Checked { sealed, active, data_start, spacing, state, .. } = checked;
        let index = check_index(&disk, &active.segment);
        let mut history = History::new(state.starts).expect("a scan keeps epoch starts in order");
        let oldest = sealed.first().unwrap_or(&active).segment.base();
        history.trim(oldest);
        // A log that was reset begins where its first segment does.
        let log_start = meta.log_start.max(oldest);
        let producers = state.producers;
        let (frames, tail, position) = (state.sequence, state.sequence.tail, active.bytes_end);
        let (synced, marked, preallocation) = (position, data_start, Preallocation::new(position, position));
        let sequence = active.segment.header.sequence;
        let view = Arc::new(ReadView::new(sealed.into(), active, Arc::new(history), log_start));
        let (buffer, entries) = (Vec::new(), Vec::new());
        let (commit_end, timestamp_ms) = (meta.commit_end.max(log_start), frames.timestamp_ms);
        Self {
            disk,
            config,
            meta,
            meta_file,
            shared: share(&view),
            view,
            writer: Writer { position, synced, marked, buffer, entries, spacing, preallocation, index, sequence },
            ends: Ends { tail, durable: tail, synced: tail, commit_end, timestamp_ms },
            producers,
            beside: Beside::default(),
            poison: None,
            _lock: lock,
        }
    }
}

/// Turns an error of a change into one of opening.
fn into_open(error: LogError) -> OpenError {
    match error {
        LogError::Disk(error) | LogError::NoRoom(error) => OpenError::Disk(error),
        error => unreachable!("only the disk refuses what opening does: {error}"),
    }
}

/// Stands for a boot whose records may be lost, whichever comes next. Boots are named by random numbers.
const NO_BOOT: u128 = u128::MAX;

/// Returns whether the machine has stopped since the log was used in a way that does not survive it.
fn may_have_forgotten(meta: &Meta, boot: u128) -> bool {
    let LastUse { boot: before, lazy, clean } = meta.last_use;
    meta.starts.count > 0 && lazy && !clean && before != boot
}

fn lock<D: Disk>(disk: &D) -> Result<D::Lock, OpenError> {
    match disk.lock() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(OpenError::locked(disk, &error)),
        lock => Ok(lock.context(Operation::Lock, || disk.path(""))?),
    }
}

fn read_meta<D: Disk>(disk: &D, names: &[String]) -> Result<Option<Meta>, OpenError> {
    if let Some(meta) = meta::read(disk)? {
        return meta.map(Some).map_err(|what| what.of(disk.path(META_FILE)));
    }
    match names.iter().find(|name| base_of(name, ".log").is_some()) {
        Some(segment) => Err(OpenError::NoMeta { dir: disk.path(""), segment: segment.clone() }),
        None => Ok(None),
    }
}

/// The meta file of the directory; a `fresh` one if that is empty, and whether it was.
fn own_meta<D: Disk>(disk: &D, names: &[String], fresh: &Meta) -> Result<(MetaFile<D>, Meta, bool), OpenError> {
    let mut file = MetaFile::new(disk.clone());
    if let Some(meta) = read_meta(disk, names)? {
        return Ok((file, meta, false));
    }
    file.replace(fresh)?;
    Ok((file, *fresh, true))
}

/// The segments of the directory; a first one if there is none and never was.
fn segments<D: Disk>(
    disk: &D,
    config: &LogConfig,
    meta: &Meta,
    names: &[String],
) -> Result<SegmentFiles<D::File>, OpenError> {
    let found = read_headers(disk, names)?;
    if !found.is_empty() {
        return Ok(found);
    }
    if meta.starts.count > 0 {
        return Err(OpenError::NoSegments { dir: disk.path("") });
    }
    make_first(disk, config)?;
    read_headers(disk, &[segment_name(Offset(0))])
}

/// The findings, as far as the segments and the meta file can be of the same moment: what of the log may be lost, and why.
fn judge<D: Disk>(disk: &D, meta: &Meta, boot: u128, checked: &Checked<D>) -> Result<Recovered, OpenError> {
    let tail = checked.state.sequence.tail;
    let reached = checked.suspect.map_or(tail, |suspect| suspect.max(tail));
    if let Some(what) = disagreement(meta, checked.state.starts.last(), reached, tail.end) {
        return Err(OpenError::Disagrees { dir: disk.path(""), what });
    }
    // Before its first epoch start it has acknowledged nothing.
    let may_have_forgotten = tail.epoch > Epoch(0) && may_have_forgotten(meta, boot);
    // How much of its last epoch it has forgotten is not known. Epoch starts are never forgotten.
    let forgotten = may_have_forgotten.then_some(Tail { epoch: tail.epoch, end: Offset(u64::MAX) });
    let suspect = meta.suspect.max(checked.suspect).max(forgotten).filter(|suspect| *suspect > tail);
    let (cut_bytes, damaged) = (checked.torn_bytes, checked.damaged.clone());
    Ok(Recovered { initialised: false, cut_bytes, damaged, suspect, may_have_forgotten })
}

fn make_first<D: Disk>(disk: &D, config: &LogConfig) -> Result<(), DiskError> {
    let first = Draft {
        sequence: 1,
        base: Offset(0),
        prev: None,
        starts: &[],
        timestamp_ms: 0,
        producers: &Producers::new(config.producers),
        first_bytes: 0,
        file_bytes: config.segment_bytes_max,
        may_be_short: false,
        zero_bytes: FIRST_FILL_BYTES_MAX,
    };
    first.reserve(disk, &mut None)?.commit(disk, config.index_interval_bytes).map(|_| ())
}
