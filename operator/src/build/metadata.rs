//! The labels and the metadata that all objects of a cluster bear, and the selectors that find them.

use std::collections::BTreeMap;

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

/// The labels that select a cluster's pods. They can never change: a StatefulSet's selector is immutable.
pub fn selector(cluster: &Cluster) -> BTreeMap<String, String> {
    strings(&[("app.kubernetes.io/name", "zue"), (INSTANCE_LABEL, &cluster.name)])
}

pub(super) fn label_selector(cluster: &Cluster) -> LabelSelector {
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

pub(super) fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
