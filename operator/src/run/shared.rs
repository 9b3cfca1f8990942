//! Means of the tasks of all clusters.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use zue_controller::NodeAddress;

use crate::build::INSTANCE_LABEL;
use crate::cluster::{Cluster, REPLICAS_MAX};
use crate::metrics::Metrics;
use crate::observe::pods;
use crate::observe::watched::{Clusters, Guarded};

/// Means that every task uses.
#[derive(Clone)]
pub struct Shared {
    /// The way to the API server.
    pub client: Client,
    /// The resources, as watched.
    pub clusters: Clusters,
    /// The nodes' pods, as watched.
    pub pods: Store<Pod>,
    /// True if this operator is the one that acts.
    pub acts: watch::Receiver<bool>,
    /// The queue in which a reconciliation is asked for.
    pub again: mpsc::Sender<ObjectRef<Guarded>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The image of clusters that name none.
    pub default_image: Arc<str>,
    /// The name of the operator's own pod.
    pub instance: Arc<str>,
    /// The part that follows the name of a Service in full, from a dot on.
    pub services_suffix: Arc<str>,
}

impl Shared {
    /// The resource as it is now; none once it is gone, though another may bear its name.
    pub(super) fn resource_of(&self, cluster: &Cluster) -> Option<Arc<Guarded>> {
        let found = self.clusters.get(&ObjectRef::new(&cluster.name).within(&cluster.namespace))?;
        Some(found).filter(|found| found.uid().as_ref() == Some(&cluster.uid))
    }

    /// Its pods, looked up by every name that one may have: of many clusters, none looks through the pods of all.
    pub(super) fn pods_of(&self, cluster: &Cluster) -> Vec<Arc<Pod>> {
        let is_its = |pod: &Arc<Pod>| pod.labels().get(INSTANCE_LABEL) == Some(&cluster.name);
        let named = |ordinal| self.pods.get(&ObjectRef::new(&cluster.pod(ordinal)).within(&cluster.namespace));
        (0..REPLICAS_MAX).filter_map(named).filter(is_its).collect()
    }

    pub(super) fn addresses_of(&self, cluster: &Cluster) -> Vec<NodeAddress> {
        let pods = self.pods_of(cluster);
        cluster.addresses(&self.services_suffix, |name| pods::ip_of(&pods, name))
    }

    /// The cluster as its resource says now. An invalid one leaves the cluster as it was; the reconciliation says so.
    pub(super) fn renewed(&self, cluster: Cluster, found: &Guarded) -> Cluster {
        let Ok(resource) = &found.0 else { return cluster };
        let is_known = resource.metadata.generation == cluster.generation && resource.recovery() == cluster.recovery;
        let newer = (!is_known).then(|| Cluster::new(resource, &self.default_image).ok()).flatten();
        newer.unwrap_or(cluster)
    }
}
