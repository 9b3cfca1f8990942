//! What of a client can be set.

use std::time::Duration;

use crate::{Backoff, Tls, Token};

/// The most batches an appender may have under way: a leader remembers this many of each producer.
pub const IN_FLIGHT_MAX: usize = 64;

/// How patient a client is, and how much it has under way.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How long an append, or a read that makes no progress, is retried before it fails.
    pub deadline: Duration,
    /// How long a server may take to answer one try.
    pub attempt_timeout: Duration,
    /// The pause between two tries.
    pub retry: Backoff,
    /// How many appends, or batches of one appender, are under way at most; `1..=64`.
    pub in_flight_max: usize,
    /// How many bytes of records an appender puts into a batch, unless one record alone is larger.
    pub batch_bytes_max: usize,
    /// How many records an appender puts into a batch.
    pub batch_records_max: usize,
    /// With TLS; without it where there is none.
    pub tls: Option<Tls>,
    /// What is shown with every call. Needs TLS.
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

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The first offset.
    pub from: u64,
    /// Begin with the first record that is no older, in milliseconds since the Unix epoch; `from` may then lie before all there is.
    pub from_timestamp_ms: Option<u64>,
    /// How many records at most.
    pub max: Option<u64>,
    /// At the end, wait for more.
    pub follow: bool,
    /// See all that was committed when the reading began: only a leader that a majority confirms is read.
    pub linearizable: bool,
    /// Read from the replica of this name, and from no other. Otherwise the leader is read, or the replica that has most
    /// while nobody leads.
    pub replica: Option<String>,
}
