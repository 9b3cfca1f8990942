//! The disk's thread: does the work of the log in order, whatever waits under one sync, and says how far it has come. Never
//! tries again after a failed write or sync. Knows no protocol.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use zue_core::{ClusterId, Epoch, Offset, ReplicaId, Ticket};
use zue_log::{Batch, Log, LogError, OsDisk};

use crate::metrics::Metrics;

/// How long to wait before looking for room on a full disk again.
const ROOM_RETRY: Duration = Duration::from_millis(500);

/// How often what is committed is written down, so that a replica that starts alone can serve it.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// What the disk says.
#[derive(Debug)]
pub(crate) enum DiskFact {
    /// All work up to this ticket is durable.
    Persisted(Ticket),
    /// Work waits for room, for this reason; or waits no more.
    Full(Option<Arc<str>>),
    /// A write or sync failed: nothing more will be persisted.
    Failed(Arc<str>),
}

/// A piece of work.
#[derive(Debug)]
pub(crate) enum Work {
    Promise { epoch: Epoch, leader: Option<ReplicaId>, cluster: Option<ClusterId> },
    Cut { depth: usize, end: Offset },
    Write(Batch),
}

/// Work and its place in the order.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) ticket: Ticket,
    pub(crate) work: Work,
    /// A share of the bytes that may be on their way to the disk, given back when this is done.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// The work that waits. The driver takes no more requests while it is long, which bounds it.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    committed: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    tasks: VecDeque<Task>,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.waiting().closed = true;
        self.ready.notify_all();
    }

    /// Waits for work and takes all there is, perhaps nothing after a while; none once it is closed and done.
    fn take(&self) -> Option<VecDeque<Task>> {
        let idle = |waiting: &mut Waiting| waiting.tasks.is_empty() && !waiting.closed;
        let (mut waiting, _) = self
            .ready
            .wait_timeout_while(self.waiting(), COMMIT_INTERVAL, idle)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.tasks.is_empty() && waiting.closed { None } else { Some(std::mem::take(&mut waiting.tasks)) }
    }

    /// Waits a little; whether it was closed meanwhile.
    fn pause(&self) -> bool {
        let waiting = self.waiting();
        let (waiting, _) = self
            .ready
            .wait_timeout_while(waiting, ROOM_RETRY, |waiting| !waiting.closed)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.closed
    }
}

/// The disk's thread, seen from the driver.
#[derive(Debug)]
pub(crate) struct Storage {
    queue: Arc<Queue>,
    done: Option<oneshot::Receiver<()>>,
}

/// Why the thread of the disk does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("cannot start the thread of the disk")]
    Thread(#[from] io::Error),
}

impl Storage {
    /// Starts the thread on an open log.
    pub(crate) fn spawn(
        log: Log<OsDisk>,
        name: &str,
        facts: mpsc::Sender<DiskFact>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SpawnError> {
        let queue = Arc::new(Queue::default());
        let (done_tx, done) = oneshot::channel();
        let worker = Worker { log, queue: Arc::clone(&queue), facts, metrics, commit_written: Instant::now() };
        thread::Builder::new().name(format!("disk {name}")).spawn(move || {
            worker.run();
            let _ = done_tx.send(());
        })?;
        Ok(Self { queue, done: Some(done) })
    }

    /// Adds work, in order.
    pub(crate) fn push(&self, tasks: impl Iterator<Item = Task>) {
        self.queue.waiting().tasks.extend(tasks);
        self.queue.ready.notify_one();
    }

    /// How much work waits.
    pub(crate) fn len(&self) -> usize {
        self.queue.waiting().tasks.len()
    }

    /// Notes what is committed; written down within a second or so.
    pub(crate) fn note_commit(&self, end: Offset) {
        self.queue.committed.store(end.0, Ordering::Release);
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

/// What ends the work.
enum Stop {
    Failed(LogError),
    Closed,
}

struct Worker {
    log: Log<OsDisk>,
    queue: Arc<Queue>,
    facts: mpsc::Sender<DiskFact>,
    metrics: Arc<Metrics>,
    commit_written: Instant,
}

impl Worker {
    fn run(mut self) {
        while let Some(tasks) = self.queue.take() {
            self.log.note_commit(Offset(self.queue.committed.load(Ordering::Acquire)));
            match self.work(tasks) {
                Ok(Some(ticket)) => self.tell(DiskFact::Persisted(ticket)),
                Ok(None) => {}
                Err(Stop::Closed) => break,
                Err(Stop::Failed(error)) => return self.fail(&error),
            }
            if let Err(error) = self.write_commit() {
                return self.fail(&error);
            }
        }
        self.log.note_commit(Offset(self.queue.committed.load(Ordering::Acquire)));
        if let Err(error) = self.log.close() {
            tracing::error!(error = %full(&error), "the log could not be closed cleanly");
        }
    }

    fn write_commit(&mut self) -> Result<(), LogError> {
        if self.commit_written.elapsed() < COMMIT_INTERVAL {
            return Ok(());
        }
        self.commit_written = Instant::now();
        self.log.write_commit()
    }

    /// Does the work and makes it durable; the last ticket.
    fn work(&mut self, tasks: VecDeque<Task>) -> Result<Option<Ticket>, Stop> {
        if tasks.is_empty() {
            return Ok(None);
        }
        let mut last = None;
        let mut permits = Vec::new();
        for Task { ticket, work, permit } in tasks {
            self.until_there_is_room(&work)?;
            last = Some(ticket);
            permits.extend(permit);
        }
        let begun = Instant::now();
        self.log.sync().map_err(Stop::Failed)?;
        self.metrics.fsync_duration.observe(begun.elapsed().as_secs_f64());
        Ok(last)
    }

    /// A full disk changes nothing: the work waits until there is room. Everything else that fails is final.
    fn until_there_is_room(&mut self, work: &Work) -> Result<(), Stop> {
        let mut is_full = false;
        loop {
            match self.one(work) {
                Err(error @ LogError::NoRoom { .. }) => {
                    if !is_full {
                        tracing::error!(error = %full(&error), "the disk is full: appends wait for room");
                        self.tell(DiskFact::Full(Some(full(&error).into())));
                        is_full = true;
                    }
                    if self.queue.pause() {
                        return Err(Stop::Closed);
                    }
                }
                result => {
                    if is_full {
                        self.tell(DiskFact::Full(None));
                    }
                    return result.map_err(Stop::Failed);
                }
            }
        }
    }

    fn one(&mut self, work: &Work) -> Result<(), LogError> {
        match work {
            Work::Promise { epoch, leader, cluster } => self.log.set_promise(*epoch, *leader, *cluster),
            Work::Cut { depth, end } => self.log.cut(*depth, *end),
            Work::Write(batch) => self.log.append(batch).map(|_| ()),
        }
    }

    fn tell(&self, fact: DiskFact) {
        // Nobody listens any more once the driver has ended: then the work is done for its own sake.
        let _ = self.facts.blocking_send(fact);
    }

    /// Whatever was written last may not be there. The log stays locked until the process ends, so that nobody opens it and
    /// believes what is in memory only.
    fn fail(self, error: &LogError) {
        tracing::error!(error = %full(error), "the disk failed: this replica acknowledges nothing any more");
        self.tell(DiskFact::Failed(full(error).into()));
        while self.queue.take().is_some() {}
    }
}

/// An error with its sources, on one line.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Bytes free and bytes in all on the disk of a directory.
pub(crate) fn disk_bytes(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}
