//! What the driver knows of standing by: by what, as its leader or a controller says; and whether it has to.

use std::sync::Arc;

use tokio::sync::watch;
use zue_core::{Epoch, ReplicaId, RoleView, Session};

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
}

impl Standing {
    pub(crate) fn known(&self) -> Option<Arc<Standby>> {
        self.terms.borrow().clone()
    }
}

impl Driver {
    /// Whether they are the voters of that epoch, and no others, if it is the newest that is known here.
    pub(crate) fn are_voters(&self, epoch: Epoch, members: &[Member]) -> bool {
        let Some(start) = self.parts.replica.history().last().filter(|start| start.epoch == epoch) else { return true };
        let is_named = |id: &ReplicaId| members.iter().any(|member| member.id == *id);
        members.len() == start.voters.len() && start.voters.iter().all(is_named)
    }

    /// By what it stands by from now on; none: as before.
    pub(crate) fn stand_by(&mut self, standby: Option<Standby>) {
        let is_news = |standby: &Standby| self.parts.standing.terms.borrow().as_deref() != Some(standby);
        if let Some(standby) = standby.filter(is_news) {
            self.parts.standing.terms.send_replace(Some(Arc::new(standby)));
            self.view_is_stale = true;
        }
    }

    /// Believes its leader once the start of its epoch is durable here, and tells whether it has none, or wants to lead no more.
    pub(crate) fn look_for_leader(&mut self) {
        let replica = &self.parts.replica;
        if let Some((session, standby)) =
            self.parts.standing.told.take_if(|_| replica.durable().epoch == replica.promise().epoch)
            && self.outboxes.contains_key(&session)
        {
            self.stand_by(Some(standby));
        }
        let Some(standby) = self.parts.standing.known() else { return };
        let detection_ms = u64::try_from(standby.detection.as_millis()).unwrap_or(u64::MAX);
        let needed = match self.parts.replica.role(self.now()) {
            RoleView::Idle { waiting_ms } => waiting_ms >= detection_ms,
            RoleView::Follower { silence_ms, connected, .. } => {
                let silence_ms = self.heard.as_ref().map_or(silence_ms, |heard| heard.silence_ms());
                !connected || silence_ms >= detection_ms
            }
            RoleView::Leader { epoch, .. } => self.leaving || self.wanted(epoch).is_some(),
            RoleView::Failed => false,
        };
        self.parts.standing.needed.send_if_modified(|known| std::mem::replace(known, needed) != needed);
    }
}
