//! The section `replication` of a node's file and of a `ZueCluster`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zue_core::SyncLimits;

use crate::error::{ConfigError, bounded};
use crate::units::{ByteSize, GIB, KIB, MIB, Time};

/// The number of heartbeats that a detection time holds at least: a leader that lives misses fewer.
pub const HEARTBEATS_MIN: u32 = 3;
/// The default of how often a leader says that it lives. Each heartbeat wakes every node.
const HEARTBEAT_INTERVAL: Time = Time::from_millis(200);
const HEARTBEATS_PER_LAG: u32 = 4;

/// The feeding of followers, and when they count as in sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplicationSettings {
    /// The interval at which a leader with nothing to send says that it lives, from 10ms to 10s. The default is shortened to a third of the
    /// detection time, or a quarter of `lagTimeMax`, where that is less.
    pub heartbeat_interval: Time,
    /// A follower at most this many records and `inflightBytesMax` behind is in sync, while its disk gets on.
    #[schemars(range(min = 1))]
    pub lag_records_max: u64,
    /// A follower that was caught up within this time is in sync, too. One that was not heard from for as long is neither in sync nor in
    /// reach. From four times `heartbeatInterval` to 10m.
    pub lag_time_max: Time,
    /// A follower at most this many records behind is fed from memory; further behind, it is repaired from the log.
    pub inline_catchup_records: u64,
    /// The bytes of the log's end that are kept in memory to feed followers, from 64KiB to 4GiB.
    pub inline_catchup_bytes: ByteSize,
    /// The most bytes of the log in one message of a repair, from 4KiB to 8MiB.
    pub repair_batch_bytes: ByteSize,
    /// The most bytes under way to one follower, unacknowledged, from 64KiB to 1GiB.
    pub inflight_bytes_max: ByteSize,
}

impl ReplicationSettings {
    /// The interval at which a leader says that it lives. The default gives way to a shorter `lagTimeMax`, down to its half.
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

    /// When a follower counts as in sync, for the rules.
    pub fn to_sync(self) -> SyncLimits {
        SyncLimits {
            lag_records_max: self.lag_records_max,
            lag_bytes_max: self.inflight_bytes_max.0,
            lag_ms_max: self.lag_time_max.millis(),
        }
    }
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
    fn the_defaults_are_within_their_bounds_and_agree_with_the_rules() {
        ReplicationSettings::default().validate().unwrap();
        assert_eq!(ReplicationSettings::default().to_sync(), SyncLimits::default());
    }
}
