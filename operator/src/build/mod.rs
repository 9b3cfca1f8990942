//! From a cluster to the Kubernetes objects that make it up. Pure: the same cluster gives the same objects.

pub mod args;
mod backup;
mod config;
mod network;
mod pod;
pub mod resources;
mod services;
#[cfg(test)]
mod tests;
mod workload;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::cluster::Cluster;

/// The label that says what a pod does; kept by the operator on the pods alone, never in a template or in a StatefulSet's selector.
pub const ROLE_LABEL: &str = "zue.io/role";
/// Marks the Services that belong to one replica each.
pub const REPLICA_LABEL: &str = "zue.io/replica";
/// The cluster that an object belongs to.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Selects everything the operator made.
pub const MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by=zue-operator";

/// The volume claims' name in the template; a claim is then called `data-<pod>`.
pub const DATA_VOLUME: &str = "data";

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

/// The labels that select a cluster's pods. They can never change: a StatefulSet's selector is immutable.
pub fn selector(cluster: &Cluster) -> BTreeMap<String, String> {
    strings(&[("app.kubernetes.io/name", "zue"), (INSTANCE_LABEL, &cluster.name)])
}

fn label_selector(cluster: &Cluster) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(cluster)), match_expressions: None }
}

/// The labels of every object that is made for a cluster.
pub(crate) fn labels(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut labels = selector(cluster);
    labels
        .extend(strings(&[("app.kubernetes.io/component", "node"), ("app.kubernetes.io/managed-by", "zue-operator")]));
    labels
}

pub(crate) fn meta(cluster: &Cluster, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels(cluster)),
        owner_references: Some(vec![cluster.owner.clone()]),
        ..Default::default()
    }
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
