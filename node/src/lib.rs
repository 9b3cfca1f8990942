//! The storage node: a thin shell of tokio and tonic around the rules of `zue-core` and the log of `zue-log`.
//!
//! The driver owns the replica and is the only one that steps it; the disk has a thread of its own; every follower has a task;
//! the services check what comes in and wait for answers. What they share goes through bounded queues (`inbox`) and watches
//! (`state`).

mod append;
mod args;
mod aside;
mod built;
mod cache;
mod carry;
mod clock;
mod config;
mod control;
mod door;
mod driver;
mod ended;
mod ending;
mod errors;
mod feed;
mod fetch;
mod first_words;
mod follow;
mod http;
mod inbox;
mod intake;
mod leaderless;
mod listener;
mod log_service;
mod memory;
mod metrics;
mod net;
mod newcomers;
mod node;
mod num;
mod open;
mod open_files;
mod outflow;
mod owner;
mod pace;
mod patience;
mod peer;
mod places;
mod port_holder;
mod read;
mod replica_thread;
mod rights;
mod room;
mod serve;
mod server;
mod settings;
mod standby;
mod standing_by;
mod state;
mod status;
mod storage;
mod target;
mod tls;
mod units;
mod vital;
mod watch;
mod whereabouts;

pub use args::Args;
pub use config::{AdvertiseSettings, BadQuorum, ConfigError, ListenSettings, NodeConfig, check_quorum};
pub use memory::MemoryBound;
pub use metrics::Metrics;
pub use node::{Addresses, Node, RunningNode, StartError};
pub use open::is_of_later_version;
pub use open_files::{raise_and_check_open_files, raise_open_files};
pub use port_holder::port_holder;
pub use settings::{Durability, LimitSettings, LogSettings, ReplicationSettings};
pub use tls::{
    AccessClient, AccessError, AccessFile, AccessSettings, Right, TlsError, TlsMetrics, TlsMode, TlsSettings,
};
pub use units::{BadUnit, ByteSize, Time};
