//! The maintenance of a log while it is used: repairs what is damaged with the records of other replicas, compacts, reads all of it again
//! in time, and lets go what is to go. Decides what comes next and how soon, and does a piece of it at a time. Whoever drives it waits
//! in between, asks the other replicas, and tells what it is told.

mod repair;
#[cfg(test)]
mod tests;
mod trimmed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use zue_core::{Aged, Millis, Offset, ReplicaId};
use zue_log::{
    Compacting, Compaction, Damage, Disk, LogError, ReadError, Reader, Retention, RewriteError, Verified, Verifier,
};

use self::repair::{Asking, Repairing};
use self::trimmed::Trimmed;
use crate::room::{Access, MadeRoom, change_lacks_room, full, make_room, rewrite_lacks_room};

/// The cost that the maintenance may have, and what is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The interval at which it looks whether there is something to do.
    pub turn_ms: u64,
    /// The time until it tries again what has failed.
    pub retry_ms: u64,
    /// The same, for what no other replica has.
    pub retry_lost_ms: u64,
    /// The time for which an answer is waited for.
    pub answer_ms: u64,
    /// The bytes that are read or written at once.
    pub piece_bytes: usize,
    /// 0: nothing is read again.
    pub scrub_bytes_per_second: u64,
    /// The time from the beginning of one pass to that of the next.
    pub scrub_interval_ms: u64,
    /// The bytes that compaction and repairs may read and write in a second.
    pub compaction_bytes_per_second: u64,
    /// Retention by age and size.
    pub retention: Retention,
    /// The interval at which it looks for that.
    pub retention_ms: u64,
    /// The time for which trimmed segments stay on the disk.
    pub trim_delay_ms: u64,
}

/// Facts around the log.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The monotonic clock.
    pub now: Millis,
    /// So much is committed.
    pub committed: Offset,
    /// Ages of the records.
    pub aged: Aged,
    /// Ages of the records that delete.
    pub deletes: Aged,
    /// The other replicas, once any are known.
    pub others: Option<&'a [ReplicaId]>,
    /// The end of what is in backups, where retention leaves what is not.
    pub backed_up: Option<Offset>,
}

/// A question for another replica. [`Maintenance::answered`] takes what comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// No two questions have the same.
    pub number: u64,
    /// The replica that is asked.
    pub of: ReplicaId,
    /// The first of the records asked for.
    pub from: Offset,
    /// The end of the records asked for.
    pub upto: Offset,
}

/// Why a replica has not given what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unanswered {
    /// In words.
    pub reason: String,
    /// It is damaged, or gone, there too.
    pub is_damaged: bool,
}

/// Damage of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damages {
    /// In how many places.
    pub ranges: usize,
    /// The number of them that no other replica has whole.
    pub lost: usize,
    /// The first of them, in words; none if nothing is damaged.
    pub problem: Option<String>,
}

/// Work for the one who drives it, and news.
#[derive(Debug)]
pub enum Event {
    /// A replica is to be asked.
    Ask(Ask),
    /// The leader is to let the log begin there.
    Expired(Offset),
    /// News of damage.
    Damaged(Damages),
    /// A change of the log has failed.
    Failed(LogError),
    /// Damage that was not known before.
    Found(Damage),
    /// A damaged segment was written anew. What was missing in it, and what still is.
    Repaired(Damage, Vec<(Offset, Offset)>, Vec<(Offset, Offset)>),
    /// A damaged segment was not written anew.
    NotRewritten(String),
    /// A round of compaction begins.
    Compacts,
    /// Compaction has read, and perhaps written, so many bytes.
    CompactedBytes(u64),
    /// A segment is compacted; whether it has taken the old one's place.
    Compacted(bool),
    /// The round is done.
    CompactionDone,
    /// Compaction is given up for now.
    CompactionGivenUp(String),
    /// So much was read again.
    Checked(Verified),
    /// All of it was read again.
    CheckedAll,
    /// A part cannot be read again.
    Unread(ReadError),
    /// It cannot be read how old a part of the log is.
    Ageless(ReadError),
    /// Segments are trimmed, and stay for a while.
    Trimmed {
        /// The start of the log.
        log_start: Offset,
        /// The number of segments that stay.
        segments: usize,
    },
    /// The log was begun anew: the files of that former one stay for a while.
    Former(u64),
    /// The files of a former log are gone: with the log they were more than is to be kept.
    SurplusGone {
        /// The segment.
        number: u64,
        /// Their length together.
        bytes: u64,
    },
    /// There was no room, and that went for it.
    MadeRoom(MadeRoom),
}

/// Damage, whatever file it is in by now.
type DamageKey = (PathBuf, Offset, Offset);

fn key_of(damage: &Damage) -> DamageKey {
    (damage.path.clone(), damage.from, damage.to)
}

/// Damage, as far as it is known.
#[derive(Clone, Debug)]
struct DamageState {
    retry_at: Millis,
    lost: bool,
    why: String,
}

/// The task that is under way.
#[derive(Debug, Default)]
enum Doing<D: Disk> {
    #[default]
    Nothing,
    Asking(Box<Asking>),
    Repairing(Box<Repairing<D>>),
    Compacting(Box<Compaction<D>>),
}

/// The maintenance of a log.
#[derive(Debug)]
pub struct Maintenance<D: Disk> {
    /// May be changed at any time.
    pub settings: Settings,
    reader: Reader<D>,
    trimmed: Trimmed<D>,
    doing: Doing<D>,
    asked: u64,
    damaged: BTreeMap<DamageKey, DamageState>,
    reported: Damages,
    /// Room was made for what had none: it is tried again.
    made_room: bool,
    scrub: Option<Verifier<D>>,
    scrub_due: Millis,
    compact_due: Millis,
    retention_due: Millis,
}

const NOT_AT_ALL: Duration = Duration::ZERO;

fn after(now: Millis, ms: u64) -> Millis {
    Millis(now.0.saturating_add(ms))
}

impl<D: Disk> Maintenance<D> {
    /// The maintenance of an open log, with the damage that was found when it was opened.
    pub fn new(reader: Reader<D>, settings: Settings) -> Self {
        let trimmed = Trimmed::new(reader.clone(), settings.trim_delay_ms, settings.retention);
        let damaged = reader.damaged();
        let problem = damaged.first().map(ToString::to_string);
        let reported = Damages { ranges: damaged.len(), lost: 0, problem };
        let due = Millis(0);
        Self {
            settings,
            reader,
            trimmed,
            doing: Doing::Nothing,
            asked: 0,
            damaged: BTreeMap::new(),
            reported,
            made_room: false,
            scrub: None,
            scrub_due: due,
            compact_due: due,
            retention_due: due,
        }
    }

    /// Does what comes next; gives how long to wait then. Retention goes on between the pieces of everything else: it makes room.
    pub fn turn(&mut self, facts: &Facts<'_>, log: &mut impl Access<D>, out: &mut Vec<Event>) -> Duration {
        self.retain(facts, out);
        if let Err(error) = self.trimmed.turn(facts.now, log, out) {
            out.push(Event::Failed(error));
        }
        match std::mem::take(&mut self.doing) {
            Doing::Nothing => self.begin(facts, log, out),
            Doing::Asking(asking) => self.wait(*asking, facts, log, out),
            Doing::Repairing(repairing) => self.repair_on(*repairing, facts.now, log, out),
            Doing::Compacting(round) => self.compact_on(round, facts.now, log, out),
        }
    }

    /// Gives up what is under way: nothing of it is to be found in the log.
    pub fn stop(self, log: &mut impl Access<D>) {
        match self.doing {
            Doing::Nothing | Doing::Asking(_) => {}
            Doing::Repairing(_) => log.change(|log| log.forget_rewrite()),
            // A log that cannot take note of it is poisoned, and says so by itself.
            Doing::Compacting(round) => _ = log.change(|log| log.compacted(*round, false)),
        }
    }

    fn begin(&mut self, facts: &Facts<'_>, log: &mut impl Access<D>, out: &mut Vec<Event>) -> Duration {
        if let Some(damage) = self.look_for_damage(facts.now, out) {
            return self.begin_repair(damage, facts, log, out);
        }
        if facts.now >= self.compact_due
            && let Some(round) = log.change(|log| log.compaction(facts.deletes))
        {
            out.push(Event::Compacts);
            self.doing = Doing::Compacting(Box::new(round));
            return NOT_AT_ALL;
        }
        self.scrub(facts.now, out);
        self.a_turn()
    }

    fn a_turn(&self) -> Duration {
        Duration::from_millis(self.settings.turn_ms)
    }

    /// The time that so many bytes may take.
    fn pace(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.settings.compaction_bytes_per_second.max(1))
    }

    /// Lets go what is kept only for people, where it is room that was lacking.
    fn make_room(&mut self, is_lacking: bool, log: &mut impl Access<D>, out: &mut Vec<Event>) {
        if is_lacking {
            // What was written so far takes some.
            log.change(|log| log.forget_rewrite());
            match make_room(log) {
                Ok(gone) => {
                    self.made_room = gone.is_some();
                    out.extend(gone.map(Event::MadeRoom));
                }
                Err(error) => out.push(Event::Failed(error)),
            }
        }
    }

    /// When to try again what has failed.
    fn retry_at(&mut self, now: Millis, retry_ms: u64) -> Millis {
        if std::mem::take(&mut self.made_room) { now } else { after(now, retry_ms) }
    }

    // ---- retention

    fn retain(&mut self, facts: &Facts<'_>, out: &mut Vec<Event>) {
        let Settings { retention, retention_ms, .. } = self.settings;
        if retention == Retention::default() || facts.now < self.retention_due {
            return;
        }
        self.retention_due = after(facts.now, retention_ms);
        let upto = facts.backed_up.map_or(facts.committed, |end| end.min(facts.committed));
        match self.reader.retained_from(retention, upto, facts.aged) {
            Ok(from) => out.extend(from.map(Event::Expired)),
            Err(error) => out.push(Event::Ageless(error)),
        }
    }

    // ---- compaction

    fn compact_on(
        &mut self,
        mut round: Box<Compaction<D>>,
        now: Millis,
        log: &mut impl Access<D>,
        out: &mut Vec<Event>,
    ) -> Duration {
        let done = match round.step(self.settings.piece_bytes) {
            Ok(Compacting::Bytes(bytes)) => {
                out.push(Event::CompactedBytes(bytes));
                self.doing = Doing::Compacting(round);
                return self.pace(bytes);
            }
            Ok(Compacting::Segment(segment)) => match log.change(|log| log.rewritten(*segment)) {
                Ok(taken) => {
                    out.push(Event::Compacted(taken));
                    self.doing = Doing::Compacting(round);
                    return NOT_AT_ALL;
                }
                Err(error) => {
                    self.make_room(change_lacks_room(&error), log, out);
                    out.push(Event::Failed(error));
                    false
                }
            },
            Ok(Compacting::Done) => true,
            Err(refused) => {
                let reason = self.refused(&refused, log, out);
                out.push(Event::CompactionGivenUp(reason));
                false
            }
        };
        if !done || round.is_incomplete() {
            self.compact_due = self.retry_at(now, self.settings.retry_ms);
        }
        match log.change(|log| log.compacted(*round, done)) {
            Ok(()) if done => out.push(Event::CompactionDone),
            Ok(()) => {}
            Err(error) => out.push(Event::Failed(error)),
        }
        // The next one may be due at once, and keeps nothing from being read again.
        self.scrub(now, out);
        self.a_turn()
    }

    /// Why a segment is not written anew.
    fn refused(&mut self, refused: &RewriteError, log: &mut impl Access<D>, out: &mut Vec<Event>) -> String {
        self.make_room(rewrite_lacks_room(refused), log, out);
        full(refused)
    }

    // ---- scrub

    /// Reads a turn's share again.
    fn scrub(&mut self, now: Millis, out: &mut Vec<Event>) {
        let Settings { scrub_bytes_per_second, turn_ms, piece_bytes, scrub_interval_ms, .. } = self.settings;
        if scrub_bytes_per_second == 0 || (self.scrub.is_none() && now < self.scrub_due) {
            return;
        }
        let mut verifier = self.scrub.take().unwrap_or_else(|| {
            self.scrub_due = after(now, scrub_interval_ms);
            self.reader.verifier()
        });
        let mut share = scrub_bytes_per_second.saturating_mul(turn_ms) / 1000;
        while share > 0 {
            match verifier.step(usize::try_from(share).unwrap_or(piece_bytes).min(piece_bytes)) {
                Ok(Some(checked)) => {
                    share = share.saturating_sub(checked.bytes.max(1));
                    out.push(Event::Checked(checked));
                }
                Ok(None) => {
                    out.push(Event::CheckedAll);
                    return;
                }
                Err(error) => {
                    out.push(Event::Unread(error));
                    break;
                }
            }
        }
        self.scrub = Some(verifier);
    }
}
