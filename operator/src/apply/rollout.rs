//! Which pod to replace next when the template has changed. Pure; asked again after every step.

use crate::crd::status::MemberRole;
use crate::view::{Replica, View};

/// Which revision a pod is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodRevision {
    /// The pod.
    pub pod: String,
    /// Its `controller-revision-hash`.
    pub revision: Option<String>,
    /// Whether it is on its way out already.
    pub leaving: bool,
}

/// The pods to delete now. `wanted` is the revision that the StatefulSet would give a new pod.
///
/// A stale pod that is not ready serves nobody: it goes at once, so that a broken revision can be replaced by a good one. Of the
/// others one at a time goes, and only while all replicas are ready and in sync; the leader last.
pub fn next(view: &View, wanted: &str, pods: &[PodRevision]) -> Vec<String> {
    let is_stale = |name: &str| {
        let pod = pods.iter().find(|pod| pod.pod == name && !pod.leaving);
        pod.is_some_and(|pod| pod.revision.as_deref() != Some(wanted))
    };
    let stale = || view.replicas.iter().filter(|replica| is_stale(&replica.pod));
    // A pod whose replica answers as leader or follower is at work, whatever the kubelet has noticed so far; and one that is in sync
    // is needed, whatever the operator sees of it.
    let is_broken = |replica: &&Replica| !replica.ready && !replica.role.is_at_work() && !replica.in_sync;
    let broken: Vec<String> = stale().filter(is_broken).map(|replica| replica.pod.clone()).collect();
    if !broken.is_empty() {
        return broken;
    }
    let all_ready = view.replicas.iter().all(|replica| replica.ready);
    if !view.can_spare_one() || !all_ready || pods.iter().any(|pod| pod.leaving) {
        return Vec::new();
    }
    let follower = stale().rfind(|replica| replica.role != MemberRole::Leader);
    follower.or_else(|| stale().next()).map(|replica| replica.pod.clone()).into_iter().collect()
}

/// How many pods are still of an old revision.
pub fn remaining(wanted: &str, pods: &[PodRevision]) -> usize {
    pods.iter().filter(|pod| pod.revision.as_deref() != Some(wanted)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::healthy;

    fn pods(revisions: [&str; 3]) -> Vec<PodRevision> {
        let pod = |(ordinal, revision): (usize, &&str)| PodRevision {
            pod: format!("orders-{ordinal}"),
            revision: Some((*revision).to_owned()),
            leaving: false,
        };
        revisions.iter().enumerate().map(pod).collect()
    }

    #[test]
    fn followers_go_first_one_at_a_time_and_the_leader_last() {
        let view = healthy();
        assert_eq!(next(&view, "b", &pods(["a", "a", "a"])), ["orders-2"]);
        assert_eq!(next(&view, "b", &pods(["a", "a", "b"])), ["orders-1"]);
        assert_eq!(next(&view, "b", &pods(["a", "b", "b"])), ["orders-0"]);
        assert_eq!(next(&view, "b", &pods(["b", "b", "b"])), [""; 0]);
        assert_eq!(remaining("b", &pods(["a", "b", "a"])), 2);
        let mut led_by_the_last = healthy();
        led_by_the_last.replicas[0].role = MemberRole::Follower;
        led_by_the_last.replicas[2].role = MemberRole::Leader;
        assert_eq!(next(&led_by_the_last, "b", &pods(["a", "b", "a"])), ["orders-0"]);
        assert_eq!(next(&led_by_the_last, "b", &pods(["b", "b", "a"])), ["orders-2"]);
    }

    #[test]
    fn nothing_goes_while_a_replica_is_out_of_sync_not_ready_or_leaving() {
        let stale = pods(["a", "a", "a"]);
        let mut view = healthy();
        view.replicas[1].in_sync = false;
        assert_eq!(next(&view, "b", &stale), [""; 0]);
        let mut view = healthy();
        view.replicas[1].ready = false;
        assert_eq!(next(&view, "b", &stale), [""; 0]);
        let mut view = healthy();
        view.replicas[1].role = MemberRole::Idle;
        assert_eq!(next(&view, "b", &stale), [""; 0]);
        let mut leaving = stale.clone();
        leaving[2].leaving = true;
        assert_eq!(next(&healthy(), "b", &leaving), [""; 0]);
        let mut headless = healthy();
        headless.leader = None;
        assert_eq!(next(&headless, "b", &stale), [""; 0]);
    }

    #[test]
    fn a_broken_revision_is_replaced_at_once() {
        let mut view = healthy();
        (view.replicas[2].ready, view.replicas[2].in_sync) = (false, false);
        view.replicas[2].role = MemberRole::Unreachable;
        assert_eq!(next(&view, "c", &pods(["a", "a", "b"])), ["orders-2"]);
        // Not so if it is of the wanted revision: it may be starting.
        assert_eq!(next(&view, "b", &pods(["a", "a", "b"])), [""; 0]);
        // Nor if the leader counts on it.
        view.replicas[2].in_sync = true;
        assert_eq!(next(&view, "c", &pods(["a", "a", "b"])), [""; 0]);
    }
}
