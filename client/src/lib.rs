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

mod append;
mod appender;
mod backoff;
mod client;
mod config;
mod error;
mod find;
mod line;
mod read;
mod security;
mod servers;
mod switch_over;
#[cfg(test)]
mod tests;
mod trouble;

pub use append::AppendId;
pub use appender::{Acks, Appender, Closed};
pub use backoff::Backoff;
pub use client::{Appended, Client, ReplicaStatus};
pub use config::{ClientConfig, IN_FLIGHT_MAX};
pub use error::{AppendError, Error, NoLeader, Refused};
pub use read::{ReadBatch, ReadOptions, Reader};
pub use security::{BadToken, Tls, Token};
pub use switch_over::SwitchedOver;
pub use trouble::Trouble;
pub use zue_proto::net::{BadAddress, check_address};
pub use zue_proto::v1::{DescribeResponse, Header, NewRecord, Outcome, Reason, Record};
pub use zue_tls::{DialError, rustls};
