//! The ZueCluster resource, `zue.io/v1alpha1`: what its owner asks for. The status is in [`status`], the CRD itself is made by
//! `generate`. What the API server can check is checked by it: ranges, patterns and rules stand at the fields.

pub mod backup;
pub mod bounds;
mod generate;
pub mod on_demand;
pub mod security;
mod settings;
pub mod status;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zue_controller::{DETECTION_TIME_DEFAULT, STANDBY_AFTER_DEFAULT};
use zue_settings::Time;

use backup::{Backup, Bootstrap};
pub use generate::{crd, crd_of_backups, schema, schema_of_backups, yaml};
use security::{Access, Monitoring, Tls};
pub use settings::NodeSettings;
pub use status::ZueClusterStatus;

/// A replicated append-only log: its replicas, their storage, and its leader.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, PartialEq, Debug)]
#[kube(
    group = "zue.io",
    version = "v1alpha1",
    kind = "ZueCluster",
    doc = "A replicated append-only log: one leader, one order.",
    namespaced,
    shortname = "zue",
    category = "zue",
    status = "ZueClusterStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "True while appends are committed"
    ),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader", description = "The leader's pod"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", description = "The newest epoch"),
    printcolumn(
        name = "ISR",
        type_ = "integer",
        json_path = ".status.inSyncReplicas",
        description = "Voters in sync, the leader included"
    ),
    printcolumn(
        name = "Lag",
        type_ = "integer",
        json_path = ".status.lagRecords",
        description = "Records that the slowest follower is behind"
    ),
    printcolumn(
        name = "Attention",
        type_ = "string",
        json_path = ".status.attention",
        description = "Conditions that a person may have to look at"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Commit end",
        type_ = "integer",
        json_path = ".status.commitEnd",
        description = "The end of the committed records",
        priority = 1
    ),
    printcolumn(
        name = "Backup",
        type_ = "date",
        json_path = ".status.backup.time",
        description = "The age of the newest backup",
        priority = 1
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", priority = 1),
    printcolumn(
        name = "Elected by",
        type_ = "string",
        json_path = ".status.electedBy",
        description = "The elector of the leader",
        priority = 1
    ),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "The message of the condition Ready",
        priority = 1
    ),
    // One that is not changed is no matter: a status that somebody wrote must not keep the operator from writing another.
    validation = Rule::new("self.spec.storage.size == oldSelf.spec.storage.size || !has(oldSelf.status) || \
         !has(oldSelf.status.storageSize) || \
         quantity(self.spec.storage.size).compareTo(quantity(oldSelf.status.storageSize)) >= 0")
        .message("a volume can't shrink: its size may be no less than status.storageSize"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')")
        .message("metadata.name becomes part of Service and pod names: at most 40 of a-z, 0-9 and -, a letter first"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.clusterId) || \
        (has(self.spec.bootstrap) == has(oldSelf.spec.bootstrap) && \
         (!has(self.spec.bootstrap) || self.spec.bootstrap == oldSelf.spec.bootstrap))")
        .message("the log has begun: what it began with can't be changed")
        .field_path(".spec.bootstrap")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.quorum) || (self.quorum * 2 > self.replicas && self.quorum <= self.replicas)")
        .message("the quorum must be more than half of the replicas, and no more than there are")
        .field_path(".quorum"),
    validation = Rule::new("self.leader.ordinal < self.replicas")
        .message("ordinals begin at 0: the leader's must be less than the number of replicas")
        .field_path(".leader.ordinal"),
    validation = Rule::new("!has(self.leader.preferredZone) || self.leader.policy == 'Automatic'")
        .message("preferredZone goes with the policy Automatic: with Static, ordinal names the leader")
        .field_path(".leader.preferredZone"),
    validation = Rule::new("!has(self.tls) || !has(self.tls.secretName) || !has(self.tls.clientCaSecretName) || self.tls.secretName != self.tls.clientCaSecretName")
        .message("the authority of the clients must be another than that of the nodes: name two Secrets")
        .field_path(".tls.clientCaSecretName")
)]
pub struct ZueClusterSpec {
    /// The number of copies of the log. Odd numbers are best: 4 replicas survive no more failures than 3. It may change: new
    /// replicas vote once they have caught up; those with the highest ordinals give up their votes one by one before their pods go,
    /// and their volumes stay.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: u32,
    /// The number of replicas that must hold a record durably before it is acknowledged: more than half of them, which is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub quorum: Option<u32>,
    /// The leader.
    #[serde(default)]
    pub leader: Leader,
    /// The nodes' image; by default the one that the operator was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub image: Option<String>,
    /// The storage of the log.
    #[serde(default)]
    pub storage: Storage,
    /// The resources of each node. By default it requests a little, and its memory is limited to what `config.limits` and
    /// `config.replication` let it take at most (`zue-node --print-limits`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Backups of the log; without it there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// The content that the log begins with; without it, empty. It can't be changed once the log has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// Settings of the nodes. A change restarts them one by one, the leader last.
    #[serde(default)]
    pub config: NodeSettings,
    /// Access for clients outside of Kubernetes. Without it they advertise their names inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_access: Option<ExternalAccess>,
    /// Encryption of connections, and proof of who is at their other end.
    #[serde(default)]
    pub tls: Tls,
    /// The clients that have access; with `tls.mode: Required` no others have any. The credentials of each are in the Secret
    /// `<cluster>-client-<name>`. A change takes effect within minutes, without a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub access: Vec<Access>,
    /// The collectors of the nodes' metrics.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Scheduling and metadata of the pods.
    #[serde(default)]
    pub pod: PodSettings,
}

fn default_replicas() -> u32 {
    3
}

/// The leader.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", default)]
pub struct Leader {
    /// `Automatic`: whoever leads goes on, and is replaced within seconds once the operator and a majority of the voters have lost
    /// it. `Static`: the replica that is named leads whenever its log is complete, and while its pod is down appends wait for it.
    pub policy: LeaderPolicy,
    /// The number at the end of a pod's name. `Static`: the replica that leads. `Automatic`: the one that leads first, and that is
    /// chosen from equal candidates.
    #[schemars(range(min = 0, max = 8))]
    pub ordinal: u32,
    /// With `Automatic`: the zone (`topology.kubernetes.io/zone`) in which the leader is to be. Of equal candidates one there leads, and a
    /// leader elsewhere hands over to one there once all replicas have been in sync for half a minute. It does so again after ten minutes
    /// at the earliest, and less and less often where the leader does not stay. Nothing waits for the zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z0-9]([-._a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub preferred_zone: Option<String>,
    /// With `Automatic`: a voter that hears nothing of the leader for so long has lost it; a connection that broke tells it at once.
    /// From 300ms to 1m, and at least three times `config.replication.heartbeatInterval`. A shorter time finds a machine that hangs
    /// sooner, a longer one is less easily mistaken.
    pub detection_time: Time,
    /// The time after the loss of the leader for which no controller has acted, before a node elects by itself: the operator, or the way to
    /// the API server, may be away. From 200ms to 1h. The nodes elect among the voters, and never against `Static`.
    pub standby_after: Time,
}

impl Default for Leader {
    fn default() -> Self {
        let (detection_time, standby_after) = (Time(DETECTION_TIME_DEFAULT), Time(STANDBY_AFTER_DEFAULT));
        Self { policy: LeaderPolicy::default(), ordinal: 0, preferred_zone: None, detection_time, standby_after }
    }
}

/// The policy by which the leader is found.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would not be a plain enum in the schema")]
pub enum LeaderPolicy {
    #[default]
    Automatic,
    Static,
}

/// The storage of the log. Unless `whenDeleted` says otherwise, the volumes stay when the ZueCluster is deleted; one of the same name
/// finds its data again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
        "has(self.storageClassName) == has(oldSelf.storageClassName) && \
         (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
    .message("the storage class of existing volumes can't be changed")
    .field_path(".storageClassName"))]
pub struct Storage {
    /// The size of each replica's volume. It may grow where the storage class allows it, and never shrinks: a growth that is refused
    /// can be taken back, to no less than `status.storageSize`.
    #[serde(default = "default_size")]
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[1-9][0-9]*(Mi|Gi|Ti|Pi|M|G|T|P)$"))]
    pub size: String,
    /// The storage class; by default the one of the Kubernetes cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// The fate of the volumes when the ZueCluster is deleted: `Retain` keeps them, `Delete` deletes them and the log with them.
    #[serde(default)]
    pub when_deleted: WhenDeleted,
}

/// The fate of volumes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would not be a plain enum in the schema")]
pub enum WhenDeleted {
    #[default]
    Retain,
    Delete,
}

impl WhenDeleted {
    /// As Kubernetes calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retain => "Retain",
            Self::Delete => "Delete",
        }
    }
}

fn default_size() -> String {
    "10Gi".to_owned()
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: default_size(), storage_class_name: None, when_deleted: WhenDeleted::default() }
    }
}

/// Access for clients outside of Kubernetes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAccess {
    /// The address that each replica tells clients to connect to, as `host:port`; `{pod}`, `{ordinal}`, `{namespace}` and `{cluster}` are
    /// replaced.
    #[schemars(
        length(min = 3, max = 300),
        regex(pattern = r"^([-a-zA-Z0-9.]|\{(pod|ordinal|namespace|cluster)\})+:([0-9]|\{ordinal\}){1,5}$")
    )]
    pub address_template: String,
    /// A Service for each replica, named like its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_replica_services: Option<PerReplicaServices>,
}

/// A Service for each replica.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.firstNodePort) == (self.type == 'NodePort')")
    .message("firstNodePort goes with the type NodePort, and must be given then: the address template has to name the ports")
    .field_path(".firstNodePort"))]
pub struct PerReplicaServices {
    /// The type of the Services.
    #[serde(rename = "type")]
    pub type_: ServiceType,
    /// The node port of replica 0; each further replica has the next one. With 30940, a template says `:3094{ordinal}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65527))]
    pub first_node_port: Option<i32>,
    /// Annotations of the Services, as load balancers and DNS controllers want them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// The type of a Service.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[schemars(inline)]
#[allow(
    missing_docs,
    reason = "they are Kubernetes' own, and a documented variant would not be a plain enum in the schema"
)]
pub enum ServiceType {
    ClusterIP,
    NodePort,
    LoadBalancer,
}

impl ServiceType {
    /// As Kubernetes calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Scheduling and metadata of the pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Further annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    /// By default replicas avoid nodes that have one already, if they can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// By default replicas are spread over hosts and zones, as far as that goes. A constraint without a labelSelector counts the
    /// pods of this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// The priority of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
}
