//! A stranger at the ports of a node, who wants to take all that there is: of memory, of places, of time. Goes on until it is
//! dropped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::transport::{Channel, Endpoint};
use zue_proto::v1;
use zue_proto::v1::log_client::LogClient;

/// The port of a node that is attacked.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The port of the clients.
    pub client: SocketAddr,
    /// The port of the peers and controllers.
    pub peer: SocketAddr,
    /// The port of metrics and health.
    pub metrics: SocketAddr,
}

/// The amount of it.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Connections to each port that say nothing, or half of it.
    pub connections: usize,
    /// Reads that take nothing.
    pub reads: usize,
    /// Calls of each kind that are announced, begun, or made of nothing but records without bytes.
    pub calls: usize,
}

/// An attack that goes on.
#[derive(Debug)]
pub struct Attack(JoinSet<()>);

/// The pause before a caller that was sent off comes again.
const AGAIN: Duration = Duration::from_millis(100);
/// The address that the stranger comes from: another host than everybody else's.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// On how many connections it tries to have more than one of them would get.
const CONNECTIONS: usize = 16;
/// The number of calls that one connection makes.
const CALLS_PER_CONNECTION: usize = 200;
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HALF_OF_IT: [&[u8]; 5] =
    [b"", b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", HELLO, b"GET /metrics HTTP/1.1\r\nHo"];

impl Attack {
    /// Begins. Must be called inside a tokio runtime.
    pub fn on(target: Target, scale: Scale) -> Self {
        let mut tasks = JoinSet::new();
        let Scale { connections, reads, calls } = scale;
        for port in [target.client, target.peer, target.metrics] {
            for n in 0..connections {
                tasks.spawn(half_open(port, HALF_OF_IT[n % HALF_OF_IT.len()]));
            }
        }
        for begun in 0..reads.div_ceil(CALLS_PER_CONNECTION) {
            let reads = (reads - begun * CALLS_PER_CONNECTION).min(CALLS_PER_CONNECTION);
            tasks.spawn(reads_that_take_nothing(target.client, reads));
        }
        for method in ["/zue.v1.Log/Append", "/zue.v1.Log/AppendStream"] {
            // Nothing of what is announced, and half of it; and eight million records without a byte.
            tasks.spawn(calls_of(target.client, method, calls, 16 << 20, Vec::new));
            tasks.spawn(calls_of(target.client, method, calls, 16 << 20, || vec![Bytes::from(vec![0; 16 << 10]); 512]));
            let empty = || vec![Bytes::from([0x22, 0].repeat(8 << 10)); 1000];
            tasks.spawn(calls_of(target.client, method, calls.min(4), 1000 * (16 << 10), empty));
        }
        let half = || vec![Bytes::from([0x7a, 0].repeat(16 << 10))];
        for (port, method) in [
            (target.client, "/zue.v1.Log/Describe"),
            (target.client, "/zue.v1.Log/Read"),
            (target.peer, "/zue.v1.Replication/Fetch"),
            (target.peer, "/zue.v1.Control/Seal"),
        ] {
            tasks.spawn(calls_of(port, method, calls, 16 << 20, half));
            tasks.spawn(calls_of(port, method, calls, 64 << 10, half));
        }
        // A second message, and a third, in a call that takes one.
        let more = || {
            let second = [&[0][..], &(16_u32 << 20).to_be_bytes()].concat();
            let records = Bytes::from([0x22, 0].repeat(10_000));
            vec![records.clone(), Bytes::from(second), records]
        };
        tasks.spawn(calls_of(target.client, "/zue.v1.Log/Append", calls, 20_000, more));
        // As much as one connection can have, on many.
        for _ in 0..CONNECTIONS {
            let parts = || vec![Bytes::from([0x7a, 0].repeat(1020))];
            tasks.spawn(calls_of(target.peer, "/zue.v1.Control/Status", calls, 64 << 10, parts));
            let bytes = || vec![Bytes::from([&[0x22, 0xf0, 0xff, 0xff, 3][..], &[0; 512 << 10]].concat())];
            tasks.spawn(calls_of(target.client, "/zue.v1.Log/Append", calls, 8 << 20, bytes));
        }
        let start = || vec![Bytes::from(vec![0; 16 << 10]); 2000];
        tasks.spawn(calls_of(target.peer, "/zue.v1.Replication/Follow", calls, 60 << 20, start));
        Self(tasks)
    }

    /// Ends, and waits until all of it has.
    pub async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

/// A connection that says this, and nothing more until it is closed; again and again.
async fn half_open(port: SocketAddr, said: &'static [u8]) {
    loop {
        if let Ok(mut stream) = connect_from(STRANGER, port).await
            && stream.write_all(said).await.is_ok()
        {
            let mut bytes = [0; 1000];
            while stream.read(&mut bytes).await.is_ok_and(|bytes| bytes > 0) {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn connect_from(host: IpAddr, port: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((host, 0).into())?;
    socket.connect(port).await
}

/// A connection of which so little of each call is taken that all of them stand still.
async fn connect(port: SocketAddr) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{port}")).ok()?;
    endpoint.local_address(Some(STRANGER)).initial_stream_window_size(100).connect().await.ok()
}

async fn reads_that_take_nothing(port: SocketAddr, count: usize) {
    loop {
        if let Some(channel) = connect(port).await {
            let mut held = Vec::new();
            for _ in 0..count {
                let mut client = LogClient::new(channel.clone());
                let follow = v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
                match tokio::time::timeout(Duration::from_secs(1), client.read(follow)).await {
                    Ok(Ok(reading)) => held.push(reading),
                    _ => break,
                }
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// So many calls on one connection, each with a message that announces so many bytes, and these of them; each again when it is
/// answered.
async fn calls_of(port: SocketAddr, path: &'static str, count: usize, announced: u32, pieces: fn() -> Vec<Bytes>) {
    loop {
        if let Some(channel) = connect(port).await {
            let mut calls = JoinSet::new();
            for _ in 0..count.min(CALLS_PER_CONNECTION) {
                let channel = channel.clone();
                calls.spawn(async move {
                    while call(channel.clone(), path, announced, pieces()).await.is_some() {
                        tokio::time::sleep(AGAIN).await;
                    }
                });
            }
            while calls.join_next().await.is_some() {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn call(mut channel: Channel, path: &str, announced: u32, pieces: Vec<Bytes>) -> Option<()> {
    let prefix = [&[0][..], &announced.to_be_bytes()].concat();
    let call = http::Request::post(path).header("content-type", "application/grpc");
    let call = call.body(Body::new(StreamBody::new(frames(Bytes::from(prefix), pieces)))).ok()?;
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.ok()?;
    let answer = channel.call(call).await.ok()?;
    let mut body = answer.into_body();
    while let Some(frame) =
        std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)).await
    {
        frame.ok()?;
    }
    Some(())
}

/// These, and then nothing.
fn frames(prefix: Bytes, pieces: Vec<Bytes>) -> impl Stream<Item = Result<Frame<Bytes>, tonic::Status>> + Send {
    let all = std::iter::once(prefix).chain(pieces).map(|bytes| Ok(Frame::data(bytes)));
    futures::stream::iter(all).chain(futures::stream::pending())
}

/// The most memory that a process has had, in bytes.
///
/// # Panics
/// When there is no such process.
pub fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak is told");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("it is a number");
    kib << 10
}
