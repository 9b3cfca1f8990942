//! The place where a follower's log is joined to a leader's: one message to its peer port takes nothing of it.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use bytes::Bytes;
use common::{Cluster, append_all, read_all};
use zue_core::{ClusterId, Epoch, EpochStart, Offset, Producers, ReplicaId, Tail};
use zue_log::{Batch, BatchBuilder, Limits};
use zue_proto::v1::replication_client::ReplicationClient;
use zue_proto::v1::{self, follower_message, leader_message};
use zue_proto::{PROTOCOL_VERSION, id_bytes};

const STRANGER: ReplicaId = ReplicaId(5);

/// Speaks to a node as a leader does; the answers to the messages, in their order. The stream ends with the last.
async fn follow(
    cluster: &Cluster,
    ordinal: usize,
    messages: Vec<leader_message::Message>,
) -> Vec<follower_message::Message> {
    let address = format!("http://{}", cluster.configs[ordinal].listen.peer);
    let mut client = ReplicationClient::connect(address).await.unwrap();
    let (sender, stream) = tokio::sync::mpsc::channel(8);
    let mut answers = client.follow(tokio_stream::wrappers::ReceiverStream::new(stream)).await.unwrap().into_inner();
    let mut heard = Vec::new();
    for message in messages {
        sender.send(v1::LeaderMessage { message: Some(message) }).await.unwrap();
        heard.extend(answers.message().await.unwrap().and_then(|answer| answer.message));
    }
    heard
}

fn epoch_start(epoch: u64, start: u64, follower: ReplicaId) -> EpochStart {
    let voters = vec![STRANGER, follower];
    EpochStart { epoch: Epoch(epoch), start: Offset(start), leader: STRANGER, voters, quorum: 2, old_voters: None }
}

fn start(cluster: &Cluster, ordinal: usize, history: Vec<v1::EpochStart>, end: u64) -> v1::Start {
    let id = cluster.ids[ordinal];
    let epoch = history.last().unwrap().epoch;
    v1::Start {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: id_bytes(ClusterId(9).0),
        target: id_bytes(id.0),
        leader: Some(v1::Member { replica_id: id_bytes(STRANGER.0), name: "five".to_owned(), ..cluster.member(id) }),
        epoch,
        history,
        log: Some(v1::Tail { epoch, end }),
        ..v1::Start::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_start_takes_nothing_of_a_followers_log_and_its_leader_feeds_it_on() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, vec![b"kept".to_vec(); 20]).await;
    cluster.settle(0).await;
    let before = cluster.status(1).await;
    let end = before.log.unwrap().end;
    for (ahead, at) in [(1, end + 1), (2, end + 100)] {
        let next = epoch_start(before.promised + ahead, at - 1, cluster.ids[1]);
        let origin = v1::Origin {
            at,
            history: vec![(&next).into()],
            timestamp_ms: 0,
            producers: Producers::default().encode().into(),
        };
        let cluster_id = before.cluster_id.clone();
        let start = v1::Start { cluster_id, oldest: at, ..start(&cluster, 1, vec![(&next).into()], at) };
        let start = v1::Start { origin: Some(origin), ..start };
        let answers = follow(&cluster, 1, vec![leader_message::Message::Start(start)]).await;
        let [follower_message::Message::Started(started)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!((started.log.unwrap().end, started.durable), (at, Some(v1::Tail::default())));
        let after = cluster.status(1).await;
        assert_eq!((after.log, after.durable, after.log_start), (before.log, before.durable, before.log_start));
        assert_eq!(after.commit_end, before.commit_end);
    }
    cluster.epoch = before.promised + 9;
    let leader = cluster.elect(None).await;
    cluster.settle(leader).await;
    append_all(&mut cluster.client(leader).await, vec![b"more".to_vec()]).await;
    cluster.settle(leader).await;
    assert_eq!(read_all(&mut cluster.client(1).await, 0).await.len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_leader_lacks_is_cut_with_its_first_records_however_old_those_are() {
    let cluster = Cluster::start(1, |_| {}).await;
    let id = cluster.ids[0];
    let (first, second) = (epoch_start(1, 0, id), epoch_start(2, 1, id));
    let frames = |prev: Tail, frames: Bytes| {
        leader_message::Message::Frames(v1::Frames { prev: Some(prev.into()), frames, commit_end: 0, round: 0 })
    };
    let record = |prev: Tail, timestamp_ms: u64| {
        let mut builder = BatchBuilder::new(prev, timestamp_ms, Limits::default());
        builder.push(None, b"record", [], None).unwrap();
        builder.finish().unwrap()
    };
    let begun = Batch::epoch_start(Epoch(0), first.clone()).unwrap();
    let shared = record(begun.tail(), 1000);
    let lost = record(shared.tail(), 9000);
    let started = leader_message::Message::Start(start(&cluster, 0, vec![(&first).into()], 0));
    let messages = [(Tail::default(), &begun), (begun.tail(), &shared), (shared.tail(), &lost)];
    let messages = messages.map(|(prev, batch)| frames(prev, batch.bytes().clone()));
    follow(&cluster, 0, [started].into_iter().chain(messages).collect()).await;
    cluster.until(0, "written", |status| status.durable.is_some_and(|durable| durable.end == 2)).await;
    let started = leader_message::Message::Start(start(&cluster, 0, vec![(&first).into(), (&second).into()], 2));
    let answers = follow(&cluster, 0, vec![started.clone()]).await;
    let [follower_message::Message::Started(answer)] = &answers[..] else { panic!("{answers:?}") };
    let joint = Some(v1::Tail { epoch: 1, end: 1 });
    assert_eq!((answer.log, answer.durable), (joint, joint));
    assert_eq!(cluster.status(0).await.log, Some(v1::Tail { epoch: 1, end: 2 }), "nothing has come of its log");
    let begun = Batch::epoch_start(Epoch(1), second).unwrap();
    let messages = vec![
        started,
        frames(shared.tail(), begun.bytes().clone()),
        frames(begun.tail(), record(begun.tail(), 5000).bytes().clone()),
    ];
    let answers = follow(&cluster, 0, messages).await;
    let is_refused = |answer: &follower_message::Message| matches!(answer, follower_message::Message::Refused(_));
    assert!(!answers.iter().any(is_refused), "{answers:?}");
    let end = Some(v1::Tail { epoch: 2, end: 2 });
    cluster.until(0, "written", |status| status.durable == end).await;
}
