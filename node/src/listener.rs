//! Connections: how many a port takes, and how long a silent one is put up with. Knows no protocol.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::metrics::Metrics;
use crate::num::length;

/// A connection that has not said anything for so long since it was opened is closed.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after the system could not accept a connection: it is out of something.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often refused connections are logged.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// A port.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    port: &'static str,
    places: Arc<Semaphore>,
    places_max: u32,
    /// How long a connection may say nothing at any time; none where the protocol has pings of its own.
    silence_max: Option<Duration>,
    open: IntGauge,
    rejected: IntCounter,
    complained: Option<Instant>,
}

/// A connection, and its place among those that a port takes.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    silence_max: Option<Duration>,
    patience: Option<Pin<Box<Sleep>>>,
    open: IntGauge,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    pub(crate) async fn bind(
        address: SocketAddr,
        port: &'static str,
        connections_max: u32,
        silence_max: Option<Duration>,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(address).await?,
            port,
            places: Arc::new(Semaphore::new(length(connections_max))),
            places_max: connections_max,
            silence_max,
            open: metrics.connections.with_label_values(&[port]),
            rejected: metrics.rejected_connections.with_label_values(&[port]),
            complained: None,
        })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection that there is a place for.
    pub(crate) async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, from)) => {
                    if let Some(connection) = self.admit(stream, from) {
                        return (connection, from);
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
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.rejected.inc();
            if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                self.complained = Some(Instant::now());
                let (port, max) = (self.port, self.places_max);
                tracing::warn!(port, max, %from, "connections are closed at once: limits.connectionsMax are open");
            }
            return None;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        self.open.inc();
        let patience = Some(Box::pin(tokio::time::sleep(FIRST_BYTE_TIMEOUT)));
        let (silence_max, open) = (self.silence_max, self.open.clone());
        Some(Connection { stream, silence_max, patience, open, _place: place })
    }

    /// As a stream, which does not end.
    pub(crate) fn into_stream(self) -> impl futures::Stream<Item = io::Result<Connection>> + Send {
        futures::stream::unfold(self, |mut listener| async move {
            let (connection, _) = listener.next().await;
            Some((Ok(connection), listener))
        })
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            match (self.silence_max, &mut self.patience) {
                (Some(silence_max), Some(patience)) => patience.as_mut().reset(Instant::now() + silence_max),
                _ => self.patience = None,
            }
            return polled;
        }
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        patience.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
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
