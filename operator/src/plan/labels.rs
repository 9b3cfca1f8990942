//! Role labels of the pods. Pure.

use crate::crd::status::MemberRole;
use crate::observe::view::{ClusterView, Replica};

/// A change of one pod's role label; none takes it away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relabel {
    /// The pod.
    pub pod: String,
    /// Its new label.
    pub role: Option<&'static str>,
}

/// The changes to make, in this order: whoever leads no more loses the label before another gets it.
pub fn changes(view: &ClusterView) -> Vec<Relabel> {
    let change = |replica: &Replica| {
        let label = replica.pod_state.label.as_ref()?.as_deref();
        let role = match replica.role {
            MemberRole::Leader => Some("leader"),
            MemberRole::Follower => Some("follower"),
            MemberRole::Learner => Some("learner"),
            MemberRole::Idle | MemberRole::Failed => None,
            // Out of the operator's sight is not out of the clients': nothing is known, unless another leads.
            MemberRole::Unreachable if label == Some("leader") && view.leader.is_some() => None,
            MemberRole::Unreachable => return None,
        };
        (label != role).then(|| Relabel { pod: replica.pod.clone(), role })
    };
    let mut changes: Vec<Relabel> = view.replicas.iter().filter_map(change).collect();
    changes.sort_by_key(|change| change.role == Some("leader"));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::view::tests::healthy;

    fn changed(labels: [Option<&str>; 3], edit: impl Fn(&mut ClusterView)) -> Vec<(String, Option<&'static str>)> {
        let mut view = healthy();
        for (replica, label) in view.replicas.iter_mut().zip(labels) {
            replica.pod_state.label = Some(label.map(str::to_owned));
        }
        edit(&mut view);
        changes(&view).into_iter().map(|change| (change.pod, change.role)).collect()
    }

    fn named(ordinal: u32, role: Option<&'static str>) -> (String, Option<&'static str>) {
        (format!("orders-{ordinal}"), role)
    }

    #[test]
    fn a_labelled_cluster_is_left_alone() {
        assert_eq!(changed([Some("leader"), Some("follower"), Some("follower")], |_| ()), []);
    }

    #[test]
    fn the_old_leader_loses_the_label_before_the_new_one_gets_it() {
        let changes = changed([None, Some("leader"), Some("follower")], |_| ());
        assert_eq!(changes, [named(1, Some("follower")), named(0, Some("leader"))]);
    }

    #[test]
    fn a_leader_out_of_sight_keeps_the_label_until_another_leads() {
        let lost = |view: &mut ClusterView| {
            view.replicas[1].role = MemberRole::Unreachable;
        };
        let labels = [Some("leader"), Some("leader"), Some("follower")];
        assert_eq!(changed(labels, lost), [named(1, None)]);
        let nobody = |view: &mut ClusterView| {
            lost(view);
            view.replicas[0].role = MemberRole::Idle;
            view.leader = None;
        };
        assert_eq!(changed(labels, nobody), [named(0, None)]);
    }

    #[test]
    fn a_replica_without_a_pod_has_no_label() {
        let gone = |view: &mut ClusterView| view.replicas[2].pod_state.label = None;
        assert_eq!(changed([Some("leader"), Some("follower"), None], gone), []);
    }
}
