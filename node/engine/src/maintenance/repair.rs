//! Repair: what is damaged is asked of one replica after the other, and its segment written anew with what they give. What nobody has
//! is looked at again later.

use std::collections::VecDeque;

use zue_core::{Millis, ReplicaId};
use zue_log::{Disk, Excerpt, FetchPlan, Repair};

use super::{
    Access, Ask, Damage, DamageKey, DamageState, Damages, Doing, Duration, Event, Facts, Maintenance, NOT_AT_ALL,
    Offset, Unanswered, after, change_lacks_room, full, key_of,
};

/// The segment that is repaired, and what is missing there.
#[derive(Debug)]
struct Lack {
    damage: Damage,
    missing: Vec<(Offset, Offset)>,
}

/// Why a repair has come to nothing.
#[derive(Debug)]
struct NotFetched {
    reason: String,
    /// Every other replica has answered, and none has it.
    all_asked: bool,
}

fn later(reason: String) -> NotFetched {
    NotFetched { reason, all_asked: false }
}

/// Records are being fetched.
#[derive(Debug)]
pub(super) struct Asking {
    lack: Lack,
    fetch_plan: FetchPlan,
    /// The replicas to ask next for the same; `None` while none are known.
    others: Option<VecDeque<ReplicaId>>,
    /// The answers of those who were asked for it, and whether all of them lack it.
    reasons: Vec<String>,
    all_lack_it: bool,
    /// The question under way, and until when its answer is waited for.
    number: u64,
    until: Millis,
    problem: Option<NotFetched>,
}

impl Asking {
    /// Begins with all others, for what comes next.
    fn anew(&mut self, others: Option<&[ReplicaId]>) {
        self.others = others.map(|others| others.iter().copied().collect());
        (self.reasons, self.all_lack_it) = (Vec::new(), true);
    }

    fn note(&mut self, Unanswered { reason, is_damaged }: Unanswered) {
        self.all_lack_it &= is_damaged;
        self.reasons.push(reason);
    }

    /// No replica gave the next range: goes on with the one behind it.
    fn missed(&mut self) {
        // Lost is only what nobody has, wherever it is.
        let others_lack = self.problem.as_ref().is_none_or(|before| before.all_asked);
        let all_asked = self.others.is_some() && self.all_lack_it && others_lack;
        let reason = if self.reasons.is_empty() {
            "no other replica is known".to_owned()
        } else {
            std::mem::take(&mut self.reasons).join("; ")
        };
        self.problem = Some(NotFetched { reason, all_asked });
        self.fetch_plan.missed();
    }
}

/// A damaged segment is being written anew.
#[derive(Debug)]
pub(super) struct Repairing<D: Disk> {
    lack: Lack,
    repair: Repair<D>,
    problem: Option<NotFetched>,
}

impl<D: Disk> Maintenance<D> {
    /// Takes note of what is damaged; gives what of it is to be repaired now.
    pub(super) fn look_for_damage(&mut self, now: Millis, out: &mut Vec<Event>) -> Option<Damage> {
        let found = self.reader.damaged();
        let before = std::mem::take(&mut self.damaged);
        for damage in &found {
            let is_part =
                |(path, from, to): &DamageKey| *path == damage.path && *from <= damage.from && damage.to <= *to;
            if !before.keys().any(is_part) {
                out.push(Event::Found(damage.clone()));
            }
            let known = before.get(&key_of(damage)).cloned();
            let known = known.unwrap_or(DamageState { retry_at: now, lost: false, why: String::new() });
            self.damaged.insert(key_of(damage), known);
        }
        self.report(&found, out);
        found.into_iter().find(|damage| self.damaged.get(&key_of(damage)).is_some_and(|known| now >= known.retry_at))
    }

    /// Tells what is damaged, if that has changed.
    fn report(&mut self, remaining: &[Damage], out: &mut Vec<Event>) {
        let problem = remaining.first().map(|damage| {
            let state = match self.damaged.get(&key_of(damage)) {
                Some(DamageState { lost: true, .. }) => "no other replica has them whole".to_owned(),
                Some(DamageState { why, .. }) if !why.is_empty() => format!("to be repaired: {why}"),
                _ => "to be repaired".to_owned(),
            };
            let more = remaining.len().saturating_sub(1);
            let more = if more > 0 { format!(" ({more} more such places)") } else { String::new() };
            format!("{damage}; {state}{more}")
        });
        let lost = self.damaged.values().filter(|known| known.lost).count();
        let damages = Damages { ranges: remaining.len(), lost, problem };
        if damages != self.reported {
            self.reported = damages.clone();
            out.push(Event::Damaged(damages));
        }
    }

    /// A repair is over; when the damage is looked at again, if it is still there.
    fn ended(&mut self, damage: &Damage, done: Result<(), NotFetched>, now: Millis, out: &mut Vec<Event>) -> Duration {
        let known = match done {
            Ok(()) => DamageState { retry_at: now, lost: false, why: String::new() },
            Err(NotFetched { reason, all_asked }) => {
                let retry_ms = if all_asked { self.settings.retry_lost_ms } else { self.settings.retry_ms };
                DamageState { retry_at: self.retry_at(now, retry_ms), lost: all_asked, why: reason }
            }
        };
        let is_due = known.retry_at <= now;
        self.damaged.insert(key_of(damage), known);
        let remaining = self.reader.damaged();
        self.damaged.retain(|known, _| remaining.iter().any(|damage| key_of(damage) == *known));
        self.report(&remaining, out);
        // Others may be due at once; the same is not tried again without a pause.
        if is_due && self.damaged.contains_key(&key_of(damage)) { self.a_turn() } else { NOT_AT_ALL }
    }

    pub(super) fn begin_repair(
        &mut self,
        damage: Damage,
        facts: &Facts<'_>,
        log: &mut impl Access<D>,
        out: &mut Vec<Event>,
    ) -> Duration {
        let committed = log.change(|log| log.meta().commit_end).max(facts.committed);
        let fetch_plan = match self.reader.missing(&damage) {
            Ok(missing) => FetchPlan::new(&missing, committed)
                .map(|fetch_plan| (missing, fetch_plan))
                .map_err(|why| why.to_string()),
            Err(error) => Err(full(&error)),
        };
        let (missing, fetch_plan) = match fetch_plan {
            Ok(fetch_plan) => fetch_plan,
            Err(reason) => return self.ended(&damage, Err(later(reason)), facts.now, out),
        };
        let mut asking = Asking {
            lack: Lack { damage, missing },
            fetch_plan,
            others: None,
            reasons: Vec::new(),
            all_lack_it: true,
            number: 0,
            until: facts.now,
            problem: None,
        };
        asking.anew(facts.others);
        self.ask_next(asking, facts, log, out)
    }

    /// Asks the next replica. Once there is no more to ask for, the segment is written anew.
    fn ask_next(
        &mut self,
        mut asking: Asking,
        facts: &Facts<'_>,
        log: &mut impl Access<D>,
        out: &mut Vec<Event>,
    ) -> Duration {
        while let Some((from, upto)) = asking.fetch_plan.next() {
            if let Some(of) = asking.others.as_mut().and_then(VecDeque::pop_front) {
                self.asked += 1;
                (asking.number, asking.until) = (self.asked, after(facts.now, self.settings.answer_ms));
                out.push(Event::Ask(Ask { number: self.asked, of, from, upto }));
                self.doing = Doing::Asking(Box::new(asking));
                return self.a_turn();
            }
            asking.missed();
            asking.anew(facts.others);
        }
        self.begin_rewrite(asking, facts.now, log, out)
    }

    /// Waits for an answer, but not for ever.
    pub(super) fn wait(
        &mut self,
        mut asking: Asking,
        facts: &Facts<'_>,
        log: &mut impl Access<D>,
        out: &mut Vec<Event>,
    ) -> Duration {
        if facts.now < asking.until {
            self.doing = Doing::Asking(Box::new(asking));
            return self.a_turn();
        }
        asking.note(Unanswered { reason: "no answer has come".to_owned(), is_damaged: false });
        self.ask_next(asking, facts, log, out)
    }

    /// Takes an answer; gives how long to wait then. One to a question of long ago changes nothing.
    pub fn answered(
        &mut self,
        number: u64,
        answer: Result<Excerpt, Unanswered>,
        facts: &Facts<'_>,
        log: &mut impl Access<D>,
        out: &mut Vec<Event>,
    ) -> Duration {
        match std::mem::take(&mut self.doing) {
            Doing::Asking(mut asking) if asking.number == number => {
                match answer {
                    Ok(excerpt) => {
                        asking.fetch_plan.got(excerpt);
                        asking.anew(facts.others);
                    }
                    Err(unanswered) => asking.note(unanswered),
                }
                self.ask_next(*asking, facts, log, out)
            }
            doing => {
                self.doing = doing;
                self.a_turn()
            }
        }
    }

    fn begin_rewrite(
        &mut self,
        asking: Asking,
        now: Millis,
        log: &mut impl Access<D>,
        out: &mut Vec<Event>,
    ) -> Duration {
        let Asking { lack, fetch_plan, problem, .. } = asking;
        let excerpts = fetch_plan.into_excerpts();
        if excerpts.is_empty() && !lack.missing.is_empty() {
            let problem = problem.unwrap_or_else(|| later("nobody was asked".to_owned()));
            return self.ended(&lack.damage, Err(problem), now, out);
        }
        match log.change(|log| log.repair(&lack.damage, excerpts)) {
            Ok(Some(repair)) => {
                self.doing = Doing::Repairing(Box::new(Repairing { lack, repair, problem }));
                NOT_AT_ALL
            }
            Ok(None) => self.ended(&lack.damage, Ok(()), now, out),
            Err(error) => {
                self.make_room(change_lacks_room(&error), log, out);
                let reason = full(&error);
                out.push(Event::Failed(error));
                self.ended(&lack.damage, Err(later(reason)), now, out)
            }
        }
    }

    pub(super) fn repair_on(
        &mut self,
        mut repairing: Repairing<D>,
        now: Millis,
        log: &mut impl Access<D>,
        out: &mut Vec<Event>,
    ) -> Duration {
        let written = match repairing.repair.step(self.settings.piece_bytes) {
            Ok((bytes, true)) => {
                self.doing = Doing::Repairing(Box::new(repairing));
                return self.pace(bytes);
            }
            Ok((_, false)) => repairing.repair.finish(),
            Err(refused) => Err(refused),
        };
        let Repairing { lack, problem, .. } = repairing;
        let done = match written {
            Ok(rewritten) => match log.change(|log| log.rewritten(rewritten)) {
                Ok(taken) => self.is_filled(&lack, taken, problem, out),
                Err(error) => {
                    self.make_room(change_lacks_room(&error), log, out);
                    let reason = full(&error);
                    out.push(Event::Failed(error));
                    Err(later(reason))
                }
            },
            Err(refused) => {
                let reason = self.refused(&refused, log, out);
                log.change(|log| log.forget_rewrite());
                out.push(Event::NotRewritten(reason.clone()));
                Err(later(reason))
            }
        };
        self.ended(&lack.damage, done, now, out)
    }

    /// Tells whether the new segment has any of what was missing in the old one.
    fn is_filled(
        &self,
        Lack { damage, missing }: &Lack,
        taken: bool,
        problem: Option<NotFetched>,
        out: &mut Vec<Event>,
    ) -> Result<(), NotFetched> {
        let still = self.reader.missing(damage).map_err(|error| later(full(&error)))?;
        let is_filled = missing.is_empty() || missing.iter().any(|range| !still.contains(range));
        if taken {
            out.push(Event::Repaired(damage.clone(), missing.clone(), still));
        }
        if is_filled {
            return Ok(());
        }
        Err(problem.unwrap_or_else(|| later("what was fetched does not fill it".to_owned())))
    }
}
