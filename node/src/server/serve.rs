//! Serving connections: what of HTTP one may use, and when it ends. Knows neither calls nor paths.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::codegen::{Service as _, http};
use zue_settings::fixed::{HTTP1_BUFFER_BYTES, STREAMS_MAX};

use crate::metrics::Metrics;
use crate::rarely::Rarely;
use crate::server::caller::Caller;
use crate::server::door::Door;
use crate::server::listener::{Connection, Listener};
use crate::server::net;
use crate::server::outflow::Call;
use crate::server::slots::Slots;
use crate::tls::{Port, Security};

/// The most bytes that the headers of a call may have.
pub(crate) const HEADERS_BYTES_MAX: u32 = 8 << 10;
/// The interval at which an idle connection is asked whether it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// The time that a request of HTTP/1 may take to come, and with its answer.
const HTTP1_HEAD_WITHIN: Duration = Duration::from_secs(5);
const HTTP1_WITHIN: Duration = Duration::from_secs(30);
/// The first bytes of a connection of HTTP/2.
const HTTP2_BEGINS: [u8; 3] = *b"PRI";

/// The limits of a gRPC port's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Http2 {
    pub(crate) stream_window_bytes: u32,
    pub(crate) connection_window_bytes: u32,
    /// The time that one may take to say hello.
    pub(crate) hello_within: Duration,
    /// The time for which bytes of a call may be left untaken.
    pub(crate) stall_max: Duration,
}

/// The gate of a gRPC port: who gets in.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) port: Port,
    pub(crate) security: Security,
    pub(crate) metrics: Arc<Metrics>,
}

/// Runs each stream of a connection as a call.
#[derive(Clone, Debug)]
struct Calls {
    caller: Arc<Caller>,
    slots: Arc<Slots>,
    stall_max: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Calls {
    fn execute(&self, stream: F) {
        let call = Call::new(self.slots.take_busy(self.caller.owner));
        tokio::spawn(call.serve(stream, self.stall_max));
    }
}

/// Serves a gRPC port until it is stopped.
pub(crate) async fn serve_grpc(mut listener: Listener, door: Door, http: Http2, stop: CancellationToken) {
    let (door, mut connections) = (Arc::new(door), JoinSet::new());
    loop {
        let connection = tokio::select! {
            connection = listener.next() => connection,
            () = stop.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_http2(connection, Arc::clone(&door), http, stop.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_http2(connection: Connection, door: Arc<Door>, http: Http2, stop: CancellationToken) {
    let Http2 { stream_window_bytes, connection_window_bytes, hello_within, stall_max } = http;
    let (gate, hello_until) = (door.gate().clone(), Instant::now() + hello_within);
    let leaves = connection.caller().occupant.leaves.clone();
    let welcomed = tokio::select! {
        welcomed = gate.security.welcome(connection, gate.port, hello_until, &gate.metrics) => welcomed,
        () = leaves.cancelled() => return,
        () = stop.cancelled() => return,
    };
    let Some(connection) = welcomed else { return };
    let caller = Arc::clone(connection.caller());
    let calls = Calls { caller: Arc::clone(&caller), slots: Arc::clone(door.calls()), stall_max };
    let mut builder = http2::Builder::new(calls);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(net::KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(stream_window_bytes)
        .initial_connection_window_size(connection_window_bytes);
    let service = {
        let caller = Arc::clone(&caller);
        service_fn(move |request: http::Request<Incoming>| {
            let (door, caller) = (Arc::clone(&door), Arc::clone(&caller));
            async move { Ok::<_, Infallible>(door.serve(caller, request).await) }
        })
    };
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let mut stopped = Rarely::new(stop.cancelled_owned());
    let mut ends = Rarely::new(end(Arc::clone(&caller), gate.security.clone(), hello_until));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                }
                return;
            }
            end = &mut ends => match end {
                End::Now => return,
                End::Outlived(left) => {
                    caller.ends.cancel();
                    ends = Rarely::new(last_end(Arc::clone(&caller), Instant::now() + left, hello_until));
                }
            },
            () = &mut stopped, if !is_stopping => is_stopping = true,
        }
        served.as_mut().graceful_shutdown();
    }
}

/// The reason for which a connection ends, though the client would go on.
enum End {
    /// It made way for others, or said no hello in time.
    Now,
    /// The certificate that it was opened with is not believed any more: it has so long to end.
    Outlived(Duration),
}

async fn end(caller: Arc<Caller>, security: Security, hello_until: Instant) -> End {
    tokio::select! {
        () = leaves(&caller, hello_until) => End::Now,
        left = security.outlived(&caller) => End::Outlived(left),
    }
}

async fn last_end(caller: Arc<Caller>, ends_at: Instant, hello_until: Instant) -> End {
    let _ = tokio::time::timeout_at(ends_at, leaves(&caller, hello_until)).await;
    End::Now
}

/// Waits until the connection has to make way, or has not said hello in time.
async fn leaves(caller: &Caller, hello_until: Instant) {
    let leaves = caller.occupant.leaves.cancelled();
    if caller.occupant.greeted.load(Ordering::Relaxed) {
        return leaves.await;
    }
    let mut leaves = pin!(leaves);
    tokio::select! {
        () = leaves.as_mut() => return,
        greeted = tokio::time::timeout_at(hello_until, caller.greeted()) => if greeted.is_err() { return },
    }
    leaves.await;
}

/// Serves requests until it is stopped: one a connection, so that nobody keeps one.
pub(crate) async fn serve_http(mut listener: Listener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let connection = tokio::select! {
            connection = listener.next() => connection,
            () = stop.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_request(connection, router.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one request. A client of gRPC that has taken this port for another is told in its own protocol that nothing is there.
async fn serve_request(connection: Connection, router: Router) {
    let occupant = Arc::clone(&connection.caller().occupant);
    let is_http2 = tokio::time::timeout(HTTP1_HEAD_WITHIN, connection.begins_with(HTTP2_BEGINS)).await;
    let Ok(Ok(is_http2)) = is_http2 else { return };
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut router = router.clone();
        async move { router.call(request.map(axum::body::Body::new)).await }
    });
    let served = async {
        if is_http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(1).max_header_list_size(HEADERS_BYTES_MAX);
            let served = builder.serve_connection(TokioIo::new(connection), service);
            return tokio::time::timeout(HTTP1_HEAD_WITHIN, served).await.unwrap_or(Ok(()));
        }
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP1_HEAD_WITHIN)
            .max_buf_size(HTTP1_BUFFER_BYTES)
            .keep_alive(false);
        builder.serve_connection(TokioIo::new(connection), service).await
    };
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a request failed");
            }
        }
        () = tokio::time::sleep(HTTP1_WITHIN) => {}
        () = occupant.leaves.cancelled() => {}
    }
}
