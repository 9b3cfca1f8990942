//! Standing by: the terms by which a replica elects while no controller does, as its leader or a controller has told them; whether it
//! has to elect now; and what a leader passes on to its followers.

use std::sync::Arc;

use zue_core::control::{Policy, Wish};
use zue_core::{Epoch, Replica, ReplicaId, RoleView, Session};

/// The terms by which a replica elects where no controller does.
pub trait Standby: PartialEq + Sized {
    /// The policy: who is to lead.
    fn policy(&self) -> Policy;
    /// The member that wins ties: its place, or the number of members for none of them.
    fn preferred(&self) -> usize;
    /// A voter that hears nothing of a leader for so long has lost it.
    fn detection_ms(&self) -> u64;
    /// The voters, in the order of their ordinals.
    fn members(&self) -> impl Iterator<Item = ReplicaId>;
    /// The epoch whose leader was told so by a controller.
    fn epoch(&self) -> Epoch;
    /// The same, told in that epoch.
    #[must_use]
    fn told_in(self, epoch: Epoch) -> Self;
}

/// The wish that these terms make, as a controller would have it.
pub fn wish(standby: &impl Standby) -> Wish {
    Wish {
        replicas: standby.members().count(),
        policy: standby.policy(),
        ordinal: standby.preferred(),
        switch_to: None,
        detection_ms: standby.detection_ms(),
        quorum: None,
        standby_after_ms: None,
    }
}

/// The terms by which a replica has to elect, and its own place among the members.
pub type Duty<T> = (Arc<T>, usize);

/// The terms that a replica knows, and whether it has to elect by them.
#[derive(Debug)]
pub struct StandbyState<T> {
    known: Option<Arc<T>>,
    /// The terms that its leader sent last, and the stream that they came on.
    told: Option<(Session, T)>,
    needed: bool,
}

impl<T: Standby> StandbyState<T> {
    /// The state of a replica that starts, with the terms that it kept.
    pub fn new(kept: Option<Arc<T>>) -> Self {
        Self { known: kept, told: None, needed: false }
    }

    /// The terms in force.
    pub fn known(&self) -> Option<&Arc<T>> {
        self.known.as_ref()
    }

    /// The duty at present; none while the replica knows no terms, or does not vote.
    pub fn duty(&self, own: ReplicaId) -> Option<Duty<T>> {
        let known = self.known.as_ref().filter(|_| self.needed)?;
        let own = known.members().position(|member| member == own)?;
        Some((Arc::clone(known), own))
    }

    /// A controller has told this replica the terms, as the leader of that epoch.
    pub fn tell(&mut self, replica: &Replica, epoch: Epoch, standby: T) {
        self.take(replica, standby.told_in(epoch));
    }

    /// The leader has sent the terms on an open stream. They count from the next look, if it leads this epoch.
    pub fn hear(&mut self, session: Session, standby: T) {
        self.told = Some((session, standby));
    }

    /// Looks whether its leader is to be believed, and whether it has to stand by: it has no leader, or is one that `goes`. A leader
    /// is believed once the start of its epoch is durable here, on a stream that `is_open`.
    pub fn look(&mut self, replica: &Replica, role: &RoleView, is_open: impl Fn(Session) -> bool, goes: bool) {
        let is_begun = replica.durable().epoch == replica.promise().epoch;
        if let Some((session, standby)) = self.told.take_if(|_| is_begun)
            && is_open(session)
        {
            self.take(replica, standby);
        }
        if let Some(known) = &self.known {
            self.needed = is_needed(role, known.detection_ms(), goes, self.needed);
        }
    }

    fn take(&mut self, replica: &Replica, standby: T) {
        if is_newer(&standby, self.known.as_deref(), replica.promise().epoch) {
            self.known = Some(Arc::new(standby));
        }
    }
}

/// Tells whether they are the voters of that epoch, and no others, if it is the newest that the replica knows: a leader takes no others.
pub fn are_voters(replica: &Replica, epoch: Epoch, standby: &impl Standby) -> bool {
    let Some(start) = replica.history().last().filter(|start| start.epoch == epoch) else { return true };
    let is_named = |id: &ReplicaId| standby.members().any(|member| member == *id);
    standby.members().count() == start.voters.len() && start.voters.iter().all(is_named)
}

/// Tells whether new terms replace the known ones. Terms of an epoch that has not begun are not believed.
fn is_newer<T: Standby>(told: &T, known: Option<&T>, promised: Epoch) -> bool {
    told.epoch() <= promised && known.is_none_or(|known| told != known && told.epoch() >= known.epoch())
}

/// Tells whether a replica has no leader, or is one that `goes`. It stays so through its own sealings until there is a leader: how often it
/// tried in vain is known only as long.
fn is_needed(role: &RoleView, detection_ms: u64, goes: bool, was: bool) -> bool {
    match role {
        RoleView::Idle { waiting_ms } => was || *waiting_ms >= detection_ms,
        RoleView::Follower { silence_ms, connected, .. } => !connected || *silence_ms >= detection_ms,
        RoleView::Leader { .. } => goes,
        RoleView::Failed => false,
    }
}

/// The terms that a follower was told last.
#[derive(Debug)]
pub struct Telling<T> {
    /// One of an earlier version does not understand it.
    understands: bool,
    sent: Option<Arc<T>>,
}

impl<T: Standby> Telling<T> {
    /// Of one that was told nothing yet.
    pub fn to(understands: bool) -> Self {
        Self { understands, sent: None }
    }

    /// The terms that it is to be told, if they are news.
    pub fn news(&mut self, known: Option<&Arc<T>>) -> Option<Arc<T>> {
        let news = known.filter(|known| self.understands && self.sent.as_ref() != Some(*known))?;
        self.sent = Some(Arc::clone(news));
        Some(Arc::clone(news))
    }
}

#[cfg(test)]
mod tests {
    use zue_core::Offset;

    use super::*;

    #[derive(Clone, PartialEq, Debug)]
    struct Terms(Epoch, u64);

    impl Standby for Terms {
        fn policy(&self) -> Policy {
            Policy::Automatic
        }

        fn preferred(&self) -> usize {
            0
        }

        fn detection_ms(&self) -> u64 {
            self.1
        }

        fn members(&self) -> impl Iterator<Item = ReplicaId> {
            [1, 2].map(ReplicaId).into_iter()
        }

        fn epoch(&self) -> Epoch {
            self.0
        }

        fn told_in(self, epoch: Epoch) -> Self {
            Self(epoch, self.1)
        }
    }

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
        let told = |epoch, detection_ms| Terms(Epoch(epoch), detection_ms);
        let known = told(5, 1000);
        for (epoch, detection_ms, is_taken) in
            [(4, 2000, false), (5, 1000, false), (5, 2000, true), (6, 2000, true), (7, 2000, false)]
        {
            assert_eq!(is_newer(&told(epoch, detection_ms), Some(&known), Epoch(6)), is_taken, "{epoch}");
        }
        assert!(is_newer(&told(0, 1000), None, Epoch(6)));
    }

    #[test]
    fn only_a_voter_that_was_told_how_stands_by() {
        let mut standing = StandbyState { known: None, told: None, needed: true };
        assert_eq!(standing.duty(ReplicaId(2)), None, "nobody has told it");
        standing.known = Some(Arc::new(Terms(Epoch(1), 1000)));
        assert_eq!(standing.duty(ReplicaId(2)).map(|(_, own)| own), Some(1));
        assert_eq!(standing.duty(ReplicaId(3)), None, "it does not vote");
        standing.needed = false;
        assert_eq!(standing.duty(ReplicaId(2)), None, "it has a leader");
    }

    #[test]
    fn a_follower_is_told_once_what_is_new_and_one_that_does_not_understand_it_never() {
        let (first, second) = (Arc::new(Terms(Epoch(1), 1000)), Arc::new(Terms(Epoch(2), 1000)));
        let mut telling = Telling::to(true);
        assert_eq!(telling.news(None), None);
        assert_eq!(telling.news(Some(&first)), Some(Arc::clone(&first)));
        assert_eq!(telling.news(Some(&first)), None);
        assert_eq!(telling.news(Some(&second)), Some(Arc::clone(&second)));
        assert_eq!(Telling::to(false).news(Some(&first)), None);
    }
}
