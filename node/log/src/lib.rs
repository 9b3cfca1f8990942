//! The log of a replica: segments of checked frames, a meta file, and readers over memory maps. Synchronous; knows no network.
//!
//! README.md in this crate has the byte layout, what happens in a crash, and what is assumed of the disk.

mod agree;
mod anew;
mod batch;
mod block;
mod body;
mod chain;
mod compact;
mod config;
mod copy;
mod crcs;
mod cut;
mod disk;
mod dump;
mod encode;
mod error;
mod fault;
mod files_limit;
mod fill;
mod former;
mod frame;
mod gap;
mod group;
mod holder;
mod index;
mod inspect;
mod limits;
mod log;
mod lookup;
mod map;
mod meta;
mod num;
mod open;
mod order;
mod os;
mod overlay;
mod place;
mod reader;
mod recycle;
mod regular;
mod repair;
mod resync;
mod retention;
mod scan;
mod segment;
#[cfg(feature = "sim")]
pub mod sim;
mod survey;
mod sync;
mod time;
mod trim;
mod verify;
mod view;
mod wanted;

pub use agree::Disagreement;
pub use anew::{Refused, Rewritten};
pub use batch::{Batch, BatchBuilder, FrameError};
pub use compact::{Compacting, Compaction};
pub use config::{
    CompactionConfig, ConfigError, Durability, LogConfig, RESERVE_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SYNC_INTERVAL_MS_MAX,
};
pub use copy::{Adopted, BadCopy, CutPlace, Piece, Until, adopt, cut_place, read_meta};
pub use disk::{Disk, DiskFile};
pub use dump::{DumpItem, Dumped, dump};
pub use encode::record_bytes;
pub use error::{Damage, DiskError, HeaderFault, Later, LogError, OpenError, Operation, ReadError, Shortage};
pub use fault::Fault;
pub use files_limit::files_kept_for_connections;
pub use fill::Preparation;
pub use frame::{Headers, Producer, RecordView};
pub use group::SharedLog;
pub use inspect::{BadIndex, IndexFault, bad_indexes, holds_log, repair};
pub use limits::{Bounded, LimitError, Limits, VOTERS_MAX};
pub use log::Log;
pub use meta::{Meta, Promise};
pub use open::Recovered;
pub use order::ProducerRun;
pub use os::{OsDisk, OsFile};
pub use overlay::{Changes, Overlay, OverlayFile};
pub use reader::{Chunk, Reader, Records};
pub use regular::read_text;
pub use repair::{Excerpt, Repair};
pub use retention::Retention;
pub use sync::SyncPoint;
pub use verify::{Verified, Verifier};
pub use wanted::{NotCommitted, Wanted};
