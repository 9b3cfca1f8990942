//! Backups of a log, and the backup that a new log begins with.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zue_settings::{BackupSettings, ConfigError};

/// Continuous backups to a bucket: a follower makes them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.to) && self.to.startsWith('s3://')")
    .message("name the bucket, s3://BUCKET/PREFIX")
    .field_path(".to"))]
pub struct Backup {
    /// The settings of the nodes.
    #[serde(flatten)]
    pub settings: BackupSettings,
    /// A Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and `AWS_SESSION_TOKEN` where there is one. Without it the pods show
    /// the identity that their ServiceAccount gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret_name: Option<String>,
    /// Annotations of the pods' ServiceAccount, by which a cloud gives pods an identity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// The way to a bucket.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct BucketAccess {
    /// The address of the bucket, if it is not Amazon's, such as `https://minio.storage:9000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 300), regex(pattern = r"^https?://[^\s]+$"))]
    pub endpoint: Option<String>,
    /// Its region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub region: Option<String>,
    /// A Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and `AWS_SESSION_TOKEN` where there is one. Without it the pods show
    /// the identity that their ServiceAccount gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret_name: Option<String>,
}

/// The content that a new log begins with.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// A log that was backed up. The new one has all of it up to some point, and an id of its own; the old one is not touched.
    pub from: RestoreFrom,
}

/// A log that was backed up.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct RestoreFrom {
    /// The store that its backups are in, `s3://BUCKET/PREFIX`.
    #[schemars(length(min = 6, max = 500), regex(pattern = r"^s3://[^/\s]+(/[^\s]*)?$"))]
    pub backup: String,
    /// The id of the log, `status.clusterId` of its ZueCluster; needed where backups of several are in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = "^[0-9a-f]{32}$"))]
    pub cluster_id: Option<String>,
    /// The point up to which it is restored: without it, all that there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// The way to the bucket.
    #[serde(flatten)]
    pub access: BucketAccess,
}

/// A point in a log.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.time) != has(self.offset)").message("give a time or an offset, and not both"))]
pub struct Until {
    /// A moment, such as `2026-11-28T12:00:00+02:00`: records up to then, by their timestamps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40), regex(pattern = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"))]
    pub time: Option<String>,
    /// An offset: the records before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

impl Backup {
    /// Checks what a schema cannot say.
    ///
    /// # Errors
    /// The first field that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.settings.validate()
    }
}

impl Until {
    /// As `zue restore --until` takes it.
    pub fn argument(&self) -> String {
        self.time.clone().or_else(|| self.offset.map(|offset| offset.to_string())).unwrap_or_default()
    }
}
