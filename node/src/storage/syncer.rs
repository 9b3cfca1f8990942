//! The thread that syncs.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use zue_core::Ticket;
use zue_log::{Disk, LogError, Preparation, SharedLog};

use super::{DiskFact, Share, full, tell};
use crate::metrics::Metrics;

/// Syncs what was written, and tells how far that is.
pub(super) struct Syncer<D: Disk> {
    log: Arc<SharedLog<D>>,
    facts: mpsc::Sender<DiskFact>,
    metrics: Arc<Metrics>,
    /// How long what was written may stay unsynced, if acknowledgements do not wait for a sync.
    flush_interval: Option<Duration>,
    written: Mutex<Written>,
    ready: Condvar,
}

/// What was written and waits to be synced.
#[derive(Debug, Default)]
struct Written {
    ticket: Option<Ticket>,
    shares: Vec<Share>,
    closed: bool,
}

impl<D: Disk> Syncer<D> {
    pub(super) fn new(
        log: Arc<SharedLog<D>>,
        facts: mpsc::Sender<DiskFact>,
        metrics: Arc<Metrics>,
        flush_interval: Option<Duration>,
    ) -> Arc<Self> {
        let (written, ready) = (Mutex::default(), Condvar::new());
        Arc::new(Self { log, facts, metrics, flush_interval, written, ready })
    }

    fn waiting(&self) -> MutexGuard<'_, Written> {
        // Nothing panics while it holds the lock.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to this ticket is written.
    pub(super) fn written(&self, ticket: Ticket, share: Option<Share>) {
        let mut waiting = self.waiting();
        waiting.ticket = Some(ticket);
        waiting.shares.extend(share);
        drop(waiting);
        self.ready.notify_one();
    }

    /// Lets it sync what was written, and end.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.ready.notify_one();
    }

    pub(super) fn run(&self) {
        let (mut flushed, mut preparing) = (Instant::now(), None);
        loop {
            let (ticket, shares, closed) = self.take(flushed);
            let begun = Instant::now();
            let synced = match self.flush_interval {
                Some(interval) if begun.duration_since(flushed) >= interval => {
                    flushed = begun;
                    self.log.flush().and_then(|_| self.log.sync())
                }
                _ => self.log.sync(),
            };
            if let Err(error) = synced {
                return self.fail(&error);
            }
            if let Some(ticket) = ticket {
                self.metrics.fsync_duration.observe(begun.elapsed().as_secs_f64());
                tell(&self.facts, DiskFact::Persisted(ticket));
            }
            drop(shares);
            if closed {
                // It panics only for a broken invariant, which it has told of.
                let _ = preparing.map(JoinHandle::join);
                return;
            }
            preparing = self.prepare().or(preparing);
        }
    }

    /// Waits until there is something to do.
    fn take(&self, flushed: Instant) -> (Option<Ticket>, Vec<Share>, bool) {
        let idle = |written: &mut Written| written.ticket.is_none() && !written.closed;
        let mut waiting = self.waiting();
        waiting = match self.flush_interval {
            Some(interval) => {
                let left = interval.saturating_sub(flushed.elapsed());
                self.ready.wait_timeout_while(waiting, left, idle).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.ready.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner),
        };
        (waiting.ticket.take(), std::mem::take(&mut waiting.shares), waiting.closed)
    }

    /// Makes the next segment's file ahead, beside the work.
    fn prepare(&self) -> Option<JoinHandle<()>> {
        let preparing = Preparing::begin(&self.log)?;
        let spawned = thread::Builder::new().name("prepare".into()).spawn(move || preparing.run());
        spawned
            .inspect_err(|error| tracing::warn!(%error, "no segment is prepared: the next one is made when needed"))
            .ok()
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
