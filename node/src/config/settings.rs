//! The three sections of knobs that a node's file and a `ZueCluster` share. Declared here once: the same structs are parsed,
//! documented and put into the CRD's schema, with these defaults. Names are camelCase, as Kubernetes has them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zue_core::{ProducerLimits, SyncLimits};

use zue_log::{CompactionConfig, Retention};

use crate::config::units::{ByteSize, Time};
use crate::config::{ConfigError, bounded};
use crate::storage::UpkeepSettings;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

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
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
            Self::Os => "os",
        }
    }
}

/// How the log is kept on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogSettings {
    /// The size of a segment file, from 32KiB to 4GiB.
    pub segment_bytes_max: ByteSize,
    /// How much log lies between two entries of an index, from 256B to 1MiB.
    pub index_interval_bytes: ByteSize,
    /// When an appended record counts as durable.
    pub durability: Durability,
    /// With durability `Interval`: how long a record may stay unsynced, from 1ms to 1m.
    pub sync_interval: Time,
    /// With this, the oldest segments go while the others hold at least as much, from 32KiB. Without it nothing goes for its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<ByteSize>,
    /// With this, a segment goes once its newest record is older, from 1s, by the clocks of a majority of the voters. Without it nothing goes for its age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_age: Option<Time>,
    /// How long the files of trimmed segments stay, up to 365d, so that a trim can be taken back (`zue log untrim`). They go earlier when
    /// the disk is full, or where `retentionBytes` would not keep them.
    pub trim_delay: Time,
    /// Whether, of records with the same key, only the newest is kept. Records without a key stay, and the newest segment as it is.
    pub compaction: bool,
    /// With compaction: how long a record with a key and an empty value, which deletes the key, is kept at least.
    pub delete_retention: Time,
    /// How much compaction and repair read and write in a second, from 64KiB.
    pub compaction_bytes_per_second: ByteSize,
    /// How much of the log is read again in a second to see that it is whole; nothing with 0B.
    pub scrub_bytes_per_second: ByteSize,
    /// How long it is from the beginning of one such pass over the log to that of the next, from 100ms.
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

/// How many heartbeats a detection time holds at least: a leader that lives misses fewer.
pub(crate) const HEARTBEATS_MIN: u32 = 3;
/// The default of how often a leader says that it lives. Each heartbeat wakes every node.
const HEARTBEAT_INTERVAL: Time = Time::from_millis(200);
const HEARTBEATS_PER_LAG: u32 = 4;

/// How followers are fed, and when they count as in sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplicationSettings {
    /// How often a leader with nothing to send says that it lives, from 10ms to 10s. The default is shortened to a third of the
    /// detection time, or a quarter of `lagTimeMax`, where that is less.
    pub heartbeat_interval: Time,
    /// A follower at most this many records and `inflightBytesMax` behind is in sync, while its disk gets on.
    #[schemars(range(min = 1))]
    pub lag_records_max: u64,
    /// So is one that was caught up within this time; not heard from for as long, it is neither in sync nor in reach. From four
    /// times `heartbeatInterval` to 10m.
    pub lag_time_max: Time,
    /// A follower at most this many records behind is fed from memory; further behind, it is repaired from the log.
    pub inline_catchup_records: u64,
    /// How much of the log's end is kept in memory for that, from 64KiB to 4GiB.
    pub inline_catchup_bytes: ByteSize,
    /// How much of the log one message of a repair holds at most, from 4KiB to 8MiB.
    pub repair_batch_bytes: ByteSize,
    /// How much may be under way to one follower, unacknowledged, from 64KiB to 1GiB.
    pub inflight_bytes_max: ByteSize,
}

impl ReplicationSettings {
    /// How often a leader says that it lives. The default gives way to a shorter `lagTimeMax`, down to its half.
    pub fn heartbeat(&self) -> Duration {
        if self.heartbeat_interval == HEARTBEAT_INTERVAL {
            (self.lag_time_max.0 / HEARTBEATS_PER_LAG).clamp(HEARTBEAT_INTERVAL.0 / 2, HEARTBEAT_INTERVAL.0)
        } else {
            self.heartbeat_interval.0
        }
    }

    /// Shortens the heartbeat, if it is left at its default, to what this detection time needs.
    #[must_use]
    pub fn with_detection_time(mut self, detection_time: Duration) -> Self {
        if self.heartbeat_interval == HEARTBEAT_INTERVAL {
            self.heartbeat_interval.0 = HEARTBEAT_INTERVAL.0.min(detection_time / HEARTBEATS_MIN);
        }
        self
    }
}

impl Default for ReplicationSettings {
    fn default() -> Self {
        Self {
            heartbeat_interval: HEARTBEAT_INTERVAL,
            lag_records_max: 1000,
            lag_time_max: Time::from_millis(2000),
            inline_catchup_records: 10_000,
            inline_catchup_bytes: ByteSize(32 * MIB),
            repair_batch_bytes: ByteSize(MIB),
            inflight_bytes_max: ByteSize(16 * MIB),
        }
    }
}

/// What a node takes on at most. Beyond a limit a request is refused with an error that names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Key, value and headers of one record together, up to 32MiB.
    pub record_bytes_max: ByteSize,
    /// The key of a record, up to 32MiB.
    pub key_bytes_max: ByteSize,
    /// How many headers one record has.
    pub headers_max: u16,
    /// The name of a header, up to 65535B.
    pub header_name_bytes_max: ByteSize,
    /// The value of a header, up to 32MiB.
    pub header_value_bytes_max: ByteSize,
    /// How many records one append has.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub append_records_max: u32,
    /// One append as it stands in the log, from `recordBytesMax` and 4KiB up to 64MiB.
    pub append_bytes_max: ByteSize,
    /// How many appends are under way at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub appends_max: u32,
    /// How many bytes of appends are on their way to the disk at once, and how many are being received, from `appendBytesMax` to 4GiB.
    pub appends_bytes_max: ByteSize,
    /// How many appends of one stream are under way at once; no more than `producerAppendsMax` either. Further ones wait.
    #[schemars(range(min = 1, max = 100_000))]
    pub stream_appends_max: u32,
    /// How long an append waits for its commit when the request does not say, up to 10m.
    pub append_deadline: Time,
    /// How long it waits at most, whatever the request says, up to 10m.
    pub append_deadline_max: Time,
    /// For how many producers there is room with `producerAppendsMax` appends each. Up to 16 times as many, within 2^20, are remembered
    /// while they have appended less; the one that appended longest ago is forgotten first. One connection brings in at most
    /// `producersMax` new ones within a minute, one address 8 times as many within 10 minutes. The same on all replicas of a cluster.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub producers_max: u32,
    /// How many appends of each producer are remembered with their offsets, and so may be under way at once. Where there is no room
    /// for so many, producers that appended longest ago keep a sixteenth. The same on all replicas of a cluster.
    #[schemars(range(min = 1, max = 10_000))]
    pub producer_appends_max: u32,
    /// How much one message of a read holds, about; a larger record comes alone. From 4KiB to 16MiB.
    pub read_bytes_max: ByteSize,
    /// How many reads go on at once, and how many requests wait until a majority has confirmed the leader.
    #[schemars(range(min = 1, max = 100_000))]
    pub readers_max: u32,
    /// How many connections each port takes, that of the peers no more than 128. Beyond, the oldest that wants nothing makes way;
    /// where all are in use, a further one is closed at once.
    #[schemars(range(min = 8, max = 100_000))]
    pub connections_max: u32,
    /// How long a node that starts waits for a process that still holds its directory or a port, up to 10m. It is alive and not
    /// ready meanwhile.
    pub start_wait_max: Time,
    /// How long a connection may take to say what it wants, and a request to come, which has a second more for each 512KiB. From 100ms
    /// to 10m.
    pub receive_deadline: Time,
    /// How long a read goes on of which nothing is taken, from 100ms to 10m. Any other call goes on twice as long.
    pub stall_deadline: Time,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            record_bytes_max: ByteSize(MIB),
            key_bytes_max: ByteSize(64 * KIB),
            headers_max: 64,
            header_name_bytes_max: ByteSize(256),
            header_value_bytes_max: ByteSize(64 * KIB),
            append_records_max: 10_000,
            append_bytes_max: ByteSize(8 * MIB),
            appends_max: 16 * 1024,
            appends_bytes_max: ByteSize(64 * MIB),
            stream_appends_max: 256,
            append_deadline: Time::from_millis(10_000),
            append_deadline_max: Time::from_millis(60_000),
            producers_max: 4096,
            producer_appends_max: 256,
            read_bytes_max: ByteSize(256 * KIB),
            readers_max: 1024,
            connections_max: 1024,
            start_wait_max: Time::from_millis(60_000),
            receive_deadline: Time::from_millis(10_000),
            stall_deadline: Time::from_millis(15_000),
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

    pub(crate) fn to_log(self, producers: zue_core::ProducerLimits) -> zue_log::LogConfig {
        let Self { segment_bytes_max, index_interval_bytes, durability, sync_interval, .. } = self;
        let Self { compaction, delete_retention, .. } = self;
        let tombstone_retention_ms = delete_retention.millis();
        zue_log::LogConfig {
            segment_bytes_max: segment_bytes_max.0,
            index_interval_bytes: narrow(index_interval_bytes.0),
            durability: match durability {
                Durability::Sync => zue_log::Durability::Sync,
                Durability::Interval => {
                    zue_log::Durability::Interval(u32::try_from(sync_interval.0.as_millis()).unwrap_or(u32::MAX))
                }
                Durability::Os => zue_log::Durability::Os,
            },
            producers,
            compaction: compaction.then(|| CompactionConfig { tombstone_retention_ms, ..CompactionConfig::default() }),
        }
    }

    pub(crate) fn to_upkeep(self) -> UpkeepSettings {
        let Self { scrub_bytes_per_second, scrub_interval, compaction_bytes_per_second, .. } = self;
        let Self { retention_bytes, retention_age, trim_delay, compaction, delete_retention, .. } = self;
        let engine = zue_engine::upkeep::Settings {
            turn_ms: 250,
            retry_ms: 5000,
            retry_lost_ms: 60_000,
            answer_ms: 2 * crate::replication::fetch::ANSWER_TIMEOUT_MS,
            piece_bytes: 256 << 10,
            trim_delay_ms: trim_delay.millis(),
            scrub_bytes_per_second: scrub_bytes_per_second.0,
            scrub_interval_ms: scrub_interval.millis(),
            compaction_bytes_per_second: compaction_bytes_per_second.0,
            retention: Retention {
                bytes: retention_bytes.map(|bytes| bytes.0),
                age_ms: retention_age.map(Time::millis),
            },
            retention_ms: 2000,
        };
        UpkeepSettings { engine, deletes_kept_ms: compaction.then(|| delete_retention.millis()) }
    }
}

impl ReplicationSettings {
    /// Checks the bounds of every knob.
    ///
    /// # Errors
    /// The first one out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self {
            heartbeat_interval,
            lag_records_max,
            lag_time_max,
            inline_catchup_records: _,
            inline_catchup_bytes,
            repair_batch_bytes,
            inflight_bytes_max,
        } = *self;
        let times = |field, value, min, max| bounded(field, value, Time::from_millis(min), Time::from_millis(max));
        let sizes = |field, value, min, max| bounded(field, value, ByteSize(min), ByteSize(max));
        times("replication.heartbeatInterval", heartbeat_interval, 10, 10_000)?;
        let lag_min = Time(self.heartbeat().saturating_mul(HEARTBEATS_PER_LAG));
        bounded("replication.lagTimeMax", lag_time_max, lag_min, Time::from_millis(600_000))?;
        bounded("replication.lagRecordsMax", lag_records_max, 1, u64::MAX)?;
        sizes("replication.inlineCatchupBytes", inline_catchup_bytes, 64 * KIB, 4 * GIB)?;
        sizes("replication.repairBatchBytes", repair_batch_bytes, 4 * KIB, 8 * MIB)?;
        sizes("replication.inflightBytesMax", inflight_bytes_max, 64 * KIB, GIB)
    }

    pub(crate) fn to_sync(self) -> SyncLimits {
        SyncLimits {
            lag_records_max: self.lag_records_max,
            lag_bytes_max: self.inflight_bytes_max.0,
            lag_ms_max: self.lag_time_max.millis(),
        }
    }
}

impl LimitSettings {
    /// Checks the bounds of every knob.
    ///
    /// # Errors
    /// The first one out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = |field, value, min, max| bounded(field, value, ByteSize(min), ByteSize(max));
        let times = |field, value| bounded(field, value, Time::from_millis(1), Time::from_millis(600_000));
        sizes("limits.recordBytesMax", self.record_bytes_max, 1, 32 * MIB)?;
        sizes("limits.keyBytesMax", self.key_bytes_max, 1, 32 * MIB)?;
        sizes("limits.headerNameBytesMax", self.header_name_bytes_max, 1, 65_535)?;
        sizes("limits.headerValueBytesMax", self.header_value_bytes_max, 1, 32 * MIB)?;
        sizes("limits.appendBytesMax", self.append_bytes_max, self.record_bytes_max.0 + 4 * KIB, 64 * MIB)?;
        sizes("limits.appendsBytesMax", self.appends_bytes_max, self.append_bytes_max.0, 4 * GIB - 1)?;
        sizes("limits.readBytesMax", self.read_bytes_max, 4 * KIB, 16 * MIB)?;
        times("limits.appendDeadline", self.append_deadline)?;
        times("limits.appendDeadlineMax", self.append_deadline_max)?;
        let patience = |field, value| bounded(field, value, Time::from_millis(100), Time::from_millis(600_000));
        patience("limits.receiveDeadline", self.receive_deadline)?;
        patience("limits.stallDeadline", self.stall_deadline)?;
        bounded("limits.appendRecordsMax", self.append_records_max, 1, 1_000_000)?;
        bounded("limits.appendsMax", self.appends_max, 1, 1_000_000)?;
        bounded("limits.streamAppendsMax", self.stream_appends_max, 1, 100_000)?;
        bounded("limits.producersMax", self.producers_max, 1, 10_000_000)?;
        bounded("limits.producerAppendsMax", self.producer_appends_max, 1, 10_000)?;
        bounded("limits.readersMax", self.readers_max, 1, 100_000)?;
        bounded("limits.startWaitMax", self.start_wait_max, Time::from_millis(0), Time::from_millis(600_000))?;
        bounded("limits.connectionsMax", self.connections_max, 8, 100_000)
    }

    pub(crate) fn to_log(self) -> zue_log::Limits {
        zue_log::Limits {
            record_bytes_max: narrow(self.record_bytes_max.0),
            key_bytes_max: narrow(self.key_bytes_max.0),
            headers_max: self.headers_max,
            header_name_bytes_max: u16::try_from(self.header_name_bytes_max.0).unwrap_or(u16::MAX),
            header_value_bytes_max: narrow(self.header_value_bytes_max.0),
            append_records_max: self.append_records_max,
            batch_bytes_max: narrow(self.append_bytes_max.0),
        }
    }

    pub(crate) fn to_producers(self) -> ProducerLimits {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let (room_for, appends_max) = (count(self.producers_max), count(self.producer_appends_max));
        let producers_max = room_for.saturating_mul(16).min(1 << 20).max(room_for);
        ProducerLimits { producers_max, appends_max, all_appends_max: room_for.saturating_mul(appends_max) }
    }
}

/// A size that was checked to be within 32 bits.
fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_heartbeat_gives_way_to_short_times_and_a_chosen_one_does_not() {
        let ms = Duration::from_millis;
        let of = |heartbeat, lag, detection| {
            let settings = ReplicationSettings {
                heartbeat_interval: Time::from_millis(heartbeat),
                lag_time_max: Time::from_millis(lag),
                ..ReplicationSettings::default()
            };
            settings.with_detection_time(ms(detection)).heartbeat()
        };
        for (lag, detection, heartbeat) in [(2000, 1000, 200), (500, 1000, 125), (40, 1000, 100), (2000, 300, 100)] {
            assert_eq!(of(200, lag, detection), ms(heartbeat), "{lag} {detection}");
            assert_eq!(of(150, lag, detection), ms(150));
        }
    }

    #[test]
    fn the_defaults_are_within_their_bounds_and_agree_with_the_log() {
        LogSettings::default().validate().unwrap();
        ReplicationSettings::default().validate().unwrap();
        LimitSettings::default().validate().unwrap();
        assert_eq!(LimitSettings::default().to_log(), zue_log::Limits::default());
        assert_eq!(LogSettings::default().to_log(zue_core::ProducerLimits::default()), zue_log::LogConfig::default());
        assert_eq!(ReplicationSettings::default().to_sync(), SyncLimits::default());
    }
}
