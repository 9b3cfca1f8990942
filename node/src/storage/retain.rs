//! Retention: looks from time to time whether the log holds what is to go, and tells the driver. Who leads trims.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use zue_core::Offset;
use zue_log::{Disk, Reader, Retention};

use super::{DiskFact, Queue, full, tell, unix_ms};

/// How often it looks.
const TURN: Duration = Duration::from_secs(2);

pub(super) struct Retain<D: Disk> {
    reader: Reader<D>,
    queue: Arc<Queue>,
    facts: mpsc::Sender<DiskFact>,
    retention: Retention,
    due: Instant,
}

impl<D: Disk> Retain<D> {
    pub(super) fn new(
        reader: Reader<D>,
        queue: Arc<Queue>,
        facts: mpsc::Sender<DiskFact>,
        retention: Retention,
    ) -> Self {
        Self { reader, queue, facts, retention, due: Instant::now() }
    }

    /// Looks, if it is time.
    pub(super) fn turn(&mut self) {
        if self.retention == Retention::default() || Instant::now() < self.due {
            return;
        }
        self.due = Instant::now() + TURN;
        let committed = Offset(self.queue.committed.load(Ordering::Acquire));
        match self.reader.retained_from(self.retention, committed, unix_ms()) {
            Ok(Some(from)) => tell(&self.facts, DiskFact::Expired(from)),
            Ok(None) => {}
            Err(error) => tracing::error!(error = %full(&error), "it cannot be read how old a part of the log is"),
        }
    }
}
