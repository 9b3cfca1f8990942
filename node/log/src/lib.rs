//! The log of a replica: segments of checked frames, a meta file, and readers over memory maps. Synchronous; knows no network.
//!
//! README.md in this crate has the byte layout, what happens in a crash, and what is assumed of the disk.

mod config;
mod disk;
mod error;
mod format;
mod log;
mod maintenance;
mod meta;
mod num;
mod read;
mod recovery;
mod segment;
mod tools;

pub use config::{
    CompactionConfig, ConfigError, Durability, LogConfig, RESERVE_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SYNC_INTERVAL_MS_MAX,
};
pub use disk::files_limit::files_kept_for_connections;
pub use disk::os::{OsDisk, OsFile};
pub use disk::overlay::{Changes, Overlay, OverlayFile};
pub use disk::regular::read_text;
#[cfg(feature = "sim")]
pub use disk::sim;
pub use disk::{Disk, DiskFile};
pub use error::open::BadCopy;
pub use error::open::Disagreement;
pub use error::{Damage, DiskError, HeaderFault, Later, LogError, OpenError, Operation, ReadError, Shortage};
pub use format::batch::{Batch, BatchBuilder, FrameError};
pub use format::encode::record_bytes;
pub use format::fault::Fault;
pub use format::frame::{Headers, RecordView};
pub use format::limits::{Bounded, LimitError, Limits, VOTERS_MAX};
pub use format::producer::Producer;
pub use format::producer::ProducerRun;
pub use log::Log;
pub use log::shared::SharedLog;
pub use log::sync::SyncPoint;
pub use maintenance::compaction::{Compacting, Compaction};
pub use maintenance::fetch_plan::{FetchPlan, NotCommitted};
pub use maintenance::repair::{Excerpt, Repair};
pub use maintenance::retention::Retention;
pub use maintenance::rewrite::{RewriteError, Rewritten};
pub use maintenance::scrub::{Verified, Verifier};
pub use meta::Meta;
pub use read::reader::{Chunk, Reader, Records};
pub use recovery::open::Recovered;
pub use segment::preallocate::Preparation;
pub use tools::copy::{Adopted, CutPlace, Piece, Until, adopt, cut_place, read_meta};
pub use tools::dump::{DumpItem, Dumped, dump};
pub use tools::inspect::{BadIndex, IndexFault, bad_indexes, holds_log, repair};
pub use zue_core::Promise;
