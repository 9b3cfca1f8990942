//! A replica that leads: appends, acknowledgements, commits and hand-over.

use alloc::vec::Vec;

use crate::producers::{Appended, ProducerId, Verdict};
use crate::replica::progress::HandOver;
use crate::replica::state::{Replica, Role};
use crate::types::history::VOTERS_MAX;
use crate::types::incarnations::Run;
use crate::types::io::{Millis, RequestId, Session};
use crate::types::output::{Output, Reply};
use crate::types::refusal::Refusal;
use crate::types::{Epoch, ReplicaId, Tail};

impl Replica {
    pub(crate) fn append(
        &mut self,
        now: Millis,
        request: RequestId,
        producer: Option<(ProducerId, u64)>,
        (count, bytes): (u32, u64),
        out: &mut Vec<Output>,
    ) {
        let verdict = match self.may_append(now, count) {
            // More was committed elsewhere than this replica has: it was deposed and does not know it yet, or that was another log.
            Ok(()) if producer.is_some_and(|(id, _)| id.born > self.log.tail.end) => {
                return self.ask_about_producer(now, request, out);
            }
            Ok(()) => producer.map_or(Verdict::New, |(id, sequence)| self.judge(id, sequence, count)),
            Err(refusal) => Verdict::Refuse(refusal),
        };
        match verdict {
            Verdict::Refuse(refusal) => out.push(Output::Reply(request, Reply::Refused(refusal))),
            Verdict::Before(_) => {
                let sequence = producer.map_or(0, |(_, sequence)| sequence);
                out.push(Output::Reply(request, Reply::Refused(Refusal::Duplicate(sequence))));
            }
            Verdict::Duplicate(base) => {
                // It is in the log, but perhaps not committed: it is answered when it is.
                self.wait(base.plus(u64::from(count)), request, base, count, true);
                self.answer_committed(out);
            }
            Verdict::New => {
                let base = self.log.tail.end;
                let Some(end) = base.checked_plus(u64::from(count)) else {
                    let refusal = Refusal::OffsetsUsedUp { end: base, count };
                    return out.push(Output::Reply(request, Reply::Refused(refusal)));
                };
                debug_assert!(
                    base < end && self.log.commit_end <= base,
                    "an append takes the place of committed records"
                );
                self.log.tail.end = end;
                if let Role::Leader(leader) = &mut self.role {
                    leader.backlog.push(end, bytes);
                }
                if let Some((producer, sequence)) = producer {
                    self.log.producers.record(Appended { producer, sequence, count, base });
                }
                self.wait(self.log.tail.end, request, base, count, false);
                let epoch = self.log.tail.epoch;
                let ticket = self.after_write();
                out.push(Output::WriteAppend { request, ticket, base, epoch });
            }
        }
    }

    /// Judges a producer's append: what is told of an earlier try must be true of a committed one.
    fn judge(&self, id: ProducerId, sequence: u64, count: u32) -> Verdict {
        let too_many = || Verdict::Refuse(Refusal::ProducerOverloaded(self.log.producers.limits().appends_max));
        match self.log.producers.check(id, sequence, count) {
            Verdict::New if self.log.producers.is_full(id, self.log.commit_end) => too_many(),
            Verdict::Before(end) if end > self.log.commit_end => too_many(),
            // Were the appends cut that it was forgotten for, it would be known again, and a late try of it would be appended.
            Verdict::Refuse(Refusal::UnknownProducer) if self.log.producers.horizon() > self.log.commit_end => {
                Verdict::Refuse(Refusal::PerhapsForgotten)
            }
            verdict => verdict,
        }
    }

    fn may_append(&self, now: Millis, count: u32) -> Result<(), Refusal> {
        let leader = match &self.role {
            Role::Leader(leader) => leader,
            Role::Failed => return Err(Refusal::Failed),
            Role::Idle | Role::Follower(_) => return Err(Refusal::NotLeader),
        };
        match () {
            () if count == 0 => Err(Refusal::Impossible("an append of no records")),
            () if leader.hand_over.is_some() => Err(Refusal::HandingOver),
            () if self.waiting_count() >= self.limits.waiting_max => Err(Refusal::Overloaded(self.limits.waiting_max)),
            () if leader.has_quorum(self.log.tail.end, now, self.limits.sync) => Ok(()),
            () if leader.is_connecting(self.log.tail.end, now, self.limits.sync) => Err(Refusal::Connecting),
            () => Err(Refusal::NoQuorum {
                in_reach: leader.writing(&leader.start.voters, self.log.tail.end, now, self.limits.sync),
                voters: leader.start.voters.len(),
                quorum: leader.start.quorum,
            }),
        }
    }

    pub(crate) fn started(
        &mut self,
        now: Millis,
        from: ReplicaId,
        session: Session,
        durable: Tail,
        run: Run,
        out: &mut Vec<Output>,
    ) {
        if self.starts.runs.get(from) == Some(run)
            && let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.followers.get_mut(&from)
        {
            progress.begin(session, durable, self.log.tail, now);
        }
        self.acked(now, from, durable, 0, run, out);
    }

    /// An acknowledgement holds whichever stream it came on: within an epoch a follower never cuts what it has acknowledged.
    /// One of an earlier start of its disk, or of a copy of it, is worth nothing.
    pub(crate) fn acked(
        &mut self,
        now: Millis,
        from: ReplicaId,
        durable: Tail,
        round: u64,
        run: Run,
        out: &mut Vec<Output>,
    ) {
        let (log, is_known) = (self.log.tail, self.starts.runs.get(from) == Some(run));
        if !is_known {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.followers.get_mut(&from) else { return };
        let of_this_epoch = durable.epoch == leader.start.epoch;
        let impossible = of_this_epoch && durable.end < leader.start.start;
        if durable > log || impossible || round > self.counts.round {
            return; // No follower of this leader can say so: it is a late message of another epoch, or nonsense.
        }
        progress.note(durable, log, now);
        debug_assert!(progress.durable <= log, "a follower holds more than its leader");
        if of_this_epoch {
            // What holds this epoch's start was sent to this leader, and no sooner than it led.
            progress.round = progress.round.max(round);
        }
        leader.refresh_isr(log, now, self.limits.sync, &mut self.counts.isr);
        self.advance_commit(now, out);
        self.answer_reads(out);
    }

    pub(crate) fn disconnected(&mut self, now: Millis, from: ReplicaId, session: Session) {
        let log = self.log.tail;
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(progress) = leader.followers.get_mut(&from).filter(|progress| progress.session == Some(session)) {
            progress.session = None;
        }
        leader.refresh_isr(log, now, self.limits.sync, &mut self.counts.isr);
    }

    pub(crate) fn tick(&mut self, now: Millis, out: &mut Vec<Output>) {
        let log = self.log.tail;
        let Role::Leader(leader) = &mut self.role else { return };
        leader.refresh_isr(log, now, self.limits.sync, &mut self.counts.isr);
        if let Some(HandOver { request, to, .. }) = leader.hand_over.take_if(|hand_over| now >= hand_over.until)
            && let Some(request) = request
        {
            out.push(Output::Reply(request, Reply::Refused(Refusal::HandOverTimedOut(to))));
        }
        self.give_up_reads(now, out);
        self.give_up_appends(now, out);
        self.resign_if_stuck(now, out);
    }

    /// Tells appends and trims that wait when the quorum is lost. They stay in the log, and may yet be committed.
    fn give_up_appends(&mut self, now: Millis, out: &mut Vec<Output>) {
        let (log_end, limits) = (self.log.tail.end, self.limits.sync);
        let Role::Leader(leader) = &mut self.role else { return };
        if !leader.has_lost_quorum(log_end, now, limits) {
            return;
        }
        let (voters, quorum) = (leader.start.voters.len(), leader.start.quorum);
        let in_reach = leader.writing(&leader.start.voters, log_end, now, limits);
        let refusal = Refusal::LostQuorum { in_reach, voters, quorum };
        leader.abandon_trims(&refusal, out);
        self.abandon_waiting(&refusal, out);
    }

    /// Leads no longer when its disk has had no room for as long as a follower may lag, or is so far behind as a follower may not be,
    /// and the others commit without it: each of them holds more, so one of them is elected. While they are no better off it stays.
    /// Nor when it is damaged and commits no more: what is damaged may be what the others lack, and then nobody can be given it.
    fn resign_if_stuck(&mut self, now: Millis, out: &mut Vec<Output>) {
        let (log_end, durable, commit_end, limits) =
            (self.log.tail.end, self.log.durable, self.log.commit_end, self.limits.sync);
        let (damaged, is_full) =
            (self.doubts.damaged, self.disk.full_since.is_some_and(|since| now.since(since) >= limits.lag_ms_max));
        let Role::Leader(leader) = &mut self.role else { return };
        let is_outrun = leader.is_outrun(durable, commit_end, now, limits);
        let is_held_up = leader.is_held_up(log_end, commit_end, now, limits);
        let is_spared = is_full && durable.end < commit_end && leader.can_spare_it();
        if is_outrun || is_spared || (damaged && is_held_up) {
            self.leave_role(out);
        }
    }

    pub(crate) fn advance_commit(&mut self, _: Millis, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(end) = leader.committed(self.log.durable) else { return };
        assert!(end >= leader.start.start, "a log that holds an epoch's start ends before it");
        assert!(self.log.tail.epoch == leader.start.epoch, "a leader commits in another epoch");
        leader.settled = true;
        self.commit(end, out);
        self.adopt_log_start(out);
        self.ask_for_early_reads(out);
        self.finish_hand_over(out);
    }

    // ---- learners

    pub(crate) fn learners(
        &mut self,
        now: Millis,
        request: RequestId,
        epoch: Epoch,
        learners: Vec<ReplicaId>,
        out: &mut Vec<Output>,
    ) {
        let log = self.log.tail;
        let reply = match &mut self.role {
            Role::Leader(leader) if leader.start.epoch == epoch && leader.begun => {
                if learners.len() > VOTERS_MAX {
                    Reply::Refused(Refusal::Impossible("it names too many learners"))
                } else {
                    leader.teach(&learners, log, now);
                    out.push(Output::Lead { epoch, followers: leader.followers.keys().copied().collect() });
                    Reply::Learners(learners)
                }
            }
            _ => Reply::Refused(Refusal::NotLeader),
        };
        out.push(Output::Reply(request, reply));
    }

    // ---- hand-over

    pub(crate) fn hand_over(
        &mut self,
        now: Millis,
        request: RequestId,
        epoch: Epoch,
        to: ReplicaId,
        deadline_ms: u64,
        out: &mut Vec<Output>,
    ) {
        let refusal = match &mut self.role {
            Role::Leader(leader) if leader.start.epoch == epoch => {
                if !leader.start.voters.contains(&to) || to == self.id {
                    Refusal::Impossible("the target is no other voter")
                } else if leader.hand_over.is_some() {
                    Refusal::HandingOver
                } else {
                    debug_assert!(leader.followers.contains_key(&to), "the target is not fed");
                    let until = Millis(now.0.saturating_add(deadline_ms));
                    leader.hand_over = Some(HandOver { request: Some(request), to, until });
                    return self.finish_hand_over(out);
                }
            }
            _ => Refusal::NotLeader,
        };
        out.push(Output::Reply(request, Reply::Refused(refusal)));
    }

    /// Answers once the target durably holds all of the log and all of it is committed. New appends stay held back until the
    /// deadline: the controller seals meanwhile.
    fn finish_hand_over(&mut self, out: &mut Vec<Output>) {
        let (log, commit_end) = (self.log.tail, self.log.commit_end);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(hand_over) = &mut leader.hand_over else { return };
        debug_assert!(leader.start.voters.contains(&hand_over.to), "a leader hands over to nobody that votes");
        let caught_up = leader.followers.get(&hand_over.to).is_some_and(|progress| progress.durable == log);
        if caught_up
            && commit_end == log.end
            && let Some(request) = hand_over.request.take()
        {
            out.push(Output::Reply(request, Reply::HandedOver(log)));
        }
    }
}
