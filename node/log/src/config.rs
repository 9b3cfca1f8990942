//! The settings of the log.

use zue_core::ProducerLimits;

/// The least a segment may be asked to hold, bytes.
pub const SEGMENT_BYTES_MIN: u64 = 32 << 10;
/// The most a segment may be asked to hold, bytes. It is mapped as a whole.
pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// The most milliseconds that a sync may be put off by [`Durability::Interval`].
pub const SYNC_INTERVAL_MS_MAX: u32 = 60_000;
/// The room that records leave free in a segment, bytes: epoch starts find room there when the disk is full.
pub const RESERVE_BYTES: u64 = 8 << 10;
const _: () = assert!(RESERVE_BYTES < SEGMENT_BYTES_MIN / 2, "records find no room in the smallest segment");

/// The least there may be between two entries of an index, bytes.
pub(crate) const INDEX_INTERVAL_BYTES_MIN: u32 = 256;

/// When appended records count as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// When they are synced to the disk.
    #[default]
    Sync,
    /// When the operating system has them; they are synced to the disk at latest so many milliseconds later. A machine that stops may
    /// forget what was acknowledged in that time.
    Interval(u32),
    /// When the operating system has them: a machine that stops may forget what was acknowledged.
    Os,
}

impl Durability {
    /// Returns whether what is acknowledged is on the disk.
    pub fn waits_for_disk(self) -> bool {
        self == Self::Sync
    }
}

/// The settings of compaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionConfig {
    /// The least time for which a record with a key and an empty value, which deletes the key, is kept, ms.
    pub tombstone_retention_ms: u64,
    /// The share of what may be compacted, and has not been yet, at which compaction begins, in percent of its bytes: from 1 to 100.
    pub dirty_percent: u8,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self { tombstone_retention_ms: 24 * 60 * 60 * 1000, dirty_percent: 50 }
    }
}

/// The settings of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// The length of a segment file, bytes. One that begins with a larger batch is as long as that needs.
    pub segment_bytes_max: u64,
    /// The number of bytes of log between two entries of an index.
    pub index_interval_bytes: u32,
    /// When appended records count as durable.
    pub durability: Durability,
    /// Whether, of records with the same key, only the newest are kept; `None` keeps all.
    pub compaction: Option<CompactionConfig>,
    /// The limits on the memory of who appended what.
    pub producers: ProducerLimits,
}

impl Default for LogConfig {
    fn default() -> Self {
        let (durability, producers) = (Durability::Sync, ProducerLimits::default());
        Self { segment_bytes_max: 64 << 20, index_interval_bytes: 4096, durability, compaction: None, producers }
    }
}

/// A setting out of its bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{setting} is {value}, not within {min} and {max}")]
pub struct ConfigError {
    /// The field of [`LogConfig`].
    pub setting: &'static str,
    /// Its value.
    pub value: u64,
    /// The least it may be.
    pub min: u64,
    /// The most it may be.
    pub max: u64,
}

impl LogConfig {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first setting that is out of them.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { segment_bytes_max, index_interval_bytes, durability, compaction, producers: _ } = *self;
        let within = |setting, value, min, max| {
            if value < min || value > max { Err(ConfigError { setting, value, min, max }) } else { Ok(()) }
        };
        if let Durability::Interval(ms) = durability {
            within("durability interval, ms", ms.into(), 1, SYNC_INTERVAL_MS_MAX.into())?;
        }
        if let Some(CompactionConfig { dirty_percent, tombstone_retention_ms: _ }) = compaction {
            within("compaction dirty_percent", dirty_percent.into(), 1, 100)?;
        }
        within("segment_bytes_max", segment_bytes_max, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
        within("index_interval_bytes", index_interval_bytes.into(), INDEX_INTERVAL_BYTES_MIN.into(), 1 << 20)
    }
}
