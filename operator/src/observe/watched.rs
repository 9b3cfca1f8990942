//! Objects that the operator watches, in memory.

use futures::StreamExt as _;
use futures::future::ready;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use tracing::warn;

use crate::build::MANAGED_SELECTOR;
use crate::crd::ZueCluster;

/// A ZueCluster, or why it can't be read: one that is broken must not keep the others from being seen.
pub type Guarded = DeserializeGuard<ZueCluster>;

/// All of them.
pub type Clusters = Store<Guarded>;

/// Selects the objects that the operator made.
pub fn managed() -> watcher::Config {
    watcher::Config::default().labels(MANAGED_SELECTOR)
}

/// Watches the nodes' pods, until the program ends.
pub fn pods(api: Api<Pod>) -> (Store<Pod>, impl Future<Output = ()>) {
    let (reader, writer) = reflector::store();
    let watching = watcher(api, managed())
        .default_backoff()
        .modify(|pod| {
            pod.metadata.managed_fields = None;
            let node_name = pod.spec.take().and_then(|spec| spec.node_name);
            pod.spec = Some(PodSpec { node_name, ..PodSpec::default() });
        })
        .reflect(writer)
        .applied_objects()
        .for_each(|pod| {
            if let Err(error) = pod {
                warn!("watching pods: {error}");
            }
            ready(())
        });
    (reader, watching)
}
