//! The Rust client of Zue, a replicated append-only log.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use zue_client::{Client, ClientConfig, NewRecord, ReadOptions};
//!
//! let client = Client::new(["127.0.0.1:9440"], ClientConfig::default())?;
//! let record = NewRecord { value: "hello".into(), ..NewRecord::default() };
//! let appended = client.append(vec![record]).await?;
//! let mut reader = client.read(ReadOptions { from: appended.base_offset, ..ReadOptions::default() });
//! while let Some(batch) = reader.next().await {
//!     println!("{:?}", batch?.records);
//! }
//! # Ok(())
//! # }
//! ```

// The examples, which the tests run, name the crate as its users do.
#[cfg(test)]
extern crate self as zue_client;

mod append;
mod appender;
mod back_up;
mod backoff;
mod client;
mod config;
mod error;
mod find;
mod line;
mod names;
mod read;
mod security;
mod servers;
mod switch_over;
#[cfg(test)]
mod tests;
mod trouble;

pub use appender::{Acks, Appender, Closed};
pub use back_up::BackedUp;
pub use backoff::Backoff;
pub use client::{Client, ReplicaStatus};
pub use config::ReadOptions;
pub use config::{ClientConfig, IN_FLIGHT_MAX};
pub use error::{AppendError, Error, NoLeader, Refused};
pub use names::{AppendId, Appended};
pub use read::{ReadBatch, Reader};
pub use security::{BadToken, Tls, Token};
pub use switch_over::SwitchedOver;
pub use trouble::Trouble;
pub use zue_proto::net::{BadAddress, check_address};
pub use zue_proto::v1::{DescribeResponse, Header, NewRecord, Outcome, Reason, Record};
pub use zue_tls::{DialError, rustls};
