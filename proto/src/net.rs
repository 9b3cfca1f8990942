//! Channels to servers, and what a failed call says. Knows no service.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use zue_tls::{Dial, Stream};

use crate::place::{NotReached, Place};

/// The time that a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that answers no ping is given up after the sum of these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The receive window of a stream and of a connection.
const WINDOW_BYTES: u32 = 4 << 20;

/// An address that cannot be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{address:?} is no address: host:port is expected")]
pub struct BadAddress {
    /// The given value.
    pub address: String,
}

/// Checks `host:port`.
pub fn check_address(address: &str) -> Result<(), BadAddress> {
    let bad = || BadAddress { address: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let host_is_fine = !host.is_empty() && !host.contains('/') && (!host.contains(':') || host.starts_with('['));
    let port_is_fine = port.parse::<u16>().is_ok_and(|port| port != 0);
    if host_is_fine && port_is_fine && endpoint(address).is_ok() { Ok(()) } else { Err(bad()) }
}

fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}

/// A channel that connects when it is first used, and again after it broke.
pub fn channel(address: &str, dial: &Dial) -> Result<Channel, BadAddress> {
    channel_to(&Place::new(address, dial))
}

/// The same, to a place of which more may be known than its name.
pub fn channel_to(place: &Place) -> Result<Channel, BadAddress> {
    match endpoint(place.name()) {
        Ok(endpoint) => Ok(endpoint.connect_with_connector_lazy(Dialler(place.clone()))),
        Err(_) => Err(BadAddress { address: place.name().to_owned() }),
    }
}

/// Opens the connections of a channel.
struct Dialler(Place);

impl Service<Uri> for Dialler {
    type Response = TokioIo<Stream>;
    type Error = NotReached;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotReached>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotReached>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let place = self.0.clone();
        Box::pin(async move { place.open(CONNECT_TIMEOUT).await.map(|(stream, _)| TokioIo::new(stream)) })
    }
}

/// The reason of a failed call, for people: the node's own words, or the innermost reason of a transport error.
pub fn why(status: &Status) -> String {
    if let Some(error) = crate::error_of(status) {
        return error.message;
    }
    if is_misplaced(status) {
        return "it is no port for this: clients are served on 9440, replicas and controllers on 9441, metrics on 9442, unless it is set \
            otherwise"
            .to_owned();
    }
    let mut source = status.source();
    let mut text = status.message().to_owned();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    if text.is_empty() { status.code().to_string() } else { text }
}

/// Returns whether something answers there that serves no such calls: another port of a node, or no node.
pub fn is_misplaced(status: &Status) -> bool {
    status.code() == Code::Unimplemented
}

/// Returns whether the call failed before anything of it was sent.
pub fn is_unconnected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Returns whether it failed for who somebody is: whoever answers is not believed, or does not believe the certificate that it was shown.
/// To try again changes nothing of that, unless something else is shown or believed then.
pub fn is_of_identity(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let is_distrusted = error.downcast_ref::<NotReached>().is_some_and(NotReached::is_distrusted);
        let of_connection = error.downcast_ref::<h2::Error>().and_then(h2::Error::get_io);
        let of_connection = of_connection.or_else(|| error.downcast_ref::<io::Error>());
        if is_distrusted || of_connection.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_reached_nobody_says_so_and_why() {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let names = ["localhost", "127.0.0.1"].map(|host| format!("{host}:{}", gone.port()));
        for name in names {
            let mut client = crate::v1::control_client::ControlClient::new(channel(&name, &Dial::plain()).unwrap());
            let failed = client.status(crate::v1::StatusRequest {}).await.unwrap_err();
            assert!(is_unconnected(&failed), "{failed:?}");
            assert!(why(&failed).contains("Connection refused (os error 111)"), "{}", why(&failed));
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:9440", "zue-0.zue-nodes.default.svc:9440", "[::1]:9440"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", "zue-0", ":9440", "zue-0:", "zue-0:0", "zue-0:99999", "::1:9440", "http://zue-0:9440", "a b:1"]
        {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
