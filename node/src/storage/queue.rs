//! The work that waits for the disk's thread.

use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use zue_engine::disk_queue::Work;
use zue_log::Batch;

use super::facts::Share;

/// The pause before looking for room on a full disk again.
const ROOM_RETRY: Duration = Duration::from_millis(500);

/// The interval at which the commit end is written down, so that a replica that starts alone can serve it.
pub(super) const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Work and its place in the order, with a share of the bytes that may be on their way to the disk.
pub(crate) type Task = zue_engine::disk_queue::Task<Batch, Option<Share>>;

/// The work that waits, in its order.
pub(super) type Tasks = zue_engine::disk_queue::Queue<Batch, Option<Share>>;

/// The work that waits. The driver takes no more requests while it is long, which bounds it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: Mutex<Waiting>,
    pub(super) ready: Condvar,
    pub(super) committed: AtomicU64,
    /// Of the last record that is written, ms since the Unix epoch.
    pub(super) timestamp_ms: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) tasks: Tasks,
    /// The disk's thread has taken work, and has not come for more.
    pub(super) is_busy: bool,
    pub(super) closed: bool,
}

impl Waiting {
    /// Takes all there is.
    fn take(&mut self) -> Tasks {
        let tasks = std::mem::take(&mut self.tasks);
        self.is_busy = !tasks.is_empty();
        tasks
    }
}

impl Queue {
    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.ready.notify_all();
    }

    /// Waits for work and takes all there is, perhaps nothing after a while; none once it is closed and done.
    pub(super) fn take(&self) -> Option<Tasks> {
        let idle = |waiting: &mut Waiting| waiting.tasks.is_empty() && !waiting.closed;
        let mut waiting = self.waiting();
        waiting.is_busy = false;
        let (mut waiting, _) =
            self.ready.wait_timeout_while(waiting, COMMIT_INTERVAL, idle).unwrap_or_else(PoisonError::into_inner);
        if waiting.tasks.is_empty() && waiting.closed { None } else { Some(waiting.take()) }
    }

    /// Returns whether all work that came was done and told.
    pub(super) fn is_done(&self) -> bool {
        let waiting = self.waiting();
        waiting.tasks.is_empty() && !waiting.is_busy && !waiting.closed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting().tasks.is_empty()
    }

    /// Waits a little, but not beyond the next work, which is taken; `None` once it is closed.
    pub(super) fn pause(&self) -> Option<Tasks> {
        let idle = |waiting: &mut Waiting| waiting.tasks.is_empty() && !waiting.closed;
        let (mut waiting, _) =
            self.ready.wait_timeout_while(self.waiting(), ROOM_RETRY, idle).unwrap_or_else(PoisonError::into_inner);
        if waiting.closed { None } else { Some(std::mem::take(&mut waiting.tasks)) }
    }
}
