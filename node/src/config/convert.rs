//! The settings as the log and the log's maintenance want them.

use zue_core::ProducerLimits;
use zue_log::{CompactionConfig, Retention};
use zue_settings::{Durability, LimitSettings, LogSettings, Time};

use crate::num::narrow;
use crate::replication::fetch::ANSWER_TIMEOUT_MS;
use crate::storage::MaintenanceSettings;

/// The log's configuration.
pub(crate) fn log_config(settings: LogSettings, producers: ProducerLimits) -> zue_log::LogConfig {
    let LogSettings { segment_bytes_max, index_interval_bytes, durability, sync_interval, .. } = settings;
    let LogSettings { compaction, delete_retention, .. } = settings;
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

/// The maintenance of the log: scrubbing, repair, compaction, retention.
pub(crate) fn maintenance_settings(settings: LogSettings) -> MaintenanceSettings {
    let LogSettings { scrub_bytes_per_second, scrub_interval, compaction_bytes_per_second, .. } = settings;
    let LogSettings { retention_bytes, retention_age, trim_delay, compaction, delete_retention, .. } = settings;
    let engine = zue_engine::maintenance::Settings {
        turn_ms: 250,
        retry_ms: 5000,
        retry_lost_ms: 60_000,
        answer_ms: 2 * ANSWER_TIMEOUT_MS,
        piece_bytes: 256 << 10,
        trim_delay_ms: trim_delay.millis(),
        scrub_bytes_per_second: scrub_bytes_per_second.0,
        scrub_interval_ms: scrub_interval.millis(),
        compaction_bytes_per_second: compaction_bytes_per_second.0,
        retention: Retention { bytes: retention_bytes.map(|bytes| bytes.0), age_ms: retention_age.map(Time::millis) },
        retention_ms: 2000,
    };
    MaintenanceSettings { engine, deletes_kept_ms: compaction.then(|| delete_retention.millis()) }
}

/// The limits of an append and its records.
pub(crate) fn record_limits(settings: &LimitSettings) -> zue_log::Limits {
    zue_log::Limits {
        record_bytes_max: narrow(settings.record_bytes_max.0),
        key_bytes_max: narrow(settings.key_bytes_max.0),
        headers_max: settings.headers_max,
        header_name_bytes_max: u16::try_from(settings.header_name_bytes_max.0).unwrap_or(u16::MAX),
        header_value_bytes_max: narrow(settings.header_value_bytes_max.0),
        append_records_max: settings.append_records_max,
        batch_bytes_max: narrow(settings.append_bytes_max.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_those_of_the_log() {
        assert_eq!(record_limits(&LimitSettings::default()), zue_log::Limits::default());
        let config = log_config(LogSettings::default(), ProducerLimits::default());
        assert_eq!(config, zue_log::LogConfig::default());
    }
}
