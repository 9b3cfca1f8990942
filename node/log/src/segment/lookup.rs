//! The lookup of a record in a segment: by its index, which is in memory while the segment is written, and is searched in its
//! mapped file from then on. So what a log keeps in memory does not grow with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::segment::index::{Entry, IndexFile, NotAsWritten, Share};

/// The index of a segment.
#[derive(Debug)]
pub(crate) enum Index {
    /// In memory: that of the active segment, or one whose file could not be written.
    Held(Vec<Entry>),
    /// In its file.
    Filed(IndexFile),
}

impl Default for Index {
    fn default() -> Self {
        Self::Held(Vec::new())
    }
}

/// The index of a segment, as it is now. Whoever searches a file takes no lock.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    /// The first file that it was in.
    file: OnceLock<IndexFile>,
    /// That file has shown itself to be bad.
    is_bad: AtomicBool,
    index: RwLock<Index>,
}

impl Lookup {
    /// Adds entries, whose offsets and positions rise, to an index in memory.
    pub(crate) fn extend(&self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        if let Index::Held(held) = &mut *self.index.write().unwrap_or_else(PoisonError::into_inner) {
            // Those before were looked at when they came.
            let from = held.len().saturating_sub(1);
            held.extend_from_slice(entries);
            let news = held.get(from..).unwrap_or_default();
            debug_assert!(news.is_sorted_by(|a, b| a.position < b.position), "positions of an index fell");
            debug_assert!(news.is_sorted_by(|a, b| a.offset < b.offset), "offsets of an index fell");
            debug_assert!(news.is_sorted_by(|a, b| a.timestamp_ms <= b.timestamp_ms), "times of an index fell");
        }
    }

    /// Takes another index from now on.
    pub(crate) fn set(&self, index: Index) {
        let is_first = matches!(&index, Index::Filed(file) if self.file.set(file.clone()).is_ok());
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        self.is_bad.fetch_or(!is_first, Ordering::Release);
    }

    /// The entries that are in memory.
    pub(crate) fn held(&self) -> Vec<Entry> {
        match &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            Index::Held(entries) => entries.clone(),
            Index::Filed(_) => Vec::new(),
        }
    }

    /// The last entry for which it holds; it holds for none behind one for which it does not.
    pub(crate) fn last(
        &self,
        guess: Option<Share>,
        holds: impl Fn(&Entry) -> bool,
    ) -> Result<Option<Entry>, NotAsWritten> {
        if let Some(file) = self.file.get().filter(|_| !self.is_bad.load(Ordering::Acquire)) {
            return file.last(guess, holds);
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let file = match &*index {
            Index::Held(entries) => return Ok(last(entries, holds)),
            Index::Filed(file) => file.clone(),
        };
        // It may take as long as the disk does.
        drop(index);
        file.last(guess, holds)
    }
}

/// The last of the entries for which it holds; it holds for none behind one for which it does not.
pub(crate) fn last(entries: &[Entry], holds: impl Fn(&Entry) -> bool) -> Option<Entry> {
    let after = entries.partition_point(holds);
    after.checked_sub(1).and_then(|last| entries.get(last)).copied()
}

#[cfg(test)]
mod tests {
    use zue_core::{Offset, ReplicaId};

    use crate::disk::Disk as _;
    use crate::{Batch, BatchBuilder, Limits, Log, LogConfig, sim::SimDisk};

    fn batch(log: &Log<SimDisk>) -> Batch {
        let mut builder = BatchBuilder::new(log.tail(), log.tail().end.0, Limits::default());
        builder.push(None, &[b'v'; 900], [], None).unwrap();
        builder.finish().unwrap()
    }

    /// How many index entries of sealed segments are in memory, and of the active one.
    fn held(log: &Log<SimDisk>) -> (usize, usize) {
        let sealed = log.view.sealed.iter().map(|part| part.segment.held_index().len()).sum();
        (sealed, log.view.active.held_index().len())
    }

    #[test]
    fn what_is_kept_in_memory_does_not_grow_with_the_log() {
        let disk = SimDisk::new(1);
        let config = LogConfig { segment_bytes_max: 32 << 10, index_interval_bytes: 256, ..LogConfig::default() };
        let open = || Log::open(disk.clone(), config, ReplicaId(1)).unwrap().0;
        let look = |log: &Log<SimDisk>| {
            for offset in 0..log.tail().end.0 {
                let chunk = log.reader().read(Offset(offset), Offset(offset + 1), 0).unwrap();
                assert!(chunk.records().all(|record| record.is_ok()));
                assert_eq!(log.reader().offset_at(offset).unwrap(), Offset(offset));
            }
        };
        let mut log = open();
        for _ in 0..600 {
            log.append(&batch(&log)).unwrap();
        }
        assert!(log.view.sealed.len() > 20);
        let (sealed, active) = held(&log);
        assert!(sealed == 0 && (1..40).contains(&active), "{sealed}, {active}");
        look(&log);
        assert_eq!(held(&log), (0, active));
        drop(log);
        disk.kill();
        let log = open();
        assert_eq!(held(&log), (0, active));
        look(&log);
        assert_eq!(held(&log), (0, active));
        // Where no index can be written, it is kept.
        drop(log);
        disk.kill();
        disk.remove("00000000000000000000.index").unwrap();
        let log = open();
        disk.fail_at(disk.operations(), std::io::ErrorKind::Other);
        look(&log);
        let (sealed, _) = held(&log);
        assert!((1..40).contains(&sealed), "{sealed}");
    }
}
