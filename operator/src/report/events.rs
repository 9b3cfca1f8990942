//! Kubernetes Events of a ZueCluster. Each decision is one, with its own words; a cluster that flaps does not flood the API server.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Resource as _};
use tracing::{info, warn};

use crate::cluster::Cluster;
use crate::crd::ZueCluster;
use crate::kubernetes::{FIELD_MANAGER, within};
use crate::plan::event::ClusterEvent;

/// So many Events may come at once …
const BURST_MAX: u32 = 25;
/// … and then one in this time.
const PERIOD: Duration = Duration::from_secs(4);
/// Kubernetes refuses longer notes.
const NOTE_CHARS_MAX: usize = 1000;

/// Tells Events of one cluster.
#[derive(Debug)]
pub struct EventRecorder {
    api: Api<Event>,
    cluster: ObjectReference,
    instance: String,
    tokens: Tokens,
}

impl EventRecorder {
    /// `instance` is the name of the operator's pod.
    pub fn new(client: Client, cluster: &Cluster, instance: &str) -> Self {
        let reference = ObjectReference {
            api_version: Some(ZueCluster::api_version(&()).into_owned()),
            kind: Some(ZueCluster::kind(&()).into_owned()),
            name: Some(cluster.name.clone()),
            namespace: Some(cluster.namespace.clone()),
            uid: Some(cluster.uid.clone()),
            ..Default::default()
        };
        Self {
            api: Api::namespaced(client, &cluster.namespace),
            cluster: reference,
            instance: instance.to_owned(),
            tokens: Tokens::new(Instant::now()),
        }
    }

    /// Logs it and makes an Event of it. An Event that can't be made is lost: it is a report, not a record.
    pub async fn tell(&mut self, event: &ClusterEvent) {
        let ClusterEvent { warning, reason, note, pod } = event;
        let pod_name = pod.as_deref().unwrap_or_default();
        if *warning {
            warn!(reason, pod = pod_name, "{note}");
        } else {
            info!(reason, pod = pod_name, "{note}");
        }
        if !self.tokens.take(Instant::now()) {
            return;
        }
        let event = self.event(event, Timestamp::now());
        if let Err(error) = within("make an Event", self.api.create(&PostParams::default(), &event)).await {
            warn!("{error}");
        }
    }

    fn event(&self, event: &ClusterEvent, now: Timestamp) -> Event {
        let ClusterEvent { warning, reason, note, pod } = event.clone();
        let name = self.cluster.name.clone().unwrap_or_default();
        let related = pod.map(|pod| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod),
            namespace: self.cluster.namespace.clone(),
            ..Default::default()
        });
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: self.cluster.namespace.clone(),
                ..Default::default()
            },
            event_time: Some(MicroTime(now)),
            action: Some(reason.to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(note.chars().take(NOTE_CHARS_MAX).collect()),
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(self.cluster.clone()),
            related,
            reporting_controller: Some(format!("zue.io/{FIELD_MANAGER}")),
            reporting_instance: Some(self.instance.clone()),
            ..Default::default()
        }
    }
}

/// A bucket of tokens that fills up again.
#[derive(Debug)]
struct Tokens {
    left: u32,
    filled: Instant,
}

impl Tokens {
    fn new(now: Instant) -> Self {
        Self { left: BURST_MAX, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST_MAX && now.duration_since(self.filled) >= PERIOD {
            self.left += 1;
            self.filled += PERIOD;
        }
        if self.left == BURST_MAX {
            self.filled = now;
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or_default();
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_then_let_through_slowly() {
        let start = Instant::now();
        let mut tokens = Tokens::new(start);
        let taken = (0..100).filter(|_| tokens.take(start)).count();
        assert_eq!(taken, 25);
        assert!(!tokens.take(start + Duration::from_secs(3)));
        assert!(tokens.take(start + Duration::from_secs(5)));
        assert!(!tokens.take(start + Duration::from_secs(5)));
        let later = start + Duration::from_secs(1000);
        assert_eq!((0..100).filter(|_| tokens.take(later)).count(), 25);
    }
}
