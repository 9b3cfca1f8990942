//! A leader with a follower that this test plays: it takes what it is sent and says it is durable only when the test wants.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Cluster, append_all, error_of, read_all, request, value};
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use zue_core::{ClusterId, ReplicaId, Tail};
use zue_log::{Batch, Limits};
use zue_proto::v1::replication_server::{Replication, ReplicationServer};
use zue_proto::v1::{self, FollowerMessage, LeaderMessage, Outcome, Reason, follower_message, leader_message};
use zue_proto::{PROTOCOL_VERSION, id_bytes};

/// A follower with a disk that is slow as the test pleases.
struct Fake {
    has_disk: watch::Receiver<bool>,
    /// Bytes of frames that it was sent.
    taken: Arc<AtomicUsize>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<FollowerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Replication for Fake {
    type FollowStream = Answers;

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented("it has nothing"))
    }

    async fn follow(&self, incoming: Request<Streaming<LeaderMessage>>) -> Result<Response<Answers>, Status> {
        let (answers, stream) = mpsc::channel(1);
        let (mut incoming, has_disk) = (incoming.into_inner(), self.has_disk.clone());
        let taken = Arc::clone(&self.taken);
        tokio::spawn(async move {
            let (mut tail, mut durable) = (Tail::default(), Tail::default());
            while let Ok(Some(LeaderMessage { message: Some(message) })) = incoming.message().await {
                if let leader_message::Message::Frames(frames) = &message {
                    taken.fetch_add(frames.frames.len(), Ordering::Relaxed);
                    tail = Batch::decode(frames.frames.clone(), tail, &Limits::default()).unwrap().tail();
                }
                if *has_disk.borrow() {
                    durable = tail;
                }
                let answer = match message {
                    leader_message::Message::Start(_) => follower_message::Message::Started(v1::Started {
                        log: Some(Tail::default().into()),
                        durable: Some(Tail::default().into()),
                        ..v1::Started::default()
                    }),
                    _ => {
                        follower_message::Message::Ack(v1::Ack { durable: Some(durable.into()), ..v1::Ack::default() })
                    }
                };
                if answers.send(Ok(FollowerMessage { message: Some(answer) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// A follower that ends each stream as soon as it is open, and says when.
struct Fleeting(mpsc::UnboundedSender<Instant>);

#[tonic::async_trait]
impl Replication for Fleeting {
    type FollowStream = Answers;

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented("it has nothing"))
    }

    async fn follow(&self, _: Request<Streaming<LeaderMessage>>) -> Result<Response<Answers>, Status> {
        let _ = self.0.send(Instant::now());
        let started = v1::Started {
            log: Some(Tail::default().into()),
            durable: Some(Tail::default().into()),
            ..v1::Started::default()
        };
        let answer = FollowerMessage { message: Some(follower_message::Message::Started(started)) };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(answer)]))))
    }
}

/// The first node leads the running ones and a fake; whether the fake's disk works is set by what is returned.
async fn led_with_a_fake(count: usize) -> (Cluster, watch::Sender<bool>, Arc<AtomicUsize>) {
    let (disk, has_disk) = watch::channel(false);
    let taken = Arc::new(AtomicUsize::new(0));
    let cluster = led_with(count, Fake { has_disk, taken: Arc::clone(&taken) }).await;
    cluster
        .until(0, "all are connected", |status| status.followers.iter().filter(|f| f.connected).count() == count)
        .await;
    (cluster, disk, taken)
}

/// The first node leads the running ones and a fake.
async fn led_with(count: usize, fake: impl Replication) -> Cluster {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = ReplicationServer::new(fake).max_decoding_message_size(64 << 20);
    let serving = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut cluster = Cluster::start(count, |config| config.replication.lag_records_max = 100).await;
    cluster.seal_all().await;
    cluster.cluster = Some(ClusterId(77));
    let fake = v1::Member {
        replica_id: id_bytes(ReplicaId(1).0),
        name: "fake".to_owned(),
        peer_address: address.clone(),
        client_address: address,
        ..v1::Member::default()
    };
    let appoint = v1::AppointRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster.cluster_bytes(),
        target: id_bytes(cluster.ids[0].0),
        epoch: cluster.epoch,
        voters: (0..count).map(|ordinal| cluster.member(cluster.ids[ordinal])).chain([fake]).collect(),
        quorum: 2,
        ..v1::AppointRequest::default()
    };
    cluster.control(0).await.appoint(appoint).await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_streams_come_to_nothing_is_tried_again_less_and_less_often() {
    let (opened, mut opens) = mpsc::unbounded_channel();
    let mut cluster = led_with(1, Fleeting(opened)).await;
    let first = opens.recv().await.unwrap();
    let mut last = first;
    for _ in 0..6 {
        last = opens.recv().await.unwrap();
    }
    // 20 + 40 + 80 + 160 + 320 + 500 ms.
    assert!(last - first >= Duration::from_millis(1100), "{:?}", last - first);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_unknown_to_its_client_and_unseen_by_readers() {
    let (cluster, disk, _) = led_with_a_fake(1).await;
    let mut client = cluster.client(0).await;
    let producer_id = client.open_producer(v1::OpenProducerRequest {}).await.unwrap().into_inner().producer_id;
    let append = v1::AppendRequest { producer_id, sequence: 0, ..request(vec![value("waits")]) };
    let mut call = Request::new(append.clone());
    call.set_timeout(Duration::from_millis(400));
    let begun = Instant::now();
    let (reason, error, _) = error_of(&client.append(call).await.unwrap_err());
    assert_eq!((reason, error.outcome()), (Reason::TimedOut, Outcome::Unknown));
    assert!(begun.elapsed() < Duration::from_secs(1));
    let described = client.describe(v1::DescribeRequest::default()).await.unwrap().into_inner();
    assert_eq!((described.log_end, described.commit_end), (1, 0), "it is in the log, but not committed");
    assert_eq!(read_all(&mut client, 0).await.len(), 0);
    let beyond = v1::ReadRequest { from: 1, ..v1::ReadRequest::default() };
    assert_eq!(error_of(&client.read(beyond).await.unwrap_err()).0, Reason::OffsetOutOfRange);

    let follow = v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
    let mut following = client.read(follow).await.unwrap().into_inner();
    assert_eq!(following.message().await.unwrap().unwrap().records, []);
    let nothing = tokio::time::timeout(Duration::from_millis(200), following.message()).await;
    assert!(nothing.is_err(), "an uncommitted record is shown to nobody: {nothing:?}");

    // The same append, repeated while the first is still under way, is answered when that commits.
    let mut second = cluster.client(0).await;
    let repeated = tokio::spawn(async move { second.append(append).await.unwrap().into_inner() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!repeated.is_finished());
    disk.send(true).unwrap();
    let repeated = repeated.await.unwrap();
    assert_eq!((repeated.base_offset, repeated.duplicate), (0, true));
    assert_eq!(read_all(&mut client, 0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stands_still_costs_the_others_nothing() {
    let (cluster, disk, taken) = led_with_a_fake(2).await;
    // More than the window of one follower.
    let values = vec![vec![7; 100_000]; 400];
    let begun = Instant::now();
    append_all(&mut cluster.client(0).await, values).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    cluster
        .until(0, "the one that stands still has left", |status| {
            status.isr.len() == 2 && status.followers.iter().any(|f| f.name == "fake" && f.lag_records > 0)
        })
        .await;
    let window =
        cluster.configs[0].replication.inflight_bytes_max.0 + cluster.configs[0].replication.repair_batch_bytes.0;
    let taken = u64::try_from(taken.load(Ordering::Relaxed)).unwrap();
    assert!(taken <= window, "{taken} bytes are under way, {window} may be");
    disk.send(true).unwrap();
    cluster
        .until(0, "it has caught up", |status| {
            status.isr.len() == 3 && status.followers.iter().all(|f| f.lag_records == 0)
        })
        .await;
    assert!(cluster.status(0).await.isr_expands >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_was_held_back_when_its_leader_stopped_is_known_not_to_be_appended() {
    let (mut cluster, _disk, _) = led_with_a_fake(2).await;
    let hand_over = v1::HandoverRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster.cluster_bytes(),
        target: id_bytes(cluster.ids[0].0),
        epoch: cluster.epoch,
        to: id_bytes(ReplicaId(1).0),
        deadline_ms: 60_000,
    };
    let mut control = cluster.control(0).await;
    tokio::spawn(async move { control.handover(hand_over).await });
    cluster.until(0, "it hands over to one that does not catch up", |status| status.handing_over).await;
    let mut client = cluster.client(0).await;
    let append = tokio::spawn(async move { client.append(request(vec![value("waits")])).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!append.is_finished(), "it is held back");
    cluster.stop(0).await;
    let (reason, error, _) = error_of(&append.await.unwrap().unwrap_err());
    assert_eq!((reason, error.outcome()), (Reason::NotLeader, Outcome::NotAppended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_feeds_voters_that_it_was_told_nothing_or_wrong_of_once_it_is_told_where_they_are() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    cluster.seal_all().await;
    cluster.cluster = Some(ClusterId(77));
    let nowhere = |member: v1::Member, address: &str| v1::Member {
        peer_address: address.to_owned(),
        client_address: address.to_owned(),
        ..member
    };
    let voters = cluster.ids.iter().map(|id| cluster.member(*id)).zip(["127.0.0.1:1", "127.0.0.1:1", ""]);
    let appoint = v1::AppointRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster.cluster_bytes(),
        target: id_bytes(cluster.ids[0].0),
        epoch: cluster.epoch,
        voters: voters.map(|(member, address)| nowhere(member, address)).collect(),
        quorum: 2,
        ..v1::AppointRequest::default()
    };
    cluster.control(0).await.appoint(appoint).await.unwrap();
    cluster.until(0, "one is looked for", |status| status.members.len() == 2).await;
    assert!(cluster.status(0).await.followers.iter().all(|follower| follower.voter && !follower.connected));
    let why = |status: &v1::StatusResponse, at: usize| {
        let follower = status.followers.iter().find(|one| one.replica_id == id_bytes(cluster.ids[at].0));
        follower.map(|one| one.problem.clone()).unwrap_or_default()
    };
    cluster.until(0, "why one is not reached", |status| why(status, 1).contains("Connection refused")).await;
    let told = || async {
        let described = cluster.client(0).await.describe(v1::DescribeRequest::default()).await.unwrap().into_inner();
        described.members.iter().any(|member| member.problem.contains("Connection refused"))
    };
    let begun = Instant::now();
    while !told().await {
        assert!(begun.elapsed() < Duration::from_secs(5), "clients are told why as well");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(why(&cluster.status(0).await, 2), "its address is not known, so it gets no records");
    cluster.tell(0, &[], &[1, 2]).await;
    cluster.settle(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_reaches_followers_whose_names_lead_nowhere_or_elsewhere_by_the_addresses_it_was_told() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    cluster.seal_all().await;
    cluster.cluster = Some(ClusterId(77));
    let mut voters: Vec<_> = cluster.ids.iter().map(|id| cluster.member(*id)).collect();
    let (one, two) = (voters[1].peer_address.clone(), voters[2].peer_address.clone());
    // The name of one leads nowhere; at that of the other, another replica answers.
    (voters[1].peer_address, voters[1].dial_address) = ("zue-1.invalid:1".to_owned(), one);
    (voters[2].peer_address, voters[2].dial_address) = (voters[0].peer_address.clone(), two);
    let appoint = v1::AppointRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster.cluster_bytes(),
        target: id_bytes(cluster.ids[0].0),
        epoch: cluster.epoch,
        voters,
        quorum: 3,
        ..v1::AppointRequest::default()
    };
    cluster.control(0).await.appoint(appoint.clone()).await.unwrap();
    cluster.settle(0).await;
    // A name is no such address.
    let mut wrong = v1::AppointRequest { epoch: cluster.epoch + 1, ..appoint };
    wrong.voters[1].dial_address = "zue-1.invalid:1".to_owned();
    let refused = cluster.control(0).await.appoint(wrong).await.unwrap_err();
    assert!(refused.message().contains("zue-1.invalid:1"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn learners_that_were_refused_are_forgotten() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let request = v1::LearnersRequest {
        protocol_version: PROTOCOL_VERSION,
        target: id_bytes(cluster.ids[0].0),
        epoch: 1,
        learners: vec![v1::Member { replica_id: id_bytes(99), ..cluster.member(cluster.ids[1]) }],
        ..v1::LearnersRequest::default()
    };
    let refused = cluster.control(0).await.learners(request).await.unwrap_err();
    assert_eq!(error_of(&refused).0, Reason::NotLeader);
    assert_eq!(cluster.elect(Some(0)).await, 0);
    cluster.settle(0).await;
}
