//! The welcome of a connection: with TLS or without, and with what it shows of its other end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use zue_settings::TlsMode;
use zue_tls::{Stream, TlsAcceptor, Wire, wire};

use super::credentials::Credentials;
use super::port::Port;
use super::{PresentedIdentity, Security};
use crate::metrics::Metrics;
use crate::server::listener::{Connection, Rest};

/// The first byte of TLS: a record of a handshake.
const TLS_BEGINS: [u8; 1] = [0x16];
/// The time that a refused caller may take to hear why.
const HEARS_WITHIN: Duration = Duration::from_secs(1);

impl Security {
    /// Takes a connection in, within that time; none if it is not to be served.
    pub(crate) async fn welcome(
        &self,
        connection: Connection,
        port: Port,
        until: Instant,
        metrics: &Arc<Metrics>,
    ) -> Option<Connection> {
        let Some(kept) = &self.0 else { return Some(connection) };
        let begins = timeout_at(until, connection.begins_with(TLS_BEGINS)).await.ok()?;
        if begins.ok()? {
            let (shaking, metrics) = (Arc::clone(kept), Arc::clone(metrics));
            let shaken = async move { shaking.shake_hands(connection, port, until, &metrics).await };
            // Whoever is not waited for any more is not gone on with.
            return AbortOnDropHandle::new(kept.handshakes.spawn(shaken)).await.ok()?;
        }
        metrics.tls_plain_connections.with_label_values(&[port.name()]).inc();
        // A client is told in words, with each call; nobody else has any business without TLS.
        if kept.mode() == TlsMode::Required && port == Port::Peer {
            metrics.tls_failed_handshakes.with_label_values(&[port.name()]).inc();
            tracing::debug!("a connection without TLS is closed: tls.mode is Required");
            return None;
        }
        Some(connection)
    }
}

impl Credentials {
    async fn shake_hands(
        &self,
        connection: Connection,
        port: Port,
        until: Instant,
        metrics: &Metrics,
    ) -> Option<Connection> {
        let (stream, rest) = connection.split();
        let Stream::Plain(stream) = stream else { return None };
        let current = self.current.load_full();
        let config = match port {
            Port::Client => &current.for_clients,
            Port::Peer => &current.for_peers,
        };
        let accepted = TlsAcceptor::from(Arc::clone(config)).accept(wire(stream)).into_fallible();
        let why = match timeout_at(until, accepted).await {
            Ok(Ok(stream)) => {
                let stream = Stream::Tls(Box::new(stream.into()));
                // The files may have been replaced meanwhile: who is believed no more is not.
                let current = self.current.load_full();
                let shown = PresentedIdentity::of(stream.certificates(), port, &current);
                match (port, &shown) {
                    (Port::Peer, PresentedIdentity::Known(_)) => rest.caller().belongs_here(),
                    (Port::Peer, _) => {
                        return refuse_connection(port, &rest, "its certificate is not believed any more", metrics);
                    }
                    (Port::Client, _) => {}
                }
                let name = shown.client().map(ToOwned::to_owned);
                return Some(rest.secured(stream, shown, name.as_deref()));
            }
            Ok(Err((error, _))) if is_gone(&error) => {
                // One that died, or was killed, is not refused.
                tracing::debug!(port = port.name(), %error, "a caller went away in a handshake of TLS");
                return None;
            }
            Ok(Err((error, stream))) => {
                let_hear(stream).await;
                error.to_string()
            }
            Err(_) => "it is not done in time".to_owned(),
        };
        refuse_connection(port, &rest, &why, metrics)
    }
}

/// Tells whether the other end broke off, or the way to it, without a word. Whoever refuses this node says so.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | TimedOut)
}

fn refuse_connection(port: Port, rest: &Rest, why: &str, metrics: &Metrics) -> Option<Connection> {
    metrics.tls_failed_handshakes.with_label_values(&[port.name()]).inc();
    let from = rest.caller().owner.host;
    tracing::debug!(port = port.name(), ?from, why, "a handshake of TLS failed");
    None
}

/// Waits until the other side has read why it is refused, and closed: what is closed with bytes unread is reset, and the reason lost.
async fn let_hear(mut stream: Wire) {
    let heard = async {
        if stream.shutdown().await.is_ok() {
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
        }
    };
    // Whoever takes longer does not want to know.
    let _ = timeout(HEARS_WITHIN, heard).await;
}
