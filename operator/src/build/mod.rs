//! From a cluster to the Kubernetes objects that make it up. Pure: the same cluster gives the same objects.

pub mod args;
mod backup;
mod beside;
mod config;
pub mod metadata;
mod network;
mod pod;
pub mod resources;
mod services;
#[cfg(test)]
mod tests;
mod workload;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::cluster::Cluster;

pub use metadata::{DATA_VOLUME, INSTANCE_LABEL, MANAGED_SELECTOR, REPLICA_LABEL, ROLE_LABEL, selector};
pub(crate) use metadata::{labels, meta};

/// All objects of a cluster that its resource alone determines.
#[derive(Clone, PartialEq, Debug)]
pub struct Objects {
    /// The pods' identity, which may do nothing.
    pub service_account: ServiceAccount,
    /// The nodes' configuration file.
    pub config_map: ConfigMap,
    /// For clients, for the leader, for the pods' names, and one for each replica where that is asked for.
    pub services: Vec<Service>,
    /// The pods and their volumes.
    pub stateful_set: StatefulSet,
}

/// Builds the objects of a cluster.
pub fn objects(cluster: &Cluster) -> Objects {
    let config = config::file(cluster);
    Objects {
        service_account: workload::service_account(cluster),
        config_map: config::map(cluster, &config),
        services: services::all(cluster),
        stateful_set: workload::stateful_set(cluster, &config),
    }
}

/// The budget that keeps pods from being evicted: none may go, or one at a time. Which of the two, only the state of the cluster tells.
pub fn disruption_budget(cluster: &Cluster, may_evict: bool) -> PodDisruptionBudget {
    workload::disruption_budget(cluster, may_evict)
}

/// The policy of who reaches the pods, where not everybody is let in. `operator_namespace` is where the operator's own pods are.
pub fn network_policy(cluster: &Cluster, operator_namespace: &str) -> Option<NetworkPolicy> {
    network::policy(cluster, operator_namespace)
}
