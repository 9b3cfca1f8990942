//! A replica that follows: frames, heartbeats and what is committed.

use alloc::vec::Vec;

use crate::replica::state::LeaderFacts;
use crate::replica::state::{Following, Replica, Role};
use crate::types::history::{EpochStart, History};
use crate::types::io::{FrameFacts, Millis, Session, Start};
use crate::types::output::Output;
use crate::types::recovered::Promise;
use crate::types::refusal::Refusal;
use crate::types::{EPOCHS_AHEAD_MAX, Epoch, OFFSET_MAX, OFFSETS_AHEAD_MAX, ReplicaId, Tail};

impl Following {
    /// Takes it in; whether a new round is to be answered.
    fn hear(&mut self, now: Millis, told: LeaderFacts) -> bool {
        let LeaderFacts { commit_end, log_end, round } = told;
        self.heard = now;
        self.commit_end = self.commit_end.max(commit_end);
        self.leader_log_end = self.leader_log_end.max(log_end);
        let is_new = round > self.round;
        self.round = self.round.max(round);
        is_new
    }

    /// Its stream is over, and so is what it has not begun.
    fn close(&mut self) {
        (self.session, self.pending) = (None, None);
    }
}

/// The history of a replica after frames with these epoch starts, which lead from one tail to the other; none if it stays as it is.
fn lead_on(
    me: ReplicaId,
    history: &History,
    starts: Vec<EpochStart>,
    (from, to): (Tail, Tail),
) -> Result<Option<History>, Refusal> {
    let mut after = (!starts.is_empty()).then(|| history.clone());
    for start in starts {
        let within = from.end <= start.start && start.start <= to.end;
        let Some(after) = after.as_mut() else { break };
        may_come(me, after, &start)?;
        if !within || after.push(start).is_err() {
            return Err(Refusal::Impossible("an epoch start is out of order"));
        }
    }
    if after.as_ref().unwrap_or(history).last_epoch() == to.epoch {
        Ok(after)
    } else {
        Err(Refusal::Impossible("the epoch starts do not lead to the epoch of the end"))
    }
}

impl Replica {
    pub(crate) fn may_follow(&self, start: &Start) -> Result<(), Refusal> {
        self.may_serve(Some(start.cluster))?;
        let (asked, promised) = (start.epoch, self.promise.epoch);
        if asked < promised {
            return Err(Refusal::Promised { asked, promised });
        }
        if let Some(leader) = self.promise.leader.filter(|leader| asked == promised && *leader != start.leader) {
            return Err(Refusal::OtherLeader { epoch: asked, leader });
        }
        if start.log.end > OFFSET_MAX {
            return Err(Refusal::Impossible("its log ends behind the greatest offset"));
        }
        if start.oldest > start.log.end {
            return Err(Refusal::Impossible("its log begins behind its end"));
        }
        if start.leader == self.id {
            return Err(Refusal::Impossible("it comes from this replica itself"));
        }
        match start.history.last() {
            Some(last) if last.epoch != start.epoch => {
                Err(Refusal::Impossible("its history does not end with its epoch"))
            }
            Some(last) if last.leader != start.leader => Err(Refusal::Impossible("its history names another leader")),
            Some(last) if last.start > start.log.end => {
                Err(Refusal::Impossible("its epoch starts after its log's end"))
            }
            Some(_) if start.log.epoch != start.epoch => {
                Err(Refusal::Impossible("its log does not end with its epoch"))
            }
            Some(_) => self.is_near(asked),
            None => Err(Refusal::Impossible("it has no history")),
        }
    }

    /// Promises as much as it may at once on the way to an epoch that is too far ahead: whoever was away while the others climbed
    /// comes nearer each time its leader tries. A seal of that epoch would do the same.
    pub(crate) fn come_nearer(&mut self, out: &mut Vec<Output>) {
        self.leave_role(out);
        let epoch = Epoch(self.promise.epoch.0.saturating_add(EPOCHS_AHEAD_MAX));
        self.write_promise(Promise { epoch, leader: None }, self.cluster, out);
    }

    /// The stream that is listened to, if it is this one.
    fn listening(&mut self, session: Session) -> Option<&mut Following> {
        match &mut self.role {
            Role::Follower(following) if following.session == Some(session) => Some(following),
            _ => None,
        }
    }

    pub(crate) fn frames(
        &mut self,
        now: Millis,
        session: Session,
        prev: Tail,
        facts: FrameFacts,
        told: LeaderFacts,
        out: &mut Vec<Output>,
    ) {
        let (log, _) = self.as_joined();
        let Some(following) = self.listening(session) else {
            return out.push(Output::Refuse { session, refusal: Refusal::OtherStream });
        };
        if prev != log {
            following.close();
            return out.push(Output::Refuse { session, refusal: Refusal::Gap { prev, log } });
        }
        let epoch = following.epoch;
        if let Err(refusal) = self.take(log, facts, epoch, out) {
            return self.refuse(session, refusal, out);
        }
        let is_asked = self.listening(session).is_some_and(|following| following.hear(now, told));
        let ticket = self.after_write();
        out.push(Output::WriteFrames { ticket });
        self.follow_commit(out);
        if is_asked {
            // Whether it follows does not depend on the disk.
            self.ack(out);
        }
    }

    fn refuse(&mut self, session: Session, refusal: Refusal, out: &mut Vec<Output>) {
        self.stream_ended(session);
        out.push(Output::Refuse { session, refusal });
    }

    /// Takes the facts of frames behind that tail into the log's, all of them or none: nothing is joined for what is refused.
    fn take(&mut self, log: Tail, facts: FrameFacts, epoch: Epoch, out: &mut Vec<Output>) -> Result<(), Refusal> {
        let FrameFacts { end, epoch_starts, appends } = facts;
        if end <= log || end.epoch > epoch || end.end < log.end {
            return Err(Refusal::Impossible("the frames do not lead forward"));
        }
        if end.end > OFFSET_MAX || end.end.since(log.end) > OFFSETS_AHEAD_MAX {
            return Err(Refusal::Impossible("the frames take more offsets than a message may"));
        }
        let joined = self.history_as_joined();
        let history = lead_on(self.id, joined.as_ref().unwrap_or(&self.log.history), epoch_starts, (log, end))?;
        self.join(end.epoch, history, out)?;
        assert_eq!(self.log.tail, log, "frames follow another place than where the logs were joined");
        self.log.tail = end;
        for append in appends {
            debug_assert!(append.base < end.end, "an append lies behind the frames it is among");
            self.log.producers.record(append);
        }
        Ok(())
    }

    pub(crate) fn heartbeat(&mut self, now: Millis, session: Session, told: LeaderFacts, out: &mut Vec<Output>) {
        let Some(following) = self.listening(session) else {
            return out.push(Output::Refuse { session, refusal: Refusal::OtherStream });
        };
        following.hear(now, told);
        let within = Tail { epoch: following.epoch, end: told.log_end };
        // The joint is where the leader's log ends: it has nothing to send.
        if following.pending.as_ref().is_some_and(|pending| pending.tail() == within)
            && let Err(refusal) = self.join(within.epoch, None, out)
        {
            return self.refuse(session, refusal, out);
        }
        self.bound_suspect(within, out);
        self.follow_commit(out);
        self.ack(out);
    }

    /// Whatever it has acknowledged in the leader's epoch lies within the leader's log: all of it came on streams before this one,
    /// and the log only grows while it leads, which it does once in an epoch. Not what a leader says that has not heard of this start of
    /// the disk yet: it may have been long on its way.
    fn bound_suspect(&mut self, within: Tail, out: &mut Vec<Output>) {
        let Role::Follower(following) = &self.role else { return };
        if following.runs.get(self.id) != Some(self.starts.lineage.run()) {
            return;
        }
        if self.doubts.suspect.is_none_or(|suspect| suspect.epoch != within.epoch || suspect <= within) {
            return;
        }
        debug_assert!(self.doubts.suspect > Some(within), "what may be lost grew");
        self.doubts.suspect = Some(within).filter(|suspect| *suspect > self.log.durable);
        let ticket = self.next_ticket();
        out.push(Output::WriteSuspect(ticket, within));
    }

    pub(crate) fn stream_ended(&mut self, session: Session) {
        if let Some(following) = self.listening(session) {
            following.close();
        }
    }

    /// Commits what the leader has committed and is durable here.
    /// Only once the leader's epoch has begun here: whoever was not elected may say anything of what an earlier leader has left.
    pub(crate) fn follow_commit(&mut self, out: &mut Vec<Output>) {
        let Role::Follower(following) = &self.role else { return };
        if following.pending.is_none() && self.log.durable.epoch == following.epoch {
            self.commit(following.commit_end.min(self.log.durable.end), out);
        }
        self.follow_log_start(out);
    }
}

/// Returns whether an epoch start may come next in the log of a replica that follows. Where the log was restored before it came here, those
/// of the cluster that the log is from and the first one of the new cluster come one after the other: of those that hold such a log, the
/// new one alone names any.
fn may_come(me: ReplicaId, history: &History, next: &EpochStart) -> Result<(), Refusal> {
    if history.is_left_by(next) && !history.names(me) { Ok(()) } else { may_vote(history, next) }
}

/// Returns whether the voters of an epoch start are such as may come next in a log with that history. In an empty one any may.
pub(crate) fn may_vote(history: &History, next: &EpochStart) -> Result<(), Refusal> {
    match history.last() {
        Some(last) if !next.follows(last) => Err(Refusal::OtherVoters { epoch: next.epoch, before: last.epoch }),
        _ => Ok(()),
    }
}
