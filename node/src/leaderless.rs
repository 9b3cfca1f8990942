//! What the driver knows of standing by: by what, as its leader or a controller says; and whether it has to.

use std::sync::Arc;

use tokio::sync::watch;
use zue_core::{Epoch, ReplicaId, RoleView, Session};
use zue_proto::v1::ElectionReason;

use crate::driver::Driver;
use crate::standby::Standby;
use crate::state::Member;

/// Why it does not stand by as it is told.
pub(crate) const OTHER_VOTERS: &str = "those that are to stand by are not the voters of the epoch's start";

/// What the driver knows of standing by.
#[derive(Debug)]
pub(crate) struct Standing {
    /// By what it does.
    pub(crate) terms: watch::Sender<Option<Arc<Standby>>>,
    /// What its leader has said of that, on which stream.
    pub(crate) told: Option<(Session, Standby)>,
    /// Whether it has to.
    pub(crate) needed: watch::Sender<bool>,
    /// Who appointed it last.
    pub(crate) elected_by: Arc<str>,
    /// And why.
    pub(crate) elected_for: ElectionReason,
}

impl Standing {
    pub(crate) fn known(&self) -> Option<Arc<Standby>> {
        self.terms.borrow().clone()
    }
}

impl Driver {
    /// Whether they are the voters of that epoch, and no others, if it is the newest that is known here.
    pub(crate) fn are_voters(&self, epoch: Epoch, members: &[Member]) -> bool {
        let Some(start) = self.engine.replica().history().last().filter(|start| start.epoch == epoch) else {
            return true;
        };
        let is_named = |id: &ReplicaId| members.iter().any(|member| member.id == *id);
        members.len() == start.voters.len() && start.voters.iter().all(is_named)
    }

    /// By what it stands by from now on, if no leader of a later epoch was told something else.
    pub(crate) fn stand_by(&mut self, standby: Standby) {
        let promised = self.engine.replica().promise().epoch;
        if is_newer(&standby, self.parts.standing.known().as_deref(), promised) {
            self.parts.standing.terms.send_replace(Some(Arc::new(standby)));
            self.view_is_stale = true;
        }
    }

    /// Believes its leader once the start of its epoch is durable here, and tells whether it has none, or wants to lead no more.
    pub(crate) fn look_for_leader(&mut self) {
        let replica = self.engine.replica();
        if let Some((session, standby)) =
            self.parts.standing.told.take_if(|_| replica.durable().epoch == replica.promise().epoch)
            && self.outboxes.contains_key(&session)
        {
            self.stand_by(standby);
        }
        let Some(standby) = self.parts.standing.known() else { return };
        let detection_ms = u64::try_from(standby.detection.as_millis()).unwrap_or(u64::MAX);
        let mut role = self.engine.replica().role(self.now());
        if let (RoleView::Follower { silence_ms, .. }, Some(heard)) = (&mut role, &self.heard) {
            *silence_ms = heard.silence_ms();
        }
        let goes = matches!(role, RoleView::Leader { epoch, .. } if self.leaving || self.wanted(epoch).is_some());
        let needed = &self.parts.standing.needed;
        needed.send_if_modified(|known| {
            let before = std::mem::replace(known, is_needed(&role, detection_ms, goes, *known));
            before != *known
        });
    }
}

/// Whether what is told takes the place of what is known. Nothing was told in an epoch that has not begun.
fn is_newer(told: &Standby, known: Option<&Standby>, promised: Epoch) -> bool {
    told.epoch <= promised && known.is_none_or(|known| told != known && told.epoch >= known.epoch)
}

/// Whether a replica has no leader, or is one that `goes`. It stays so through its own sealings until there is a leader: how often it
/// tried in vain is known only as long.
fn is_needed(role: &RoleView, detection_ms: u64, goes: bool, was: bool) -> bool {
    match role {
        RoleView::Idle { waiting_ms } => was || *waiting_ms >= detection_ms,
        RoleView::Follower { silence_ms, connected, .. } => !connected || *silence_ms >= detection_ms,
        RoleView::Leader { .. } => goes,
        RoleView::Failed => false,
    }
}

#[cfg(test)]
mod tests {
    use zue_core::{Offset, ReplicaId};

    use super::*;

    fn follower(silence_ms: u64, connected: bool) -> RoleView {
        let (leader, epoch, leader_log_end) = (ReplicaId(1), Epoch(1), Offset(0));
        RoleView::Follower { leader, epoch, connected, silence_ms, leader_log_end }
    }

    #[test]
    fn who_has_lost_its_leader_stands_by_through_its_own_sealings_until_there_is_one() {
        let idle = |waiting_ms| RoleView::Idle { waiting_ms };
        let mut was = false;
        for (role, needed) in [
            (follower(10, true), false),
            (idle(0), false),
            (idle(999), false),
            (idle(1000), true),
            (idle(0), true),
            (idle(1000), true),
            (follower(0, true), false),
            (follower(1000, true), true),
            (idle(0), true),
            (RoleView::Failed, false),
        ] {
            was = is_needed(&role, 1000, false, was);
            assert_eq!(was, needed, "{role:?}");
        }
        assert!(is_needed(&follower(0, false), 1000, false, false), "its stream has ended");
    }

    #[test]
    fn what_a_leader_was_told_longer_ago_does_not_replace_what_a_later_one_was() {
        let told = |epoch: u64, detection_ms: u64| Standby {
            policy: zue_core::control::Policy::Automatic,
            preferred: 0,
            detection: std::time::Duration::from_millis(detection_ms),
            after: std::time::Duration::from_secs(1),
            members: Vec::new(),
            epoch: Epoch(epoch),
        };
        let known = told(5, 1000);
        for (epoch, detection_ms, is_taken) in
            [(4, 2000, false), (5, 1000, false), (5, 2000, true), (6, 2000, true), (7, 2000, false)]
        {
            assert_eq!(is_newer(&told(epoch, detection_ms), Some(&known), Epoch(6)), is_taken, "{epoch}");
        }
        assert!(is_newer(&told(0, 1000), None, Epoch(6)));
    }
}
