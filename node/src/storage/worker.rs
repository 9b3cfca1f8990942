//! The thread that writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc;
use zue_core::Offset;
use zue_engine::disk_queue::{Ahead, apply_first};
use zue_engine::room::{full, lacks_room};
use zue_log::{Disk, LogError, SharedLog};

use super::facts::{DiskFact, tell};
use super::maintenance::ThreadMessage;
use super::queue::{COMMIT_INTERVAL, Queue, Task, Tasks, Work};
use super::shortage::has_made_room;
use super::stalled::Stalled;
use super::syncer::{Syncer, Written};

pub(super) struct Worker<D: Disk> {
    log: Arc<SharedLog<D>>,
    queue: Arc<Queue>,
    facts: mpsc::Sender<DiskFact>,
    syncer: Arc<Syncer<D>>,
    /// Work that this thread has written and nobody syncs yet.
    written: Written,
    commit_written: Instant,
}

/// So much is written at most before a sync of it begins.
const WRITTEN_BYTES_MAX: usize = 1 << 20;

/// The reason for which the work ends.
enum Stopped {
    Failed(LogError),
    Closed,
}

impl<D: Disk> Worker<D> {
    pub(super) fn new(
        log: Arc<SharedLog<D>>,
        queue: Arc<Queue>,
        facts: mpsc::Sender<DiskFact>,
        syncer: Arc<Syncer<D>>,
    ) -> Self {
        Self { log, queue, facts, syncer, written: Written::default(), commit_written: Instant::now() }
    }

    pub(super) fn run(
        mut self,
        syncing: JoinHandle<()>,
        (maintenance, keeping): (&Sender<ThreadMessage>, JoinHandle<()>),
    ) {
        let stopped = self.work();
        // It may have ended before.
        let _ = maintenance.send(ThreadMessage::Stop);
        self.syncer.close();
        // At once: what the other threads are at may take long, or hang with the disk.
        if let Stopped::Failed(error) = &stopped {
            self.fail(error);
        }
        // It panics only for a broken invariant, which it has told of.
        let _ = (syncing.join(), keeping.join());
        if let Stopped::Closed = stopped {
            self.close();
        }
    }

    fn work(&mut self) -> Stopped {
        while let Some(tasks) = self.queue.take() {
            if let Err(stop) = self.all(tasks).and_then(|()| self.write_commit().map_err(Stopped::Failed)) {
                return stop;
            }
        }
        Stopped::Closed
    }

    /// Does the work; what is written by then is synced meanwhile.
    fn all(&mut self, mut tasks: Tasks) -> Result<(), Stopped> {
        while !tasks.is_empty() {
            for _ in 0..self.until_there_is_room(&mut tasks)? {
                let Some(Task { ticket, work, share }) = tasks.pop() else { break };
                self.written.add(ticket, share, work.bytes());
            }
            if self.written.bytes() >= WRITTEN_BYTES_MAX {
                self.have_synced(false);
            }
        }
        self.have_synced(self.queue.is_empty());
        Ok(())
    }

    /// Hands over what was written. `is_idle`: nothing else waits to be written.
    fn have_synced(&mut self, is_idle: bool) {
        self.syncer.written(std::mem::take(&mut self.written), is_idle);
    }

    /// Does what comes first, and says how many pieces that was. A file that cannot be made, mostly for a full disk, changes nothing: the work waits until there is room.
    /// Everything else that fails is final.
    fn until_there_is_room(&mut self, tasks: &mut Tasks) -> Result<usize, Stopped> {
        let mut told = None;
        loop {
            match self.first(tasks.works()) {
                Err(LogError::NoRoom(error))
                    if lacks_room(&error) && has_made_room(&self.log).map_err(Stopped::Failed)? => {}
                Err(LogError::NoRoom(error)) => {
                    self.have_synced(false);
                    let now = Some(Stalled::new(&error));
                    if told != now {
                        tracing::error!("{}", Stalled::new(&error));
                        tell(&self.facts, DiskFact::Full(now.clone()));
                        told = now;
                    }
                    self.go_ahead(tasks)?;
                    tasks.append(self.queue.pause().ok_or(Stopped::Closed)?);
                }
                result => {
                    if told.is_some() {
                        tracing::info!("appends wait for the disk no more");
                        tell(&self.facts, DiskFact::Full(None));
                    }
                    return result.map_err(Stopped::Failed);
                }
            }
        }
    }

    /// Does what may go ahead of what waits for room.
    fn go_ahead(&self, tasks: &mut Tasks) -> Result<(), Stopped> {
        let write = |work: &Work| match self.first(std::iter::once(work)) {
            Ok(_) => Ok(Ahead::Done),
            Err(LogError::NoRoom(_) | LogError::AboveCommit { .. }) => Ok(Ahead::NotNow),
            Err(error) => Err(Stopped::Failed(error)),
        };
        for ticket in tasks.go_ahead(write)? {
            tell(&self.facts, DiskFact::Promised(ticket));
        }
        Ok(())
    }

    fn first<'a>(&self, works: impl Iterator<Item = &'a Work> + Clone) -> Result<usize, LogError> {
        let mut log = self.log.lock();
        let done = apply_first(works, &mut log);
        self.queue.timestamp_ms.store(log.last_timestamp_ms(), Ordering::Release);
        done
    }

    fn note_commit(&self) {
        self.log.lock().note_commit(Offset(self.queue.committed.load(Ordering::Acquire)));
    }

    fn write_commit(&mut self) -> Result<(), LogError> {
        self.note_commit();
        if self.commit_written.elapsed() < COMMIT_INTERVAL {
            return Ok(());
        }
        self.commit_written = Instant::now();
        self.log.lock().write_commit()
    }

    fn close(self) {
        self.note_commit();
        let Self { log, syncer, .. } = self;
        drop(syncer);
        if log.is_broken() {
            return tracing::error!("a thread panicked with the log: it is not closed, and checked when it is opened");
        }
        let Some(log) = Arc::into_inner(log) else {
            return tracing::error!("the log is still in use and cannot be closed cleanly");
        };
        if let Err(error) = log.into_inner().close() {
            tracing::error!(error = %full(&error), "the log could not be closed cleanly");
        }
    }

    /// Whatever was written last may not be there. The log stays locked until the process ends, so that nobody opens it and
    /// believes what is in memory only.
    fn fail(&self, error: &LogError) {
        tracing::error!(error = %full(error), "the disk failed: this replica acknowledges nothing any more");
        tell(&self.facts, DiskFact::Failed(full(error).into()));
        while self.queue.take().is_some() {}
    }
}
