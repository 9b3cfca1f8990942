//! Group commit: many threads append to one log, and whoever waits first syncs for all that wait. Appends go on meanwhile. A node has
//! one thread that writes, and needs none of this; who embeds the log may.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zue_core::Tail;
use zue_log::{Disk, Log, LogError, SharedLog};

/// Of the time that the last sync took, one part of so many is waited at most for those whom it let go to append again.
const GATHER_PARTS: u32 = 4;

/// A log to which several threads append, with a sync for all that wait for one.
#[derive(Debug)]
pub(crate) struct GroupCommit<D: Disk> {
    log: SharedLog<D>,
    turn: Mutex<Turn>,
    done: Condvar,
    /// All are back whom the last sync let go.
    gathered: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    syncing: bool,
    /// The number of syncs that have begun, and how many of them have ended.
    begun: u64,
    ended: u64,
    /// The durable tail after the last one; `None` if that failed.
    durable: Option<Tail>,
    /// The number of threads that wait for the sync that begins next.
    waiting: usize,
    /// The numbers of threads that the last sync let go, and that have come since.
    released: usize,
    back: usize,
    /// The time it took.
    took: Duration,
}

impl<D: Disk> GroupCommit<D> {
    pub(crate) fn new(log: Log<D>) -> Self {
        let (done, gathered) = (Condvar::new(), Condvar::new());
        Self { log: SharedLog::new(log), turn: Mutex::default(), done, gathered }
    }

    /// The log, for this thread alone.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Log<D>> {
        self.log.lock()
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that was appended before the call counts as durable, syncing if nobody else does. What was cut since is not.
    ///
    /// # Errors
    /// When the log is poisoned, by this sync or before.
    pub(crate) fn sync(&self) -> Result<Tail, LogError> {
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
            return durable.map_or_else(|| self.log.sync(), Ok);
        }
        turn.syncing = true;
        let mut turn = self.gather(turn);
        turn.begun += 1;
        let group = std::mem::take(&mut turn.waiting);
        drop(turn);
        let begun_at = Instant::now();
        let durable = self.log.sync();
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
}
