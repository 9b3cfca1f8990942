//! The disk's threads: one does the work of the log in order, one syncs what was written meanwhile and says how far it has come.
//! Never tries again after a failed write or sync. Knows no protocol.

mod facts;
mod in_memory;
mod maintenance;
mod queue;
mod shortage;
mod stalled;
mod syncer;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};
use zue_core::{Offset, Ticket};
use zue_log::{Disk, Log, SharedLog};

use self::facts::tell;
pub(crate) use self::facts::{DiskFact, Share};
use self::in_memory::{InMemory, Write};
use self::maintenance::Maintenance;
pub(crate) use self::maintenance::{Answer, Around, Fetch, MaintenanceSettings};
use self::queue::{Queue, Tasks};
pub(crate) use self::queue::{Task, Work};
pub(crate) use self::stalled::Stalled;
use self::syncer::Syncer;
use self::worker::Worker;
use crate::metrics::Metrics;

/// The disk's threads, seen from the driver.
#[derive(Debug)]
pub(crate) struct Storage {
    queue: Arc<Queue>,
    /// None where each acknowledgement waits for a sync.
    in_memory: Option<Box<dyn Write>>,
    done: Option<oneshot::Receiver<()>>,
}

/// Why the threads of the disk do not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("cannot start a thread of the disk")]
    Thread(#[from] io::Error),
}

impl Storage {
    /// Starts the threads on an open log.
    pub(crate) fn spawn<D: Disk>(
        log: Log<D>,
        name: &str,
        facts: mpsc::Sender<DiskFact>,
        metrics: Arc<Metrics>,
        around: Around,
    ) -> Result<Self, SpawnError> {
        // What is written down is committed, whatever comes.
        let committed = AtomicU64::new(log.meta().commit_end.0);
        let timestamp_ms = log.last_timestamp_ms().into();
        let queue = Arc::new(Queue { committed, timestamp_ms, ..Queue::default() });
        let (done_tx, done) = oneshot::channel();
        let durability = log.durability();
        let log = Arc::new(SharedLog::new(log));
        let syncer = Syncer::new(Arc::clone(&log), facts.clone(), Arc::clone(&metrics), durability);
        let (maintenance, to_maintenance) =
            Maintenance::new(Arc::clone(&log), Arc::clone(&queue), facts.clone(), metrics, around);
        let keeping = {
            let log = Arc::clone(&log);
            let end = move |problem| if log.is_broken() { failed(problem) } else { neglected(problem) };
            spawn(format!("maintain {name}"), &facts, end, move || maintenance.run())?
        };
        let syncing = {
            let syncer = Arc::clone(&syncer);
            spawn(format!("sync {name}"), &facts, failed, move || syncer.run())?
        };
        let in_memory: Option<Box<dyn Write>> =
            if durability.waits_for_disk() { None } else { Some(Box::new(InMemory::new(&log, &queue, &syncer))) };
        let worker = Worker::new(log, Arc::clone(&queue), facts.clone(), syncer);
        spawn(format!("disk {name}"), &facts, failed, move || {
            worker.run(syncing, (&to_maintenance, keeping));
            let _ = done_tx.send(());
        })?;
        Ok(Self { queue, in_memory, done: Some(done) })
    }

    /// Adds work, in order.
    pub(crate) fn push(&self, tasks: impl Iterator<Item = Task>) {
        self.queue.waiting().tasks.extend(tasks);
        self.queue.ready.notify_one();
    }

    /// Does the work here if that is a short copy into memory, and nothing waits before it. Returns the ticket up to which all is done, as
    /// [`DiskFact::Persisted`] would tell it. Leaves to the disk's thread what it does not do.
    ///
    /// Whoever calls may have to wait for the disk all the same, once: for room in the system's memory.
    pub(crate) fn write(&mut self, tasks: impl Iterator<Item = Task>) -> Option<Ticket> {
        let mut all = Tasks::default();
        all.extend(tasks);
        let done = self.in_memory.as_mut().and_then(|in_memory| in_memory.write(&mut all));
        if !all.is_empty() {
            self.queue.waiting().tasks.append(all);
            self.queue.ready.notify_one();
        }
        done
    }

    /// The number of tasks that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.waiting().tasks.len()
    }

    /// Notes what is committed; written down within a second or so.
    pub(crate) fn note_commit(&self, end: Offset) {
        self.queue.committed.store(end.0, Ordering::Release);
    }

    /// The time of the last record that is written, ms since the Unix epoch: of the log's last one, once no work waits.
    pub(crate) fn last_timestamp_ms(&self) -> u64 {
        self.queue.timestamp_ms.load(Ordering::Acquire)
    }

    /// Lets it do the work that waits and close the log; returns when that is done.
    pub(crate) async fn close(mut self) {
        self.queue.close();
        if let Some(done) = self.done.take() {
            let _ = done.await;
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Starts a thread that the driver cannot do without. It hears of a panic there, as `end` puts it: other threads can still speak to
/// it, and none of them would.
fn spawn(
    name: String,
    facts: &mpsc::Sender<DiskFact>,
    end: impl Fn(String) -> DiskFact + Send + 'static,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let guard = PanicGuard(facts.clone(), end);
    thread::Builder::new().name(name).spawn(move || {
        let _guard = guard;
        run();
    })
}

/// The fact that the disk's thread ended: nothing that it wrote can be trusted.
fn failed(problem: String) -> DiskFact {
    tracing::error!(problem, "the disk failed: this replica acknowledges nothing any more");
    DiskFact::Failed(problem.into())
}

/// The fact that the thread of the maintenance ended: the log is intact, and is not looked after any more.
fn neglected(problem: String) -> DiskFact {
    let problem = format!(
        "{problem}: nothing is repaired, read again, compacted or retained until this process is started again"
    );
    tracing::error!("{problem}");
    DiskFact::Neglected(problem.into())
}

/// Tells the driver when the thread that holds it panics.
struct PanicGuard<F: Fn(String) -> DiskFact>(mpsc::Sender<DiskFact>, F);

impl<F: Fn(String) -> DiskFact> Drop for PanicGuard<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            let problem = format!("the thread {:?} panicked", thread::current().name().unwrap_or_default());
            tell(&self.0, (self.1)(problem));
        }
    }
}

/// Bytes free and bytes in all on the disk of a directory.
pub(crate) fn disk_bytes(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}
