//! Makes the Kubernetes objects of a cluster be as built: server-side apply, then what is no longer wanted goes. A step that fails
//! does not keep the others from being done, but for the pods: they wait for what they use.

pub mod recovered;
pub mod volumes;

use std::fmt::Debug;
use std::time::Instant;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::build::{self, INSTANCE_LABEL, Objects, REPLICA_LABEL};
use crate::cluster::Cluster;
use crate::kubernetes::{Error, FIELD_MANAGER, owned, within};
use crate::plan::scale::{self, Spare};

/// The outcome.
#[derive(Debug, Default)]
pub struct Applied {
    /// The StatefulSet as the API server has it now.
    pub stateful_set: Option<StatefulSet>,
    /// True if a StatefulSet of this name belongs to someone else.
    pub is_anothers: bool,
    /// The number of pods that there were and that there are, where the last ones were let go.
    pub scaled_down: Option<(i32, i32)>,
    /// The error.
    pub errors: Vec<Error>,
}

/// Applies all objects of a cluster but the disruption budget, which its task keeps. Pods that need identities are neither made nor
/// changed where there are none, and `secured` says why. `are_grown` tells whether the volumes are as large as they are to be, `spare`
/// which pods may go.
pub async fn objects(
    client: &Client,
    cluster: &Cluster,
    secured: Result<(), String>,
    are_grown: bool,
    spare: Option<Spare>,
) -> Applied {
    let mut applied = Applied::default();
    let is_secured = secured.map_err(|why| applied.errors.push(Error::Unsecured(why))).is_ok();
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    // Not knowing how many pods there are, it might take some away that are needed.
    let found = read(&sets, &cluster.name, cluster).await;
    applied.is_anothers = matches!(found, Err(Error::NotOurs { .. } | Error::NotYetGone { .. }));
    let Some(found) = keep(&mut applied.errors, found) else { return applied };
    let has = found.as_ref().and_then(scale::pods_of);
    let wished = cluster;
    let cluster = &wished.clone().around(has);
    let Objects { service_account, config_map, services, mut stateful_set } = build::objects(cluster);
    let errors = &mut applied.errors;
    // What the pods use comes first. They must not run as another's ServiceAccount, or be replaced for a configuration that is not
    // there yet.
    let mut may_run = is_secured;
    may_run &= keep(errors, apply(client, cluster, &service_account).await).is_some();
    may_run &= keep(errors, apply(client, cluster, &config_map).await).is_some();
    for service in &services {
        let is_applied = keep(errors, apply(client, cluster, service).await).is_some();
        may_run &= is_applied || service.name_any() != cluster.nodes_service();
    }
    // New pods wait until strangers are kept from their ports; those that run need what else there is.
    may_run &= keep(errors, network_policy(client, cluster).await).is_some() || found.is_some();
    if may_run {
        build::resources::leave_unlimited(cluster, found.as_ref(), &mut stateful_set);
        // The StatefulSet is made anew around volumes that have grown.
        keep(errors, volumes::make_room(client, cluster, found.as_ref(), &mut stateful_set, are_grown).await);
        // What they are told to be reached by stays until they are gone.
        let keeps = has.map(|has| Spare::keeps(spare, has, Instant::now()));
        let replicas = i32::try_from(wished.clone().around(keeps).nodes).ok();
        stateful_set.spec.get_or_insert_default().replicas = replicas;
        applied.stateful_set = keep(errors, apply(client, cluster, &stateful_set).await);
        let has_now = applied.stateful_set.as_ref().and_then(scale::pods_of);
        applied.scaled_down = has.zip(has_now).filter(|(has, has_now)| has_now < has);
    }
    // Those of replicas that are only stopped keep their addresses.
    if cluster.recovery.is_none() {
        keep(errors, delete_orphans(client, cluster, &services).await);
    }
    applied
}

/// Lets one pod be evicted, or none.
pub async fn disruption_budget(client: &Client, cluster: &Cluster, may_evict: bool) -> Result<(), Error> {
    apply(client, cluster, &build::disruption_budget(cluster, may_evict)).await.map(drop)
}

/// Lets in who is to reach the pods; where everybody is, no policy says otherwise.
async fn network_policy(client: &Client, cluster: &Cluster) -> Result<(), Error> {
    if let Some(policy) = build::network_policy(cluster, client.default_namespace()) {
        return apply(client, cluster, &policy).await.map(drop);
    }
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &cluster.namespace);
    let name = &cluster.name;
    let found = within(format!("read NetworkPolicy {name}"), api.get_opt(name)).await?;
    if found.is_some_and(|found| owned::check(&found, cluster).is_ok()) {
        within(format!("delete NetworkPolicy {name}"), api.delete(name, &DeleteParams::default())).await?;
    }
    Ok(())
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
    let mut object = object.clone();
    let mut params = PatchParams::apply(FIELD_MANAGER);
    // What is the cluster's own is made right by force, and by its uid no other; what another makes meanwhile is not.
    if let Some(found) = read(&api, &name, cluster).await? {
        object.meta_mut().uid = found.uid();
        params = params.force();
    }
    within(format!("apply {} {name}", K::kind(&())), api.patch(&name, &params, &Patch::Apply(object))).await
}

/// The object of this name, if there is one; an error if it belongs to someone else.
async fn read<K>(api: &Api<K>, name: &str, cluster: &Cluster) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = within(format!("read {} {name}", K::kind(&())), api.get_opt(name)).await?;
    if let Some(found) = &found {
        owned::check(found, cluster)?;
    }
    Ok(found)
}

/// The Services of single replicas that are not asked for any more.
async fn delete_orphans(client: &Client, cluster: &Cluster, wanted: &[Service]) -> Result<(), Error> {
    let api: Api<Service> = Api::namespaced(client.clone(), &cluster.namespace);
    let of_replicas = ListParams::default().labels(&format!("{INSTANCE_LABEL}={},{REPLICA_LABEL}", cluster.name));
    for found in within("list Services", api.list(&of_replicas)).await? {
        let name = found.name_any();
        if owned::check(&found, cluster).is_ok() && !wanted.iter().any(|service| service.name_any() == name) {
            within(format!("delete Service {name}"), api.delete(&name, &DeleteParams::default())).await?;
        }
    }
    Ok(())
}
