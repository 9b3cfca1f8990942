//! The settings of a node as types. The same structs are a node's file, a part of the schema of `ZueCluster`, and what the README lists.
//!
//! Also here: the node's flags, and the memory that all its limits add up to. Nothing here reads a file, and nothing knows what a node
//! does with a setting.

mod access;
mod args;
mod backup;
mod error;
pub mod fixed;
mod limits;
mod log;
mod memory;
mod node;
mod quorum;
mod replication;
mod tls;
mod units;
mod words;

pub use access::{AccessClient, AccessFile, Right};
pub use args::Args;
pub use backup::BackupSettings;
pub use error::ConfigError;
pub use limits::LimitSettings;
pub use log::{Durability, LogSettings};
pub use memory::MemoryBound;
pub use node::{AdvertiseSettings, ListenSettings, NodeConfig};
pub use quorum::{BadQuorum, check_quorum};
pub use replication::{HEARTBEATS_MIN, ReplicationSettings};
pub use tls::{AccessSettings, TlsMode, TlsSettings};
pub use units::{BadUnit, ByteSize, Time};
pub use words::{is_address, is_word};
