//! A replica that follows: frames, heartbeats and what is committed.

use alloc::vec::Vec;

use crate::io::{FrameFacts, Millis, Output, Session};
use crate::refusal::Refusal;
use crate::replica::{Following, Replica, Role};
use crate::types::{Epoch, Offset, Tail};

impl Replica {
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
        commit_end: Offset,
        out: &mut Vec<Output>,
    ) {
        let log = self.log;
        let Some(following) = self.listening(session) else {
            return out.push(Output::Refuse { session, refusal: Refusal::OtherStream });
        };
        if prev != log {
            following.session = None;
            return out.push(Output::Refuse { session, refusal: Refusal::Gap { prev, log } });
        }
        let (epoch, log_end) = (following.epoch, facts.end.end);
        if let Err(refusal) = self.accept(facts, epoch) {
            if let Some(following) = self.listening(session) {
                following.session = None;
            }
            return out.push(Output::Refuse { session, refusal });
        }
        if let Some(following) = self.listening(session) {
            following.heard = now;
            following.commit_end = following.commit_end.max(commit_end);
            following.leader_log_end = following.leader_log_end.max(log_end);
        }
        let ticket = self.after_write();
        out.push(Output::WriteFrames { ticket });
        self.follow_commit(out);
    }

    /// Takes the facts of frames into the log's, all of them or none.
    fn accept(&mut self, facts: FrameFacts, epoch: Epoch) -> Result<(), Refusal> {
        let FrameFacts { end, epoch_starts, appends } = facts;
        if end <= self.log || end.epoch > epoch || end.end < self.log.end {
            return Err(Refusal::Impossible("the frames do not lead forward"));
        }
        let depth = self.history.depth();
        for start in epoch_starts {
            let within = self.log.end <= start.start && start.start <= end.end;
            if !within || self.history.push(start).is_err() {
                self.history.cut(depth);
                return Err(Refusal::Impossible("an epoch start is out of order"));
            }
        }
        if self.history.last_epoch() != end.epoch {
            self.history.cut(depth);
            return Err(Refusal::Impossible("the epoch starts do not lead to the epoch of the end"));
        }
        self.log = end;
        for append in appends {
            self.producers.record(append);
        }
        Ok(())
    }

    pub(crate) fn heartbeat(
        &mut self,
        now: Millis,
        session: Session,
        commit_end: Offset,
        log_end: Offset,
        out: &mut Vec<Output>,
    ) {
        let Some(following) = self.listening(session) else {
            return out.push(Output::Refuse { session, refusal: Refusal::OtherStream });
        };
        following.heard = now;
        following.commit_end = following.commit_end.max(commit_end);
        following.leader_log_end = following.leader_log_end.max(log_end);
        self.follow_commit(out);
        self.ack(out);
    }

    pub(crate) fn stream_ended(&mut self, session: Session) {
        if let Some(following) = self.listening(session) {
            following.session = None;
        }
    }

    /// What the leader has committed and is durable here is committed here.
    pub(crate) fn follow_commit(&mut self, out: &mut Vec<Output>) {
        let Role::Follower(following) = &self.role else { return };
        self.commit(following.commit_end.min(self.durable.end), out);
    }
}
