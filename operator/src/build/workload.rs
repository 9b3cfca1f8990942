//! The StatefulSet with its volumes, and what stands beside it.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetOrdinals, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, ServiceAccount, VolumeResourceRequirements,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata::{DATA_VOLUME, label_selector, meta};
use super::pod;
use crate::cluster::Cluster;

pub(super) fn service_account(cluster: &Cluster) -> ServiceAccount {
    let annotations = cluster.spec.backup.as_ref().map(|backup| backup.service_account_annotations.clone());
    let annotations = annotations.filter(|annotations| !annotations.is_empty());
    ServiceAccount {
        metadata: ObjectMeta { annotations, ..meta(cluster, &cluster.name) },
        automount_service_account_token: Some(false),
        ..Default::default()
    }
}

pub(super) fn disruption_budget(cluster: &Cluster, may_evict: bool) -> PodDisruptionBudget {
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(may_evict.into())),
        selector: Some(label_selector(cluster)),
        // A pod that is not ready may never be: it must not keep a node from being drained for ever.
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..Default::default()
    };
    PodDisruptionBudget { metadata: meta(cluster, &cluster.name), spec: Some(spec), status: None }
}

/// The operator replaces the pods itself (`OnDelete`), and they start together: a new cluster needs all of them.
pub(super) fn stateful_set(cluster: &Cluster, config: &str) -> StatefulSet {
    let first = i32::try_from(cluster.ordinals().start).ok().filter(|first| *first > 0);
    let spec = StatefulSetSpec {
        replicas: i32::try_from(cluster.nodes).ok(),
        ordinals: first.map(|start| StatefulSetOrdinals { start: Some(start) }),
        service_name: Some(cluster.nodes_service()),
        pod_management_policy: Some("Parallel".to_owned()),
        update_strategy: Some(StatefulSetUpdateStrategy { type_: Some("OnDelete".to_owned()), rolling_update: None }),
        persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
            when_deleted: Some(cluster.spec.storage.when_deleted.name().to_owned()),
            when_scaled: Some("Retain".to_owned()),
        }),
        revision_history_limit: Some(3),
        selector: label_selector(cluster),
        template: pod::template(cluster, config),
        volume_claim_templates: Some(vec![claim(cluster)]),
        ..Default::default()
    };
    StatefulSet { metadata: meta(cluster, &cluster.name), spec: Some(spec), status: None }
}

/// The claim of a volume. It has no labels: it outlives its cluster, and the next cluster of that name takes it over.
fn claim(cluster: &Cluster) -> PersistentVolumeClaim {
    let size = Quantity(cluster.spec.storage.size.clone());
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: cluster.spec.storage.storage_class_name.clone(),
        resources: Some(VolumeResourceRequirements {
            requests: Some([("storage".to_owned(), size)].into()),
            limits: None,
        }),
        volume_mode: Some("Filesystem".to_owned()),
        ..Default::default()
    };
    let metadata = ObjectMeta { name: Some(DATA_VOLUME.to_owned()), ..Default::default() };
    PersistentVolumeClaim { metadata, spec: Some(spec), status: None }
}
