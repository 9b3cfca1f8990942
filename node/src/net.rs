//! What the node's own connections have in common: how long they may be silent, and how large a message may be.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to open.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that answers no ping is given up after the sum of these two.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The receive windows of a stream and of a connection, whoever has opened it. Half the latter is also what small DATA frames may
/// weigh that wait to be read, see [`crate::server::CLIENT_STREAM_WINDOW_BYTES`].
pub(crate) const STREAM_WINDOW_BYTES: u32 = 128 << 10;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// The most a message of a leader may have: the largest append that any configuration allows, and its envelope.
pub(crate) const PEER_MESSAGE_BYTES_MAX: usize = (64 << 20) + (256 << 10);
/// The most an answer to a read may have: the largest record that any configuration allows, and its envelope. What is in the log came
/// under other limits perhaps, and is served whatever they are now.
pub(crate) const READ_MESSAGE_BYTES_MAX: usize = PEER_MESSAGE_BYTES_MAX;
/// The most a follower's answer may have.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Opens a connection to a peer.
pub(crate) async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true)
        .connect()
        .await
}
