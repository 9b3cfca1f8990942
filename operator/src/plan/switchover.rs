//! A switchover that is asked for by an annotation of the ZueCluster. Pure.

use zue_core::control::Policy;

use crate::cluster::Cluster;

/// Names the pod that is to lead. The operator takes it away once that is so, or cannot be.
pub const SWITCHOVER_ANNOTATION: &str = "zue.io/switchover-to";

/// The next step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Switchover {
    /// This replica is to lead.
    To(usize),
    /// It cannot be done, for this reason.
    Refused(String),
}

/// Reads the annotation, if it is there.
pub fn asked(cluster: &Cluster, annotation: Option<&str>) -> Option<Switchover> {
    let name = annotation?;
    let pods = cluster.pods();
    Some(match pods.iter().position(|pod| pod == name) {
        _ if cluster.wish().policy == Policy::Static => Switchover::Refused(
            "spec.leader.policy is Static: set spec.leader.ordinal to let another replica lead".to_owned(),
        ),
        Some(ordinal) => Switchover::To(ordinal),
        None => Switchover::Refused(format!(
            "{SWITCHOVER_ANNOTATION} names {name:?}; the replicas are: {}",
            pods.join(", ")
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::cluster;

    #[test]
    fn a_replica_is_named_by_its_pod() {
        let cluster = cluster("{}");
        assert_eq!(asked(&cluster, None), None);
        assert_eq!(asked(&cluster, Some("orders-2")), Some(Switchover::To(2)));
        for name in ["orders-3", "", "2", "other-0"] {
            let Some(Switchover::Refused(why)) = asked(&cluster, Some(name)) else { panic!("{name}") };
            assert!(why.contains("orders-0, orders-1, orders-2"), "{why}");
        }
    }

    #[test]
    fn a_static_leader_is_changed_in_the_spec() {
        let Some(Switchover::Refused(why)) = asked(&cluster("leader: {policy: Static}"), Some("orders-2")) else {
            panic!()
        };
        assert!(why.contains("spec.leader.ordinal"), "{why}");
    }
}
