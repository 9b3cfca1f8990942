//! Many at the door at once: who waits for nothing makes way, who takes nothing is sent off, and nobody keeps all the others out.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, append_all, error_of};
use futures::StreamExt as _;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::transport::Endpoint;
use zue_proto::v1::log_client::LogClient;
use zue_proto::v1::{self, Reason};
use zue_settings::Time;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn open(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = open(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Reads until the other side has closed.
fn is_closed(mut stream: &TcpStream) -> bool {
    let mut bytes = [0; 1000];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

async fn crowded(connections_max: u32, change: impl Fn(&mut zue_settings::LimitSettings)) -> Cluster {
    let mut cluster = Cluster::start(1, |config| {
        config.limits.connections_max = connections_max;
        change(&mut config.limits);
    })
    .await;
    cluster.elect(None).await;
    cluster.settle(0).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_or_half_of_it_make_way_and_are_closed_in_time() {
    let cluster = crowded(8, |limits| limits.receive_deadline = Time::from_millis(1500)).await;
    let listen = cluster.configs[0].listen;
    let hello = [PREFACE, SETTINGS].concat();
    let begun = Instant::now();
    let mut open_ones = Vec::new();
    for address in [listen.client, listen.peer, listen.metrics] {
        for half in [&b""[..], b"P", &hello[..12], PREFACE, &hello[..hello.len() - 1], b"GET /livez HTTP/1.1\r\nHo"] {
            for _ in 0..4 {
                let stream = TcpStream::connect(address).unwrap();
                let _ = (&stream).write_all(half);
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                open_ones.push((address, stream));
            }
        }
        // All eight places are taken; whoever comes now is served at once.
        append_all(&mut cluster.client(0).await, vec![b"through".to_vec()]).await;
        cluster.status(0).await;
        assert!(get(listen.metrics, "/livez").starts_with("HTTP/1.1 200"));
    }
    for (address, stream) in &open_ones {
        assert!(tokio::task::block_in_place(|| is_closed(stream)), "{address}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_way_and_busy_ones_do_not_for_their_like() {
    let cluster = crowded(8, |_| {}).await;
    let listen = cluster.configs[0].listen;
    // Of these nobody asks for anything of Zue's: to watch the health is no reason to stay.
    for address in [listen.client, listen.peer] {
        let idle: Vec<_> = (0..20).map(|_| open(address, &[PREFACE, SETTINGS].concat())).collect();
        let mut watching = Vec::new();
        for _ in 0..8 {
            let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
            let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
            let request = tonic_health::pb::HealthCheckRequest::default();
            watching.push(health.watch(request).await.unwrap());
        }
        append_all(&mut cluster.client(0).await, vec![b"through".to_vec()]).await;
        cluster.status(0).await;
        assert!(tokio::task::block_in_place(|| is_closed(&idle[0])));
    }
    let follow = || v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
    let mut busy = Vec::new();
    for _ in 0..8 {
        let mut client = cluster.client(0).await;
        let mut reading = client.read(follow()).await.unwrap().into_inner();
        reading.message().await.unwrap();
        busy.push(reading);
    }
    let ninth = open(listen.client, &[PREFACE, SETTINGS].concat());
    assert!(tokio::task::block_in_place(|| is_closed(&ninth)));
    assert!(cluster.metric(0, "zue_node_rejected_connections_total{port=\"client\"}") >= 1);
    drop(busy);
    let begun = Instant::now();
    while LogClient::connect(format!("http://{}", listen.client)).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "there is no room again");
    }
}

/// A client whose reads stand still at once: it takes a few bytes of each, and then no more.
async fn narrow_client(cluster: &Cluster) -> LogClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.configs[0].listen.client)).unwrap();
    LogClient::new(endpoint.initial_stream_window_size(1000).connect().await.unwrap())
}

/// All that is left of a read, and how it ended.
async fn rest(reading: &mut Streaming<v1::ReadResponse>, mut next: u64) -> (u64, tonic::Status) {
    loop {
        match reading.message().await {
            Ok(Some(response)) => {
                assert_eq!(response.first, next);
                next = response.next;
            }
            Ok(None) => return (next, tonic::Status::ok("")),
            Err(status) => return (next, status),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_which_nothing_is_taken_ends_with_a_reason_to_read_on_from() {
    let cluster = crowded(64, |limits| {
        limits.readers_max = 4;
        limits.stall_deadline = Time::from_millis(2000);
    })
    .await;
    append_all(&mut cluster.client(0).await, vec![vec![7; 100_000]; 40]).await;
    let follow = |from| v1::ReadRequest { from, follow: true, ..v1::ReadRequest::default() };
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(narrow_client(&cluster).await.read(follow(0)).await.unwrap().into_inner());
    }
    // They take nothing, so their places are free again after a while.
    let begun = Instant::now();
    let mut reading = loop {
        match cluster.client(0).await.read(follow(0)).await {
            Ok(reading) => break reading.into_inner(),
            Err(refused) => assert_eq!(error_of(&refused).0, Reason::Overloaded),
        }
        assert!(begun.elapsed() < PATIENCE, "they keep their places");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    reading.message().await.unwrap();
    // Once they go on, what was sent comes whole, then the reason; and another read goes on from there.
    let (next, status) = rest(&mut stalled[0], 0).await;
    let (reason, error, _) = error_of(&status);
    assert_eq!(reason, Reason::Overloaded);
    assert!(error.message.contains("limits.stallDeadline"), "{}", error.message);
    assert!(error.message.contains(&format!("from offset {next}")), "{next}: {}", error.message);
    drop(reading);
    let all = v1::ReadRequest { from: next, ..v1::ReadRequest::default() };
    let mut reading = cluster.client(0).await.read(all).await.unwrap().into_inner();
    let (end, status) = rest(&mut reading, next).await;
    assert_eq!((end, status.code()), (40, tonic::Code::Ok));
    // Who never goes on is cut off.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_ne!(rest(&mut stalled[1], 0).await.1.code(), tonic::Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_all_the_reads_gives_some_up_to_others() {
    let cluster = crowded(64, |limits| limits.readers_max = 20).await;
    let follow = || v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
    let mut greedy = cluster.client(0).await;
    let mut readings = Vec::new();
    for _ in 0..20 {
        let mut reading = greedy.read(follow()).await.unwrap().into_inner();
        reading.message().await.unwrap();
        readings.push(reading);
    }
    let refused = greedy.read(follow()).await.unwrap_err();
    assert_eq!(error_of(&refused).0, Reason::Overloaded, "it has them all already");
    let mut other = cluster.client(0).await;
    let mut own = Vec::new();
    for _ in 0..10 {
        own.push(other.read(follow()).await.unwrap().into_inner());
    }
    assert_eq!(error_of(&other.read(follow()).await.unwrap_err()).0, Reason::Overloaded, "half each");
    for reading in &mut readings[10..] {
        let (_, status) = rest(reading, 0).await;
        let (reason, error, _) = error_of(&status);
        assert_eq!(reason, Reason::Overloaded);
        assert!(
            error.message.contains("limits.readersMax") && error.message.contains("from offset 0"),
            "{}",
            error.message
        );
    }
    append_all(&mut other, vec![b"news".to_vec()]).await;
    for reading in readings[..10].iter_mut().chain(&mut own) {
        while reading.message().await.unwrap().unwrap().records.is_empty() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_from_many_hosts_do_not_take_all_places_of_the_peers_port() {
    let mut cluster = crowded(8, |_| {}).await;
    let listen = cluster.configs[0].listen;
    let mut strangers = tokio::task::JoinSet::new();
    for host in 2..20 {
        let endpoint = Endpoint::from_shared(format!("http://{}", listen.peer)).unwrap();
        let Ok(mut channel) = endpoint.local_address(Some([127, 0, 0, host].into())).connect().await else { continue };
        // Busy with a request that does not come.
        let body = axum::body::Body::from_stream(futures::stream::pending::<std::io::Result<bytes::Bytes>>());
        let call = http::Request::post("/zue.v1.Control/Status").header("content-type", "application/grpc");
        let call = call.body(Body::new(body)).unwrap();
        strangers.spawn(async move {
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(call).await
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(strangers.len() >= 8);
    cluster.status(0).await;
    cluster.elect(None).await;
    strangers.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_appends_of_which_none_has_come_is_no_reason_to_stay() {
    let cluster = crowded(8, |_| {}).await;
    let requests = || futures::stream::pending::<v1::AppendRequest>();
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(cluster.client(0).await.append_stream(requests()).await.unwrap());
    }
    for _ in 0..8 {
        append_all(&mut cluster.client(0).await, vec![b"through".to_vec()]).await;
    }
    // With an append it is one.
    let mut busy = Vec::new();
    for _ in 0..8 {
        let requests = futures::stream::iter([common::request(vec![common::value("v")])]).chain(requests());
        let mut answers = cluster.client(0).await.append_stream(requests).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap();
        busy.push(answers);
    }
    let refused = open(cluster.configs[0].listen.client, &[PREFACE, SETTINGS].concat());
    assert!(tokio::task::block_in_place(|| is_closed(&refused)));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_small_appends_in_frames_of_their_own_wait_their_turn() {
    let cluster = crowded(8, |limits| limits.stream_appends_max = 1).await;
    let request = |sequence: u64| v1::AppendRequest {
        producer_id: vec![0; 16].into(),
        sequence,
        ..common::request(vec![common::value("v")])
    };
    // Each is sent by itself, as other clients do: whatever is there is not gathered into one frame.
    let requests = futures::stream::iter(0..6000).then(move |sequence| async move {
        tokio::task::yield_now().await;
        request(sequence)
    });
    let mut answers = cluster.client(0).await.append_stream(requests).await.unwrap().into_inner();
    for _ in 0..6000 {
        answers.message().await.unwrap().unwrap();
    }
}

/// A client of another host.
async fn client_from(address: SocketAddr, host: [u8; 4]) -> LogClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    LogClient::new(endpoint.local_address(Some(host.into())).connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_all_the_reads_on_many_connections_gives_some_up_to_another_host() {
    let cluster = crowded(64, |limits| limits.readers_max = 20).await;
    let follow = || v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
    let mut readings = Vec::new();
    for _ in 0..20 {
        let mut greedy = client_from(cluster.configs[0].listen.client, [127, 0, 0, 2]).await;
        let mut reading = greedy.read(follow()).await.unwrap().into_inner();
        reading.message().await.unwrap();
        readings.push(reading);
    }
    let mut other = cluster.client(0).await;
    let mut own = Vec::new();
    for _ in 0..10 {
        own.push(other.read(follow()).await.unwrap().into_inner());
    }
    assert_eq!(error_of(&other.read(follow()).await.unwrap_err()).0, Reason::Overloaded, "half each");
    append_all(&mut other, vec![b"news".to_vec()]).await;
    for reading in &mut own {
        while reading.message().await.unwrap().unwrap().records.is_empty() {}
    }
    drop(readings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_connects_again_and_again_closes_nobody_elses_connection() {
    let cluster = crowded(8, |_| {}).await;
    let listen = cluster.configs[0].listen;
    let follow = || v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
    let mut idle = cluster.client(0).await;
    append_all(&mut idle, vec![b"one".to_vec()]).await;
    let mut busy = Vec::new();
    for _ in 0..7 {
        let mut greedy = client_from(listen.client, [127, 0, 0, 2]).await;
        let mut reading = greedy.read(follow()).await.unwrap().into_inner();
        reading.message().await.unwrap();
        busy.push(reading);
    }
    let rejected = || cluster.metric(0, "zue_node_rejected_connections_total{port=\"client\"}");
    let before = rejected();
    let endpoint = Endpoint::from_shared(format!("http://{}", listen.client)).unwrap();
    let endpoint = endpoint.local_address(Some([127, 0, 0, 2].into()));
    for _ in 0..20 {
        let _ = endpoint.connect().await;
    }
    // A connection is counted once the node has looked at it, which may be after the system has taken it.
    let counted = async {
        while rejected() < before + 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("each is rejected");
    // With fewer than that host it gets its place.
    append_all(&mut cluster.client(0).await, vec![b"two".to_vec()]).await;
}
