//! One client cannot take what belongs to all: what comes in of a call, how long it may take, and that every refusal says why.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Cluster, PATIENCE, append_all, request, value};
use futures::StreamExt as _;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use zue_proto::v1::{self, Error, Outcome, Reason};
use zue_settings::Time;

async fn channel(address: std::net::SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A request, its headers, and the answer.
type Case<'a> = (&'a [u8], &'a [(&'static str, &'a str)], Reason, Code);

/// A message of gRPC that announces so many bytes, and these.
fn message(announced: usize, bytes: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(announced).unwrap().to_be_bytes(), bytes].concat()
}

/// Calls, sends these bytes, and stands still; the status that comes all the same.
async fn call(mut channel: Channel, path: &str, bytes: Vec<u8>, headers: &[(&'static str, &str)]) -> Status {
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
    let body = axum::body::Body::from_stream(begun.chain(futures::stream::pending()));
    let mut call = http::Request::post(path).header("content-type", "application/grpc");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let answer = channel.call(call.body(Body::new(body)).unwrap()).await.unwrap();
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let mut body = Box::pin(answer.into_body());
    loop {
        let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await.unwrap().unwrap();
        if let Some(trailers) = frame.trailers_ref() {
            return Status::from_header_map(trailers).unwrap();
        }
    }
}

fn told(status: &Status) -> (Reason, Error) {
    let (reason, error, _) = common::error_of(status);
    (reason, error)
}

/// One replica that leads, with these limits.
async fn one(change: impl Fn(&mut zue_settings::LimitSettings)) -> Cluster {
    let mut cluster = Cluster::start(1, |config| change(&mut config.limits)).await;
    cluster.elect(None).await;
    cluster.settle(0).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_and_does_not_come_keeps_nobody_out() {
    let cluster = one(|_| {}).await;
    let stranger = channel(cluster.configs[0].listen.client).await;
    let mut stalled = tokio::task::JoinSet::new();
    for method in ["Append", "AppendStream"] {
        for bytes in [0, 100, 4 << 20] {
            for _ in 0..20 {
                let stranger = stranger.clone();
                let sent = message(16 << 20, &vec![0x22; bytes.min(1)]);
                let sent = [sent, vec![0; bytes.saturating_sub(1)]].concat();
                stalled.spawn(async move { call(stranger, &format!("/zue.v1.Log/{method}"), sent, &[]).await });
            }
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut client = cluster.client(0).await;
    for _ in 0..100 {
        client.append(request(vec![value(vec![1; 1000])])).await.unwrap();
    }
    append_all(&mut client, vec![vec![1; 1 << 20]; 20]).await;
    stalled.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_of_a_host_leave_room_to_others_for_requests_of_every_kind() {
    let mut cluster = one(|limits| limits.appends_bytes_max = zue_settings::ByteSize(16 << 20)).await;
    let listen = cluster.configs[0].listen;
    let mut stalled = tokio::task::JoinSet::new();
    // Parts that take far more room than bytes, and bytes.
    for (address, path, announced, sent) in [
        (listen.peer, "/zue.v1.Control/Status", 65_000, [0x7a, 0].repeat(1020)),
        (listen.client, "/zue.v1.Log/Append", 8 << 20, [vec![0x22, 0xf0, 0xff, 0xff, 3], vec![0; 200 << 10]].concat()),
    ] {
        for _ in 0..40 {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let endpoint = endpoint.local_address(Some([127, 0, 0, 2].into()));
            let stranger = endpoint.connect().await.unwrap();
            for _ in 0..10 {
                let (stranger, sent) = (stranger.clone(), message(announced, &sent));
                stalled.spawn(async move { call(stranger, path, sent, &[]).await });
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    append_all(&mut cluster.client(0).await, vec![vec![1; 1 << 20]; 4]).await;
    for _ in 0..20 {
        cluster.client(0).await.append(request(vec![value(vec![1; 100_000])])).await.unwrap();
    }
    cluster.elect(None).await;
    stalled.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_count_is_refused_before_all_of_it_has_come() {
    let cluster = one(|_| {}).await;
    let channel = channel(cluster.configs[0].listen.client).await;
    // Empty records: two bytes each.
    let records = message(16_000_000, &[0x22, 0].repeat(10_001));
    let headers = message(2 + 2 * 65 + 100, &[&[0x22, 200, 1][..], &[0x1a, 0].repeat(65)].concat());
    for (sent, what) in [
        (records, "records of an append are more than the limit of 10000"),
        (headers, "headers of a record are more than the limit of 64"),
    ] {
        for method in ["Append", "AppendStream"] {
            let path = format!("/zue.v1.Log/{method}");
            let refused = call(channel.clone(), &path, sent.clone(), &[]);
            if method == "Append" {
                let (reason, error) = told(&tokio::time::timeout(PATIENCE, refused).await.unwrap());
                assert_eq!((reason, error.outcome()), (Reason::TooLarge, Outcome::NotAppended));
                assert!(error.message.contains(what), "{}", error.message);
            } else {
                // The stream ends well: the failure was its last answer.
                let ended = tokio::time::timeout(PATIENCE, refused).await.unwrap();
                assert_eq!(ended.code(), Code::Ok);
            }
        }
    }
    // Parts of a leader's message are counted as well.
    let starts = [0x32, 0].repeat(300_000);
    let sent = message(700_004, &[&[0x0a, 0xe0, 0xdc, 0x2a], &starts[..]].concat());
    let peer = self::channel(cluster.configs[0].listen.peer).await;
    let ended = tokio::time::timeout(PATIENCE, call(peer, "/zue.v1.Replication/Follow", sent, &[])).await.unwrap();
    assert_eq!(ended.code(), Code::Ok, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_no_append_has_64_kib() {
    let cluster = one(|_| {}).await;
    let listen = cluster.configs[0].listen;
    let (client, peer) = (channel(listen.client).await, channel(listen.peer).await);
    let mut calls: Vec<(Channel, String)> = Vec::new();
    for method in ["Read", "Describe", "OpenProducer", "SwitchOver", "Trim"] {
        calls.push((client.clone(), format!("/zue.v1.Log/{method}")));
    }
    for method in ["Status", "Seal", "Appoint", "Learners", "Handover"] {
        calls.push((peer.clone(), format!("/zue.v1.Control/{method}")));
    }
    for channel in [&client, &peer] {
        calls.push((channel.clone(), "/grpc.health.v1.Health/Check".to_owned()));
    }
    calls.push((peer.clone(), "/zue.v1.Replication/Fetch".to_owned()));
    for (channel, path) in calls {
        let refused = call(channel.clone(), &path, message((64 << 10) + 1, &[]), &[]);
        let (reason, error) = told(&tokio::time::timeout(PATIENCE, refused).await.unwrap());
        assert_eq!(reason, Reason::TooLarge, "{path}");
        assert!(error.message.contains("65537 bytes is more than the limit of 65536"), "{path}: {}", error.message);
        let refused = call(channel, &path, message(60_000, &[0x7a, 0].repeat(1025)), &[]);
        let (reason, error) = told(&tokio::time::timeout(PATIENCE, refused).await.unwrap());
        assert_eq!(reason, Reason::TooLarge, "{path}");
        assert!(
            error.message.contains("parts of a message are more than the limit of 1024"),
            "{path}: {}",
            error.message
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_come_in_time_is_given_up() {
    let cluster = one(|limits| limits.receive_deadline = Time::from_millis(300)).await;
    let listen = cluster.configs[0].listen;
    let cases = [
        (listen.client, "/zue.v1.Log/Append", Outcome::NotAppended),
        (listen.client, "/zue.v1.Log/Describe", Outcome::Unspecified),
        (listen.client, "/zue.v1.Log/Read", Outcome::Unspecified),
        (listen.client, "/grpc.health.v1.Health/Check", Outcome::Unspecified),
        (listen.peer, "/zue.v1.Control/Seal", Outcome::Unspecified),
        (listen.peer, "/zue.v1.Replication/Fetch", Outcome::Unspecified),
    ];
    for (address, path, outcome) in cases {
        // Nothing; half a prefix; half a message; a whole message, but no end.
        for sent in [vec![], vec![0, 0], message(10, &[0x0a, 8]), message(2, &[0x7a, 0])] {
            let begun = Instant::now();
            let late = tokio::time::timeout(PATIENCE, call(channel(address).await, path, sent, &[])).await.unwrap();
            let (reason, error) = told(&late);
            assert_eq!((reason, error.outcome()), (Reason::TimedOut, outcome), "{path}: {}", error.message);
            assert!(begun.elapsed() >= Duration::from_millis(300));
        }
    }
    // A stream waits for its next message as long as it likes, but not for the rest of one that has begun.
    for (address, path) in [(listen.client, "/zue.v1.Log/AppendStream"), (listen.peer, "/zue.v1.Replication/Follow")] {
        let begun = Instant::now();
        let ended = call(channel(address).await, path, message(10, &[0x0a, 8]), &[]);
        assert_eq!(tokio::time::timeout(PATIENCE, ended).await.unwrap().code(), Code::Ok);
        assert!(begun.elapsed() < Duration::from_secs(4), "{path}: {:?}", begun.elapsed());
    }
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = cluster.client(0).await.append_stream(requests).await.unwrap().into_inner();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        sender.send(request(vec![value("x")])).await.unwrap();
        let outcome = answers.message().await.unwrap().unwrap().outcome.unwrap();
        assert!(matches!(outcome, v1::append_stream_response::Outcome::Appended(_)), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_one_message_takes_no_second_one() {
    let cluster = one(|_| {}).await;
    let listen = cluster.configs[0].listen;
    let append = message(7, &[0x22, 5, 0x12, 3, b'o', b'n', b'e']);
    let cases = [
        (listen.client, "/zue.v1.Log/Append", append, Outcome::NotAppended),
        (listen.client, "/zue.v1.Log/Describe", message(0, &[]), Outcome::Unspecified),
        (listen.client, "/zue.v1.Log/Read", message(2, &[0x7a, 0]), Outcome::Unspecified),
        (listen.peer, "/zue.v1.Control/Seal", message(2, &[0x7a, 0]), Outcome::Unspecified),
    ];
    for (address, path, first, outcome) in cases {
        // The same again; one that is announced as so large that it would have time for ever; one byte.
        let large = message(16 << 20, &[0x22, 0]);
        for more in [&first[..], &large, &[0]] {
            let refused = call(channel(address).await, path, [&first[..], more].concat(), &[]);
            let refused = tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap();
            let (reason, error) = told(&refused);
            assert_eq!((reason, error.outcome()), (Reason::Invalid, outcome), "{path}: {}", error.message);
            assert!(error.message.contains("takes one message"), "{path}: {}", error.message);
        }
    }
    // Reflection is asked one thing after the other in one call.
    let asked =
        |message_request| ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
    let log = || MessageRequest::FileContainingSymbol("zue.v1.Log".to_owned());
    let asked = [asked(MessageRequest::ListServices(String::new())), asked(log())];
    let mut reflection = ServerReflectionClient::new(channel(listen.client).await);
    let mut answers = reflection.server_reflection_info(tokio_stream::iter(asked)).await.unwrap().into_inner();
    for _ in 0..2 {
        assert!(answers.message().await.unwrap().is_some());
    }
    assert!(common::read_all(&mut cluster.client(0).await, 0).await.iter().all(|record| record.value != "one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_may_take_longer_for_long_first_words_over_a_slow_link() {
    let cluster = one(|_| {}).await;
    // They have five seconds to begin, and for 4 MiB eight more.
    let sent = message(4 << 20, &[0x0a]);
    let begun = Instant::now();
    let late = call(channel(cluster.configs[0].listen.peer).await, "/zue.v1.Replication/Follow", sent, &[]);
    assert_eq!(tokio::time::timeout(PATIENCE, late).await.unwrap().code(), Code::Ok);
    assert!(begun.elapsed() > Duration::from_secs(12), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let silent = call(channel(cluster.configs[0].listen.peer).await, "/zue.v1.Replication/Follow", vec![], &[]);
    assert_eq!(tokio::time::timeout(PATIENCE, silent).await.unwrap().code(), Code::Ok);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_of_20_mib_is_refused_at_once_and_its_stream_goes_on() {
    let cluster = one(|_| {}).await;
    let mut client = cluster.client(0).await;
    for mib in [17, 20, 32, 40] {
        let refused = client.append(request(vec![value(vec![0; mib << 20])])).await.unwrap_err();
        let (reason, error) = told(&refused);
        assert_eq!(
            (reason, error.outcome(), refused.code()),
            (Reason::TooLarge, Outcome::NotAppended, Code::InvalidArgument)
        );
        assert!(error.message.contains("limits.appendBytesMax"), "{}", error.message);
    }
    let sizes = [1, 20 << 20, 1, 40 << 20, 1];
    let requests = tokio_stream::iter(sizes.map(|bytes| request(vec![value(vec![0; bytes])])));
    let mut answers = client.append_stream(requests).await.unwrap().into_inner();
    for bytes in sizes {
        match answers.message().await.unwrap().unwrap().outcome.unwrap() {
            v1::append_stream_response::Outcome::Appended(_) => assert_eq!(bytes, 1),
            v1::append_stream_response::Outcome::Error(error) => {
                assert_eq!((error.reason(), error.outcome()), (Reason::TooLarge, Outcome::NotAppended));
                assert!(bytes > 1);
            }
        }
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_carries_an_error_whoever_refuses() {
    let cluster = one(|_| {}).await;
    let listen = cluster.configs[0].listen;
    let whole = message(2, &[0x7a, 0]);
    let compressed = [vec![1], whole[1..].to_vec()].concat();
    let garbage = message(3, &[0x0a, 200, 1]);
    for (address, path) in [
        (listen.client, "/zue.v1.Log/Append"),
        (listen.client, "/zue.v1.Log/Describe"),
        (listen.peer, "/zue.v1.Control/Seal"),
        (listen.peer, "/zue.v1.Replication/Fetch"),
        (listen.client, "/grpc.health.v1.Health/Check"),
    ] {
        // A number of so many digits is none to the client, which therefore does not count itself.
        let cases: [Case<'_>; 5] = [
            (&compressed, &[], Reason::Invalid, Code::InvalidArgument),
            (&compressed, &[("grpc-encoding", "gzip")], Reason::Invalid, Code::Unimplemented),
            (&whole, &[("grpc-encoding", "nonsense")], Reason::Invalid, Code::Unimplemented),
            (&garbage, &[], Reason::Invalid, Code::InvalidArgument),
            (&message(2, &[0]), &[("grpc-timeout", "000000050m")], Reason::TimedOut, Code::DeadlineExceeded),
        ];
        for (sent, headers, reason, code) in cases {
            let refused = call(channel(address).await, path, sent.to_vec(), headers);
            let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
            assert_eq!((told(&refused).0, refused.code()), (reason, code), "{path} {headers:?}: {refused:?}");
        }
    }
    for address in [listen.client, listen.peer] {
        for path in ["/zue.v1.Log/Nothing", "/other.Service/Method", "/", "/zue.v1.Log/"] {
            let refused = call(channel(address).await, path, whole.clone(), &[]).await;
            let (reason, error) = told(&refused);
            assert_eq!((reason, refused.code()), (Reason::Invalid, Code::Unimplemented), "{path}");
            assert!(error.message.contains(path), "{}", error.message);
        }
    }
    let refused = call(channel(listen.client).await, "/zue.v1.Log/Append", garbage, &[]).await;
    assert_eq!(told(&refused).1.outcome(), Outcome::NotAppended);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_echoed_is_cut() {
    let mut cluster = Cluster::led().await;
    let long = "語".repeat(20_000);
    let mut client = cluster.client(0).await;
    let named = || long.clone();
    let switch = v1::SwitchOverRequest { to: long.clone(), within_ms: 1 };
    let member = v1::Member { name: "n".to_owned(), peer_address: long.clone(), ..cluster.member(cluster.ids[1]) };
    let learners = v1::LearnersRequest {
        protocol_version: zue_proto::PROTOCOL_VERSION,
        cluster_id: cluster.cluster_bytes(),
        target: zue_proto::id_bytes(cluster.ids[0].0),
        epoch: cluster.epoch,
        learners: vec![member],
        moved_voters: Vec::new(),
        standby: None,
    };
    let address = cluster.configs[0].listen.client;
    let refusals = [
        client.append(v1::AppendRequest { log: named(), ..request(vec![value("v")]) }).await.map(drop).unwrap_err(),
        client.read(v1::ReadRequest { log: named(), ..Default::default() }).await.map(drop).unwrap_err(),
        client.describe(v1::DescribeRequest { log: named(), ..Default::default() }).await.map(drop).unwrap_err(),
        client.trim(v1::TrimRequest { log: named(), before: 0 }).await.map(drop).unwrap_err(),
        client.switch_over(switch).await.map(drop).unwrap_err(),
        cluster.control(0).await.learners(learners).await.map(drop).unwrap_err(),
        call(channel(address).await, &format!("/zue.v1.Log/{}", "x".repeat(5000)), message(0, &[]), &[]).await,
    ];
    for refused in refusals {
        let (_, error) = told(&refused);
        assert!(refused.message().len() <= 1024 && error.message.len() <= 1024, "{}", refused.message());
    }
    cluster.stop_all().await;
}
