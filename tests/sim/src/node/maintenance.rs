//! The maintenance of a log while it is used: the engine's maintenance, and what follows of what it says. Questions and answers travel as
//! everything does.

mod acts;

use zue_core::Offset;
use zue_engine::maintenance::Settings;
use zue_log::sim::SimDisk;
use zue_log::{Reader, Retention};

use crate::node::ages::Aging;
use crate::params::MaintenanceParams;

/// The least number of bytes that are read again in each turn.
const SCRUB_BYTES: u64 = 4 << 10;

/// The same once all is put right: nothing else is left to wait for then.
const SCRUB_BYTES_HEALED: u64 = 1 << 20;

/// The state of one process's maintenance.
#[derive(Debug)]
pub(crate) struct Maintenance {
    engine: zue_engine::maintenance::Maintenance<SimDisk>,
    /// The ages of records, where some go because of them.
    pub(crate) retention: Option<Aging>,
    pub(crate) deletes: Option<Aging>,
    /// The end of the newest backup that its node has heard of.
    backed_up: Offset,
}

impl Maintenance {
    pub(crate) fn new(reader: Reader<SimDisk>, params: &MaintenanceParams) -> Self {
        let engine = zue_engine::maintenance::Maintenance::new(reader, settings(params, false));
        let retention = params.retention_ms.map(Aging::new);
        let deletes = params.compaction.map(|compaction| Aging::new(compaction.tombstone_retention_ms));
        Self { engine, retention, deletes, backed_up: Offset(0) }
    }
}

fn settings(params: &MaintenanceParams, healed: bool) -> Settings {
    let least = if healed { SCRUB_BYTES_HEALED } else { SCRUB_BYTES };
    let piece_bytes = params.piece_bytes;
    let scrubbed = least.max(u64::try_from(piece_bytes).unwrap_or(u64::MAX));
    Settings {
        turn_ms: params.turn_ms,
        retry_ms: params.retry_ms,
        retry_lost_ms: params.retry_ms,
        answer_ms: params.answer_ms,
        piece_bytes,
        scrub_bytes_per_second: scrubbed * 1000 / params.turn_ms,
        scrub_interval_ms: 0,
        compaction_bytes_per_second: params.bytes_per_second,
        retention: Retention { bytes: None, age_ms: params.retention_ms },
        retention_ms: params.turn_ms,
        trim_delay_ms: params.trim_delay_ms,
    }
}

/// The work that was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MaintenanceCounts {
    /// Damaged segments that were written anew.
    pub repairs: u64,
    /// Records that came back with them.
    pub restored: u64,
    /// Replicas that were damaged, and whole again.
    pub mended: u64,
    /// Rounds of compaction that were done.
    pub compactions: u64,
    /// Segments that were written anew by them.
    pub compacted: u64,
    /// Segments that were being written anew when the process or machine stopped.
    pub interrupted: u64,
}

impl MaintenanceCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.repairs += other.repairs;
        self.restored += other.restored;
        self.mended += other.mended;
        self.compactions += other.compactions;
        self.compacted += other.compacted;
        self.interrupted += other.interrupted;
    }
}
