//! The memory that a node takes at most, whatever is done to it from outside: the sum of its limits. Looks at no process.

use std::fmt;

use crate::fixed::{
    ASIDE_CALLS_MAX, CALLS_MAX, CLIENT_CONNECTION_WINDOW_BYTES, CONNECTION_WINDOW_BYTES, FETCHES_BYTES_MAX,
    FETCHES_MAX, HTTP1_BUFFER_BYTES, LEADER_PARTS_MAX, LEADERS_BYTES_MAX, PART_BYTES, PEER_CONNECTIONS_MAX,
    PEER_MESSAGE_BYTES_MAX, READS_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_PARTS_MAX, REQUESTS_BYTES_MAX, STREAMS_MAX,
    UNTAKEN_BYTES_MAX, UNTAKEN_END_BYTES_MAX,
};
use crate::node::NodeConfig;
use crate::tls::TlsMode;

/// The program, its threads, what the log's files need, and what the allocator does not give back at once.
const PROCESS_BYTES: u64 = 192 << 20;
/// A connection's own buffers.
const CONNECTION_BYTES: u64 = 64 << 10;
/// A call: its tasks, and what its answer waits in.
const CALL_BYTES: u64 = 16 << 10;
/// The most followers that a leader feeds.
const FOLLOWERS_MAX: u64 = 8;
/// An append that a producer is remembered for, and the producer.
const APPEND_BYTES: u64 = 32;
const PRODUCER_BYTES: u64 = 128;
/// An append that waits for its commit.
const WAITER_BYTES: u64 = 512;

/// The most memory that a node takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryBound(Vec<(&'static str, u64)>);

impl MemoryBound {
    /// Of a node with this configuration.
    pub fn of(config: &NodeConfig) -> Self {
        let NodeConfig { replication, limits, tls, .. } = config;
        let (records, headers) = (u64::from(limits.append_records_max), u64::from(limits.headers_max));
        let parts = records.saturating_mul(headers.saturating_add(1)).saturating_mul(wide(PART_BYTES));
        let one_append = wide(limits.append_request_bytes_max()).saturating_add(parts);
        let one_request = wide(REQUEST_BYTES_MAX) + REQUEST_PARTS_MAX * wide(PART_BYTES);
        let one_start = wide(PEER_MESSAGE_BYTES_MAX) + LEADER_PARTS_MAX * wide(PART_BYTES);
        let ends = u64::from(STREAMS_MAX) * wide(UNTAKEN_END_BYTES_MAX);
        let connection = |window: u32| u64::from(window) + ends + CONNECTION_BYTES;
        let connections = u64::from(limits.connections_max);
        let peers = connections.min(PEER_CONNECTIONS_MAX.into());
        let message = wide(UNTAKEN_BYTES_MAX);
        let readers = u64::from(limits.readers_max);
        let one_read = limits.read_bytes_max.0.max(limits.record_bytes_max.0);
        let producer = u64::from(limits.producer_appends_max).saturating_mul(APPEND_BYTES) + PRODUCER_BYTES;
        let calls = wide(CALLS_MAX) * CALL_BYTES + wide(ASIDE_CALLS_MAX) * 2 * message;
        let fed = replication.inflight_bytes_max.0.saturating_add(replication.repair_batch_bytes.0);
        Self(vec![
            ("the process itself", PROCESS_BYTES),
            (
                "connections of clients (limits.connectionsMax)",
                connections * connection(CLIENT_CONNECTION_WINDOW_BYTES),
            ),
            ("connections of peers and controllers", peers * connection(CONNECTION_WINDOW_BYTES)),
            ("connections for metrics and health", connections * (wide(HTTP1_BUFFER_BYTES) * 2 + CONNECTION_BYTES)),
            (
                "TLS of connections (tls.mode)",
                if tls.mode == TlsMode::Off { 0 } else { (connections + peers) * zue_tls::CONNECTION_BYTES_MAX },
            ),
            ("calls, on both ports", 2 * calls),
            (
                "appends being received (limits.appendsBytesMax), and one more",
                limits.appends_bytes_max.0.saturating_add(one_append),
            ),
            (
                "appends on their way to the disk (limits.appendsBytesMax), and one more",
                limits.appends_bytes_max.0.saturating_add(limits.append_bytes_max.0),
            ),
            ("appends that wait (limits.appendsMax)", u64::from(limits.appends_max) * WAITER_BYTES),
            ("other requests being received, on both ports", 2 * (wide(REQUESTS_BYTES_MAX) + one_request)),
            ("reads (limits.readersMax)", readers * (message + CALL_BYTES)),
            ("what is on its way to readers, and one more message", wide(READS_BYTES_MAX).saturating_add(one_read * 2)),
            ("a leader's messages being received, and one more", wide(LEADERS_BYTES_MAX) + one_start),
            ("frames on their way to the disk (replication.inflightBytesMax)", replication.inflight_bytes_max.0),
            ("what followers are fed (replication.inflightBytesMax)", FOLLOWERS_MAX * fed),
            ("the end of the log (replication.inlineCatchupBytes)", replication.inline_catchup_bytes.0),
            (
                "records for replicas that lack them",
                wide(FETCHES_BYTES_MAX) + wide(FETCHES_MAX) * one_read.max(1 << 20),
            ),
            (
                "producers (limits.producersMax), and two copies",
                3 * u64::from(limits.producers_max).saturating_mul(producer),
            ),
        ])
    }

    /// All of it together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// A length as 64 bits.
fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, bytes) in &self.0 {
            writeln!(f, "{:>8}MiB  {what}", mib(*bytes))?;
        }
        writeln!(f, "{:>8}MiB  all of it: {} bytes", mib(self.bytes()), self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_sum_of_what_is_shown_and_grows_with_its_limits() {
        let mut config = NodeConfig::default();
        let bound = MemoryBound::of(&config);
        assert!(bound.bytes() < 7 << 29, "{bound}");
        let shown = bound.to_string();
        assert!(shown.contains(&format!("all of it: {} bytes", bound.bytes())), "{shown}");
        config.limits.connections_max *= 2;
        assert!(MemoryBound::of(&config).bytes() > bound.bytes() + (500 << 20));
        config.limits.append_records_max = 1_000_000;
        config.limits.headers_max = u16::MAX;
        assert!(MemoryBound::of(&config).bytes() > 1 << 40);
    }
}
