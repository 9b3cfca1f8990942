//! In which zone each pod runs: as its own label says, which newer versions of Kubernetes put there, or that of its node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::{Client, ResourceExt as _};

use crate::kubernetes::{Error, within};
use crate::observe::pods::Zones;

const ZONE: &str = "topology.kubernetes.io/zone";
/// A node's zone is looked up again after this: another machine may bear its name.
const KNOWN_FOR: Duration = Duration::from_hours(1);

/// The zones of nodes, by name, and when they were looked up.
#[derive(Debug, Default)]
pub struct NodeZones(Mutex<HashMap<String, (Option<String>, Instant)>>);

impl NodeZones {
    /// The zones of these pods; of those that are not known yet, what kept them from being looked up.
    pub async fn of(&self, client: &Client, pods: &[Arc<Pod>]) -> (Zones, Option<Error>) {
        let (mut zones, mut problem) = (Zones::new(), None);
        for pod in pods {
            let found = match (pod.labels().get(ZONE), pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref())) {
                (Some(zone), _) => Ok(Some(zone.clone())),
                (None, Some(node)) => self.of_node(client, node).await,
                (None, None) => Ok(None),
            };
            match found {
                Ok(zone) => zones.extend(zone.map(|zone| (pod.name_any(), zone))),
                Err(error) => problem = Some(error),
            }
        }
        (zones, problem)
    }

    async fn of_node(&self, client: &Client, node: &str) -> Result<Option<String>, Error> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_known = |at: &Instant| now.saturating_duration_since(*at) < KNOWN_FOR;
        if let Some((zone, _)) = lock().get(node).filter(|(_, at)| is_known(at)) {
            return Ok(zone.clone());
        }
        let nodes: Api<Node> = Api::all(client.clone());
        let found = within(format!("read the zone of node {node}"), nodes.get_opt(node)).await?;
        let zone = found.and_then(|found| found.labels().get(ZONE).cloned());
        let mut known = lock();
        known.retain(|_, (_, at)| is_known(at));
        known.insert(node.to_owned(), (zone.clone(), now));
        Ok(zone)
    }
}
