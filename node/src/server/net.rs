//! Limits that all of the node's own connections share: how long they may be silent, and how large a message may be.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use zue_proto::place::{NotReached, Place};
use zue_settings::fixed::{CONNECTION_WINDOW_BYTES, PEER_MESSAGE_BYTES_MAX};
use zue_tls::Stream;

/// The time that a connection may take to open.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that answers no ping is given up after the sum of these two.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The receive window of a stream, whoever has opened it: see [`zue_settings::fixed::CLIENT_CONNECTION_WINDOW_BYTES`].
pub(crate) const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// The most an answer to a read may have: the largest record that any configuration allows, and its envelope. What is in the log came
/// under other limits perhaps, and is served whatever they are now.
pub(crate) const READ_MESSAGE_BYTES_MAX: usize = PEER_MESSAGE_BYTES_MAX;
/// The most a follower's answer may have.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Opens a connection to a peer, and says where it leads.
pub(crate) async fn connect(place: &Place) -> Result<(Channel, SocketAddr), NotReached> {
    let (stream, at) = place.open(CONNECT_TIMEOUT).await?;
    let failed = |error| NotReached::because(zue_engine::room::full(&error));
    let endpoint = Endpoint::from_shared(format!("http://{}", place.name())).map_err(failed)?;
    let channel = endpoint
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(Opened(Some(TokioIo::new(stream))))
        .await;
    channel.map(|channel| (channel, at)).map_err(failed)
}

/// An open connection. It never reconnects: its owner opens a new one, perhaps to another address.
struct Opened(Option<TokioIo<Stream>>);

impl Service<Uri> for Opened {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    }
}
