//! The disruption budget: whether a pod may be evicted. Pure: it is told the time.

use std::time::{Duration, Instant};

use crate::observe::view::ClusterView;

/// The time for which a cluster must have been whole before a pod may go again: replicas that fall out of sync and come back all the time do
/// not flood the API server.
const WHOLE_FOR: Duration = Duration::from_secs(5);

/// The pause after the API server did not take it.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// The budget that one cluster is to have.
#[derive(Debug, Default)]
pub struct Budget {
    whole_since: Option<Instant>,
}

/// The budget as it stands.
#[derive(Debug, Default)]
pub struct BudgetWritten {
    may_evict: Option<bool>,
    quiet_until: Option<Instant>,
}

impl Budget {
    /// Tells whether one pod may be evicted now. Its disk may go with it, so that the next one may go only when the first has all of the log
    /// and its vote again: a ready pod alone says nothing of that.
    ///
    /// A lone replica has none to wait for: a node with it can be drained.
    pub fn look(&mut self, view: &ClusterView, now: Instant) -> bool {
        if view.size() == 1 {
            return true;
        }
        if !view.can_spare_one() {
            self.whole_since = None;
            return false;
        }
        now.saturating_duration_since(*self.whole_since.get_or_insert(now)) >= WHOLE_FOR
    }
}

impl BudgetWritten {
    /// Tells whether the API server is to be told so now.
    pub fn is_due(&self, may_evict: bool, now: Instant) -> bool {
        self.may_evict != Some(may_evict) && self.quiet_until.is_none_or(|until| now >= until)
    }

    /// It was told, and took it or not.
    pub fn set(&mut self, may_evict: bool, took: bool, now: Instant) {
        self.may_evict = took.then_some(may_evict);
        self.quiet_until = (!took).then(|| now + REFUSED_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::status::MemberRole;
    use crate::observe::view::tests::healthy;

    /// The evictions that are allowed after so many seconds of this.
    fn after(seconds: u64, view: &ClusterView) -> bool {
        let (mut budget, begun) = (Budget::default(), Instant::now());
        budget.look(view, begun);
        budget.look(view, begun + Duration::from_secs(seconds))
    }

    #[test]
    fn a_pod_may_go_only_while_all_are_voters_at_work_and_in_sync() {
        assert!(after(60, &healthy()));
        let roles = [MemberRole::Learner, MemberRole::Idle, MemberRole::Failed, MemberRole::Unreachable];
        for role in roles {
            let mut view = healthy();
            view.replicas[0].role = role;
            assert!(!after(60, &view), "{role:?}");
        }
        let mut late = healthy();
        late.replicas[2].in_sync = false;
        assert!(!after(60, &late));
        let mut headless = healthy();
        headless.leader = None;
        assert!(!after(60, &headless));
    }

    #[test]
    fn it_is_forbidden_at_once_and_allowed_after_a_while() {
        let (mut budget, begun) = (Budget::default(), Instant::now());
        let mut at = |seconds: u64, view: &ClusterView| budget.look(view, begun + Duration::from_secs(seconds));
        let mut late = healthy();
        late.replicas[2].in_sync = false;
        let seen = [at(0, &healthy()), at(4, &healthy()), at(5, &healthy()), at(6, &late), at(7, &healthy())];
        assert_eq!(seen, [false, false, true, false, false]);
        assert_eq!([at(11, &healthy()), at(12, &healthy())], [false, true]);
    }

    #[test]
    fn it_is_told_when_it_changes_and_again_after_a_refusal() {
        let (mut told, begun) = (BudgetWritten::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(told.is_due(false, at(0)));
        told.set(false, true, at(0));
        assert!(!told.is_due(false, at(60)) && told.is_due(true, at(0)));
        told.set(true, false, at(1));
        assert_eq!([at(2), at(6)].map(|now| told.is_due(false, now)), [false, true]);
    }

    #[test]
    fn a_lone_replica_keeps_no_node_from_being_drained() {
        let mut lone = healthy();
        lone.replicas.truncate(1);
        assert!(after(0, &lone));
        lone.replicas[0].in_sync = false;
        assert!(after(0, &lone));
    }
}
