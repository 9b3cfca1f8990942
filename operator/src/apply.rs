//! Makes the Kubernetes objects of a cluster be as built: server-side apply, then what is no longer wanted goes. A step that fails
//! does not keep the others from being done.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::build::{self, INSTANCE_LABEL, Objects, REPLICA_LABEL};
use crate::cluster::Cluster;
use crate::kubernetes::{Error, FIELD_MANAGER, within};
use crate::volumes;

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// The StatefulSet as the API server has it now.
    pub stateful_set: Option<StatefulSet>,
    /// The size that the volumes were grown to.
    pub grown_to: Option<String>,
    /// What failed.
    pub errors: Vec<Error>,
}

/// Applies all objects of a cluster.
pub async fn objects(client: &Client, cluster: &Cluster) -> Applied {
    let mut applied = Applied::default();
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    let cluster = match within("read the StatefulSet", sets.get_opt(&cluster.name)).await {
        Ok(found) => &cluster.clone().around(found.and_then(|set| set.spec?.replicas)),
        // Not knowing how many pods there are, it might take some away that are needed.
        Err(error) => {
            applied.errors.push(error);
            return applied;
        }
    };
    let Objects { service_account, config_map, services, disruption_budget, mut stateful_set } =
        build::objects(cluster);
    // First of all: a full disk must not block its own cure.
    match volumes::grow(client, cluster, &mut stateful_set).await {
        Ok(grown_to) => applied.grown_to = grown_to,
        Err(error) => applied.errors.push(error),
    }
    let errors = &mut applied.errors;
    keep(errors, apply(client, cluster, &service_account).await);
    keep(errors, apply(client, cluster, &config_map).await);
    for service in &services {
        keep(errors, apply(client, cluster, service).await);
    }
    keep(errors, apply(client, cluster, &disruption_budget).await);
    applied.stateful_set = keep(errors, apply(client, cluster, &stateful_set).await);
    keep(errors, delete_orphans(client, cluster, &services).await);
    applied
}

fn keep<T>(errors: &mut Vec<Error>, result: Result<T, Error>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

async fn apply<K>(client: &Client, cluster: &Cluster, object: &K) -> Result<K, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), &cluster.namespace);
    let name = object.name_any();
    let what = format!("apply {} {name}", K::kind(&()));
    within(what, api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object))).await
}

/// The Services of single replicas that are not asked for any more.
async fn delete_orphans(client: &Client, cluster: &Cluster, wanted: &[Service]) -> Result<(), Error> {
    let api: Api<Service> = Api::namespaced(client.clone(), &cluster.namespace);
    let of_replicas = ListParams::default().labels(&format!("{INSTANCE_LABEL}={},{REPLICA_LABEL}", cluster.name));
    for found in within("list Services", api.list(&of_replicas)).await? {
        let name = found.name_any();
        let is_ours = found.owner_references().contains(&cluster.owner);
        if is_ours && !wanted.iter().any(|service| service.name_any() == name) {
            within(format!("delete Service {name}"), api.delete(&name, &DeleteParams::default())).await?;
        }
    }
    Ok(())
}
