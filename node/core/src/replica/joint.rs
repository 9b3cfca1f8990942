//! Joints of a follower's log and its leader's. A leader's start says where; it is carried out once something comes that follows
//! the joint. So no one message takes anything of a log: until then, and if nothing comes, the log is as it was.

use alloc::vec::Vec;

use crate::replica::state::Pending;
use crate::replica::state::{Following, Replica, Role};
use crate::replica::waiting::Effect;
use crate::types::history::{History, Origin};
use crate::types::io::Start;
use crate::types::output::Output;
use crate::types::refusal::Refusal;
use crate::types::{Epoch, OFFSETS_AHEAD_MAX, Offset, Tail};

/// The way in which a follower's log goes on from a leader's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Joint {
    /// From its end: the leader has all of it.
    End,
    /// From what it shares with the leader. What follows is cut.
    Cut(Tail),
    /// From the leader's origin: it keeps nothing.
    Origin,
}

impl Pending {
    /// The tail of the log then.
    pub(crate) fn tail(&self) -> Tail {
        match self {
            Self::Cut(to) => *to,
            Self::Reset(origin) => origin.tail(),
        }
    }

    /// The part of the durable log that stays.
    fn durable(&self, durable: Tail) -> Tail {
        match self {
            Self::Cut(to) => durable.min(*to),
            Self::Reset(_) => Tail::default(),
        }
    }
}

impl Replica {
    /// The joint of the two logs. A replica begins anew where all that is missing, and all that it holds, lies before what the
    /// leader still has: that is committed, a quorum without this replica holds it. Never where it knows more to be committed.
    ///
    /// # Errors
    /// When they cannot be joined.
    pub fn joint(&self, start: &Start) -> Result<Joint, Refusal> {
        let (shared, commit_end) = (self.shared_with(start), self.known_committed());
        let parted = |parted| Refusal::Parted { parted, commit_end };
        match shared {
            Some(shared) if shared.end < commit_end => return Err(parted(shared.end)),
            Some(shared) if shared == self.log.tail && shared.end >= start.oldest => return Ok(Joint::End),
            Some(shared) if shared.end >= start.oldest => return Ok(Joint::Cut(shared)),
            // Had the leader all that is known here to be committed, it would share the epoch start of it.
            None if commit_end > start.oldest => return Err(parted(start.oldest)),
            _ => {}
        }
        let oldest = start.oldest;
        let origin = start.origin.as_ref().ok_or(Refusal::NeedsOrigin { oldest })?;
        let begun = origin.history.last().is_none_or(|last| last.start <= origin.at);
        let is_known =
            origin.history.last().is_none_or(|last| start.history.at(last.epoch).is_none_or(|known| known == last));
        // One without a history has nothing yet.
        if !self.log.history.is_empty() && oldest.since(self.log.tail.end) > OFFSETS_AHEAD_MAX {
            return Err(Refusal::Impossible("its log begins further behind the end of this one than any log goes on"));
        }
        if origin.at != oldest || !begun || !is_known || origin.tail() > start.log {
            return Err(Refusal::Impossible("its origin does not fit its log"));
        }
        Ok(Joint::Origin)
    }

    /// The end of what is committed, by all that is known: also what a log that is still being begun anew begins behind.
    fn known_committed(&self) -> Offset {
        let begun = self.disk.effects.iter().filter_map(|(_, effect)| match effect {
            Effect::Reset(at) => Some(*at),
            _ => None,
        });
        begun.fold(self.log.commit_end, Offset::max)
    }

    fn pending(&self) -> Option<&Pending> {
        match &self.role {
            Role::Follower(following) => following.pending.as_ref(),
            _ => None,
        }
    }

    /// The end of the log and what of it is durable, as its leader is told: no more than what the joint leaves, or the leader would
    /// count what it does not have.
    pub(crate) fn as_joined(&self) -> (Tail, Tail) {
        self.pending()
            .map_or((self.log.tail, self.log.durable), |pending| (pending.tail(), pending.durable(self.log.durable)))
    }

    /// The history that is left once what is pending is carried out, if anything is.
    pub(crate) fn history_as_joined(&self) -> Option<History> {
        match self.pending()? {
            Pending::Cut(to) => {
                let mut history = self.log.history.clone();
                history.cut(to.epoch);
                Some(history)
            }
            Pending::Reset(origin) => Some(origin.history.clone()),
        }
    }

    /// Goes on with the leader's log: carries out what is pending, then takes that history, if it is another. Not on a disk that the
    /// leader, whose epoch begins here now or has begun, knows to be a copy: that is left as it is.
    pub(crate) fn join(
        &mut self,
        epoch: Epoch,
        history: Option<History>,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let has_begun = self.holds_leaders_start();
        let Role::Follower(following) = &mut self.role else { return Ok(()) };
        let told = (!has_begun && epoch == following.epoch).then(|| following.runs.clone());
        if told.as_ref().is_some_and(|told| self.is_restored_by(told, out)) {
            return Err(Refusal::Restored);
        }
        let Role::Follower(Following { pending, .. }) = &mut self.role else { return Ok(()) };
        match pending.take() {
            Some(Pending::Cut(to)) => self.cut(to, out),
            Some(Pending::Reset(origin)) => self.reset(*origin, out),
            None => {}
        }
        if let Some(history) = history {
            self.log.history = history;
        }
        if let Some(told) = told {
            self.learn(told, out);
        }
        Ok(())
    }

    /// Forgets what follows the prefix with that tail. It is durable once the disk is done.
    fn cut(&mut self, to: Tail, out: &mut Vec<Output>) {
        assert!(self.log.commit_end <= to.end, "a cut takes what is committed");
        assert!(to <= self.log.tail, "a cut ends behind the log");
        self.log.history.cut(to.epoch);
        self.log.tail = to;
        self.log.durable = self.log.durable.min(to);
        self.log.producers.cut(to.end);
        assert_eq!(self.log.history.last_epoch(), to.epoch, "a cut has left another epoch than it should");
        // Writes begun before the cut complete, but what they wrote beyond it is gone.
        self.disk.effects.retain(|(_, effect)| !matches!(effect, Effect::Durable(tail) if *tail > to));
        let ticket = self.next_ticket();
        out.push(Output::Cut { ticket, to });
        self.after_disk(Effect::Durable(to));
    }

    /// Forgets the whole log. Until the disk is done nothing is known to be durable.
    fn reset(&mut self, origin: Origin, out: &mut Vec<Output>) {
        assert!(self.log.commit_end <= origin.at, "a reset takes what is committed");
        let tail = origin.tail();
        assert!(self.log.start <= tail.end, "a log begins anew in front of its start");
        self.log.history = origin.history.clone();
        self.log.producers = origin.producers.clone();
        (self.log.tail, self.log.durable) = (tail, Tail::default());
        // Writes begun before complete, but what they wrote is gone: also what it began anew with before.
        let is_gone = |effect: &Effect| matches!(effect, Effect::Durable(_) | Effect::Trimmed(_) | Effect::Reset(_));
        self.disk.effects.retain(|(_, effect)| !is_gone(effect));
        let ticket = self.next_ticket();
        let at = origin.at;
        out.push(Output::Reset { ticket, origin });
        self.after_disk(Effect::Durable(tail));
        self.after_disk(Effect::Reset(at));
    }

    pub(crate) fn reset_is_durable(&mut self, at: Offset, out: &mut Vec<Output>) {
        self.commit(at, out);
        (self.log.start, self.log.trimmed) = (self.log.start.max(at), self.log.trimmed.max(at));
        assert!(self.log.start <= self.log.commit_end, "a log begins anew with what is not committed");
        self.tell_trimmed(out);
    }
}
