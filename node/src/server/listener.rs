//! Connections: how many a port takes, who makes way, and how long one may take to say what it wants. Knows no protocol but how its
//! connections begin.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use zue_tls::Stream;

use crate::gauged::Gauged;
use crate::metrics::Metrics;
use crate::num::wide;
use crate::server::caller::Caller;
use crate::server::owner::Owner;
use crate::server::slots::{Slot, Slots};
use crate::tls::PresentedIdentity;

/// The pause after the system could not accept a connection: it is out of something.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The interval at which refused connections are logged.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// The first bytes of a client of HTTP/2, before a frame of settings.
const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
/// The head of a frame.
const FRAME_HEAD_BYTES: usize = 9;

/// The beginning of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Greeting {
    /// With the preface of HTTP/2, and settings.
    Http2,
    /// With a request, which is waited for elsewhere.
    Request,
}

/// A port.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    port: &'static str,
    greeting: Greeting,
    slots: Arc<Slots>,
    open: IntGauge,
    rejected: IntCounter,
    complained: Option<Instant>,
}

/// A connection, and its place among those that a port takes.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    rest: Rest,
}

/// A connection without its bytes.
#[derive(Debug)]
pub(crate) struct Rest {
    /// The part of the greeting that has come; none once it is complete.
    greeting: Option<Hello>,
    caller: Arc<Caller>,
    _open: Gauged,
    slot: Arc<Slot>,
}

impl Connection {
    /// The caller at the other end.
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.rest.caller
    }

    /// Waits for its first bytes, and leaves them to be read.
    pub(crate) async fn begins_with<const N: usize>(&self, first: [u8; N]) -> io::Result<bool> {
        let Stream::Plain(stream) = &self.stream else { return Ok(false) };
        let mut bytes = [0; N];
        Ok(stream.peek(&mut bytes).await? == N && bytes == first)
    }

    /// Its bytes, and the rest of it.
    pub(crate) fn split(self) -> (Stream, Rest) {
        (self.stream, self.rest)
    }
}

impl Rest {
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The same connection once more is known of who is at the other end: its name, if that is to have a share.
    pub(crate) fn secured(self, stream: Stream, shown: PresentedIdentity, name: Option<&str>) -> Connection {
        let before = &self.caller;
        let owner = name.map_or(before.owner, |name| before.owner.named(name));
        self.slot.is_of(owner);
        let caller = Caller::new(owner, (&before.occupant, &before.port), shown, &self.slot);
        Connection { stream, rest: Self { caller, ..self } }
    }
}

/// The part of a greeting that has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Hello {
    bytes: usize,
    /// Of the frame of settings.
    length: usize,
}

impl Hello {
    /// Takes these bytes, and tells whether the greeting is complete.
    fn push(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if (PREFACE_BYTES..PREFACE_BYTES + 3).contains(&self.bytes) {
                self.length = (self.length << 8) | usize::from(*byte);
            }
            self.bytes += 1;
        }
        self.bytes >= PREFACE_BYTES + FRAME_HEAD_BYTES + self.length
    }
}

impl Listener {
    /// Listens in the runtime that is entered.
    pub(crate) fn bind(
        address: SocketAddr,
        port: &'static str,
        greeting: Greeting,
        slots: Arc<Slots>,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: TcpListener::from_std(socket)?,
            port,
            greeting,
            slots,
            open: metrics.connections.with_label_values(&[port]),
            rejected: metrics.rejected_connections.with_label_values(&[port]),
            complained: None,
        })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection that there is a place for.
    pub(crate) async fn next(&mut self) -> Connection {
        loop {
            match self.socket.accept().await {
                Ok((stream, from)) => {
                    if let Some(connection) = self.admit(stream, from) {
                        return connection;
                    }
                }
                Err(error) => {
                    tracing::warn!(port = self.port, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, from: SocketAddr) -> Option<Connection> {
        /// In all ports and nodes of a process.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let owner = Owner::new(from.ip(), NEXT.fetch_add(1, Ordering::Relaxed));
        let Some(slot) = self.slots.take(owner) else {
            self.rejected.inc();
            if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                self.complained = Some(Instant::now());
                let (port, max) = (self.port, wide(self.slots.max()));
                tracing::warn!(port, max, %from, "connections are closed at once: limits.connectionsMax are open and in use");
            }
            return None;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        let slot = Arc::new(slot);
        let caller = Caller::new(owner, (&slot.occupant, &self.slots), PresentedIdentity::Plain, &slot);
        let greeting = (self.greeting == Greeting::Http2).then(Hello::default);
        Some(Connection {
            stream: Stream::Plain(stream),
            rest: Rest { greeting, caller, _open: Gauged::new(&self.open, 1), slot },
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(hello) = &mut self.rest.greeting
            && hello.push(buf.filled().get(before..).unwrap_or_default())
        {
            self.rest.greeting = None;
            self.rest.caller.has_greeted();
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_complete_with_the_last_byte_of_its_settings() {
        let mut greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        greeting.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0]);
        for size in 1..=greeting.len() {
            let mut hello = Hello::default();
            let pieces: Vec<bool> = greeting.chunks(size).map(|piece| hello.push(piece)).collect();
            assert_eq!(pieces.iter().position(|complete| *complete), Some(pieces.len() - 1), "pieces of {size}");
        }
    }
}
