//! Producers over a node: strangers make nobody forget a real one, and what is not known of an append is told so.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use bytes::Bytes;
use common::{Cluster, error_of, request, value};
use tonic::transport::Channel;
use zue_proto::id_bytes;
use zue_proto::v1::append_stream_response::Outcome as Answer;
use zue_proto::v1::log_client::LogClient;
use zue_proto::v1::{self, Outcome, Reason};

fn by(producer_id: &Bytes, sequence: u64) -> v1::AppendRequest {
    v1::AppendRequest { producer_id: producer_id.clone(), sequence, ..request(vec![value("x")]) }
}

async fn open(client: &mut LogClient<Channel>) -> Bytes {
    client.open_producer(v1::OpenProducerRequest {}).await.unwrap().into_inner().producer_id
}

/// An id that nobody has given out.
fn invented(born: u64, nonce: u64) -> Bytes {
    id_bytes((u128::from(born) << 64) | u128::from(nonce))
}

/// The number of first appends of invented producers that a connection takes, and the refusal of the others.
async fn flood(client: &mut LogClient<Channel>, nonces: std::ops::Range<u64>) -> (u64, Vec<v1::Error>) {
    let now = open(client).await;
    let born = u64::from_be_bytes(now[..8].try_into().unwrap());
    let requests: Vec<_> = nonces.map(|nonce| by(&invented(born, nonce), 0)).collect();
    let mut answers = client.append_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let (mut appended, mut refused) = (0, Vec::new());
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.outcome.unwrap() {
            Answer::Appended(_) => appended += 1,
            Answer::Error(error) => refused.push(error),
        }
    }
    (appended, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_with_invented_producers_make_nobody_forget_a_real_one() {
    let mut cluster = Cluster::start(1, |config| config.limits.producers_max = 128).await;
    cluster.elect(None).await;
    let mut client = cluster.client(0).await;
    let real = open(&mut client).await;
    client.append(by(&real, 0)).await.unwrap();
    let first = client.append(by(&real, 1)).await.unwrap().into_inner();
    let mut appended = 0;
    for stranger in 1..30 {
        let mut other = cluster.client(0).await;
        let (more, refused) = flood(&mut other, stranger * 1000..stranger * 1000 + 200).await;
        assert_eq!(more + u64::try_from(refused.len()).unwrap(), 200);
        // Its share is 128; a few more are there again while it goes on.
        assert!(more <= 160, "{more} of one connection");
        for error in refused {
            assert_eq!((error.reason(), error.outcome()), (Reason::Overloaded, Outcome::NotAppended));
            assert!(error.message.contains("limits.producersMax"), "{}", error.message);
        }
        appended += more;
    }
    // The real one came in from there, too.
    assert!((1023..1200).contains(&appended), "{appended} of one address");
    let again = client.append(by(&real, 1)).await.unwrap().into_inner();
    assert_eq!((again.base_offset, again.duplicate), (first.base_offset, true));
    assert!(!client.append(by(&real, 2)).await.unwrap().into_inner().duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_that_come_one_after_the_other_wait_a_moment_beyond_their_share() {
    let mut cluster = Cluster::start(1, |_| {}).await;
    cluster.elect(None).await;
    let mut client = cluster.client(0).await;
    let (appended, _) = flood(&mut client, 0..4300).await;
    assert!(appended < 4300, "the share is used up");
    for _ in 0..50 {
        let producer = open(&mut client).await;
        client.append(by(&producer, 0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_producer_that_was_forgotten_is_not_called_absent() {
    let mut cluster = Cluster::start(1, |config| config.limits.producers_max = 8).await;
    cluster.elect(None).await;
    let mut client = cluster.client(0).await;
    let real = open(&mut client).await;
    client.append(by(&real, 0)).await.unwrap();
    // 16 times as many are remembered as there is room for with all their appends.
    for stranger in 1..4 {
        assert_eq!(flood(&mut cluster.client(0).await, stranger * 100..stranger * 100 + 60).await.0, 60);
    }
    for sequence in [0, 1] {
        let (reason, error, _) = error_of(&client.append(by(&real, sequence)).await.unwrap_err());
        assert_eq!((reason, error.outcome()), (Reason::UnknownProducer, Outcome::Unknown), "{sequence}");
    }
    let newer = open(&mut client).await;
    let two = |sequence| v1::AppendRequest { records: vec![value("x"); 2], ..by(&newer, sequence) };
    client.append(two(0)).await.unwrap();
    let (reason, error, _) = error_of(&client.append(two(1)).await.unwrap_err());
    assert_eq!((reason, error.outcome()), (Reason::Invalid, Outcome::Unknown), "half of it is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_of_another_log_is_unknown_to_the_leader_and_no_node_names_itself() {
    for count in [1, 3] {
        let mut cluster = Cluster::start(count, |_| {}).await;
        let leader = cluster.elect(Some(0)).await;
        cluster.settle(leader).await;
        let other = invented(900, 7);
        for sequence in [0, 5] {
            let answer = cluster.client(leader).await.append(by(&other, sequence)).await;
            let (reason, error, _) = error_of(&answer.unwrap_err());
            assert_eq!((reason, error.leader), (Reason::UnknownProducer, None));
        }
        for ordinal in (0..count).filter(|ordinal| *ordinal != leader) {
            let answer = cluster.client(ordinal).await.append(by(&other, 0)).await;
            let (reason, error, _) = error_of(&answer.unwrap_err());
            assert_eq!(reason, Reason::NotLeader);
            assert_eq!(error.leader.map(|leader| leader.name), Some(format!("zue-{leader}")));
        }
    }
}
