//! The start of the log: the leader decides, the followers follow, and a trim is answered once a quorum durably keeps to it.

use alloc::vec::Vec;

use crate::replica::progress::Leader;
use crate::replica::state::{Following, Replica, Role};
use crate::replica::waiting::Effect;
use crate::types::io::{RequestId, Session};
use crate::types::output::{Output, Reply};
use crate::types::refusal::Refusal;
use crate::types::{Offset, ReplicaId};

/// The number of trims that may wait for a quorum.
const TRIMS_MAX: usize = 64;

impl Leader {
    /// Tells those who wait for a trim that it may or may not be made.
    pub(crate) fn abandon_trims(&mut self, refusal: &Refusal, out: &mut Vec<Output>) {
        for (_, request) in core::mem::take(&mut self.trims.waiting) {
            out.push(Output::Reply(request, Reply::Refused(refusal.clone())));
        }
    }

    /// The offset at which the log starts at least, durably, on a quorum of the voters, and on a majority of the old ones while a change is
    /// unsettled: so every later leader hears of it before it commits anything new.
    fn trimmed(&self, own: Offset) -> Option<Offset> {
        let start = |id: &ReplicaId| {
            if *id == self.start.leader { Some(own) } else { self.followers.get(id).map(|follower| follower.log_start) }
        };
        self.reached(self.quorum(), start)
    }
}

impl Replica {
    /// The start of the log, as asked of the disk.
    pub fn log_start(&self) -> Offset {
        self.log.start
    }

    // ---- leading

    pub(crate) fn trim(&mut self, request: RequestId, before: Offset, out: &mut Vec<Output>) {
        let (log_start, commit_end) = (self.log.start, self.log.commit_end);
        let refusal = match &mut self.role {
            Role::Failed => Refusal::Failed,
            Role::Idle | Role::Follower(_) => Refusal::NotLeader,
            Role::Leader(_) if before > commit_end => Refusal::TrimOutOfRange { before, log_start, commit_end },
            Role::Leader(leader) if leader.trims.waiting.len() >= TRIMS_MAX => Refusal::Overloaded(TRIMS_MAX),
            Role::Leader(leader) => {
                leader.trims.waiting.insert((before, request));
                debug_assert!(leader.trims.waiting.len() <= TRIMS_MAX);
                self.start_at(before, out);
                return self.answer_trims(out);
            }
        };
        out.push(Output::Reply(request, Reply::Refused(refusal)));
    }

    pub(crate) fn follower_trimmed(&mut self, from: ReplicaId, log_start: Offset, out: &mut Vec<Output>) {
        let log_end = self.log.tail.end;
        let Role::Leader(leader) = &mut self.role else { return };
        // Whoever is named as a learner is fed: an earlier leader's decision is heard of from those who elect.
        let votes = leader.elects(from);
        let Some(progress) = leader.followers.get_mut(&from).filter(|_| votes) else { return };
        if log_start > log_end {
            return; // No follower of this leader can say so.
        }
        progress.log_start = progress.log_start.max(log_start);
        leader.trims.told = leader.trims.told.max(log_start);
        self.adopt_log_start(out);
        self.answer_trims(out);
    }

    /// Keeps to what an earlier leader has decided, as soon as that much is known to be committed.
    pub(crate) fn adopt_log_start(&mut self, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &self.role else { return };
        let told = leader.trims.told;
        if told <= self.log.commit_end {
            self.start_at(told, out);
        }
    }

    fn answer_trims(&mut self, out: &mut Vec<Output>) {
        let (own, log_start) = (self.log.trimmed, self.log.start);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(reached) = leader.trimmed(own) else { return };
        while leader.trims.waiting.first().is_some_and(|(before, _)| *before <= reached) {
            let Some((before, request)) = leader.trims.waiting.pop_first() else { break };
            debug_assert!(before <= log_start, "a trim is answered that was not made");
            out.push(Output::Reply(request, Reply::Trimmed(log_start)));
        }
    }

    // ---- both

    fn start_at(&mut self, before: Offset, out: &mut Vec<Output>) {
        if before <= self.log.start {
            return;
        }
        assert!(before <= self.log.commit_end, "a trim takes what is not committed");
        self.log.start = before;
        let ticket = self.next_ticket();
        out.push(Output::Trim { ticket, before });
        self.after_disk(Effect::Trimmed(before));
    }

    /// All that was asked of the disk before is durable too, and so is the record before the start.
    pub(crate) fn trim_is_durable(&mut self, log_start: Offset, out: &mut Vec<Output>) {
        assert!(log_start <= self.log.start, "more was trimmed than was asked for");
        self.log.trimmed = self.log.trimmed.max(log_start);
        self.log.history.trim(log_start);
        self.answer_trims(out);
        self.tell_trimmed(out);
    }

    // ---- following

    pub(crate) fn leader_trimmed(&mut self, session: Session, log_start: Offset, out: &mut Vec<Output>) {
        match &mut self.role {
            Role::Follower(following) if following.session == Some(session) => {
                following.log_start = following.log_start.max(log_start);
            }
            _ => return,
        }
        self.follow_log_start(out);
    }

    /// A start beyond what is known here to be committed waits until that has come, and so does any until the leader's epoch has begun
    /// here: its start is durable, and all before it committed.
    pub(crate) fn follow_log_start(&mut self, out: &mut Vec<Output>) {
        let Role::Follower(following) = &self.role else { return };
        if following.pending.is_some() {
            return;
        }
        let log_start = following.log_start;
        let begun = self.log.history.at(self.log.durable.epoch).filter(|start| start.epoch == following.epoch);
        if log_start <= self.log.commit_end && begun.is_some_and(|start| start.start <= self.log.commit_end) {
            self.start_at(log_start, out);
        }
    }

    pub(crate) fn tell_trimmed(&self, out: &mut Vec<Output>) {
        if let Role::Follower(Following { session: Some(session), .. }) = self.role
            && self.log.trimmed > Offset(0)
        {
            out.push(Output::SendTrimmed { session, log_start: self.log.trimmed });
        }
    }
}
