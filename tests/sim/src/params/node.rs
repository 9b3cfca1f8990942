//! The settings of nodes.

use zue_core::{Limits, ProducerLimits, SyncLimits};
use zue_engine::sender::Pace;
use zue_log::CompactionConfig;

use crate::dice::Dice;

#[derive(Clone, Debug)]
pub(crate) struct NodeParams {
    pub(crate) limits: Limits,
    pub(crate) producer_limits: ProducerLimits,
    pub(crate) tick_ms: u64,
    /// The time for which a stream may be silent.
    pub(crate) stream_timeout_ms: u64,
    /// The number of bytes of frames that a leader keeps in memory for its followers.
    pub(crate) memory_bytes: usize,
    /// The amount that goes to a follower at once.
    pub(crate) pace: Pace,
    /// Logs are looked after while they are used.
    pub(crate) maintenance: Option<MaintenanceParams>,
}

#[derive(Clone, Debug)]
pub(crate) struct MaintenanceParams {
    pub(crate) turn_ms: u64,
    /// The delay that it may have.
    pub(crate) late_ms: u64,
    /// The number of bytes that are read, or written, at once.
    pub(crate) piece_bytes: usize,
    /// The number of bytes of records that are given for a repair at once, and the time that they are waited for.
    pub(crate) answer_bytes: usize,
    pub(crate) answer_ms: u64,
    /// The time until damage is looked at again.
    pub(crate) retry_ms: u64,
    /// The bytes that repairs and compactions may take.
    pub(crate) bytes_per_second: u64,
    /// The time for which what is trimmed stays, where it does.
    pub(crate) trim_delay_ms: u64,
    pub(crate) compaction: Option<CompactionConfig>,
    /// Records go once they are so old.
    pub(crate) retention_ms: Option<u64>,
    /// The time between two backups, where retention waits for backups.
    pub(crate) backup_ms: Option<(u64, u64)>,
}

impl MaintenanceParams {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let compaction = dice.chance(0.6).then(|| CompactionConfig {
            tombstone_retention_ms: dice.pick(&[0, 500, 20_000, 1 << 40]),
            dirty_percent: dice.pick(&[1, 50]),
        });
        Self {
            turn_ms: dice.between((5, 60)),
            late_ms: dice.between((5, 60)),
            piece_bytes: dice.pick(&[100, 5000, 1 << 20]),
            answer_bytes: dice.pick(&[1, 3000, 1 << 20]),
            answer_ms: dice.between((20, 200)),
            retry_ms: dice.between((20, 300)),
            bytes_per_second: dice.pick(&[100_000, 1 << 20, 1 << 30]),
            trim_delay_ms: dice.pick(&[0, 200, 2000, 1 << 40]),
            compaction,
            retention_ms: dice.chance(0.4).then(|| dice.pick(&[300, 3000, 20_000, 1 << 40])),
            backup_ms: None,
        }
    }
}

pub(super) fn pace(dice: &mut Dice) -> Pace {
    Pace {
        window_bytes: dice.pick(&[1, 2000, 1 << 20]),
        batch_bytes: dice.pick(&[1, 300, 4000]),
        near_records: dice.pick(&[0, 10, 10_000]),
    }
}

/// The patience of a leader, and what it takes on.
pub(super) fn limits(dice: &mut Dice, lag_ms_max: u64) -> Limits {
    let (lag_records_max, lag_bytes_max) = (dice.between((1, 60)), dice.pick(&[3, 20, 1 << 20]));
    let sync = SyncLimits { lag_records_max, lag_bytes_max, lag_ms_max };
    Limits { sync, waiting_max: dice.pick(&[4, 64, 1024]), reads_max: 64 }
}

pub(super) fn producer_limits(dice: &mut Dice, producers_max: usize) -> ProducerLimits {
    ProducerLimits {
        producers_max,
        appends_max: dice.pick(&[3, 8, 64]),
        all_appends_max: producers_max * dice.pick(&[1, 2, 16, 64]),
    }
}
