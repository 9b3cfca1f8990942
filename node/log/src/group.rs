//! Group commit: many threads append to one log, and whoever waits first syncs for all that wait. Appends go on meanwhile.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use zue_core::Tail;

use crate::disk::Disk;
use crate::error::LogError;
use crate::log::Log;
use crate::sync::SyncPoint;

/// How often a thread that is about to sync lets others run, so that their appends share the sync.
const YIELDS_MAX: u32 = 16;

/// A log that several threads use.
#[derive(Debug)]
pub struct SharedLog<D: Disk> {
    log: Mutex<Log<D>>,
    turn: Mutex<Turn>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    syncing: bool,
    /// How many syncs have begun, and how many of them have ended.
    begun: u64,
    ended: u64,
}

impl<D: Disk> SharedLog<D> {
    /// Shares the log.
    pub fn new(log: Log<D>) -> Self {
        Self { log: Mutex::new(log), turn: Mutex::default(), done: Condvar::new() }
    }

    /// The log, for this thread alone.
    pub fn lock(&self) -> MutexGuard<'_, Log<D>> {
        // What panics with it has broken an invariant, of which the log's own checks speak.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
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
        while turn.syncing && turn.ended < wanted {
            turn = self.done.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        if turn.ended >= wanted {
            drop(turn);
            let mut log = self.lock();
            return log.sync_point().map(|_| log.durable());
        }
        turn.syncing = true;
        turn.begun += 1;
        drop(turn);
        self.gather();
        let durable = self.sync_now(Log::sync_point);
        let mut turn = self.turn();
        turn.syncing = false;
        turn.ended = turn.begun;
        drop(turn);
        self.done.notify_all();
        durable
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

    /// Lets those append who are about to, for as long as there are more each time.
    fn gather(&self) {
        let mut before = None;
        for _ in 0..YIELDS_MAX {
            let tail = self.lock().tail();
            if before.replace(tail) == Some(tail) {
                break;
            }
            thread::yield_now();
        }
    }
}
