//! Repair, as a node's upkeep does it: what is damaged is asked of the other replicas, and its segment written anew with what they
//! give. Questions and answers travel as everything does.

use zue_core::{ClusterId, Offset, ReplicaId};
use zue_log::sim::SimDisk;
use zue_log::{Damage, Excerpt, FetchPlan, Repair};

use crate::breaks::Break;
use crate::message::{Address, Answer, Call, Caller, Message};
use crate::storage::WorkError;
use crate::upkeep::Doing;
use crate::world::World;

/// Records are being fetched.
#[derive(Debug)]
pub(crate) struct Fetching {
    damage: Damage,
    missing: Vec<(Offset, Offset)>,
    wanted: FetchPlan,
    /// Whom to ask for what comes next.
    others: Vec<ReplicaId>,
    /// The question under way, what it asks for, and how long it is waited for.
    ask: u64,
    from: Offset,
    until: u64,
}

/// A damaged segment is being written anew.
#[derive(Debug)]
pub(crate) struct Repairing {
    damage: Damage,
    missing: Vec<(Offset, Offset)>,
    repair: Box<Repair<SimDisk>>,
}

fn count(ranges: &[(Offset, Offset)]) -> u64 {
    ranges.iter().map(|(from, end)| end.since(*from)).sum()
}

impl World {
    /// Begins to repair what is damaged, if it is time; whether it did.
    pub(crate) fn begin_repair(&mut self, machine: usize) -> bool {
        if self.broken_by(Break::DamageForgotten) {
            return false;
        }
        let now = self.now;
        let retry_at = now + self.dice.between(self.retry_ms());
        let Some((process, storage)) = self.kept(machine) else { return false };
        let commit_end = process.replica().commit_end();
        let due = |damage: &Damage| process.upkeep.retry.get(&(damage.from, damage.to)).is_none_or(|at| *at <= now);
        let Some(damage) = storage.damages().into_iter().find(due) else { return false };
        process.upkeep.retry.insert((damage.from, damage.to), retry_at);
        let Some((wanted, missing)) = storage.wanted(&damage, commit_end) else { return false };
        self.trace.say(now, format_args!("{machine} lacks {missing:?}"));
        let fetching = Fetching { damage, missing, wanted, others: Vec::new(), ask: 0, from: Offset(0), until: 0 };
        self.ask_next(machine, fetching, true).is_ok()
    }

    /// Who else may have it.
    fn others(&self, machine: usize) -> Vec<ReplicaId> {
        let at = self.machines.get(machine).and_then(|at| Some((at.storage.id(), at.process.as_ref()?)));
        let Some((id, process)) = at else { return Vec::new() };
        let voters = process.replica().history().last().map(|start| start.voters.clone()).unwrap_or_default();
        voters.into_iter().filter(|voter| *voter != id).collect()
    }

    /// Asks the next replica; or all `anew`, for what comes next. Once there is no more to ask for, the segment is written anew.
    fn ask_next(&mut self, machine: usize, mut fetching: Fetching, anew: bool) -> Result<(), WorkError> {
        if anew {
            fetching.others = self.others(machine);
        }
        let Some((process, storage)) = self.kept(machine) else { return Ok(()) };
        let (life, cluster) = (process.life, process.replica().cluster());
        let next = loop {
            let Some((from, upto)) = fetching.wanted.next() else { break None };
            match fetching.others.pop() {
                Some(other) => break Some((other, from, upto)),
                None => fetching.wanted.missed(),
            }
        };
        let Some((other, from, upto)) = next else {
            let Fetching { damage, missing, wanted, .. } = fetching;
            let excerpts = wanted.into_excerpts();
            if excerpts.is_empty() && !missing.is_empty() {
                return Ok(());
            }
            if let Some(repair) = storage.repair(&damage, excerpts)? {
                let repair = Box::new(repair);
                self.go_on_with(machine, Doing::Repairing(Repairing { damage, missing, repair }));
            }
            return Ok(());
        };
        let ask = self.next_id();
        let answer_ms = self.params.upkeep.as_ref().map_or(0, |upkeep| upkeep.answer_ms);
        (fetching.ask, fetching.from, fetching.until) = (ask, from, self.now + answer_ms);
        self.go_on_with(machine, Doing::Fetching(fetching));
        if let (Some(to), Some(cluster)) = (self.address_of(other), cluster) {
            let caller = Caller::Repairer { machine, life, ask };
            let call = Call::Fetch { cluster, from, upto };
            self.send(Address::Machine(machine), to, Message::Call { caller, target: Some(other), call });
        }
        Ok(())
    }

    /// Waits for an answer, but not for ever.
    pub(crate) fn ask_on(&mut self, machine: usize, fetching: Fetching) -> Result<(), WorkError> {
        if self.now < fetching.until {
            self.go_on_with(machine, Doing::Fetching(fetching));
            return Ok(());
        }
        self.ask_next(machine, fetching, false)
    }

    /// Gives committed records to a replica that lacks them.
    pub(crate) fn give(&mut self, machine: usize, caller: Caller, cluster: ClusterId, (from, upto): (Offset, Offset)) {
        let answer_bytes = self.params.upkeep.as_ref().map_or(0, |upkeep| upkeep.answer_bytes);
        let Some((process, storage)) = self.kept(machine) else { return };
        let replica = process.replica();
        // Where reads end: a leader may know more to be committed than its own disk holds.
        let readable = replica.commit_end().min(replica.durable().end);
        let is_ours = replica.cluster() == Some(cluster);
        let excerpt = if is_ours && upto <= readable { storage.excerpt(from, upto, answer_bytes).ok() } else { None };
        let answer = excerpt.map_or(Answer::Unreachable, Answer::Excerpt);
        self.answer(machine, caller, answer);
    }

    /// An answer, perhaps to a question of long ago.
    pub(crate) fn fetched(&mut self, machine: usize, caller: Caller, answer: Answer) {
        let Some((process, _)) = self.kept(machine) else { return };
        let Doing::Fetching(fetching) = &mut process.upkeep.now else { return };
        if !matches!(caller, Caller::Repairer { life, ask, .. } if (life, ask) == (process.life, fetching.ask)) {
            return;
        }
        let mut got = false;
        if let Answer::Excerpt(bytes) = answer {
            match Excerpt::decode(bytes, fetching.from) {
                Ok(excerpt) => {
                    fetching.wanted.got(excerpt);
                    got = true;
                }
                Err(error) => self.check.violated(format!("machine {machine} takes an excerpt for wrong: {error}")),
            }
        }
        let Some((process, _)) = self.kept(machine) else { return };
        if let Doing::Fetching(fetching) = std::mem::take(&mut process.upkeep.now) {
            let asked = self.ask_next(machine, fetching, got);
            if !matches!(asked, Err(WorkError::Full)) {
                self.disk_did(machine, asked);
            }
        }
    }

    pub(crate) fn repair_on(&mut self, machine: usize, mut repairing: Repairing) -> Result<(), WorkError> {
        let piece_bytes = self.piece_bytes();
        match repairing.repair.step(piece_bytes) {
            Ok((_, true)) => {
                self.go_on_with(machine, Doing::Repairing(repairing));
                return Ok(());
            }
            Ok((_, false)) => {}
            Err(error) => {
                self.trace.say(self.now, format_args!("{machine} gives up a repair: {error}"));
                self.machine(machine).storage.forget_rewrite();
                return Ok(());
            }
        }
        let Repairing { damage, missing, repair } = repairing;
        let limits = self.params.producer_limits;
        let storage = &mut self.machine(machine).storage;
        let Ok(rewritten) = repair.finish() else {
            storage.forget_rewrite();
            return Ok(());
        };
        if !storage.rewritten(rewritten)? {
            return Ok(());
        }
        let still = storage.missing(&damage).unwrap_or_default();
        let restored = count(&missing).saturating_sub(count(&still));
        let gone = storage.compare(limits)?;
        let id = storage.id();
        self.counts.kept.repairs += 1;
        self.counts.kept.restored += restored;
        self.check.are_gone(id, &gone);
        self.trace.say(self.now, format_args!("{machine} has repaired {missing:?}, but {still:?}"));
        Ok(())
    }
}
