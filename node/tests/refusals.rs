//! Requests that a node refuses, to serve on afterwards: bad requests, wrong targets, garbage, too many connections.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Cluster, append_all, error_of, read_all, request, value};
use tonic::{Code, Status};
use zue_core::{ClusterId, Epoch, EpochStart, Offset, Tail};
use zue_node::{Node, StartError};
use zue_proto::v1::replication_client::ReplicationClient;
use zue_proto::v1::{self, Outcome, Reason, follower_message, leader_message};
use zue_proto::{PROTOCOL_VERSION, id_bytes};
use zue_settings::{ByteSize, Time};

fn reason(status: &Status) -> Reason {
    error_of(status).0
}

fn http(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_limit_is_named_with_its_size_and_the_limit() {
    let cluster = Cluster::start(1, |config| config.limits.record_bytes_max = ByteSize(1000)).await;
    let mut cluster = cluster;
    cluster.elect(None).await;
    let mut client = cluster.client(0).await;
    let big = |key: usize, bytes: usize| v1::NewRecord {
        key: Some(vec![b'k'; key].into()),
        value: vec![b'v'; bytes].into(),
        headers: Vec::new(),
    };
    let header = |name: usize, bytes: usize| v1::Header { name: "n".repeat(name), value: vec![0; bytes].into() };
    let with = |headers| v1::NewRecord { headers, ..value("v") };
    let cases = [
        (vec![big(1, 1000)], "1001 bytes of a record's key, value and headers are more than the limit of 1000"),
        (vec![value("ok"), big(1, 5_000_000)], "are more than the limit of 1000"),
        (vec![with((0..65).map(|_| header(1, 1)).collect())], "65 headers of a record are more than the limit of 64"),
        (vec![with(vec![header(257, 1)])], "257 bytes of a header's name are more than the limit of 256"),
        (vec![value("x"); 10_001], "10001 records of an append are more than the limit of 10000"),
    ];
    for (records, message) in cases {
        let (reason, error, code) = error_of(&client.append(request(records)).await.unwrap_err());
        assert_eq!((reason, error.outcome(), code), (Reason::TooLarge, Outcome::NotAppended, Code::InvalidArgument));
        assert!(error.message.contains(message), "{}", error.message);
    }
    assert_eq!(read_all(&mut client, 0).await.len(), 0, "none of it was appended");
    append_all(&mut client, vec![vec![b'v'; 1000]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_request_is_told_why() {
    let mut cluster = Cluster::start(1, |_| {}).await;
    cluster.elect(None).await;
    let mut client = cluster.client(0).await;
    let base = request(vec![value("v")]);
    let cases = [
        (v1::AppendRequest { log: "other".to_owned(), ..base.clone() }, "there is no log \"other\""),
        (v1::AppendRequest { producer_id: Bytes::from_static(b"short"), ..base.clone() }, "5 bytes long, not 16"),
        (request(Vec::new()), "no records"),
        (
            v1::AppendRequest { producer_id: id_bytes(9), sequence: u64::MAX, ..base.clone() },
            "beyond the last sequence",
        ),
    ];
    for (request, message) in cases {
        let (reason, error, _) = error_of(&client.append(request).await.unwrap_err());
        assert_eq!(reason, Reason::Invalid);
        assert!(error.message.contains(message), "{}", error.message);
    }
    let read = v1::ReadRequest { log: "other".to_owned(), ..v1::ReadRequest::default() };
    assert_eq!(reason(&client.read(read).await.unwrap_err()), Reason::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_append_does_not_end_its_stream() {
    let mut cluster = Cluster::start(1, |config| config.limits.record_bytes_max = ByteSize(1000)).await;
    cluster.elect(None).await;
    let requests = [value("a"), value(vec![0; 2000]), value("b")].map(|record| request(vec![record]));
    let answers = cluster.client(0).await.append_stream(tokio_stream::iter(requests)).await.unwrap();
    let mut answers = answers.into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        outcomes.push(match answer.outcome.unwrap() {
            v1::append_stream_response::Outcome::Appended(appended) => Ok(appended.base_offset),
            v1::append_stream_response::Outcome::Error(error) => Err(error.reason()),
        });
    }
    assert_eq!(outcomes, [Ok(0), Err(Reason::TooLarge), Ok(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_producer_fills_a_stream_without_a_gap() {
    let mut cluster = Cluster::start(1, |config| config.limits.producer_appends_max = 4).await;
    cluster.elect(None).await;
    let mut client = cluster.client(0).await;
    let producer_id = client.open_producer(v1::OpenProducerRequest {}).await.unwrap().into_inner().producer_id;
    let requests = (0..500).map(move |sequence| v1::AppendRequest {
        producer_id: producer_id.clone(),
        sequence,
        ..request(vec![value("x")])
    });
    let mut answers = client.append_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut appended = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        let outcome = answer.outcome.unwrap();
        assert!(matches!(outcome, v1::append_stream_response::Outcome::Appended(_)), "{outcome:?}");
        appended += 1;
    }
    assert_eq!(appended, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_not_there_is_answered_with_those_that_are() {
    let mut cluster = Cluster::start(1, |_| {}).await;
    cluster.elect(None).await;
    let mut client = cluster.client(0).await;
    append_all(&mut client, vec![b"a".to_vec(); 7]).await;
    for follow in [false, true] {
        let read = v1::ReadRequest { from: 8, follow, ..v1::ReadRequest::default() };
        let (reason, error, code) = error_of(&client.read(read).await.unwrap_err());
        assert_eq!((reason, code), (Reason::OffsetOutOfRange, Code::OutOfRange));
        assert_eq!((error.log_start, error.commit_end), (0, 7));
    }
    assert_eq!(read_all(&mut client, 7).await.len(), 0, "at the end there is nothing yet");
    let some = v1::ReadRequest { from: 2, max_records: 3, ..v1::ReadRequest::default() };
    let mut responses = client.read(some).await.unwrap().into_inner();
    let mut offsets = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        offsets.extend(response.records.iter().map(|record| record.offset));
    }
    assert_eq!(offsets, [2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_with_the_wrong_epoch_cluster_or_target_is_refused() {
    let mut cluster = Cluster::led().await;
    let mut control = cluster.control(0).await;
    let good = cluster.seal_request(0, 9);
    let cases = [
        (
            v1::SealRequest { epoch: 1, ..good.clone() },
            Reason::StaleEpoch,
            "epoch 1 is refused: the promised epoch is 1",
        ),
        (v1::SealRequest { cluster_id: id_bytes(5), ..good.clone() }, Reason::WrongTarget, "belongs to cluster"),
        (v1::SealRequest { cluster_id: Bytes::new(), ..good.clone() }, Reason::WrongTarget, "belongs to cluster"),
        (v1::SealRequest { target: id_bytes(5), ..good.clone() }, Reason::WrongTarget, "the message is for replica"),
        (v1::SealRequest { target: Bytes::new(), ..good.clone() }, Reason::Invalid, "target is 0 bytes long"),
        (v1::SealRequest { protocol_version: 99, ..good.clone() }, Reason::WrongTarget, "protocol version 99"),
    ];
    for (request, expected, message) in cases {
        let (reason, error, _) = error_of(&control.seal(request).await.unwrap_err());
        assert_eq!(reason, expected);
        assert!(error.message.contains(message), "{}", error.message);
    }
    append_all(&mut cluster.client(0).await, vec![b"it still leads".to_vec()]).await;

    let answers = cluster.seal_all().await;
    let choice = zue_core::election::choose(&answers, None, None, None, None).unwrap();
    let leader = cluster.ids.iter().position(|id| *id == choice.leader).unwrap();
    let good = cluster.appoint_request(leader, cluster.epoch, &choice);
    let mut control = cluster.control(leader).await;
    let voters = |change: fn(&mut v1::Member)| {
        let mut voters = good.voters.clone();
        change(&mut voters[1]);
        voters
    };
    let cases = [
        (v1::AppointRequest { epoch: 3, ..good.clone() }, Reason::StaleEpoch),
        (v1::AppointRequest { quorum: 1, ..good.clone() }, Reason::Invalid),
        (v1::AppointRequest { cluster_id: Bytes::new(), ..good.clone() }, Reason::Invalid),
        (v1::AppointRequest { cluster_id: id_bytes(3), ..good.clone() }, Reason::WrongTarget),
        (
            v1::AppointRequest { voters: voters(|m| m.peer_address = "no port".to_owned()), ..good.clone() },
            Reason::Invalid,
        ),
        (v1::AppointRequest { voters: vec![good.voters[0].clone(); 100], ..good.clone() }, Reason::Invalid),
    ];
    for (request, expected) in cases {
        assert_eq!(reason(&control.appoint(request).await.unwrap_err()), expected);
    }
    control.appoint(good.clone()).await.unwrap();
    assert_eq!(reason(&control.appoint(good).await.unwrap_err()), Reason::StaleEpoch, "an epoch is led once");
}

/// The answer of a node to a leader that says this.
async fn follow(cluster: &Cluster, messages: Vec<leader_message::Message>) -> Option<follower_message::Message> {
    let address = format!("http://{}", cluster.configs[0].listen.peer);
    let mut client = ReplicationClient::connect(address).await.unwrap();
    let messages: Vec<_> = messages.into_iter().map(|message| v1::LeaderMessage { message: Some(message) }).collect();
    let (sender, stream) = tokio::sync::mpsc::channel(8);
    let mut answers = client.follow(tokio_stream::wrappers::ReceiverStream::new(stream)).await.unwrap().into_inner();
    let mut last = None;
    for message in messages {
        sender.send(message).await.unwrap();
        last = answers.message().await.unwrap().and_then(|answer| answer.message);
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_talks_nonsense_is_refused_and_nothing_is_written() {
    let cluster = Cluster::start(1, |_| {}).await;
    let leader = zue_core::ReplicaId(5);
    let epoch_start = EpochStart {
        epoch: Epoch(1),
        start: Offset(0),
        leader,
        voters: vec![leader, cluster.ids[0]],
        quorum: 2,
        old_voters: None,
    };
    let member = v1::Member { replica_id: id_bytes(5), name: "five".to_owned(), ..cluster.member(cluster.ids[0]) };
    let good = v1::Start {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: id_bytes(ClusterId(9).0),
        target: id_bytes(cluster.ids[0].0),
        leader: Some(member.clone()),
        epoch: 1,
        history: vec![(&epoch_start).into()],
        log: Some(Tail { epoch: Epoch(1), end: Offset(0) }.into()),
        commit_end: 0,
        members: vec![member],
        oldest: 0,
        origin: None,
        runs: Vec::new(),
    };
    let start = |start| leader_message::Message::Start(start);
    let frames = |frames: &'static [u8]| {
        leader_message::Message::Frames(v1::Frames {
            round: 0,
            prev: Some(Tail::default().into()),
            frames: Bytes::from_static(frames),
            commit_end: 0,
        })
    };
    let bad_starts = [
        (v1::Start { protocol_version: 7, ..good.clone() }, Reason::WrongTarget),
        (v1::Start { target: id_bytes(1), ..good.clone() }, Reason::WrongTarget),
        (v1::Start { cluster_id: Bytes::new(), ..good.clone() }, Reason::Invalid),
        (v1::Start { leader: None, ..good.clone() }, Reason::Invalid),
        (v1::Start { history: Vec::new(), ..good.clone() }, Reason::Invalid),
        (v1::Start { history: vec![(&epoch_start).into(); 2], ..good.clone() }, Reason::Invalid),
        (v1::Start { epoch: 2, ..good.clone() }, Reason::Invalid),
        (v1::Start { oldest: u64::MAX, ..good.clone() }, Reason::Invalid),
        (v1::Start { oldest: 1, ..good.clone() }, Reason::Invalid),
        (v1::Start { commit_end: u64::MAX, ..good.clone() }, Reason::Invalid),
        (v1::Start { log: Some(v1::Tail { epoch: 1, end: u64::MAX }), ..good.clone() }, Reason::Invalid),
    ];
    let refused = |answer: Option<follower_message::Message>| match answer {
        Some(follower_message::Message::Refused(refused)) => refused.error.unwrap(),
        other => panic!("not refused: {other:?}"),
    };
    for (bad, expected) in bad_starts {
        assert_eq!(refused(follow(&cluster, vec![start(bad)]).await).reason(), expected);
    }
    assert_eq!(refused(follow(&cluster, vec![frames(b"x")]).await).reason(), Reason::Invalid);
    assert_eq!(cluster.status(0).await.promised, 0, "nothing was promised");

    let error = refused(follow(&cluster, vec![start(good.clone()), frames(b"these are no frames")]).await);
    assert_eq!(error.reason(), Reason::Corrupt, "{}", error.message);
    let status = cluster.status(0).await;
    assert_eq!((status.promised, status.log.unwrap().end), (1, 0), "promised, but nothing written");
    let other = v1::Member { replica_id: id_bytes(6), ..good.leader.clone().unwrap() };
    let second =
        EpochStart { leader: zue_core::ReplicaId(6), voters: vec![zue_core::ReplicaId(6)], quorum: 1, ..epoch_start };
    let rival = v1::Start { leader: Some(other), history: vec![(&second).into()], ..good };
    assert_eq!(refused(follow(&cluster, vec![start(rival)]).await).reason(), Reason::StaleEpoch, "bound to the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_history_parts_inside_an_append_is_refused_and_the_node_goes_on() {
    for is_known in [false, true] {
        let cluster = Cluster::start(1, |_| {}).await;
        let leader = zue_core::ReplicaId(5);
        let member = v1::Member { replica_id: id_bytes(5), name: "five".to_owned(), ..cluster.member(cluster.ids[0]) };
        let begins = |epoch: u64, start: u64| EpochStart {
            epoch: Epoch(epoch),
            start: Offset(start),
            leader,
            voters: vec![leader, cluster.ids[0]],
            quorum: 2,
            old_voters: None,
        };
        let first = begins(1, 0);
        let start = |history: &[&EpochStart]| {
            let last = history[history.len() - 1];
            leader_message::Message::Start(v1::Start {
                protocol_version: PROTOCOL_VERSION,
                cluster_id: id_bytes(ClusterId(9).0),
                target: id_bytes(cluster.ids[0].0),
                leader: Some(member.clone()),
                epoch: last.epoch.0,
                history: history.iter().map(|start| (*start).into()).collect(),
                log: Some(Tail { epoch: last.epoch, end: last.start }.into()),
                members: vec![member.clone()],
                ..v1::Start::default()
            })
        };
        let frames = |prev: Tail, frames: Bytes| {
            leader_message::Message::Frames(v1::Frames { round: 0, prev: Some(prev.into()), frames, commit_end: 0 })
        };
        let begun = zue_log::Batch::epoch_start(Epoch(0), first.clone()).unwrap();
        let mut pair = zue_log::BatchBuilder::new(begun.tail(), 5, zue_log::Limits::default());
        for sequence in 0..2 {
            let producer = is_known.then_some(zue_log::Producer { id: 7, sequence });
            pair.push(None, b"half", [], producer).unwrap();
        }
        let pair = pair.finish().unwrap();
        let messages = vec![
            start(&[&first]),
            frames(Tail::default(), begun.bytes().clone()),
            frames(begun.tail(), pair.bytes().clone()),
        ];
        follow(&cluster, messages).await;
        cluster.until(0, "written", |status| status.durable.is_some_and(|durable| durable.end == 2)).await;
        let Some(follower_message::Message::Refused(refused)) =
            follow(&cluster, vec![start(&[&first, &begins(2, 1)])]).await
        else {
            panic!("it is taken")
        };
        let message = refused.error.unwrap().message;
        assert!(message.contains("inside an append"), "{message}");
        assert_ne!(cluster.status(0).await.role(), v1::Role::Failed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_times_fall_or_whose_history_parts_is_refused_and_the_log_goes_on() {
    let mut cluster = Cluster::start(1, |_| {}).await;
    cluster.elect(None).await;
    append_all(&mut cluster.client(0).await, vec![b"kept".to_vec(); 3]).await;
    let status = cluster.status(0).await;
    let stranger = zue_core::ReplicaId(5);
    let member = v1::Member { replica_id: id_bytes(5), name: "five".to_owned(), ..cluster.member(cluster.ids[0]) };
    let log = status.log.unwrap();
    let start = |ahead: u64, at: u64| {
        let epoch = Epoch(status.promised + ahead);
        let voters = vec![stranger, cluster.ids[0]];
        let next = EpochStart { epoch, start: Offset(at), leader: stranger, voters, quorum: 2, old_voters: None };
        leader_message::Message::Start(v1::Start {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: status.cluster_id.clone(),
            target: id_bytes(cluster.ids[0].0),
            leader: Some(member.clone()),
            epoch: epoch.0,
            history: vec![status.last_epoch_start.clone().unwrap(), (&next).into()],
            log: Some(v1::Tail { epoch: epoch.0, end: at }),
            ..v1::Start::default()
        })
    };
    let prev = Tail { epoch: Epoch(log.epoch), end: Offset(log.end) };
    let mut old = zue_log::BatchBuilder::new(prev, 5, zue_log::Limits::default());
    old.push(None, b"of 1970", [], None).unwrap();
    let frames = old.finish().unwrap().bytes().clone();
    let frames = v1::Frames { prev: Some(log), frames, commit_end: 0, round: 0 };
    for (messages, expected) in [
        (vec![start(1, log.end), leader_message::Message::Frames(frames)], "timestamp 5 ms after"),
        (vec![start(2, 1)], "the logs part at offset 1"),
    ] {
        let Some(follower_message::Message::Refused(refused)) = follow(&cluster, messages).await else {
            panic!("it is taken")
        };
        let message = refused.error.unwrap().message;
        assert!(message.contains(expected), "{message}");
        assert_ne!(cluster.status(0).await.role(), v1::Role::Failed);
    }
    cluster.epoch = 9;
    cluster.elect(None).await;
    append_all(&mut cluster.client(0).await, vec![b"more".to_vec()]).await;
    assert_eq!(read_all(&mut cluster.client(0).await, 0).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_idle_connections_leave_a_node_serving() {
    let mut cluster = Cluster::start(1, |_| {}).await;
    cluster.elect(None).await;
    let listen = cluster.configs[0].listen;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(TcpStream::connect(listen.client).unwrap());
    }
    for address in [listen.client, listen.peer, listen.metrics] {
        let mut stream = TcpStream::connect(address).unwrap();
        let garbage: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let _ = stream.write_all(&garbage);
    }
    append_all(&mut cluster.client(0).await, vec![b"still here".to_vec()]).await;
    assert!(cluster.metric(0, "zue_node_connections{port=\"client\"}") >= 500);
    assert!(http(listen.metrics, "/livez").starts_with("HTTP/1.1 200"));
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_without_a_quorum() {
    let cluster = Cluster::start(1, |_| {}).await;
    let metrics = cluster.configs[0].listen.metrics;
    assert!(http(metrics, "/readyz").starts_with("HTTP/1.1 200"));
    let text = http(metrics, "/metrics");
    for name in ["zue_node_is_leader 0", "zue_log_end_offset 0", "zue_segments 1", "zue_disk_capacity_bytes"] {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", cluster.configs[0].listen.client));
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.unwrap().connect().await.unwrap());
    let request = tonic_health::pb::HealthCheckRequest { service: "zue.v1.Log".to_owned() };
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_held_by_one_node() {
    let cluster = Cluster::start(1, |_| {}).await;
    let mut config = cluster.configs[0].clone();
    config.limits.start_wait_max = Time::from_millis(300);
    let begun = Instant::now();
    let taken = Node::start(config.clone()).await.unwrap_err();
    assert!(matches!(taken, StartError::Listen { port: "metrics", .. }), "{taken:?}");
    assert!(begun.elapsed() >= Duration::from_millis(300), "it gave the other a chance to end");
    let any = "127.0.0.1:0".parse().unwrap();
    config.listen = zue_settings::ListenSettings { client: any, peer: any, metrics: any };
    let StartError::Open(error) = Node::start(config).await.unwrap_err() else { panic!("it opened twice") };
    let source = std::error::Error::source(&*error).unwrap().to_string();
    assert!(source.contains(&format!("held by another process ({}, ", std::process::id())), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_who_waits_and_is_quick() {
    let mut cluster = Cluster::led().await;
    let follow = v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
    let mut reading = cluster.client(0).await.read(follow).await.unwrap().into_inner();
    reading.message().await.unwrap();
    let (_open, never_ends) = tokio::sync::mpsc::channel::<v1::AppendRequest>(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(never_ends);
    let mut appending = cluster.client(0).await.append_stream(stream).await.unwrap().into_inner();
    let begun = std::time::Instant::now();
    cluster.stop(0).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(reason(&reading.message().await.unwrap_err()), Reason::ShuttingDown);
    let last = appending.message().await.unwrap().unwrap().outcome.unwrap();
    let v1::append_stream_response::Outcome::Error(error) = last else { panic!("{last:?}") };
    assert_eq!(error.reason(), Reason::ShuttingDown);
}
