//! The section `log` of a node's file and of a `ZueCluster`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, bounded};
use crate::units::{ByteSize, GIB, KIB, MIB, Time};

/// When an appended record counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum Durability {
    /// When the disk has confirmed it (fsync).
    #[default]
    Sync,
    /// When the operating system has it; it is synced to the disk at latest `syncInterval` later. A machine that crashes may forget
    /// what was acknowledged in that time.
    Interval,
    /// When the operating system has it: a machine that crashes may forget what was acknowledged.
    Os,
}

impl Durability {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
            Self::Os => "os",
        }
    }
}

/// The log on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogSettings {
    /// The size of a segment file, from 32KiB to 4GiB.
    pub segment_bytes_max: ByteSize,
    /// The bytes of log between two entries of an index, from 256B to 1MiB.
    pub index_interval_bytes: ByteSize,
    /// When an appended record counts as durable.
    pub durability: Durability,
    /// With durability `Interval`: the longest time for which a record may stay unsynced, from 1ms to 1m.
    pub sync_interval: Time,
    /// The bytes of the log to keep, from 32KiB: the oldest segments are deleted while the others hold at least as much. Without it nothing
    /// is deleted because of its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<ByteSize>,
    /// The age after which records are deleted, from 1s: a segment is deleted once its newest record is older, by the clocks of a majority
    /// of the voters. Without it nothing is deleted because of its age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_age: Option<Time>,
    /// The time for which the files of trimmed segments stay, up to 365d, so that a trim can be taken back (`zue log untrim`). They go earlier when
    /// the disk is full, or where `retentionBytes` would not keep them.
    pub trim_delay: Time,
    /// True to keep only the newest of the records with the same key. Records without a key stay, and the newest segment as it is.
    pub compaction: bool,
    /// With compaction: the least time for which a record with a key and an empty value is kept, which deletes the key.
    pub delete_retention: Time,
    /// The bytes that compaction and repair read and write in a second, from 64KiB.
    pub compaction_bytes_per_second: ByteSize,
    /// The bytes that the scrubber reads in a second to find damaged records; nothing with 0B.
    pub scrub_bytes_per_second: ByteSize,
    /// The time from the beginning of one scrub of the log to that of the next, from 100ms.
    pub scrub_interval: Time,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes_max: ByteSize(64 * MIB),
            index_interval_bytes: ByteSize(4 * KIB),
            durability: Durability::Sync,
            sync_interval: Time::from_millis(100),
            retention_bytes: None,
            retention_age: None,
            trim_delay: Time::from_millis(600_000),
            compaction: false,
            delete_retention: Time::from_millis(24 * 3_600_000),
            compaction_bytes_per_second: ByteSize(32 * MIB),
            scrub_bytes_per_second: ByteSize(4 * MIB),
            scrub_interval: Time::from_millis(24 * 3_600_000),
        }
    }
}

impl LogSettings {
    /// Checks the bounds of every knob.
    ///
    /// # Errors
    /// The first one out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { segment_bytes_max, index_interval_bytes, durability: _, sync_interval, .. } = *self;
        let Self { compaction: _, delete_retention: _, compaction_bytes_per_second, .. } = *self;
        let Self { scrub_bytes_per_second: _, scrub_interval, retention_bytes, retention_age, trim_delay, .. } = *self;
        let sizes = |field, value, min, max| bounded(field, value, ByteSize(min), ByteSize(max));
        sizes("log.segmentBytesMax", segment_bytes_max, 32 * KIB, 4 * GIB)?;
        sizes("log.indexIntervalBytes", index_interval_bytes, 256, MIB)?;
        sizes("log.compactionBytesPerSecond", compaction_bytes_per_second, 64 * KIB, u64::MAX)?;
        if let Some(bytes) = retention_bytes {
            sizes("log.retentionBytes", bytes, 32 * KIB, u64::MAX)?;
        }
        if let Some(age) = retention_age {
            bounded("log.retentionAge", age, Time::from_millis(1000), Time::from_millis(u64::MAX))?;
        }
        bounded("log.trimDelay", trim_delay, Time::from_millis(0), Time::from_millis(365 * 24 * 3_600_000))?;
        bounded("log.scrubInterval", scrub_interval, Time::from_millis(100), Time::from_millis(u64::MAX))?;
        bounded("log.syncInterval", sync_interval, Time::from_millis(1), Time::from_millis(60_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_bounds() {
        LogSettings::default().validate().unwrap();
    }
}
