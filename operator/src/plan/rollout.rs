//! The next pod to replace when the template has changed. Pure; asked again after every step.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::crd::status::MemberRole;
use crate::observe::view::{ClusterView, Replica};

/// The revision of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodRevision {
    /// The pod.
    pub pod: String,
    /// Its `controller-revision-hash`.
    pub revision: Option<String>,
    /// True if it is on its way out already.
    pub leaving: bool,
}

impl PodRevision {
    /// The revision of a pod, where that one was deleted last.
    pub fn of(pod: &Pod, deleted: Option<&str>) -> Self {
        Self {
            pod: pod.name_any(),
            revision: pod.labels().get("controller-revision-hash").cloned(),
            leaving: pod.metadata.deletion_timestamp.is_some()
                || (deleted.is_some() && pod.metadata.uid.as_deref() == deleted),
        }
    }
}

/// The pods to delete now. `wanted` is the revision that the StatefulSet would give a new pod.
///
/// A stale pod that is not ready serves nobody: it goes at once, so that a broken revision can be replaced by a good one. Of the
/// others one at a time goes, and only while all replicas are ready and in sync; the leader last, and while it leads only if it
/// `may_go` so: it hands over before.
pub fn next(view: &ClusterView, wanted: &str, pods: &[PodRevision], may_go: bool) -> Vec<String> {
    let stale = || view.replicas.iter().filter(|replica| is_stale(&replica.pod, wanted, pods));
    // A pod whose replica answers as leader or follower is at work, whatever the kubelet has noticed so far; and one that is in sync
    // is needed, whatever the operator sees of it.
    let is_broken = |replica: &&Replica| !replica.pod_state.ready && !replica.role.is_at_work() && !replica.in_sync;
    let broken: Vec<String> = stale().filter(is_broken).map(|replica| replica.pod.clone()).collect();
    if !broken.is_empty() {
        return broken;
    }
    let all_ready = view.replicas.iter().all(|replica| replica.pod_state.ready);
    if !view.can_spare_one() || !all_ready || pods.iter().any(|pod| pod.leaving) {
        return Vec::new();
    }
    let follower = stale().rfind(|replica| replica.role != MemberRole::Leader);
    let next = follower.or_else(|| stale().next().filter(|_| may_go));
    next.map(|replica| replica.pod.clone()).into_iter().collect()
}

/// The replica that is to take over, by ordinal, when all that is left to replace is the leader: the one that lacks least.
pub fn successor(view: &ClusterView, wanted: &str, pods: &[PodRevision]) -> Option<usize> {
    let leads = |replica: &Replica| replica.role == MemberRole::Leader;
    let is_stale = |replica: &Replica| is_stale(&replica.pod, wanted, pods);
    let is_last = view.replicas.iter().all(|replica| is_stale(replica) == leads(replica));
    if !is_last || !view.can_spare_one() || pods.iter().any(|pod| pod.leaving) {
        return None;
    }
    let others = view.replicas.iter().enumerate().filter(|(_, replica)| !leads(replica) && replica.pod_state.ready);
    let (ordinal, _) = others.min_by_key(|(_, replica)| replica.lag_records.unwrap_or(u64::MAX))?;
    Some(ordinal)
}

fn is_stale(name: &str, wanted: &str, pods: &[PodRevision]) -> bool {
    let pod = pods.iter().find(|pod| pod.pod == name && !pod.leaving);
    pod.is_some_and(|pod| pod.revision.as_deref() != Some(wanted))
}

/// The number of pods still of an old revision.
pub fn remaining(wanted: &str, pods: &[PodRevision]) -> usize {
    pods.iter().filter(|pod| pod.revision.as_deref() != Some(wanted)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::view::tests::healthy;

    /// With a leader that may be deleted while it leads.
    fn next(view: &ClusterView, wanted: &str, pods: &[PodRevision]) -> Vec<String> {
        super::next(view, wanted, pods, true)
    }

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
    fn a_leader_hands_over_before_it_goes() {
        let view = healthy();
        assert_eq!(super::next(&view, "b", &pods(["a", "b", "b"]), false), [""; 0]);
        assert_eq!(successor(&view, "b", &pods(["a", "b", "b"])), Some(1));
        let mut busy = healthy();
        busy.replicas[1].lag_records = Some(7);
        assert_eq!(successor(&busy, "b", &pods(["a", "b", "b"])), Some(2), "the one that lacks least");
        // Not to one that is to go as well, and not while there is nothing to go.
        assert_eq!(successor(&view, "b", &pods(["a", "a", "b"])), None);
        assert_eq!(successor(&view, "b", &pods(["b", "b", "b"])), None);
        let mut late = healthy();
        late.replicas[2].in_sync = false;
        assert_eq!(successor(&late, "b", &pods(["a", "b", "b"])), None);
        let mut handed_over = healthy();
        handed_over.replicas[0].role = MemberRole::Follower;
        handed_over.replicas[1].role = MemberRole::Leader;
        assert_eq!(super::next(&handed_over, "b", &pods(["a", "b", "b"]), false), ["orders-0"]);
        let mut lone = healthy();
        lone.replicas.truncate(1);
        assert_eq!(successor(&lone, "b", &pods(["a", "b", "b"])), None);
    }

    #[test]
    fn nothing_goes_while_a_replica_is_out_of_sync_not_ready_or_leaving() {
        let stale = pods(["a", "a", "a"]);
        let mut view = healthy();
        view.replicas[1].in_sync = false;
        assert_eq!(next(&view, "b", &stale), [""; 0]);
        let mut view = healthy();
        view.replicas[1].pod_state.ready = false;
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
        (view.replicas[2].pod_state.ready, view.replicas[2].in_sync) = (false, false);
        view.replicas[2].role = MemberRole::Unreachable;
        assert_eq!(next(&view, "c", &pods(["a", "a", "b"])), ["orders-2"]);
        // Not so if it is of the wanted revision: it may be starting.
        assert_eq!(next(&view, "b", &pods(["a", "a", "b"])), [""; 0]);
        // Nor if the leader counts on it.
        view.replicas[2].in_sync = true;
        assert_eq!(next(&view, "c", &pods(["a", "a", "b"])), [""; 0]);
    }
}
