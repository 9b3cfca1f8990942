//! Limits of a node that no setting changes. They stand here and not beside the code that keeps to them because the memory that a
//! node takes at most is their sum, too.

/// The number of connections that the port of the peers takes, whatever the setting says.
pub const PEER_CONNECTIONS_MAX: u32 = 128;
/// The number of calls that one connection may have at once.
pub const STREAMS_MAX: u32 = 256;
/// The receive window of a client's connection. Half of it is also what h2 lets small DATA frames weigh that wait to be read, each as
/// 256 bytes less its own, before it ends the connection. A stream of small appends must be held back by its own window first: it
/// is, down to 16 bytes an append.
pub const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// The receive window of a connection between nodes, whoever has opened it.
pub const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// The buffer of a connection of HTTP/1: what it reads at once.
pub const HTTP1_BUFFER_BYTES: usize = 16 << 10;
/// The bytes that a connection holds of one call's answer at once.
pub const UNTAKEN_BYTES_MAX: usize = 64 << 10;
/// An end of a call's answer that is no longer than this is not waited for.
pub const UNTAKEN_END_BYTES_MAX: usize = 1 << 10;

/// The number of calls that a port serves at once.
pub const CALLS_MAX: usize = 8192;
/// The number of them that may be for health and reflection.
pub const ASIDE_CALLS_MAX: usize = 64;
/// The length of a request that is neither an append nor a leader's.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The number of parts that such a request has.
pub const REQUEST_PARTS_MAX: u64 = 1024;
/// The bytes of such requests that are received at once.
pub const REQUESTS_BYTES_MAX: usize = 16 << 20;
/// A record, a header or another part of a message, as it stands in memory beside its bytes.
pub const PART_BYTES: usize = 192;

/// The most a message of a leader may have: the largest append that any configuration allows, and its envelope.
pub const PEER_MESSAGE_BYTES_MAX: usize = (64 << 20) + (256 << 10);
/// The number of parts that a message of a leader has: each is many bytes of a true one.
pub const LEADER_PARTS_MAX: u64 = 1 << 18;
/// The bytes of leaders' messages that are received at once: one connection alone gets as much as one message may have, and where another
/// host has taken all that it can, half of that.
pub const LEADERS_BYTES_MAX: usize = 4 * PEER_MESSAGE_BYTES_MAX;

/// The bytes that are on their way to readers at once.
pub const READS_BYTES_MAX: usize = 256 << 20;
/// The number of requests of replicas that lack records which are answered at once; further ones wait.
pub const FETCHES_MAX: usize = 4;
/// The bytes of such answers that are on their way at once.
pub const FETCHES_BYTES_MAX: usize = 64 << 20;
