//! The section `backup` of a node's file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, bounded};
use crate::units::{ByteSize, Time};

const HOUR_MS: u64 = 3_600_000;

/// Continuous backups: a follower makes them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackupSettings {
    /// The store, `s3://BUCKET/PREFIX` or `file:///DIRECTORY`; without it there are no backups. The credentials for a bucket are in the
    /// usual `AWS_` variables, or are those of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 6, max = 500), regex(pattern = r"^(s3://[^/\s]+(/[^\s]*)?|file:///[^\s]*)$"))]
    pub to: Option<String>,
    /// The address of the bucket, if it is not Amazon's, such as `https://minio.storage:9000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 300), regex(pattern = r"^https?://[^\s]+$"))]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub region: Option<String>,
    /// The time between two backups, from 1s to 1d: if all volumes are lost, so is what was committed since the last one.
    pub interval: Time,
    /// The time back to which the log can be restored, from 1h; for ever without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Time>,
    /// The bytes that are uploaded in a second, from 64KiB; without a limit with 0B.
    pub bytes_per_second: ByteSize,
    /// With true, retention and trims leave what is in no backup yet; retention does so until the disk is full.
    pub hold_trim: bool,
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self {
            to: None,
            endpoint: None,
            region: None,
            interval: Time::from_millis(60_000),
            keep: None,
            bytes_per_second: ByteSize(32 << 20),
            hold_trim: false,
        }
    }
}

impl BackupSettings {
    /// Checks every field.
    ///
    /// # Errors
    /// The first one that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { to, endpoint, region: _, interval, keep, bytes_per_second, hold_trim: _ } = self;
        let wrong = |field, value: &str, remedy| Err(ConfigError::Field { field, value: value.to_owned(), remedy });
        if let Some(to) = to
            && !(to.starts_with("s3://") || to.starts_with("file:///"))
        {
            return wrong("backup.to", to, "write s3://BUCKET/PREFIX or file:///DIRECTORY");
        }
        if let Some(endpoint) = endpoint
            && !(endpoint.starts_with("https://") || endpoint.starts_with("http://"))
        {
            return wrong(
                "backup.endpoint",
                endpoint,
                "write https://HOST:PORT, or http://HOST:PORT inside a network of your own",
            );
        }
        let of_time =
            |field, value: Time, min, max| bounded(field, value, Time::from_millis(min), Time::from_millis(max));
        of_time("backup.interval", *interval, 1_000, 24 * HOUR_MS)?;
        if let Some(keep) = keep {
            of_time("backup.keep", *keep, HOUR_MS, u64::MAX)?;
        }
        if *bytes_per_second == ByteSize(0) {
            return Ok(());
        }
        bounded("backup.bytesPerSecond", *bytes_per_second, ByteSize(64 << 10), ByteSize(u64::MAX))
    }
}
