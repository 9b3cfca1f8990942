//! Ownership of objects. An object of the expected name may belong to someone else; then it is not touched. Pure.

use kube::{Resource, ResourceExt as _};

use crate::build;
use crate::cluster::Cluster;
use crate::crd::ZueCluster;
use crate::kubernetes::Error;

/// Refuses an object that refers to no owner of this cluster's uid, unless it is one of this cluster's that has lost its owner:
/// `kubectl delete --cascade=orphan` and restored backups leave such behind.
pub fn check<K: Resource<DynamicType = ()>>(found: &K, cluster: &Cluster) -> Result<(), Error> {
    let owners = found.owner_references();
    let is_orphan =
        owners.is_empty() && build::labels(cluster).iter().all(|label| found.labels().get(label.0) == Some(label.1));
    if is_orphan || owners.iter().any(|owner| owner.uid == cluster.uid) {
        return Ok(());
    }
    let (kind, name) = (K::kind(&()).into_owned(), found.name_any());
    // Those of a resource that was deleted are deleted a moment later.
    if owners.iter().any(|owner| owner.kind == ZueCluster::kind(&()) && owner.name == cluster.name) {
        return Err(Error::NotYetGone { kind, name });
    }
    Err(Error::NotOurs { kind, name })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;
    use crate::cluster::tests::cluster;

    #[test]
    fn only_what_refers_to_this_very_resource_is_its() {
        let cluster = cluster("{}");
        let ours = build::objects(&cluster).services.remove(0);
        check(&ours, &cluster).unwrap();
        let mut orphan = ours.clone();
        orphan.owner_references_mut().clear();
        check(&orphan, &cluster).unwrap();
        orphan.labels_mut().remove("app.kubernetes.io/managed-by");
        check(&orphan, &cluster).unwrap_err();
        let mut earlier = ours.clone();
        earlier.owner_references_mut()[0].uid = "u-0".to_owned();
        let said = check(&earlier, &cluster).unwrap_err().to_string();
        assert!(said.starts_with("Service orders belongs to a deleted ZueCluster of that name"), "{said}");
        let mut another = earlier.clone();
        another.owner_references_mut()[0].name = "bills".to_owned();
        let mut nobodys = Service::default();
        nobodys.metadata.name = Some("orders".to_owned());
        for found in [another, nobodys] {
            let said = check(&found, &cluster).unwrap_err().to_string();
            assert_eq!(
                said,
                "Service orders does not belong to this ZueCluster: remove it if unused, or give the ZueCluster another name"
            );
        }
    }
}
