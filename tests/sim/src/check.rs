//! The invariants of ARCHITECTURE.md, checked after every step against everything that was ever committed.

mod ages;
mod disks;
mod gone;
mod known;
mod producers;
mod standby;
mod trims;
mod voters;

use std::collections::BTreeMap;

use zue_core::election::Sealed;
use zue_core::quorum::majority;
use zue_core::{Epoch, EpochStart, Millis, Offset, ProducerId, Recovered, Refusal, ReplicaId, RoleView, Tail, Verdict};

pub(crate) use self::ages::Judge;
use self::known::{Claims, Committed, Disks, Epochs, Leadership, StoodBy, Trims};
use crate::batch::{Held, Record};
use crate::disk::Storage;
use crate::node::process::Process;

#[derive(Debug, Default)]
pub(crate) struct Checker {
    log: Committed,
    epochs: Epochs,
    claims: Claims,
    disks: Disks,
    trims: Trims,
    standby: StoodBy,
    /// When a leader appended a record of its epoch.
    appended: BTreeMap<(Epoch, Offset), u64>,
    /// Streams give all that is sent, in order.
    pub(crate) ordered: bool,
    /// A stream begins: where its follower begins is told right after that.
    pub(crate) starting: bool,
    violation: Option<String>,
    pub(crate) acknowledged: u64,
    pub(crate) reads: u64,
}

fn index(offset: Offset) -> usize {
    usize::try_from(offset.0).unwrap_or(usize::MAX)
}

impl Checker {
    pub(crate) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn ensure(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    pub(crate) fn committed_end(&self) -> Offset {
        Offset(u64::try_from(self.log.records.len()).unwrap_or(u64::MAX))
    }

    pub(crate) fn committed_records(&self) -> &[Record] {
        &self.log.records
    }

    /// The offset at which the append ends that holds the record before that place, or one of the same producer right behind it.
    pub(crate) fn append_end(&self, to: Offset) -> Offset {
        let behind = self.log.records.get(index(to)..).unwrap_or_default();
        let last = to.0.checked_sub(1).and_then(|last| self.log.records.get(index(Offset(last))));
        let of_same = behind.iter().take_while(|record| last.is_some_and(|last| last.nonce == record.nonce));
        to.plus(u64::try_from(of_same.count()).unwrap_or(u64::MAX))
    }

    // ---- steps

    /// A process starts: its log must be whole.
    pub(crate) fn recovered(&mut self, recovered: &Recovered, records: &Held) {
        let (id, end, commit_end) = (recovered.id, recovered.log.end, recovered.commit_end);
        self.ensure(end == records.end(), || format!("{id:?} ends at {end} with records up to {}", records.end()));
        let lossless = recovered.suspect.is_none();
        self.ensure(commit_end <= end || !lossless, || {
            format!("{id:?} recovered a commit end {commit_end} beyond its log's {end}")
        });
        let told = self.claims.replicas.entry(id).or_default();
        told.commit_end = commit_end.min(end);
        let log_start = recovered.log_start;
        (told.log_start, told.commit_end) = (log_start, told.commit_end.max(log_start));
        let acked = told.acked;
        let trimmed = self.trims.said.get(&id).copied().unwrap_or_default();
        self.ensure(trimmed <= log_start || self.disks.restored.contains(&id), || {
            format!("{id:?} said it begins at {trimmed}, and recovered {log_start}")
        });
        // What it has lost, it knows about.
        let found = recovered.suspect.map_or(recovered.log, |suspect| suspect.max(recovered.log));
        self.ensure(found >= acked, || format!("{id:?} acknowledged {acked} and recovered {found}"));
        let known = self.are_committed(records, commit_end.min(end));
        self.ensure(known, || format!("{id:?} recovered records that are not the committed ones"));
    }

    /// A replica took a step.
    pub(crate) fn stepped(&mut self, process: &Process, storage: &Storage) {
        let replica = process.replica();
        let (id, commit_end) = (replica.id(), replica.commit_end());
        let told = self.claims.replicas.entry(id).or_default();
        let before = std::mem::replace(&mut told.commit_end, commit_end);
        self.ensure(before <= commit_end, || format!("{id:?}'s commit end fell from {before} to {commit_end}"));
        let records = process.records.end();
        self.ensure(records == replica.log().end, || {
            format!("{id:?} has records up to {records} in {}", replica.log())
        });
        if let zue_core::Promise { epoch, leader: Some(leader) } = storage.must.promise {
            self.follows(id, epoch, leader);
        }
        self.begins(process, storage);
        let (durable, (synced, _)) = (replica.durable(), storage.synced());
        self.ensure(durable <= synced, || format!("{id:?} takes {durable} for durable, {synced} is"));
    }

    pub(crate) fn leads(&mut self, process: &Process, epoch: Epoch) {
        let (replica, life) = (process.replica().id(), process.life);
        let start = process.replica().history().last().map(|start| start.start).unwrap_or_default();
        let same =
            self.epochs.leaders.get(&epoch).is_none_or(|leader| (leader.replica, leader.life) == (replica, life));
        self.ensure(same, || format!("epoch {epoch} is led twice, now by {replica:?}"));
        self.epochs.leaders.insert(epoch, Leadership { replica, life, start });
        self.begins_with_the_restored(replica, epoch);
        let must = self.epochs.committed_in.range(..epoch).map(|(_, end)| *end).max().unwrap_or_default();
        let has = process.records.end() >= must && self.are_committed(&process.records, must);
        self.ensure(has, || format!("{replica:?} leads epoch {epoch} without all of the {must} committed records"));
        self.begins_from_settled(process.replica().history().starts());
        self.epochs.begun.extend(process.replica().history().last().map(|start| (epoch, start.clone())));
        // Who appended what is in its log, and was in front of it, it knows, or knows that it does not.
        let is_known = |record: &Record| {
            let id = ProducerId { born: record.born, nonce: record.nonce };
            let verdict = process.replica().producers().check(id, record.sequence, 1);
            matches!(verdict, Verdict::Duplicate(_) | Verdict::Before(_) | Verdict::Refuse(Refusal::UnknownProducer))
        };
        let begins = process.records.first();
        let own = process.records.range(begins, process.records.end());
        let before = self.log.records.get(..index(begins)).unwrap_or_default();
        if let Some(Record { nonce, sequence, .. }) = before.iter().chain(own).find(|record| !is_known(record)) {
            let what = format!("{replica:?} leads, and does not know record {sequence} of producer {nonce:x}");
            self.violated(what);
        }
    }

    fn follows(&mut self, replica: ReplicaId, epoch: Epoch, leader: ReplicaId) {
        let bound = *self.claims.bound.entry((replica, epoch)).or_insert(leader);
        self.ensure(bound == leader, || format!("{replica:?} follows {bound:?} and {leader:?} in epoch {epoch}"));
    }

    /// A replica says that everything before `end` is committed.
    pub(crate) fn committed(&mut self, process: &Process, storage: &Storage, leads: bool, end: Offset) {
        let (id, log, durable) = (process.replica().id(), process.replica().log(), process.replica().durable());
        if leads {
            let later = self.epochs.leaders.range(log.epoch..).skip(1).find(|(_, leader)| leader.start < end);
            if let Some((epoch, leader)) = later {
                let start = leader.start;
                self.violated(format!(
                    "{id:?} commits up to {end} in epoch {}, but epoch {epoch} started at {start}",
                    log.epoch
                ));
            }
            self.epochs.committed_in.insert(log.epoch, end);
            self.quorum_has(process, storage, Tail { epoch: log.epoch, end });
            self.keeps_to_trims(process);
        } else {
            self.ensure(end <= durable.end, || {
                format!("{id:?} follows, and commits {end} beyond its durable {durable}")
            });
        }
        let from = self.claims.replicas.get(&id).map_or(Offset(0), |told| told.commit_end);
        // What lies before where it began anew was committed by others.
        let held = from.max(process.records.first()).min(end);
        let others = self.committed_end();
        self.ensure(held <= others.max(from), || format!("{id:?} began at {held}, but {others} is committed"));
        for at in held.0..end.0 {
            let Some(record) = process.records.get(Offset(at)) else {
                return self.violated(format!("{id:?} commits record {at} that it does not have"));
            };
            match self.log.records.get(index(Offset(at))) {
                Some(known) => self.ensure(*known == record, || format!("{id:?} commits another record {at}")),
                None => self.first_commit(record),
            }
        }
    }

    /// Enough voters have said that they hold this, epoch start and all.
    fn quorum_has(&mut self, process: &Process, storage: &Storage, tail: Tail) {
        let Some(start) = process.replica().history().last() else { return };
        let count = |voters: &[ReplicaId], tail: Tail| {
            let has = |id: &&ReplicaId| {
                let own = **id == storage.id() && storage.synced().0 >= tail;
                own || self.claims.acked_in.get(&(**id, tail.epoch)).is_some_and(|acked| *acked >= tail.end)
            };
            voters.iter().filter(has).count()
        };
        let (had, quorum) = (count(&start.voters, tail), usize::try_from(start.quorum).unwrap_or(usize::MAX));
        // The change of voters itself is committed with the old ones too.
        let begun = Tail { epoch: tail.epoch, end: start.start };
        let before = process.replica().history().starts().iter().rev().nth(1).map(|before| &before.voters);
        // Those that a restored log names have no say.
        let changed = before.filter(|voters| **voters != start.voters).filter(|_| !self.is_first(process));
        let old = start.old_voters.as_ref().or(changed).map(|old| (count(old, begun), majority(old.len())));
        self.ensure(had >= quorum, || format!("{tail} is committed with {had} of {quorum} voters"));
        if let Some((had, needed)) = old {
            self.ensure(had >= needed, || format!("{tail} is committed with {had} of {needed} old voters"));
        }
    }

    pub(crate) fn first_commit(&mut self, record: Record) {
        let at = self.committed_end().0;
        self.log.records.push(record);
        self.log.keys.note(&record);
        let Record { nonce, sequence, .. } = record;
        let other = self.log.places.insert((nonce, sequence), at);
        self.ensure(other.is_none(), || {
            format!("record {sequence} of producer {nonce:x} is committed at {other:?} and {at}")
        });
    }

    /// A replica forgets what its leader does not have; never what it has acknowledged to that leader.
    pub(crate) fn cut(&mut self, process: &Process, to: Tail) {
        let (id, epoch) = (process.replica().id(), process.replica().promise().epoch);
        let told = self.claims.replicas.entry(id).or_default();
        let (acked_in, acked) = told.acked_in;
        told.acked = told.acked.min(to);
        // What its disk has lost since, it knows about.
        let is_known = process.replica().suspect().is_some_and(|suspect| suspect >= acked);
        self.ensure(acked_in < epoch || acked <= to || is_known, || {
            format!("{id:?} cuts to {to}, after {acked} in epoch {epoch}")
        });
    }

    /// A replica forgets all, and knows nothing to be durable until the disk is done.
    pub(crate) fn began_anew(&mut self, process: &Process) {
        self.cut(process, process.replica().log());
        let told = self.claims.replicas.entry(process.replica().id()).or_default();
        (told.acked, told.acked_in.1) = (Tail::default(), Tail::default());
    }

    pub(crate) fn sealed(&mut self, storage: &Storage, epoch: Epoch, sealed: &Sealed) {
        let (id, (synced, promise)) = (storage.id(), storage.synced());
        let promised = promise.epoch;
        self.ensure(promised >= epoch, || format!("{id:?} says it has promised {epoch}, on disk is {promised}"));
        self.ensure(sealed.durable <= synced, || format!("{id:?} says {} is durable, {synced} is", sealed.durable));
        let told = self.claims.replicas.entry(id).or_default();
        told.sealed = told.sealed.max(epoch);
        let acked = told.acked;
        let reported = sealed.suspect.map_or(sealed.durable, |suspect| suspect.max(sealed.durable));
        self.ensure(reported >= acked, || format!("{id:?} acknowledged {acked} and reports {reported}"));
        let last = sealed.last.as_ref().map_or(Epoch(0), |start| start.epoch);
        self.epochs.holds.insert((id, last));
        self.ensure(last == sealed.durable.epoch, || format!("{id:?} holds {last} and reports {}", sealed.durable));
    }

    pub(crate) fn appointed(&mut self, storage: &Storage, start: &EpochStart) {
        let (id, (synced, _)) = (storage.id(), storage.synced());
        let epoch = start.epoch;
        self.ensure(synced.epoch >= epoch, || format!("{id:?} says it leads {epoch}, on disk is {synced}"));
    }

    pub(crate) fn acks(&mut self, storage: &Storage, stream_epoch: Epoch, durable: Tail) {
        let (id, (synced, promise)) = (storage.id(), storage.synced());
        self.ensure(durable <= synced, || format!("{id:?} acknowledges {durable}, on disk is {synced}"));
        let promised = promise.epoch;
        self.ensure(promised >= stream_epoch, || {
            format!("{id:?} acknowledges in {stream_epoch}, on disk is {promised}")
        });
        let told = self.claims.replicas.entry(id).or_default();
        told.acked = told.acked.max(durable);
        let acked = self.claims.acked_in.entry((id, durable.epoch)).or_default();
        *acked = durable.end.max(*acked);
        let (last, before) = told.acked_in;
        told.acked_in = if stream_epoch > last { (stream_epoch, durable) } else { (last, before.max(durable)) };
        let sealed = told.sealed;
        self.ensure(stream_epoch >= sealed, || {
            format!("{id:?} acknowledges in {stream_epoch} after it sealed {sealed}")
        });
    }

    pub(crate) fn acknowledged(&mut self, nonce: u64, sequence: u64, count: u32, base: Offset) {
        self.acknowledged += 1;
        for k in 0..u64::from(count) {
            let there = self
                .log
                .records
                .get(index(base.plus(k)))
                .is_some_and(|r| (r.nonce, r.sequence) == (nonce, sequence + k));
            self.ensure(there, || {
                format!(
                    "record {sequence}+{k} of producer {nonce:x} is acknowledged at {base}+{k} and not committed there"
                )
            });
        }
    }

    /// A read of all in that range gave these.
    pub(crate) fn read(&mut self, from: Offset, end: Offset, records: &[Record]) {
        self.reads += 1;
        let is_known = |record: &Record| {
            (from..end).contains(&record.offset) && self.log.records.get(index(record.offset)) == Some(record)
        };
        let known = records.iter().all(is_known) && records.is_sorted_by(|a, b| a.offset < b.offset);
        self.ensure(known && end <= self.committed_end(), || format!("a read from {from} gave what is not committed"));
        let mut given = records.iter().map(|record| record.offset).peekable();
        let gone: Vec<Offset> = (from.0..end.0).map(Offset).filter(|at| given.next_if_eq(at).is_none()).collect();
        self.are_gone("a read", &gone);
    }

    /// At the end: the replica leads or follows, and its log is the committed one.
    pub(crate) fn is_whole(&self, process: &Process, storage: &Storage) -> bool {
        let replica = process.replica();
        let end = self.committed_end();
        let follows = !matches!(replica.role(Millis(0)), RoleView::Idle { .. } | RoleView::Failed);
        let trimmed = self.trims.answered.values().max().is_none_or(|trimmed| *trimmed <= replica.log_start());
        let begins = trimmed && storage.log_start() == replica.log_start();
        let ends = replica.log().end == end && replica.commit_end() == end && storage.synced().0 == replica.log();
        follows && begins && ends
    }
}
