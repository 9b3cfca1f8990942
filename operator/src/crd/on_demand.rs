//! The ZueBackup resource, `zue.io/v1alpha1`: a backup that is made because somebody asks for it, once.

#![allow(clippy::duplicated_attributes, reason = "each column of the resource has the same keys")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A backup of a log, made once. It stays in the store when this resource is deleted; `spec.backup.keep` of the ZueCluster says how long.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[kube(
    group = "zue.io",
    version = "v1alpha1",
    kind = "ZueBackup",
    doc = "A backup of a log, made once it is asked for.",
    namespaced,
    shortname = "zueb",
    status = "ZueBackupStatus",
    derive = "PartialEq",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.cluster",
        description = "The ZueCluster of the log"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "The phase of the backup"
    ),
    printcolumn(
        name = "End",
        type_ = "integer",
        json_path = ".status.end",
        description = "The offset up to which it has the log"
    ),
    printcolumn(name = "Made", type_ = "date", json_path = ".status.time", description = "The time since it was made"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "The reason for which it waits, or failed"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Pod",
        type_ = "string",
        json_path = ".status.pod",
        description = "The pod that makes it",
        priority = 1
    ),
    printcolumn(
        name = "Backup",
        type_ = "string",
        json_path = ".status.backup",
        description = "Its name in the store",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a backup is made once: make another ZueBackup"))]
pub struct ZueBackupSpec {
    /// The ZueCluster, in the same namespace. Its `spec.backup` names the store.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub cluster: String,
}

/// The operator's report on a ZueBackup.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct ZueBackupStatus {
    /// The phase of the backup: `Done` and `Failed` are final.
    #[serde(default)]
    pub phase: Phase,
    /// The pod that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub pod: Option<String>,
    /// Its name in the store, as `zue backup ls` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub backup: Option<String>,
    /// The offset up to which it has the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// The moment at which it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 40))]
    pub time: Option<Time>,
    /// The reason for which it waits, or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub message: Option<String>,
}

/// The phase of a backup.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would not be a plain enum in the schema")]
pub enum Phase {
    #[default]
    Pending,
    Running,
    Done,
    Failed,
}

impl Phase {
    /// Tells whether nothing is left to be done.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}
