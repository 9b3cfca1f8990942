//! Retention: looks from time to time whether the log holds what is to go, and tells the driver. Who leads trims. And how old
//! records are, for all that goes because of its age.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use zue_core::{Aged, Ages, Millis, Offset};
use zue_log::{Disk, Reader, Retention};

use super::{DiskFact, Queue, full, tell};
use crate::driver::clock::SharedTime;

/// How often it looks for what is to go.
const TURN: Duration = Duration::from_secs(2);

/// How old records are, with regard to one age.
#[derive(Debug)]
struct Aging {
    queue: Arc<Queue>,
    time: SharedTime,
    born: Instant,
    ages: Ages,
}

impl Aging {
    fn look(&mut self) -> Aged {
        let committed = Offset(self.queue.committed.load(Ordering::Acquire));
        let Some(known) = self.time.known() else { return Aged::unknown() };
        let now = Millis(u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.ages.look(now, known.agreed_ms, committed, known.told_end.max(committed))
    }
}

pub(super) struct Retain<D: Disk> {
    reader: Reader<D>,
    queue: Arc<Queue>,
    facts: mpsc::Sender<DiskFact>,
    retention: Retention,
    due: Instant,
    aging: Option<Aging>,
    /// The same for records that delete.
    deletes: Option<Aging>,
}

impl<D: Disk> Retain<D> {
    pub(super) fn new(
        reader: Reader<D>,
        queue: Arc<Queue>,
        facts: mpsc::Sender<DiskFact>,
        (retention, deletes_kept_ms): (Retention, Option<u64>),
        time: &SharedTime,
    ) -> Self {
        let born = Instant::now();
        let aging = |age_ms| Aging { queue: Arc::clone(&queue), time: time.clone(), born, ages: Ages::new(age_ms) };
        let (aging, deletes) = (retention.age_ms.map(aging), deletes_kept_ms.map(aging));
        Self { reader, queue, facts, retention, due: born, aging, deletes }
    }

    /// Looks how old records are, and, if it is time, for what is to go.
    pub(super) fn turn(&mut self) {
        let aged = self.aging.as_mut().map_or(Aged::unknown(), Aging::look);
        self.deletes();
        if self.retention == Retention::default() || Instant::now() < self.due {
            return;
        }
        self.due = Instant::now() + TURN;
        let committed = Offset(self.queue.committed.load(Ordering::Acquire));
        match self.reader.retained_from(self.retention, committed, aged) {
            Ok(Some(from)) => tell(&self.facts, DiskFact::Expired(from)),
            Ok(None) => {}
            Err(error) => tracing::error!(error = %full(&error), "it cannot be read how old a part of the log is"),
        }
    }

    /// How old the records that delete are.
    pub(super) fn deletes(&mut self) -> Aged {
        self.deletes.as_mut().map_or(Aged::unknown(), Aging::look)
    }
}
