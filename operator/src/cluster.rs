//! A ZueCluster as the rest of the operator knows it: checked once, with its names and addresses worked out.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use zue_controller::{DETECTION_TIME_MAX, DETECTION_TIME_MIN, NodeAddress, STANDBY_AFTER_MAX, STANDBY_AFTER_MIN};
use zue_core::control::{Policy, Wish};
use zue_settings::Time;

use crate::crd::security::TlsMode;
use crate::crd::status::Recovery;
use crate::crd::{Leader, LeaderPolicy, ZueCluster, ZueClusterSpec};

/// The port of the log, for clients.
pub const CLIENT_PORT: i32 = 9440;
/// The port of control and replication.
pub const PEER_PORT: i32 = 9441;
/// The port of metrics and health.
pub const METRICS_PORT: i32 = 9442;

/// The client whose certificate is mounted into the pods. None of those that have access can have this name: theirs have no dots.
pub const PODS_CLIENT: &str = "pods.zue.io";

/// Set on a ZueCluster to anything else than before, it has all pods restarted, one by one, the leader last.
pub const RESTART_ANNOTATION: &str = "zue.io/restart";
/// Set to `"true"` on a ZueCluster, it keeps the operator from touching anything of it.
pub const PAUSED_ANNOTATION: &str = "zue.io/paused";
/// Longer tokens are cut.
const RESTART_CHARS_MAX: usize = 100;

/// The replicas there may be at most.
pub const REPLICAS_MAX: u32 = 9;
/// Pod names, and the hash that a StatefulSet adds to its own, must fit into labels of 63 characters.
const NAME_BYTES_MAX: usize = 40;

/// A checked ZueCluster.
#[derive(Clone, PartialEq, Debug)]
pub struct Cluster {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The uid: which one of that name.
    pub uid: String,
    /// The number of times its spec was changed.
    pub generation: Option<i64>,
    /// The reference of the objects made for it.
    pub owner: OwnerReference,
    /// The nodes' image.
    pub image: String,
    /// The wishes of its owner.
    pub spec: ZueClusterSpec,
    /// The mode of TLS for now: what is written down, not what is wished for.
    pub tls_mode: TlsMode,
    /// With which token the pods were asked to restart last.
    pub restart: Option<String>,
    /// True once the log has begun, as it is written down.
    pub has_begun: bool,
    /// The log of which replica begins a new cluster, while no other is to run.
    pub recovery: Option<Recovery>,
    /// The number of pods that there are to be for now: as many as are asked for, and those whose replicas still have a say.
    pub nodes: u32,
}

/// A resource that the API server should have refused: one from before the present CRD, or one without it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Invalid {
    /// No namespace, name or uid: not from an API server.
    #[error("metadata.{0} is missing")]
    Missing(&'static str),
    /// The name fits into no label.
    #[error(
        "metadata.name is {bytes} bytes long; at most {NAME_BYTES_MAX} are allowed, and a name cannot be changed: make a ZueCluster \
         with a shorter one"
    )]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many or too few.
    #[error("spec.replicas is {0}; 1 to {REPLICAS_MAX} are allowed")]
    Replicas(u32),
    /// Not a majority, or more than there are.
    #[error(
        "spec.quorum is {quorum}; it must be more than half of the {replicas} replicas, and no more than there are"
    )]
    Quorum {
        /// The wish.
        quorum: u32,
        /// The number that there are.
        replicas: u32,
    },
    /// A setting that a schema cannot bound.
    #[error("spec.config.{0}")]
    Settings(String),
    /// The same of backups.
    #[error("spec.{0}")]
    Backup(String),
    /// Too short or too long.
    #[error("spec.leader.detectionTime is {time}; it must be from {min} to {max}")]
    DetectionTime {
        /// The wish.
        time: Time,
        /// The least there may be, with this heartbeat.
        min: Time,
        /// The most.
        max: Time,
    },
    /// Too short or too long.
    #[error("spec.leader.standbyAfter is {time}; it must be from {min} to {max}")]
    StandbyAfter {
        /// The wish.
        time: Time,
        /// The least there may be.
        min: Time,
        /// The most.
        max: Time,
    },
    /// No replica has that ordinal.
    #[error("spec.leader.ordinal is {ordinal}; there are {replicas} replicas, counted from 0")]
    LeaderOrdinal {
        /// The wish.
        ordinal: u32,
        /// The number that there are.
        replicas: u32,
    },
}

impl Cluster {
    /// Its namespace and name.
    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    /// The checked cluster; `default_image` where the resource names none.
    pub fn new(resource: &ZueCluster, default_image: &str) -> Result<Self, Invalid> {
        let cluster = Self::unchecked(resource, default_image)?;
        check(&cluster.spec)?;
        Ok(cluster)
    }

    /// The same without checking its settings: its name and owner are right even if those are not.
    pub fn unchecked(resource: &ZueCluster, default_image: &str) -> Result<Self, Invalid> {
        let mut spec = resource.spec.clone();
        spec.config.replication = spec.config.replication.with_detection_time(spec.leader.detection_time.0);
        let name = resource.metadata.name.clone().ok_or(Invalid::Missing("name"))?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Invalid::NameTooLong { bytes: name.len() });
        }
        let token = resource.annotations().get(RESTART_ANNOTATION);
        let recovery = resource.recovery();
        Ok(Self {
            namespace: resource.namespace().ok_or(Invalid::Missing("namespace"))?,
            name,
            uid: resource.uid().ok_or(Invalid::Missing("uid"))?,
            generation: resource.metadata.generation,
            owner: resource.controller_owner_ref(&()).ok_or(Invalid::Missing("uid"))?,
            image: spec.image.clone().unwrap_or_else(|| default_image.to_owned()),
            has_begun: recovery.is_some() || resource.status.as_ref().is_some_and(|status| status.cluster_id.is_some()),
            tls_mode: resource.status.as_ref().and_then(|status| status.tls_mode).unwrap_or(TlsMode::Off),
            restart: token.map(|token| token.chars().take(RESTART_CHARS_MAX).collect()),
            nodes: if recovery.is_some() { 1 } else { spec.replicas.min(REPLICAS_MAX) },
            recovery,
            spec,
        })
    }

    /// The same, around a StatefulSet that has so many pods: they go only when nothing depends on them.
    #[must_use]
    pub fn around(mut self, pods: Option<i32>) -> Self {
        let pods = pods.and_then(|pods| u32::try_from(pods).ok()).unwrap_or_default();
        if self.recovery.is_none() {
            self.nodes = pods.min(REPLICAS_MAX).max(self.spec.replicas);
        }
        self
    }

    /// The wish for the control logic.
    pub fn wish(&self) -> Wish {
        let Leader { policy, ordinal, preferred_zone: _, detection_time, standby_after } = self.spec.leader;
        let policy = match policy {
            LeaderPolicy::Automatic => Policy::Automatic,
            LeaderPolicy::Static => Policy::Static,
        };
        let detection_ms = detection_time.millis();
        let all = (as_index(self.spec.replicas), as_index(ordinal), self.spec.quorum);
        let (replicas, ordinal, quorum) = if self.recovery.is_some() { (1, 0, None) } else { all };
        Wish {
            replicas,
            policy,
            ordinal,
            switch_to: None,
            detection_ms,
            quorum,
            standby_after_ms: Some(standby_after.millis()),
        }
    }

    /// The ordinals of the pods.
    pub fn ordinals(&self) -> std::ops::Range<u32> {
        let first = self.recovery.as_ref().and_then(|recovery| recovery.ordinal(&self.name));
        first.map_or(0..self.nodes, |first| first..first + 1)
    }

    /// The name of a replica and its pod.
    pub fn pod(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// The names of all pods, by ordinal.
    pub fn pods(&self) -> Vec<String> {
        self.ordinals().map(|ordinal| self.pod(ordinal)).collect()
    }

    /// The headless Service that gives each pod its name.
    pub fn nodes_service(&self) -> String {
        format!("{}-nodes", self.name)
    }

    /// The Service of the leader.
    pub fn leader_service(&self) -> String {
        format!("{}-leader", self.name)
    }

    /// The Secret of the nodes: their certificate, whom they believe, and who has access.
    pub fn tls_secret(&self) -> String {
        format!("{}-tls", self.name)
    }

    /// The Secret with what a client shows.
    pub fn client_secret(&self, client: &str) -> String {
        format!("{}-client-{client}", self.name)
    }

    /// host:port of control and replication, of a pod. In full: whoever looks it up asks once.
    fn peer_address_of(&self, pod: &str, services_suffix: &str) -> String {
        format!("{pod}.{}.{}{services_suffix}:{PEER_PORT}", self.nodes_service(), self.namespace)
    }

    /// host:port that clients are told, of a pod and ordinal named in any way (the kubelet's `$(POD_NAME)` included).
    pub fn client_address_of(&self, pod: &str, ordinal: &str) -> String {
        match &self.spec.external_access {
            None => format!("{pod}.{}.{}.svc:{CLIENT_PORT}", self.nodes_service(), self.namespace),
            Some(access) => access
                .address_template
                .replace("{pod}", pod)
                .replace("{ordinal}", ordinal)
                .replace("{namespace}", &self.namespace)
                .replace("{cluster}", &self.name),
        }
    }

    /// The addresses of all replicas, by ordinal. This operator dials the IPs that it knows of pods: a name follows a pod that
    /// was made anew only seconds later. The nodes are told them, too, beside the names.
    pub fn addresses(&self, services_suffix: &str, ip_of: impl Fn(&str) -> Option<IpAddr>) -> Vec<NodeAddress> {
        let address = |ordinal: u32| {
            let name = self.pod(ordinal);
            let last_address = ip_of(&name).zip(u16::try_from(PEER_PORT).ok()).map(SocketAddr::from);
            NodeAddress {
                peer_address: self.peer_address_of(&name, services_suffix),
                dial_address: last_address.map(|at| at.to_string()),
                last_address,
                replica: None,
                client_address: self.client_address_of(&name, &ordinal.to_string()),
                name,
            }
        };
        self.ordinals().map(address).collect()
    }
}

/// The fault that the API server should have refused.
fn check(spec: &ZueClusterSpec) -> Result<(), Invalid> {
    let replicas = spec.replicas;
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        return Err(Invalid::Replicas(replicas));
    }
    if let Some(quorum) = spec.quorum.filter(|quorum| *quorum <= replicas / 2 || *quorum > replicas) {
        return Err(Invalid::Quorum { quorum, replicas });
    }
    if spec.leader.ordinal >= replicas {
        return Err(Invalid::LeaderOrdinal { ordinal: spec.leader.ordinal, replicas });
    }
    let (min, max) = (detection_time_min(spec.config.replication.heartbeat_interval), Time(DETECTION_TIME_MAX));
    let time = spec.leader.detection_time;
    if time < min || time > max {
        return Err(Invalid::DetectionTime { time, min, max });
    }
    let (min, max) = (Time(STANDBY_AFTER_MIN), Time(STANDBY_AFTER_MAX));
    let time = spec.leader.standby_after;
    if time < min || time > max {
        return Err(Invalid::StandbyAfter { time, min, max });
    }
    spec.config.validate().map_err(|wrong| Invalid::Settings(wrong.to_string()))?;
    spec.backup.as_ref().map_or(Ok(()), |backup| backup.validate().map_err(|error| Invalid::Backup(error.to_string())))
}

/// Tells whether the operator is told to touch nothing.
pub fn is_paused(resource: &ZueCluster) -> bool {
    resource.annotations().get(PAUSED_ANNOTATION).is_some_and(|value| value == "true")
}

/// Shorter, and a leader with nothing to say would count as lost.
fn detection_time_min(heartbeat_interval: Time) -> Time {
    Time(DETECTION_TIME_MIN.max(heartbeat_interval.0.saturating_mul(3)))
}

/// An ordinal is at most 8.
fn as_index(ordinal: u32) -> usize {
    usize::try_from(ordinal).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::crd::ExternalAccess;

    /// A resource as the API server would hand it out.
    pub(crate) fn resource(spec: &str) -> ZueCluster {
        let spec: ZueClusterSpec = serde_yaml::from_str(spec).unwrap();
        let mut resource = ZueCluster::new("orders", spec);
        resource.metadata.namespace = Some("shop".to_owned());
        resource.metadata.uid = Some("u-1".to_owned());
        resource.metadata.generation = Some(4);
        resource
    }

    pub(crate) fn cluster(spec: &str) -> Cluster {
        Cluster::new(&resource(spec), "zue-node:test").unwrap()
    }

    #[test]
    fn pods_that_are_to_go_stay_until_they_are_let_go() {
        let cluster = cluster("replicas: 3");
        let of = |pods| cluster.clone().around(pods);
        assert_eq!([None, Some(1), Some(5), Some(-1), Some(99)].map(|pods| of(pods).nodes), [3, 3, 5, 3, 9]);
        assert_eq!((of(Some(5)).pods().len(), of(Some(5)).wish().replicas), (5, 3));
    }

    #[test]
    fn an_empty_spec_is_three_replicas_led_by_the_first() {
        let cluster = cluster("{}");
        assert_eq!(cluster.pods(), ["orders-0", "orders-1", "orders-2"]);
        let wish = Wish {
            replicas: 3,
            policy: Policy::Automatic,
            ordinal: 0,
            switch_to: None,
            detection_ms: 1000,
            quorum: None,
            standby_after_ms: Some(1000),
        };
        assert_eq!(cluster.wish(), wish);
        assert_eq!(cluster.image, "zue-node:test");
        assert_eq!(cluster.spec.storage.size, "10Gi");
        let ip = |name: &str| (name == "orders-0").then_some(IpAddr::from([10, 244, 1, 7]));
        let first = &cluster.addresses(".svc.cluster.local", ip)[0];
        assert_eq!(first.dial_address.as_deref(), Some("10.244.1.7:9441"));
        assert_eq!(cluster.addresses(".svc.cluster.local", ip)[1].dial_address, None);
        assert_eq!(first.last_address.map(|at| at.to_string()).as_deref(), Some("10.244.1.7:9441"), "handed over");
        assert_eq!(first.peer_address, "orders-0.orders-nodes.shop.svc.cluster.local:9441");
        assert_eq!(first.client_address, "orders-0.orders-nodes.shop.svc:9440");
    }

    #[test]
    fn a_static_leader_and_the_detection_time_are_taken_from_the_spec() {
        let wish = cluster("leader: {policy: Static, ordinal: 2, detectionTime: 3s}").wish();
        assert_eq!((wish.policy, wish.ordinal, wish.detection_ms), (Policy::Static, 2, 3000));
    }

    #[test]
    fn the_address_template_names_each_replica() {
        let mut cluster = cluster("{}");
        let address_template = "{pod}.{cluster}.{namespace}.example.com:3094{ordinal}".to_owned();
        cluster.spec.external_access = Some(ExternalAccess { address_template, per_replica_services: None });
        assert_eq!(cluster.addresses(".svc", |_| None)[2].client_address, "orders-2.orders.shop.example.com:30942");
        assert_eq!(cluster.addresses(".svc", |_| None)[2].peer_address, "orders-2.orders-nodes.shop.svc:9441");
    }

    #[test]
    fn what_the_api_server_should_have_refused_is_refused_with_its_field() {
        let refused = |spec: &str| Cluster::new(&resource(spec), "i").unwrap_err().to_string();
        assert!(refused("replicas: 10").starts_with("spec.replicas is 10"));
        assert!(refused("{replicas: 4, quorum: 2}").starts_with("spec.quorum is 2"));
        assert!(refused("{replicas: 3, quorum: 4}").starts_with("spec.quorum is 4"));
        assert!(refused("leader: {ordinal: 3}").starts_with("spec.leader.ordinal is 3"));
        let short = refused("leader: {detectionTime: 299ms}");
        assert_eq!(short, "spec.leader.detectionTime is 299ms; it must be from 300ms to 1m");
        let short = refused("leader: {standbyAfter: 199ms}");
        assert_eq!(short, "spec.leader.standbyAfter is 199ms; it must be from 200ms to 1h");
        let heartbeat = |spec: &str| {
            Cluster::new(&resource(spec), "i").unwrap().spec.config.replication.heartbeat_interval.to_string()
        };
        assert_eq!(heartbeat("leader: {detectionTime: 1s}"), "200ms");
        assert_eq!(heartbeat("leader: {detectionTime: 300ms}"), "100ms");
        let slow = "{leader: {detectionTime: 2s}, config: {replication: {heartbeatInterval: 1s, lagTimeMax: 10s}}}";
        assert!(refused(slow).ends_with("from 3s to 1m"));
        let segments = refused("config: {log: {segmentBytesMax: 1KiB}}");
        assert!(segments.starts_with("spec.config.log.segmentBytesMax is 1KiB"), "{segments}");
    }
}
