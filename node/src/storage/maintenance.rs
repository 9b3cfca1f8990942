//! The thread that looks after the log while it is used, as the engine's maintenance says: repairs what is damaged, compacts, reads again,
//! and lets go what is to go. Slow on purpose: appends come first.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use zue_core::{Aged, Ages, Millis, Offset, ReplicaId};
use zue_engine::maintenance::{Ask, Damages, Event, Facts, Settings, Unanswered};
use zue_engine::room::full;
use zue_log::{Disk, Excerpt, SharedLog};

use super::facts::{DiskFact, tell};
use super::queue::Queue;
use super::shortage::tell_of;
use crate::driver::clock::SharedTime;
use crate::metrics::Metrics;
use crate::num::{gauge, wide};

/// The cost that the maintenance may have, and what is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaintenanceSettings {
    pub(crate) engine: Settings,
    /// The time for which records that delete are kept, if the log is compacted.
    pub(crate) deletes_kept_ms: Option<u64>,
}

/// The answer of a replica.
pub(crate) type Answer = Result<Excerpt, Unanswered>;

/// Asks another replica for records.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) ask: Ask,
    pub(crate) reply: Reply,
}

/// The way of the answer.
#[derive(Debug)]
pub(crate) struct Reply {
    number: u64,
    to: Sender<ThreadMessage>,
}

impl Reply {
    /// Nobody listens any more once the maintenance has ended.
    pub(crate) fn send(self, answer: Answer) {
        let _ = self.to.send(ThreadMessage::Answer(self.number, answer));
    }
}

/// News for the thread.
#[derive(Debug)]
pub(crate) enum ThreadMessage {
    Answer(u64, Answer),
    Stop,
}

/// Tells which other replicas there are, once any are known.
pub(crate) type Others = Box<dyn Fn() -> Option<Vec<ReplicaId>> + Send>;

/// Tells the end of what is in backups, where retention is to leave what is not.
pub(crate) type BackedUp = Box<dyn Fn() -> Option<Offset> + Send>;

/// The rest of the node, as far as the maintenance is to know of it.
pub(crate) struct Around {
    pub(crate) settings: MaintenanceSettings,
    pub(crate) fetches: mpsc::Sender<Fetch>,
    pub(crate) time: SharedTime,
    pub(crate) others: Others,
    pub(crate) backed_up: BackedUp,
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Around").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The thread's state.
pub(super) struct Maintenance<D: Disk> {
    engine: zue_engine::maintenance::Maintenance<D>,
    log: Arc<SharedLog<D>>,
    queue: Arc<Queue>,
    facts: mpsc::Sender<DiskFact>,
    metrics: Arc<Metrics>,
    around: Around,
    said: Receiver<ThreadMessage>,
    ours: Sender<ThreadMessage>,
    born: Instant,
    /// Ages of records, and of those that delete, where any are to go for it.
    ages: Option<Ages>,
    deletes: Option<Ages>,
}

impl<D: Disk> Maintenance<D> {
    pub(super) fn new(
        log: Arc<SharedLog<D>>,
        queue: Arc<Queue>,
        facts: mpsc::Sender<DiskFact>,
        metrics: Arc<Metrics>,
        around: Around,
    ) -> (Self, Sender<ThreadMessage>) {
        let MaintenanceSettings { engine: settings, deletes_kept_ms } = around.settings;
        let engine = zue_engine::maintenance::Maintenance::new(log.lock().reader(), settings);
        let (ages, deletes) = (settings.retention.age_ms.map(Ages::new), deletes_kept_ms.map(Ages::new));
        let ((ours, said), born) = (channel(), Instant::now());
        let theirs = ours.clone();
        (Self { engine, log, queue, facts, metrics, around, said, ours, born, ages, deletes }, theirs)
    }

    pub(super) fn run(mut self) {
        let (mut wait, mut events) = (Duration::ZERO, Vec::new());
        loop {
            let said = match self.said.recv_timeout(wait) {
                Ok(ThreadMessage::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(ThreadMessage::Answer(number, answer)) => Some((number, answer)),
                Err(RecvTimeoutError::Timeout) => None,
            };
            let others = (self.around.others)();
            let facts = self.look(others.as_deref());
            let log = &mut &*self.log;
            wait = match said {
                Some((number, answer)) => self.engine.answered(number, answer, &facts, log, &mut events),
                None => self.engine.turn(&facts, log, &mut events),
            };
            events.drain(..).for_each(|event| self.take(event));
        }
        self.engine.stop(&mut &*self.log);
    }

    fn look<'a>(&mut self, others: Option<&'a [ReplicaId]>) -> Facts<'a> {
        let committed = Offset(self.queue.committed.load(Ordering::Acquire));
        let now = Millis(u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX));
        let known = self.around.time.known();
        let look = |ages: &mut Option<Ages>| match (ages, known) {
            (Some(ages), Some(known)) => ages.look(now, known.agreed_ms, committed, known.told_end.max(committed)),
            _ => Aged::unknown(),
        };
        let backed_up = (self.around.backed_up)();
        Facts { now, committed, aged: look(&mut self.ages), deletes: look(&mut self.deletes), others, backed_up }
    }

    fn take(&self, event: Event) {
        let metrics = &self.metrics;
        let delay_ms = self.around.settings.engine.trim_delay_ms;
        match event {
            Event::Ask(ask) => self.ask(ask),
            Event::Expired(before) => tell(&self.facts, DiskFact::Expired(before)),
            Event::Damaged(Damages { ranges, lost, problem }) => {
                metrics.damaged_ranges.set(gauge(wide(ranges)));
                metrics.lost_ranges.set(gauge(wide(lost)));
                tell(&self.facts, DiskFact::Damaged(problem.map(Arc::from)));
            }
            Event::Failed(error) => {
                tracing::error!(error = %full(&error), "the maintenance of the log failed");
                if let zue_log::LogError::Disk(_) = error {
                    tell(&self.facts, DiskFact::Failed(full(&error).into()));
                }
            }
            Event::Found(damage) => {
                metrics.corrupt_ranges.inc();
                tracing::error!(%damage, "records are damaged: asking the other replicas for them");
            }
            Event::Repaired(damage, missing, still) => {
                let filled = missing.iter().filter(|range| !still.contains(range)).count();
                metrics.repaired_ranges.inc_by(wide(filled.max(usize::from(missing.is_empty()))));
                tracing::info!(%damage, filled, ranges = missing.len(), "a damaged segment was written anew");
            }
            Event::NotRewritten(reason) => tracing::warn!(reason, "a damaged segment was not written anew"),
            Event::CompactedBytes(bytes) => metrics.compaction_bytes.inc_by(bytes),
            Event::CompactionGivenUp(error) => tracing::warn!(error, "compaction is given up for now"),
            Event::Compacts | Event::Compacted(_) | Event::CompactionDone | Event::CheckedAll => {}
            Event::Checked(checked) => {
                metrics.scrub_bytes.inc_by(checked.bytes);
                metrics.crc_errors.inc_by(u64::from(checked.damage.is_some()));
            }
            Event::Unread(error) => {
                tracing::error!(error = %full(&error), "a part of the log cannot be read again");
            }
            Event::Ageless(error) => {
                tracing::error!(error = %full(&error), "cannot read the age of a part of the log");
            }
            Event::Trimmed { log_start, segments } => {
                tracing::info!(%log_start, kept = segments, delay_ms, "trimmed segments are kept for a while");
            }
            Event::Former(number) => tracing::warn!(
                files = format!("*-{number}.former"),
                delay_ms,
                "the log was begun anew: the files of the one before are kept in the data directory for log.trimDelay, see the README"
            ),
            Event::SurplusGone { number, bytes } => tracing::warn!(
                files = format!("*-{number}.former"),
                bytes,
                "deleting the files of a former log: with the log they exceed log.retentionBytes"
            ),
            Event::MadeRoom(gone) => tell_of(gone),
        }
    }

    /// Asks the other replica, or says why not.
    fn ask(&self, ask: Ask) {
        let reply = Reply { number: ask.number, to: self.ours.clone() };
        if let Err(not_sent) = self.around.fetches.try_send(Fetch { ask, reply }) {
            let reason = match &not_sent {
                mpsc::error::TrySendError::Full(_) => "the question before waits for its answer",
                mpsc::error::TrySendError::Closed(_) => "nobody asks the other replicas any more",
            };
            let Fetch { reply, .. } = not_sent.into_inner();
            reply.send(Err(Unanswered { reason: reason.to_owned(), is_damaged: false }));
        }
    }
}
