//! Group commit: many threads append to one log, and whoever waits first syncs for all that wait. Appends go on meanwhile.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zue_core::Tail;

use crate::disk::Disk;
use crate::error::LogError;
use crate::log::Log;
use crate::log::sync::SyncPoint;

/// Of the time that the last sync took, one part of so many is waited at most for those whom it let go to append again.
const GATHER_PARTS: u32 = 4;

/// A log that several threads use.
#[derive(Debug)]
pub struct SharedLog<D: Disk> {
    log: Mutex<Log<D>>,
    turn: Mutex<Turn>,
    done: Condvar,
    /// All are back whom the last sync let go.
    gathered: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    syncing: bool,
    /// How many syncs have begun, and how many of them have ended.
    begun: u64,
    ended: u64,
    /// What was durable after the last one; `None` if that failed.
    durable: Option<Tail>,
    /// How many threads wait for the sync that begins next.
    waiting: usize,
    /// How many threads the last sync let go, and how many have come since.
    released: usize,
    back: usize,
    /// How long it took.
    took: Duration,
}

impl<D: Disk> SharedLog<D> {
    /// Shares the log.
    pub fn new(log: Log<D>) -> Self {
        let (done, gathered) = (Condvar::new(), Condvar::new());
        Self { log: Mutex::new(log), turn: Mutex::default(), done, gathered }
    }

    /// The log, for this thread alone.
    pub fn lock(&self) -> MutexGuard<'_, Log<D>> {
        // What panics with it has broken an invariant, of which the log's own checks speak.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a thread has panicked while it had the log: an invariant may be broken.
    pub fn is_broken(&self) -> bool {
        self.log.is_poisoned()
    }

    /// The log again, for the only one who has it.
    pub fn into_inner(self) -> Log<D> {
        self.log.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that was appended before the call counts as durable, syncing if nobody else does. What was cut since is not.
    ///
    /// # Errors
    /// When the log is poisoned, by this sync or before.
    pub fn sync(&self) -> Result<Tail, LogError> {
        let mut turn = self.turn();
        // A sync that has begun may not cover what was appended since; the next one does.
        let wanted = turn.begun + 1;
        turn.waiting += 1;
        turn.back += 1;
        if turn.syncing && turn.back == turn.released {
            self.gathered.notify_one();
        }
        while turn.syncing && turn.ended < wanted {
            turn = self.done.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        if turn.ended >= wanted {
            let durable = turn.durable;
            drop(turn);
            return durable.map_or_else(|| self.sync_now(Log::sync_point), Ok);
        }
        turn.syncing = true;
        let mut turn = self.gather(turn);
        turn.begun += 1;
        let group = std::mem::take(&mut turn.waiting);
        drop(turn);
        let begun_at = Instant::now();
        let durable = self.sync_now(Log::sync_point);
        let mut turn = self.turn();
        turn.syncing = false;
        turn.ended = turn.begun;
        turn.durable = durable.as_ref().ok().copied();
        (turn.released, turn.back, turn.took) = (group, 0, begun_at.elapsed());
        drop(turn);
        self.done.notify_all();
        durable
    }

    /// Waits until those are back who were let go together, as they are about to append again: one sync for all of them takes less
    /// time than one for the first and another for the rest.
    fn gather<'t>(&self, mut turn: MutexGuard<'t, Turn>) -> MutexGuard<'t, Turn> {
        let until = Instant::now() + turn.took / GATHER_PARTS;
        while turn.back < turn.released {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            turn = self.gathered.wait_timeout(turn, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        turn
    }

    /// Syncs all that was appended, whatever the durability asks for.
    ///
    /// # Errors
    /// When the log is poisoned, by this sync or before.
    pub fn flush(&self) -> Result<Tail, LogError> {
        self.sync_now(Log::flush_point)
    }

    fn sync_now(
        &self,
        point: impl FnOnce(&mut Log<D>) -> Result<Option<SyncPoint<D>>, LogError>,
    ) -> Result<Tail, LogError> {
        let point = {
            let mut log = self.lock();
            match point(&mut log)? {
                Some(point) => point,
                None => return Ok(log.durable()),
            }
        };
        let result = point.run();
        self.lock().synced(&point, result)
    }
}
