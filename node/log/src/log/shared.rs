//! A log that several threads use: one appends, another syncs what was written by then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use zue_core::Tail;

use crate::disk::Disk;
use crate::error::LogError;
use crate::log::Log;
use crate::log::sync::SyncPoint;

/// A log that several threads use.
#[derive(Debug)]
pub struct SharedLog<D: Disk>(Mutex<Log<D>>);

impl<D: Disk> SharedLog<D> {
    /// Shares the log.
    pub fn new(log: Log<D>) -> Self {
        Self(Mutex::new(log))
    }

    /// The log, for this thread alone.
    pub fn lock(&self) -> MutexGuard<'_, Log<D>> {
        // What panics with it has broken an invariant, of which the log's own checks speak.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log, if no other thread has it, and none has panicked with it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Log<D>>> {
        self.0.try_lock().ok()
    }

    /// Returns whether a thread has panicked while it had the log: an invariant may be broken.
    pub fn is_broken(&self) -> bool {
        self.0.is_poisoned()
    }

    /// The log again, for the only one who has it.
    pub fn into_inner(self) -> Log<D> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once all that was appended before the call counts as durable. Appends go on meanwhile; what was cut since is not durable.
    ///
    /// # Errors
    /// When the log is poisoned, by this sync or before.
    pub fn sync(&self) -> Result<Tail, LogError> {
        self.sync_at(Log::sync_point)
    }

    /// Syncs all that was appended, whatever the durability asks for.
    ///
    /// # Errors
    /// When the log is poisoned, by this sync or before.
    pub fn flush(&self) -> Result<Tail, LogError> {
        self.sync_at(Log::flush_point)
    }

    fn sync_at(
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
