//! The starts of logs: never in front of where they did, never behind what is committed, and as every answered trim said.

use zue_core::{Offset, ReplicaId};

use super::{Checker, index};
use crate::batch::Held;
use crate::disk::Storage;
use crate::node::process::Process;

impl Checker {
    /// Every record before that it holds is the committed one.
    pub(super) fn are_committed(&self, records: &Held, upto: Offset) -> bool {
        let own = records.range(Offset(0), upto);
        let first = index(records.first());
        self.log.records.get(first..first + own.len()).is_some_and(|known| known == own)
    }

    /// Somebody asks for a trim.
    pub(crate) fn trim_asked(&mut self, before: Offset) {
        self.trims.asked = self.trims.asked.max(before);
    }

    /// A backup is made that ends there. The end of all that is in backups.
    pub(crate) fn backed_up(&mut self, end: Offset) -> Offset {
        self.trims.backed_up = self.trims.backed_up.max(end);
        self.trims.backed_up
    }

    /// Checks what goes because of its age, where it is to be in a backup first.
    pub(crate) fn is_backed_up(&mut self, before: Offset) {
        let end = self.trims.backed_up;
        self.ensure(before <= end, || format!("what lies before {before} goes, and backups end at {end}"));
    }

    /// Checks the start of a log: it never falls, all before is committed, and somebody has asked for it.
    pub(super) fn begins(&mut self, process: &Process, storage: &Storage) {
        let replica = process.replica();
        let (id, log_start, commit_end) = (replica.id(), replica.log_start(), replica.commit_end());
        let told = self.claims.replicas.entry(id).or_default();
        let before = std::mem::replace(&mut told.log_start, log_start);
        self.ensure(before <= log_start, || format!("{id:?}'s log began at {before} and begins at {log_start}"));
        let asked = self.trims.asked;
        self.ensure(log_start <= asked, || {
            format!("{id:?} begins at {log_start}, {asked} is the most that was asked for")
        });
        let known = commit_end.min(self.committed_end());
        self.ensure(log_start <= known, || format!("{id:?} begins at {log_start}, but only {known} is committed"));
        // It may have begun anew without knowing it yet.
        let (on_disk, asked) = (storage.log_start(), log_start.max(process.records.first()));
        self.ensure(on_disk <= asked, || format!("{id:?} begins at {on_disk} on disk, and {asked} was asked for"));
    }

    /// A replica tells its leader where its log begins.
    pub(crate) fn says_trimmed(&mut self, storage: &Storage, log_start: Offset) {
        let (id, on_disk) = (storage.id(), storage.log_start());
        self.ensure(log_start <= on_disk, || format!("{id:?} says it begins at {log_start}, on disk it is {on_disk}"));
        let said = self.trims.said.entry(id).or_default();
        *said = log_start.max(*said);
    }

    pub(crate) fn has_said_trimmed(&self, replica: ReplicaId, log_start: Offset) -> bool {
        self.trims.said.get(&replica).copied().unwrap_or_default() >= log_start
    }

    /// A leader answers a trim: a quorum keeps to it.
    pub(crate) fn trim_answered(&mut self, process: &Process, storage: &Storage, before: Offset, at_least: Offset) {
        let (id, epoch) = (process.replica().id(), process.replica().log().epoch);
        let commit_end = process.replica().commit_end();
        self.ensure(before <= at_least && at_least <= commit_end, || {
            format!("{id:?} is asked to begin at {before}, and does at {at_least}, {commit_end} committed")
        });
        let Some(start) = process.replica().history().last() else { return };
        let own = storage.log_start() >= before;
        let has = |voter: &&ReplicaId| if **voter == id { own } else { self.has_said_trimmed(**voter, before) };
        let (had, quorum) =
            (start.voters.iter().filter(has).count(), usize::try_from(start.quorum).unwrap_or(usize::MAX));
        self.ensure(had >= quorum, || format!("a trim before {before} is answered with {had} of {quorum} voters"));
        let answered = self.trims.answered.entry(epoch).or_default();
        *answered = before.max(*answered);
    }

    /// Whoever commits in a later epoch has heard of every trim that was answered, unless that comes next.
    pub(super) fn keeps_to_trims(&mut self, process: &Process) {
        let (id, epoch, log_start) =
            (process.replica().id(), process.replica().log().epoch, process.replica().log_start());
        let must = self.trims.answered.range(..epoch).map(|(_, before)| *before).max().unwrap_or_default();
        self.ensure(log_start >= must || !self.ordered || self.starting, || {
            format!("{id:?} commits in epoch {epoch} from {log_start} on, a trim before {must} was answered")
        });
    }
}
