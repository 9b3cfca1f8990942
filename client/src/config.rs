//! The settings of a client.

use std::time::Duration;

use crate::{Backoff, Tls, Token};

/// The most batches an appender may have under way: a leader remembers this many of each producer.
pub const IN_FLIGHT_MAX: usize = 64;

/// The patience of a client, and the limits on its work under way.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The time for which an append, or a read that makes no progress, is retried.
    pub deadline: Duration,
    /// The time that a server may take to answer one try.
    pub attempt_timeout: Duration,
    /// The pause between two tries.
    pub retry: Backoff,
    /// The greatest number of appends, or batches of one appender, that are under way; `1..=64`.
    pub in_flight_max: usize,
    /// The number of bytes of records that an appender puts into a batch, unless one record alone is larger.
    pub batch_bytes_max: usize,
    /// The number of records that an appender puts into a batch.
    pub batch_records_max: usize,
    /// With TLS; without it where there is none.
    pub tls: Option<Tls>,
    /// The token sent with every call. Needs TLS.
    pub token: Option<Token>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(12),
            retry: Backoff { min: Duration::from_millis(20), max: Duration::from_secs(1) },
            in_flight_max: 16,
            batch_bytes_max: 512 << 10,
            batch_records_max: 4096,
            tls: None,
            token: None,
        }
    }
}

impl ClientConfig {
    pub(crate) fn in_bounds(self) -> Self {
        Self {
            in_flight_max: self.in_flight_max.clamp(1, IN_FLIGHT_MAX),
            batch_bytes_max: self.batch_bytes_max.clamp(1, 4 << 20),
            batch_records_max: self.batch_records_max.clamp(1, 10_000),
            ..self
        }
    }
}

/// The range to read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The first offset.
    pub from: u64,
    /// Begin with the first record that is no older, in milliseconds since the Unix epoch; `from` may then lie before all there is.
    pub from_timestamp_ms: Option<u64>,
    /// The greatest number of records.
    pub max: Option<u64>,
    /// At the end, wait for more.
    pub follow: bool,
    /// See all that was committed when the reading began: only a leader that a majority confirms is read.
    pub linearizable: bool,
    /// Read from the replica of this name, and from no other. Otherwise the leader is read, or the replica that has most
    /// while nobody leads.
    pub replica: Option<String>,
}
