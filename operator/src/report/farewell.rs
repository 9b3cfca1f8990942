//! The last status of an operator that stops while no other takes its place: of what nobody looks at, nobody knows whether it still holds.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tracing::{info, warn};

use crate::crd::ZueCluster;
use crate::kubernetes::lease::LeaseHolder;
use crate::kubernetes::manager;
use crate::kubernetes::within;
use crate::observe::watched::Guarded;
use crate::status;

/// The time that another may take to act: it watches the Lease.
const SUCCESSION: Duration = Duration::from_secs(2);
/// All of it takes no longer: the pod is killed soon.
const ALL_MAX: Duration = Duration::from_secs(15);

/// Marks all conditions of nodes as unknown, unless another operator acts. The Lease must have been given up before.
pub async fn say(client: &Client, namespaces: &[String], lease_holder: &LeaseHolder) {
    tokio::time::sleep(SUCCESSION).await;
    if lease_holder.is_taken().await {
        return;
    }
    info!("no other operator acts: the status of the ZueClusters is marked as unknown");
    if tokio::time::timeout(ALL_MAX, mark_all(client, namespaces)).await.is_err() {
        warn!("not all ZueClusters could be marked in time");
    }
}

async fn mark_all(client: &Client, namespaces: &[String]) {
    let in_all: Vec<Api<Guarded>> = match namespaces {
        [] => vec![Api::all(client.clone())],
        some => some.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect(),
    };
    for api in in_all {
        match within("list the ZueClusters", api.list(&ListParams::default())).await {
            Ok(found) => {
                for cluster in found.items.iter().filter_map(|found| found.0.as_ref().ok()) {
                    mark(client, cluster).await;
                }
            }
            Err(error) => warn!("{error}"),
        }
    }
}

async fn mark(client: &Client, cluster: &ZueCluster) {
    let (Some(namespace), Some(before)) = (cluster.namespace(), &cluster.status) else { return };
    let why = "no operator runs: the log and its failover go on, but nobody reports their state";
    let conditions = status::unwatched(&before.conditions, "NobodyLooks", why, Timestamp::now());
    if conditions == before.conditions {
        return;
    }
    let api: Api<ZueCluster> = Api::namespaced(client.clone(), &namespace);
    // Of this version: whoever has written since knows more.
    let metadata = json!({ "resourceVersion": cluster.resource_version() });
    let patch = Patch::Merge(json!({ "metadata": metadata, "status": { "conditions": conditions } }));
    let (name, params) = (cluster.name_any(), manager());
    match within("mark the status as unknown", api.patch_status(&name, &params, &patch)).await {
        Ok(_) => {}
        Err(error) if matches!(error.code(), Some(404 | 409)) => {}
        Err(error) => warn!("{error}"),
    }
}
