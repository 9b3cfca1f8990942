//! The storage node: a thin shell of tokio and tonic around the rules of `zue-core` and the log of `zue-log`.
//!
//! The driver owns the replica and is the only one that steps it; the disk has a thread of its own; every follower has a task;
//! the services check what comes in and wait for answers. What they share goes through bounded queues (`driver::handle`) and watches
//! (`driver::state`).

mod backup;
mod config;
mod driver;
mod gauged;
mod metrics;
mod num;
mod process;
mod rarely;
mod replication;
mod server;
mod services;
mod standby;
mod storage;
mod tls;

pub use config::{config_of, read_config};
pub use metrics::Metrics;
pub use process::node::{Addresses, Node, RunningNode, StartError};
pub use process::open::is_of_later_version;
pub use process::open_files::{raise_and_check_open_files, raise_open_files};
pub use process::port_holder::port_holder;
pub use standby::NAME as STANDBY_FILE;
pub use tls::{AccessError, TlsError};
