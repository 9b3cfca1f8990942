//! The operator's report on a ZueCluster. Five fields are written down before something is done; all others are a report.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZueCluster;
use super::security::TlsMode;

/// The operator's report on a ZueCluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct ZueClusterStatus {
    /// The generation of the resource that this report is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Progressing`, `Degraded`, `LeaderElected`, `FullyReplicated`, `FailoverBlocked`, `Reconciled`, `Closed`, `Replacing`,
    /// `BackedUp`, `Recovering` and `Paused`, each with a reason and a message. Unknown while no operator looks: it was stopped, or told to
    /// pause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The greatest epoch ever reserved, written before it begins. No epoch is used twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The replica id of the last leader that was seen to lead. No decision reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = "^[0-9a-f]{32}$"))]
    pub recorded_leader: Option<String>,
    /// The id of the log, written once a replica was seen to belong to it. It forbids that another log is begun in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = "^[0-9a-f]{32}$"))]
    pub cluster_id: Option<String>,
    /// The TLS mode in force, written when the cluster is made, and before each change. `spec.tls.mode` is the intended one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_mode: Option<TlsMode>,
    /// The recovery from the loss of a majority, written once `zue.io/unsafe-recover` is confirmed, before anything is done. Absent once
    /// all replicas run again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// The reasons of conditions that a person may have to look at; absent while there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub attention: Option<String>,
    /// The size that all volumes have at least. `spec.storage.size` can't go below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = r"^[1-9][0-9]*([kKMGTPE]i?)?$"))]
    pub storage_size: Option<String>,
    /// The leader's pod; absent while nobody leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub leader: Option<String>,
    /// The elector of the leader: an operator or another controller, or a replica that stood by for them; absent while nobody leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub elected_by: Option<String>,
    /// The pods in sync, the leader included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), inner(length(max = 63)))]
    pub isr: Vec<String>,
    /// The number of pods in sync, the leader included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_sync_replicas: Option<u32>,
    /// The number of replicas that must hold a record before it is acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<u32>,
    /// The number of records that the follower furthest behind lacks; absent while nobody leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    /// The end of the committed records when it was last written here: a log in use is ahead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_end: Option<u64>,
    /// The newest backup, which a restore would give; absent where the nodes make no backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// The number of replicas, those included that are still to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// The number of pods that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<u32>,
    /// The version that the nodes run, or several while they are being replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub version: Option<String>,
    /// The labels of the pods, as a selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    pub selector: Option<String>,
    /// The replicas, in the order of their ordinals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pod".into()]))]
    pub members: Vec<Member>,
}

/// The outcome of a restore, by the newest backup.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// The newest backup's name in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub newest: Option<String>,
    /// The offset up to which it has the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// The moment at which it was made, which was the last success.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 40))]
    pub time: Option<Time>,
    /// The pod whose last try failed, and the error; absent while none fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub problem: Option<String>,
}

/// A new cluster that begins with the log of one replica that is left.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The pod of the replica whose log goes on. The other pods are stopped.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// The id of that replica in the lost cluster.
    #[schemars(length(max = 32), regex(pattern = "^[0-9a-f]{32}$"))]
    pub replica_id: String,
    /// The id of the lost cluster. A replica with that id takes no part in the new one.
    #[schemars(length(max = 32), regex(pattern = "^[0-9a-f]{32}$"))]
    pub cluster_id: String,
    /// The end of that log: what the lost cluster acknowledged from there on is lost.
    pub end: u64,
}

/// There are no more ordinals than these.
const ORDINALS: [u32; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

impl Recovery {
    /// The ordinal of its pod, if it is one of that cluster's.
    pub fn ordinal(&self, cluster: &str) -> Option<u32> {
        ORDINALS.into_iter().find(|ordinal| self.pod == format!("{cluster}-{ordinal}"))
    }

    /// All pods that there may have been beside its own.
    pub fn others(&self, cluster: &str) -> Vec<String> {
        ORDINALS.map(|ordinal| format!("{cluster}-{ordinal}")).into_iter().filter(|pod| *pod != self.pod).collect()
    }

    /// Returns whether the fields are valid for that cluster: anybody may have written them.
    fn is_sound(&self, cluster: &str) -> bool {
        let is_id = |id: &String| id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
        self.ordinal(cluster).is_some() && [&self.replica_id, &self.cluster_id].into_iter().all(is_id)
    }
}

impl ZueCluster {
    /// The recovery that is under way, if it makes sense.
    pub fn recovery(&self) -> Option<Recovery> {
        let recovery = self.status.as_ref()?.recovery.as_ref()?;
        recovery.is_sound(self.metadata.name.as_ref()?).then(|| recovery.clone())
    }
}

/// A replica.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its pod.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// The id of its data directory; another id means that its disk was emptied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub replica_id: Option<String>,
    /// Its role.
    #[serde(default)]
    pub role: MemberRole,
    /// True if it is in sync.
    #[serde(default)]
    pub in_sync: bool,
    /// The end of what is durable on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_end: Option<u64>,
    /// The number of records that it is behind the leader; absent while nobody leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    /// Its problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub problem: Option<String>,
}

/// The role of a replica: it leads, follows, copies without a vote, does none of these, has failed, or does not answer.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would not be a plain enum in the schema")]
pub enum MemberRole {
    Leader,
    Follower,
    Learner,
    Idle,
    Failed,
    #[default]
    Unreachable,
}

impl MemberRole {
    /// Tells whether it leads or follows, with a vote.
    pub const fn is_at_work(self) -> bool {
        matches!(self, Self::Leader | Self::Follower)
    }
}
