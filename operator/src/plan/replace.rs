//! A replica that is to be given up with its disk, by an annotation of the ZueCluster: its node is gone for good, or its volume. Pure.

use crate::crd::status::MemberRole;
use crate::observe::view::ClusterView;

/// Names the pod whose claim is deleted with it, so that a blank replica comes. The operator takes it away before it does so, or if it
/// refuses.
pub const REPLACE_ANNOTATION: &str = "zue.io/replace";

/// The next step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replace {
    /// This pod goes, and what its disk holds with it.
    Pod(String),
    /// It cannot be done, for this reason.
    Refused(String),
}

/// Reads the annotation, if it is there. A replica goes only while all others are voters, at work and in sync without it, and
/// enough of them to commit.
pub fn asked(view: &ClusterView, annotation: Option<&str>) -> Option<Replace> {
    let name = annotation?;
    let refused = |why: String| Some(Replace::Refused(format!("{name:.63} is not replaced: {why}")));
    let Some(gone) = view.replicas.iter().find(|replica| replica.pod == name) else {
        let pods: Vec<&str> = view.replicas.iter().map(|replica| replica.pod.as_str()).collect();
        return refused(format!("the replicas are {}", pods.join(", ")));
    };
    let others = || view.replicas.iter().filter(|replica| replica.pod != gone.pod);
    if others().next().is_none() {
        return refused("it holds the only copy of the log".to_owned());
    }
    if gone.role == MemberRole::Leader {
        return refused("it leads; let another lead first (zue.io/switchover-to)".to_owned());
    }
    if view.leader.is_none() {
        return refused("nobody leads, so it is unknown whether the others have all of the log".to_owned());
    }
    if view.is_changing {
        return refused("a change of the voters is under way; ask again once it is settled".to_owned());
    }
    let late: Vec<&str> = others()
        .filter(|replica| !replica.in_sync || !replica.role.is_at_work())
        .map(|replica| replica.pod.as_str())
        .collect();
    if !late.is_empty() {
        return refused(format!("without it the log would depend on {}, out of sync or not running", late.join(", ")));
    }
    let left = u32::try_from(others().count()).unwrap_or(u32::MAX);
    if left < view.quorum {
        return refused(format!("{left} replicas would be left, and {} are needed to append", view.quorum));
    }
    Some(Replace::Pod(gone.pod.clone()))
}

/// The consequences, said before it is done.
pub fn meaning(pod: &str) -> String {
    format!(
        "{pod} is deleted with its volume claim, and all that its disk holds is lost: a blank replica comes in its place, copies the log \
         from the others, and has no vote until it has caught up"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::view::tests::healthy;

    fn why(view: &ClusterView, pod: &str) -> String {
        match asked(view, Some(pod)) {
            Some(Replace::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_replica_goes_only_while_the_others_are_whole_without_it() {
        let mut lost = healthy();
        (lost.replicas[2].in_sync, lost.replicas[2].role) = (false, MemberRole::Unreachable);
        assert_eq!(asked(&lost, None), None);
        assert_eq!(asked(&lost, Some("orders-2")), Some(Replace::Pod("orders-2".to_owned())));
        assert_eq!(asked(&healthy(), Some("orders-1")), Some(Replace::Pod("orders-1".to_owned())));
        assert!(why(&lost, "orders-1").contains("would depend on orders-2"));
        assert!(why(&lost, "orders-0").contains("switchover-to"));
        let mut headless = lost.clone();
        headless.leader = None;
        headless.replicas[0].role = MemberRole::Follower;
        assert!(why(&headless, "orders-2").contains("nobody leads"));
        let mut changing = lost.clone();
        changing.is_changing = true;
        assert!(why(&changing, "orders-2").contains("a change of the voters"));
        let mut all_needed = lost.clone();
        all_needed.quorum = 3;
        assert!(why(&all_needed, "orders-2").contains("3 are needed"));
        let mut lone = healthy();
        lone.replicas.truncate(1);
        assert!(why(&lone, "orders-0").contains("the only copy"));
    }

    #[test]
    fn whatever_is_written_there_is_refused_in_few_words() {
        for name in ["", "orders-3", "orders", "../orders-1", &"ä".repeat(9000)] {
            let said = why(&healthy(), name);
            assert!(said.contains("orders-0, orders-1, orders-2") && said.len() < 400, "{said}");
        }
    }
}
