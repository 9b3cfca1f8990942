//! Ends a recovery from a lost majority: once the new cluster has begun and nobody keeps the volumes of the others any more, all replicas
//! run again.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Client;
use kube::api::{Api, Patch};
use serde_json::json;

use crate::build::DATA_VOLUME;
use crate::cluster::Cluster;
use crate::crd::ZueCluster;
use crate::kubernetes::{Error, manager, within};

/// The number of times that the claims are looked for.
const AGAIN: Duration = Duration::from_secs(5);

/// Looks whether it has ended; when to look again while one is under way. `resource` is as it was found.
pub async fn settle(client: &Client, cluster: &Cluster, resource: &ZueCluster) -> Result<Option<Duration>, Error> {
    let Some(recovery) = &cluster.recovery else { return Ok(None) };
    let recorded = resource.status.as_ref().and_then(|status| status.cluster_id.as_ref());
    if recorded.is_none_or(|recorded| *recorded == recovery.cluster_id) {
        return Ok(Some(AGAIN));
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    for pod in recovery.others(&cluster.name) {
        let claim = format!("{DATA_VOLUME}-{pod}");
        if within(format!("read claim {claim}"), claims.get_opt(&claim)).await?.is_some() {
            return Ok(Some(AGAIN));
        }
    }
    let api: Api<ZueCluster> = Api::namespaced(client.clone(), &cluster.namespace);
    let metadata = json!({ "resourceVersion": resource.metadata.resource_version });
    let patch = Patch::Merge(json!({ "metadata": metadata, "status": { "recovery": null } }));
    match within("end the recovery", api.patch_status(&cluster.name, &manager(), &patch)).await {
        Ok(_) => Ok(Some(AGAIN)),
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(Some(AGAIN)),
        Err(error) => Err(error),
    }
}
