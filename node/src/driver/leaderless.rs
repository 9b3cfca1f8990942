//! News of standing by, from the driver to the task that does it.

use std::sync::Arc;

use tokio::sync::watch;
use zue_core::{ReplicaId, RoleView};
use zue_engine::standby::{self, Duty};
use zue_proto::v1::ElectionReason;

use crate::driver::Driver;
use crate::standby::Standby;

/// The reason why this replica refuses the terms that it is told.
pub(crate) const OTHER_VOTERS: &str = "the members told to stand by are not the voters of this epoch";

/// The driver's part of standing by.
#[derive(Debug)]
pub(crate) struct DriverStandby {
    pub(crate) rule: standby::StandbyState<Standby>,
    /// The terms, for the task that elects.
    pub(crate) terms: watch::Sender<Option<Arc<Standby>>>,
    /// Its duty.
    pub(crate) duty: watch::Sender<Option<Duty<Standby>>>,
    /// The one who appointed it last.
    pub(crate) elected_by: Arc<str>,
    /// And why.
    pub(crate) elected_for: ElectionReason,
}

impl DriverStandby {
    /// Tells the task that elects what is new. Returns whether the terms are.
    fn publish(&self, own: ReplicaId) -> bool {
        let duty = self.rule.duty(own);
        self.duty.send_if_modified(|known| replaced(known, duty));
        self.terms.send_if_modified(|known| replaced(known, self.rule.known().cloned()))
    }
}

fn replaced<T: PartialEq>(known: &mut T, now: T) -> bool {
    let is_new = *known != now;
    *known = now;
    is_new
}

impl Driver {
    pub(crate) fn publish_standing(&mut self) {
        self.turn.view_is_stale |= self.parts.standing.publish(self.engine.replica().id());
    }

    /// Believes its leader once that is to be believed, and tells whether it has none, or wants to lead no more.
    pub(crate) fn look_for_leader(&mut self) {
        let mut role = self.engine.replica().role(self.now());
        if let (RoleView::Follower { silence_ms, .. }, Some(heard)) = (&mut role, &self.following.heard) {
            *silence_ms = heard.silence_ms();
        }
        let goes =
            matches!(role, RoleView::Leader { epoch, .. } if self.orders.leaving || self.wanted(epoch).is_some());
        let is_open = |session| self.outboxes.contains_key(&session);
        self.parts.standing.rule.look(self.engine.replica(), &role, is_open, goes);
        self.publish_standing();
    }
}
