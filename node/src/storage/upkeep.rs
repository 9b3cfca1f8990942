//! The thread that looks after the log while it is used: repairs what is damaged with the records of other replicas, compacts, and
//! reads all of it again in time. Slow on purpose: appends come first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use zue_core::Offset;
use zue_log::{
    Compacting, Damage, Disk, Excerpt, FetchPlan, LogError, Refused, Repair, Retention, SharedLog, Verifier,
};

use super::retain::Retain;
use super::shortage::{change_lacks_room, make_room, rewrite_lacks_room};
use super::stop::Stop;
use super::trimmed::Trimmed;
use super::{DiskFact, Queue, full, tell};
use crate::clock::SharedTime;
use crate::metrics::Metrics;
use crate::num::{gauge, wide};

/// How often it looks whether there is something to do.
const TURN: Duration = Duration::from_millis(250);
/// How long until it tries again what has failed.
const RETRY: Duration = Duration::from_secs(5);
/// The same, for what no other replica has.
const RETRY_LOST: Duration = Duration::from_mins(1);
/// How much is read at once.
const PIECE_BYTES: usize = 256 << 10;

/// How much upkeep may cost, and what is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpkeepSettings {
    /// 0: nothing is read again.
    pub(crate) scrub_bytes_per_second: u64,
    /// From the beginning of one pass to that of the next.
    pub(crate) scrub_interval: Duration,
    pub(crate) compaction_bytes_per_second: u64,
    pub(crate) retention: Retention,
    /// How long records that delete are kept, if the log is compacted.
    pub(crate) deletes_kept_ms: Option<u64>,
    /// How long what is trimmed stays on the disk.
    pub(crate) trim_delay: Duration,
}

/// Asks the other replicas for records from `from` on and before `upto`.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) from: Offset,
    pub(crate) upto: Offset,
    pub(crate) reply: oneshot::Sender<Result<Excerpt, NotFetched>>,
}

/// Nobody has given them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NotFetched {
    pub(crate) reason: String,
    /// Every other replica has answered.
    pub(crate) all_asked: bool,
}

/// Damage, whatever file it is in by now.
type Place = (PathBuf, Offset, Offset);

/// What is known of damage.
#[derive(Clone, Debug)]
struct Known {
    retry: Instant,
    lost: bool,
    why: String,
}

/// The thread's state.
pub(super) struct Upkeep<D: Disk> {
    log: Arc<SharedLog<D>>,
    queue: Arc<Queue>,
    facts: mpsc::Sender<DiskFact>,
    metrics: Arc<Metrics>,
    settings: UpkeepSettings,
    fetches: mpsc::Sender<Fetch>,
    stop: Arc<Stop>,
    retain: Retain<D>,
    trimmed: Trimmed<D>,
    damaged: BTreeMap<Place, Known>,
    reported: Option<Arc<str>>,
    /// Room was made for what had none: it is tried again.
    made_room: bool,
    scrub: Option<Verifier<D>>,
    scrub_due: Instant,
    compact_due: Instant,
}

impl<D: Disk> Upkeep<D> {
    pub(super) fn new(
        log: Arc<SharedLog<D>>,
        queue: Arc<Queue>,
        facts: mpsc::Sender<DiskFact>,
        metrics: Arc<Metrics>,
        (settings, fetches, time): (UpkeepSettings, mpsc::Sender<Fetch>, &SharedTime),
    ) -> (Self, Arc<Stop>) {
        let (stop, now) = (Arc::new(Stop::default()), Instant::now());
        let (damaged, scrub, scrub_due, compact_due) = (BTreeMap::new(), None, now, now);
        // The driver knows what opening has found, and is told when that is repaired.
        let reported = log.lock().damaged().first().map(|damage| damage.to_string().into());
        let ours = Arc::clone(&stop);
        let ages = (settings.retention, settings.deletes_kept_ms);
        let retain = Retain::new(log.lock().reader(), Arc::clone(&queue), facts.clone(), ages, time);
        let trimmed = Trimmed::new(Arc::clone(&log), settings.trim_delay, settings.retention);
        let new = Self {
            log,
            queue,
            facts,
            metrics,
            settings,
            fetches,
            stop: ours,
            retain,
            trimmed,
            damaged,
            reported,
            made_room: false,
            scrub,
            scrub_due,
            compact_due,
        };
        (new, stop)
    }

    pub(super) fn run(mut self) {
        loop {
            self.retention();
            self.repair();
            self.compact();
            self.scrub();
            if self.stop.wait(TURN) {
                return;
            }
        }
    }

    /// Waits as long as so many bytes may take; whether it is to end. Retention goes on meanwhile: it makes room.
    fn pace(&mut self, bytes: u64, bytes_per_second: u64) -> bool {
        self.retention();
        let micros = bytes.saturating_mul(1_000_000) / bytes_per_second.max(1);
        self.stop.wait(Duration::from_micros(micros))
    }

    /// What is to go for its age or size, and the files of what is gone.
    fn retention(&mut self) {
        self.retain.turn();
        if let Err(error) = self.trimmed.turn(Instant::now()) {
            self.fail(&error);
        }
    }

    /// The log is poisoned: nothing will be persisted any more.
    fn fail(&self, error: &LogError) {
        tracing::error!(error = %full(error), "the log could not be looked after");
        if let LogError::Disk(_) = error {
            tell(&self.facts, DiskFact::Failed(full(error).into()));
        }
    }

    // ---- repair

    fn repair(&mut self) {
        let found = self.log.lock().damaged();
        let place = |damage: &Damage| (damage.path.clone(), damage.from, damage.to);
        let before = std::mem::take(&mut self.damaged);
        for damage in &found {
            let known = before.get(&place(damage)).cloned();
            let is_part = |(path, from, to): &Place| *path == damage.path && *from <= damage.from && damage.to <= *to;
            if !before.keys().any(is_part) {
                self.metrics.corrupt_ranges.inc();
                tracing::error!(%damage, "records are damaged: asking the other replicas for them");
            }
            if let Some(known) = known.filter(|known| Instant::now() < known.retry) {
                self.damaged.insert(place(damage), known);
                continue;
            }
            let known = match self.repair_one(damage) {
                Ok(()) => Known { retry: Instant::now(), lost: false, why: String::new() },
                Err(NotFetched { reason, all_asked }) => {
                    let made_room = std::mem::take(&mut self.made_room);
                    let after = if made_room {
                        Duration::ZERO
                    } else if all_asked {
                        RETRY_LOST
                    } else {
                        RETRY
                    };
                    Known { retry: Instant::now() + after, lost: all_asked, why: reason }
                }
            };
            self.damaged.insert(place(damage), known);
        }
        self.report();
    }

    /// Tells the driver what is damaged, if that has changed.
    fn report(&mut self) {
        let remaining = self.log.lock().damaged();
        let known = |damage: &Damage| self.damaged.get(&(damage.path.clone(), damage.from, damage.to));
        self.metrics.damaged_ranges.set(gauge(wide(remaining.len())));
        self.metrics.lost_ranges.set(gauge(wide(self.damaged.values().filter(|known| known.lost).count())));
        let problem: Option<Arc<str>> = remaining.first().map(|damage| {
            let state = match known(damage) {
                Some(Known { lost: true, .. }) => "no other replica has them whole".to_owned(),
                Some(Known { why, .. }) => format!("to be repaired: {why}"),
                None => "to be repaired".to_owned(),
            };
            let more = remaining.len().saturating_sub(1);
            let more = if more > 0 { format!(" ({more} more such places)") } else { String::new() };
            format!("{damage}; {state}{more}").into()
        });
        if problem != self.reported {
            self.reported.clone_from(&problem);
            tell(&self.facts, DiskFact::Damaged(problem));
        }
    }

    fn repair_one(&mut self, damage: &Damage) -> Result<(), NotFetched> {
        let later = |reason: String| NotFetched { reason, all_asked: false };
        let (reader, committed) = {
            let log = self.log.lock();
            (log.reader(), log.meta().commit_end.max(Offset(self.queue.committed.load(Ordering::Acquire))))
        };
        let missing = reader.missing(damage).map_err(|error| later(full(&error)))?;
        let wanted = FetchPlan::new(&missing, committed).map_err(|error| later(error.to_string()))?;
        let (excerpts, problem) = self.fetch(wanted);
        if excerpts.is_empty() && !missing.is_empty() {
            return Err(problem.unwrap_or_else(|| later("nobody was asked".to_owned())));
        }
        let repair = self.log.lock().repair(damage, excerpts);
        let repair = repair.map_err(|error| {
            self.make_room(change_lacks_room(&error));
            self.fail(&error);
            later(full(&error))
        })?;
        let Some(repair) = repair else { return Ok(()) };
        self.rewrite(repair).map_err(later)?;
        let still = reader.missing(damage).map_err(|error| later(full(&error)))?;
        let filled = missing.iter().filter(|range| !still.contains(range)).count();
        self.metrics.repaired_ranges.inc_by(wide(filled.max(usize::from(missing.is_empty()))));
        if filled == 0 && !missing.is_empty() {
            return Err(problem.unwrap_or_else(|| later("what was fetched does not fill it".to_owned())));
        }
        tracing::info!(%damage, filled, ranges = missing.len(), "a damaged segment was written anew");
        Ok(())
    }

    /// Fetches what is wanted, and gives what was got and why there is no more.
    fn fetch(&self, mut wanted: FetchPlan) -> (Vec<Excerpt>, Option<NotFetched>) {
        let mut problem = None;
        while let Some((from, upto)) = wanted.next().filter(|_| !self.stop.is_stopped()) {
            let (reply, answer) = oneshot::channel();
            if self.fetches.blocking_send(Fetch { from, upto, reply }).is_err() {
                break;
            }
            match answer.blocking_recv() {
                Ok(Ok(excerpt)) => wanted.got(excerpt),
                Ok(Err(NotFetched { reason, all_asked })) => {
                    // Lost is only what nobody has, wherever it is.
                    let all_asked = all_asked && problem.is_none_or(|before: NotFetched| before.all_asked);
                    problem = Some(NotFetched { reason, all_asked });
                    wanted.missed();
                }
                Err(_) => break,
            }
        }
        (wanted.into_excerpts(), problem)
    }

    fn rewrite(&mut self, mut repair: Repair<D>) -> Result<(), String> {
        let written = loop {
            match repair.step(PIECE_BYTES) {
                Ok((bytes, true)) if self.pace(bytes, self.settings.compaction_bytes_per_second) => {
                    break Err("the node stops".to_owned());
                }
                Ok((_, true)) => {}
                Ok((_, false)) => break repair.finish().map_err(|error| self.refused(&error)),
                Err(error) => break Err(self.refused(&error)),
            }
        };
        match written {
            Ok(rewritten) => {
                let done = self.log.lock().rewritten(rewritten);
                done.map(|_| ()).map_err(|error| {
                    self.make_room(change_lacks_room(&error));
                    self.fail(&error);
                    full(&error)
                })
            }
            Err(reason) => {
                self.log.lock().forget_rewrite();
                tracing::warn!(reason, "a damaged segment was not written anew");
                Err(reason)
            }
        }
    }

    fn refused(&mut self, error: &Refused) -> String {
        self.make_room(rewrite_lacks_room(error));
        full(error)
    }

    /// Where it is room that was lacking, lets go what is kept only for people.
    fn make_room(&mut self, is_lacking: bool) {
        if is_lacking {
            // What was written so far takes some.
            self.log.lock().forget_rewrite();
            match make_room(&self.log) {
                Ok(made) => self.made_room = made,
                Err(error) => self.fail(&error),
            }
        }
    }

    // ---- compaction

    fn compact(&mut self) {
        if Instant::now() < self.compact_due {
            return;
        }
        let aged = self.retain.deletes();
        let Some(mut round) = self.log.lock().compaction(aged) else { return };
        let done = loop {
            match round.step(PIECE_BYTES) {
                Ok(Compacting::Bytes(bytes)) => {
                    self.metrics.compaction_bytes.inc_by(bytes);
                    if self.pace(bytes, self.settings.compaction_bytes_per_second) {
                        break false;
                    }
                }
                Ok(Compacting::Segment(segment)) => {
                    let done = self.log.lock().rewritten(*segment);
                    if let Err(error) = done {
                        self.make_room(change_lacks_room(&error));
                        self.fail(&error);
                        break false;
                    }
                }
                Ok(Compacting::Done) => break true,
                Err(error) => {
                    let error = self.refused(&error);
                    tracing::warn!(error, "compaction is given up for now");
                    break false;
                }
            }
        };
        if !done || round.is_incomplete() {
            let made_room = std::mem::take(&mut self.made_room);
            self.compact_due = Instant::now() + if made_room { Duration::ZERO } else { RETRY };
        }
        let noted = self.log.lock().compacted(round, done);
        if let Err(error) = noted {
            self.fail(&error);
        }
    }

    // ---- scrub

    /// Reads a turn's share again.
    fn scrub(&mut self) {
        let rate = self.settings.scrub_bytes_per_second;
        let now = Instant::now();
        if rate == 0 || (self.scrub.is_none() && now < self.scrub_due) {
            return;
        }
        let mut verifier = self.scrub.take().unwrap_or_else(|| {
            self.scrub_due = now + self.settings.scrub_interval;
            self.log.lock().reader().verifier()
        });
        let mut share = rate.saturating_mul(u64::try_from(TURN.as_millis()).unwrap_or(u64::MAX)) / 1000;
        while share > 0 {
            match verifier.step(usize::try_from(share).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)) {
                Ok(Some(checked)) => {
                    self.metrics.scrub_bytes.inc_by(checked.bytes);
                    if checked.damage.is_some() {
                        self.metrics.crc_errors.inc();
                    }
                    share = share.saturating_sub(checked.bytes.max(1));
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(error = %full(&error), "a part of the log cannot be read again");
                    break;
                }
            }
        }
        self.scrub = Some(verifier);
    }
}
