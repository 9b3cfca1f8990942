//! Syncing what was written, by the thread that wrote or by one beside it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use zue_core::{Tail, Ticket};
use zue_engine::room::full;
use zue_log::{Disk, Durability, LogError, Preparation, SharedLog};

use super::facts::{DiskFact, Share, tell};
use crate::metrics::Metrics;

/// Syncs what was written, and tells how far that is. The thread that writes does it itself where it has nothing else to do
/// meanwhile, or where no sync is waited for: a hand-over to another thread takes longer than many a sync.
pub(super) struct Syncer<D: Disk> {
    log: Arc<SharedLog<D>>,
    facts: mpsc::Sender<DiskFact>,
    metrics: Arc<Metrics>,
    /// The time for which written records may stay unsynced, if acknowledgements do not wait for a sync.
    flush_interval: Option<Duration>,
    /// Acknowledgements wait for syncs.
    waits: bool,
    state: Mutex<State>,
    ready: Condvar,
    preparing: Mutex<Option<JoinHandle<()>>>,
}

/// Work that was written and waits to be synced.
#[derive(Debug, Default)]
pub(super) struct Written {
    ticket: Option<Ticket>,
    shares: Vec<Share>,
    bytes: usize,
}

impl Written {
    /// Everything up to this ticket is written, so many bytes with it.
    pub(super) fn add(&mut self, ticket: Ticket, share: Option<Share>, bytes: usize) {
        self.ticket = Some(ticket);
        self.shares.extend(share);
        self.bytes += bytes;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn append(&mut self, other: Self) {
        self.ticket = other.ticket.or(self.ticket);
        self.shares.extend(other.shares);
        self.bytes += other.bytes;
    }
}

#[derive(Debug, Default)]
struct State {
    written: Written,
    /// A sync goes on, on either thread: they end in the order in which they begin.
    syncing: bool,
    /// The amount that was acknowledged since the last flush began, where acknowledgements wait for none.
    unflushed_bytes: usize,
    closed: bool,
}

/// So much may be acknowledged before it is flushed, where acknowledgements wait for no flush.
const UNFLUSHED_BYTES_MAX: usize = 8 << 20;

impl<D: Disk> Syncer<D> {
    pub(super) fn new(
        log: Arc<SharedLog<D>>,
        facts: mpsc::Sender<DiskFact>,
        metrics: Arc<Metrics>,
        durability: Durability,
    ) -> Arc<Self> {
        let flush_interval = match durability {
            Durability::Interval(ms) => Some(Duration::from_millis(ms.into())),
            Durability::Sync | Durability::Os => None,
        };
        let waits = durability == Durability::Sync;
        let (state, ready, preparing) = (Mutex::default(), Condvar::new(), Mutex::default());
        Arc::new(Self { log, facts, metrics, flush_interval, waits, state, ready, preparing })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it synced, here or by the syncer's thread. `is_idle`: nothing else waits to be written.
    pub(super) fn written(&self, written: Written, is_idle: bool) {
        if written.ticket.is_none() {
            return;
        }
        if !self.waits {
            let bytes = written.bytes;
            self.sync(written, SharedLog::sync);
            self.prepare();
            return self.acknowledged(bytes);
        }
        let mut state = self.state();
        state.written.append(written);
        if state.syncing || !is_idle {
            drop(state);
            return self.ready.notify_one();
        }
        state.syncing = true;
        let written = std::mem::take(&mut state.written);
        drop(state);
        self.sync(written, SharedLog::sync);
        self.prepare();
        self.end();
    }

    /// Takes note of so many bytes that were acknowledged before they are on the disk.
    pub(super) fn acknowledged(&self, bytes: usize) {
        let mut state = self.state();
        state.unflushed_bytes += bytes;
        if state.unflushed_bytes >= UNFLUSHED_BYTES_MAX {
            self.ready.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn unflushed_bytes(&self) -> usize {
        self.state().unflushed_bytes
    }

    fn end(&self) {
        let mut state = self.state();
        state.syncing = false;
        let is_wanted = state.written.ticket.is_some() || state.closed;
        drop(state);
        if is_wanted {
            self.ready.notify_one();
        }
    }

    /// Lets it sync what was written, and end.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_one();
    }

    /// Until it is closed.
    pub(super) fn run(&self) {
        if !self.waits {
            self.flush_now_and_then();
        }
        loop {
            let (written, closed) = self.take();
            if !self.sync(written, SharedLog::sync) {
                return;
            }
            self.prepare();
            self.end();
            if closed {
                let preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner).take();
                // It panics only for a broken invariant, which it has told of.
                let _ = preparing.map(JoinHandle::join);
                return;
            }
        }
    }

    /// Flushes what was acknowledged before it is on the disk: when its time has come, and when it is much. A segment is on the disk
    /// before the next begins, and appends would wait for all of it there.
    fn flush_now_and_then(&self) {
        let is_early = |state: &mut State| !state.closed && state.unflushed_bytes < UNFLUSHED_BYTES_MAX;
        loop {
            let state = self.state();
            let mut state = match self.flush_interval {
                Some(interval) => {
                    let waited = self.ready.wait_timeout_while(state, interval, is_early);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.ready.wait_while(state, is_early).unwrap_or_else(PoisonError::into_inner),
            };
            state.unflushed_bytes = 0;
            let is_closed = state.closed;
            drop(state);
            if is_closed || !self.sync(Written::default(), SharedLog::flush) {
                return;
            }
            self.prepare();
        }
    }

    /// Waits until there is something to do, and for nobody else to do it.
    fn take(&self) -> (Written, bool) {
        let idle = |state: &mut State| state.syncing || (state.written.ticket.is_none() && !state.closed);
        let mut state = self.ready.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner);
        state.syncing = true;
        (std::mem::take(&mut state.written), state.closed)
    }

    /// Syncs, and tells what is durable by that; whether it could.
    fn sync(&self, written: Written, sync: impl FnOnce(&SharedLog<D>) -> Result<Tail, LogError>) -> bool {
        let begun = Instant::now();
        if let Err(error) = sync(&self.log) {
            self.fail(&error);
            return false;
        }
        if let Some(ticket) = written.ticket {
            self.metrics.fsync_duration.observe(begun.elapsed().as_secs_f64());
            tell(&self.facts, DiskFact::Persisted(ticket));
        }
        true
    }

    /// Makes the next segment's file ahead, beside the work.
    fn prepare(&self) {
        let Some(preparing) = Preparing::begin(&self.log) else { return };
        match thread::Builder::new().name("prepare".into()).spawn(move || preparing.run()) {
            Ok(thread) => *self.preparing.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread),
            Err(error) => tracing::warn!(%error, "no segment is prepared: the next one is made when needed"),
        }
    }

    /// The worker finds the log poisoned with its next work; what waits is not acknowledged.
    fn fail(&self, error: &LogError) {
        tracing::error!(error = %full(error), "a sync failed");
        tell(&self.facts, DiskFact::Failed(full(error).into()));
    }
}

/// A segment that is being prepared. However this ends, the log is told: with a thread that does not start as well, or it would
/// wait for ever.
struct Preparing<D: Disk> {
    log: Arc<SharedLog<D>>,
    preparation: Option<Preparation<D>>,
}

impl<D: Disk> Preparing<D> {
    fn begin(log: &Arc<SharedLog<D>>) -> Option<Self> {
        let preparation = Some(log.lock().prepare()?);
        Some(Self { log: Arc::clone(log), preparation })
    }

    fn run(mut self) {
        while let Some(preparation) = &mut self.preparation {
            match preparation.step() {
                Ok(true) => {}
                Ok(false) => {
                    let done = self.preparation.take();
                    return self.log.lock().prepared(done);
                }
                Err(error) => {
                    tracing::warn!(error = %full(&error), "no segment could be prepared: the next one is made when needed");
                    return;
                }
            }
        }
    }
}

impl<D: Disk> Drop for Preparing<D> {
    fn drop(&mut self) {
        if self.preparation.take().is_some() {
            self.log.lock().prepared(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use zue_core::ReplicaId;
    use zue_log::sim::SimDisk;
    use zue_log::{BatchBuilder, Limits, Log, LogConfig, SEGMENT_BYTES_MIN};

    use super::*;

    #[test]
    fn a_preparation_whose_thread_does_not_start_leaves_no_file_and_is_tried_again() {
        let disk = SimDisk::new(1);
        let config = LogConfig { segment_bytes_max: SEGMENT_BYTES_MIN, ..LogConfig::default() };
        let (mut log, _) = Log::open(disk.clone(), config, ReplicaId(1)).unwrap();
        let mut builder = BatchBuilder::new(log.tail(), 1, Limits::default());
        builder.push(None, &vec![1; usize::try_from(SEGMENT_BYTES_MIN / 2).unwrap()], [], None).unwrap();
        log.append(&builder.finish().unwrap()).unwrap();
        let log = Arc::new(SharedLog::new(log));
        drop(Preparing::begin(&log).unwrap());
        assert_eq!(disk.content("segment.spare"), None);
        Preparing::begin(&log).unwrap().run();
        assert!(disk.content("segment.spare").is_some());
        assert!(Preparing::begin(&log).is_none(), "one is enough");
    }
}
