//! Steps that wait for the disk, and appends that wait for a commit. Every effect follows all the work asked for before it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::replica::state::{Following, Replica, Role};
use crate::replica::waiting::{Effect, Waiting};
use crate::types::io::{Millis, RequestId, Ticket};
use crate::types::output::{Output, Reply};
use crate::types::recovered::Promise;
use crate::types::refusal::Refusal;
use crate::types::{ClusterId, Offset};

impl Replica {
    pub(crate) fn next_ticket(&mut self) -> Ticket {
        let before = self.disk.issued;
        self.disk.issued = Ticket(before.0.saturating_add(1));
        assert!(before < self.disk.issued, "a ticket was given twice");
        self.disk.issued
    }

    pub(crate) fn write_promise(&mut self, promise: Promise, cluster: Option<ClusterId>, out: &mut Vec<Output>) {
        assert!(promise.epoch >= self.promise.epoch, "a promise fell");
        assert!(self.promise.allows(promise), "an epoch is promised to two leaders");
        self.promise = promise;
        self.cluster = cluster;
        let ticket = self.next_ticket();
        out.push(Output::WritePromise { ticket, epoch: promise.epoch, leader: promise.leader, cluster });
    }

    /// Lets an effect follow all work asked of the disk so far.
    pub(crate) fn after_disk(&mut self, effect: Effect) {
        debug_assert!(
            self.disk.effects.back().is_none_or(|(ticket, _)| *ticket <= self.disk.issued),
            "effects are out of order"
        );
        self.disk.effects.push_back((self.disk.issued, effect));
    }

    pub(crate) fn after_write(&mut self) -> Ticket {
        debug_assert!(self.log.durable < self.log.tail, "what is to be written is durable already");
        let ticket = self.next_ticket();
        self.after_disk(Effect::Durable(self.log.tail));
        ticket
    }

    pub(crate) fn persist(&mut self, now: Millis, ticket: Ticket, out: &mut Vec<Output>) {
        assert!(ticket <= self.disk.issued, "the disk has done work that was never asked for");
        self.disk.persisted = self.disk.persisted.max(ticket);
        self.drain_effects(now, out);
    }

    /// Answers what waited for the promise alone: how much is durable is told as it is, and what is still to be written will not be
    /// acknowledged in an epoch below the promise.
    pub(crate) fn promised(&mut self, ticket: Ticket, out: &mut Vec<Output>) {
        assert!(ticket <= self.disk.issued, "the disk has done work that was never asked for");
        let sealed = |(asked, effect): &(Ticket, Effect)| *asked <= ticket && matches!(effect, Effect::Sealed(..));
        let (now, later) = core::mem::take(&mut self.disk.effects).into_iter().partition(sealed);
        self.disk.effects = later;
        let now: VecDeque<(Ticket, Effect)> = now;
        for (_, effect) in now {
            self.apply(effect, out);
        }
    }

    pub(crate) fn drain_effects(&mut self, now: Millis, out: &mut Vec<Output>) {
        let mut durable_moved = false;
        while let Some((_, effect)) = self.disk.effects.pop_front_if(|(ticket, _)| *ticket <= self.disk.persisted) {
            match effect {
                Effect::Durable(tail) => {
                    durable_moved |= tail > self.log.durable;
                    self.log.durable = self.log.durable.max(tail);
                    // What it may have acknowledged is back, or was never committed: the leader of a later epoch would hold it.
                    self.doubts.suspect.take_if(|suspect| *suspect <= self.log.durable);
                }
                Effect::Noted(runs) => durable_moved |= self.note_runs(runs),
                effect => {
                    // What is answered covers what became durable before it.
                    self.apply(effect, out);
                }
            }
        }
        assert!(self.log.durable <= self.log.tail, "more is durable than was written");
        if durable_moved {
            self.durable_moved(now, out);
        }
    }

    pub(crate) fn apply(&mut self, effect: Effect, out: &mut Vec<Output>) {
        match effect {
            Effect::Durable(_) | Effect::Noted(_) => {}
            Effect::Sealed(request, epoch) => {
                let superseded = Refusal::Promised { asked: epoch, promised: self.promise.epoch };
                let still = self.promise.epoch == epoch && self.promise.leader.is_none() && self.role == Role::Idle;
                let reply = if still { Reply::Sealed(self.sealed()) } else { Reply::Refused(superseded) };
                out.push(Output::Reply(request, reply));
            }
            Effect::Appointed(request, epoch) => {
                let reply = match &mut self.role {
                    Role::Leader(leader) if leader.start.epoch == epoch => {
                        assert!(self.log.durable.epoch >= epoch, "a leader begins whose epoch start is not durable");
                        debug_assert!(!leader.begun, "a leadership begins twice");
                        leader.begun = true;
                        out.push(Output::Lead { epoch, followers: leader.followers.keys().copied().collect() });
                        Reply::Appointed(leader.start.clone())
                    }
                    _ => Reply::Refused(Refusal::SteppedDown),
                };
                out.push(Output::Reply(request, reply));
            }
            Effect::Started(session) => {
                if matches!(&self.role, Role::Follower(following) if following.session == Some(session)) {
                    let (log, durable) = self.as_joined();
                    debug_assert!(durable <= log, "more is called durable than is left of the log");
                    out.push(Output::SendStarted { session, log, durable });
                    self.tell_trimmed(out);
                }
            }
            Effect::Trimmed(log_start) => self.trim_is_durable(log_start, out),
            Effect::Reset(at) => self.reset_is_durable(at, out),
        }
    }

    pub(crate) fn durable_moved(&mut self, now: Millis, out: &mut Vec<Output>) {
        match &self.role {
            Role::Leader(_) => self.advance_commit(now, out),
            Role::Follower(_) => {
                self.follow_commit(out);
                self.ack(out);
            }
            Role::Idle | Role::Failed => {}
        }
    }

    /// Tells the leader what is durable, once it has been told where the log ends.
    pub(crate) fn ack(&self, out: &mut Vec<Output>) {
        let Role::Follower(Following { session: Some(session), round, .. }) = self.role else { return };
        if !self.disk.effects.iter().any(|(_, effect)| *effect == Effect::Started(session)) {
            let (log, durable) = self.as_joined();
            debug_assert!(durable <= log, "more is acknowledged than is in the log");
            out.push(Output::SendAck { session, durable, round });
        }
    }

    /// The disk failed: whatever was written last may not be there. Acknowledges nothing any more.
    pub(crate) fn fail(&mut self, out: &mut Vec<Output>) {
        self.leave_role(out);
        self.abandon_waiting(&Refusal::SteppedDown, out);
        self.role = Role::Failed;
        for (_, effect) in core::mem::take(&mut self.disk.effects) {
            if let Effect::Sealed(request, _) | Effect::Appointed(request, _) = effect {
                out.push(Output::Reply(request, Reply::Refused(Refusal::Failed)));
            }
        }
    }

    // ---- waiting appends

    pub(crate) fn wait(&mut self, end: Offset, request: RequestId, base: Offset, count: u32, duplicate: bool) {
        debug_assert!(base < end, "an append of no records waits");
        debug_assert_eq!(base.plus(u64::from(count)), end, "an append waits for another end than its own");
        let before = self.waiting.insert((end, request), Waiting { base, count, duplicate });
        debug_assert_eq!(before, None, "a request waits twice, and is answered once");
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Raises the commit end, and answers the appends that it passes.
    pub(crate) fn commit(&mut self, end: Offset, out: &mut Vec<Output>) {
        if end <= self.log.commit_end {
            return;
        }
        assert!(end <= self.log.tail.end, "what is not in the log is called committed");
        self.log.commit_end = end;
        out.push(Output::Committed(end));
        self.answer_committed(out);
    }

    pub(crate) fn answer_committed(&mut self, out: &mut Vec<Output>) {
        while let Some(entry) = self.waiting.first_entry() {
            let (end, request) = *entry.key();
            if end > self.log.commit_end {
                break;
            }
            let Waiting { base, count, duplicate } = entry.remove();
            let epoch = self.log.tail.epoch;
            out.push(Output::Reply(request, Reply::Appended { base, count, epoch, duplicate }));
        }
    }

    /// Tells all that wait that it is not known whether they will be committed.
    pub(crate) fn abandon_waiting(&mut self, refusal: &Refusal, out: &mut Vec<Output>) {
        for (_, request) in core::mem::take(&mut self.waiting).into_keys() {
            out.push(Output::Reply(request, Reply::Refused(refusal.clone())));
        }
    }
}
