//! By what a node stands by: it believes who leads, and nobody else.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use common::{Cluster, error_of};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use zue_core::{ClusterId, Epoch, EpochStart, Offset, ReplicaId, Tail};
use zue_proto::v1::replication_client::ReplicationClient;
use zue_proto::v1::{self, Reason, follower_message, leader_message};
use zue_proto::{PROTOCOL_VERSION, id_bytes};

fn standby(cluster: &Cluster) -> v1::Standby {
    v1::Standby {
        detection_ms: 700,
        after_ms: 60_000,
        members: cluster.ids.iter().map(|id| cluster.member(*id)).collect(),
        ..v1::Standby::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_takes_what_it_is_told_only_with_the_whole_request_and_only_for_its_voters() {
    let cluster = Cluster::led().await;
    let good = v1::LearnersRequest {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster.cluster_bytes(),
        target: id_bytes(cluster.ids[0].0),
        epoch: cluster.epoch,
        standby: Some(standby(&cluster)),
        ..v1::LearnersRequest::default()
    };
    let told = |standby: v1::Standby| v1::LearnersRequest { standby: Some(standby), ..good.clone() };
    let stranger = v1::Member { replica_id: id_bytes(50), ..cluster.member(cluster.ids[2]) };
    let mut others = standby(&cluster);
    others.members[2] = stranger.clone();
    let mut fewer = standby(&cluster);
    fewer.members.pop();
    let learner = |id: u128| v1::Member { replica_id: id_bytes(id), ..stranger.clone() };
    let cases = [
        (v1::LearnersRequest { learners: (50..60).map(learner).collect(), ..good.clone() }, "too many learners"),
        (told(others), "are not the voters"),
        (told(fewer), "are not the voters"),
        (told(v1::Standby { detection_ms: 299, ..standby(&cluster) }), "standby.detection_ms is 299 ms"),
        (told(v1::Standby { after_ms: 199, ..standby(&cluster) }), "standby.after_ms is 199 ms"),
        (v1::LearnersRequest { epoch: cluster.epoch + 1, ..good.clone() }, ""),
    ];
    for (request, expected) in cases {
        let (_, error, _) = error_of(&cluster.control(0).await.learners(request).await.unwrap_err());
        assert!(error.message.contains(expected), "{}", error.message);
        assert_eq!(cluster.status(0).await.standby, None, "{expected}");
    }
    cluster.control(0).await.learners(good).await.unwrap();
    let told = v1::Standby { epoch: cluster.epoch, ..standby(&cluster) };
    for ordinal in 0..3 {
        cluster.until(ordinal, "told", |status| status.standby.as_ref() == Some(&told)).await;
    }
}

/// A stream of a leader to the only node.
struct Stream {
    says: mpsc::Sender<v1::LeaderMessage>,
    answers: Streaming<v1::FollowerMessage>,
}

impl Stream {
    async fn open(cluster: &Cluster, first: Vec<leader_message::Message>) -> Self {
        let address = format!("http://{}", cluster.configs[0].listen.peer);
        let mut client = ReplicationClient::connect(address).await.unwrap();
        let (says, stream) = mpsc::channel(8);
        for message in first {
            says.try_send(v1::LeaderMessage { message: Some(message) }).unwrap();
        }
        let answers = client.follow(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { says, answers }
    }

    async fn say(&self, message: leader_message::Message) {
        self.says.send(v1::LeaderMessage { message: Some(message) }).await.unwrap();
    }

    async fn answer(&mut self) -> follower_message::Message {
        self.answers.message().await.unwrap().unwrap().message.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_said_is_not_lost_to_streams_that_are_refused_nor_are_wrong_words_the_end_of_its_own() {
    let cluster = Cluster::start(1, |_| {}).await;
    let begins = |leader: u128| EpochStart {
        epoch: Epoch(1),
        start: Offset(0),
        leader: ReplicaId(leader),
        voters: vec![ReplicaId(leader), cluster.ids[0]],
        quorum: 2,
        old_voters: None,
    };
    let member =
        |id: u128| v1::Member { replica_id: id_bytes(id), name: "five".to_owned(), ..cluster.member(cluster.ids[0]) };
    let start = |leader: u128| {
        leader_message::Message::Start(v1::Start {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: id_bytes(ClusterId(9).0),
            target: id_bytes(cluster.ids[0].0),
            leader: Some(member(leader)),
            epoch: 1,
            history: vec![(&begins(leader)).into()],
            log: Some(Tail { epoch: Epoch(1), end: Offset(0) }.into()),
            members: vec![member(leader)],
            ..v1::Start::default()
        })
    };
    let mut leader = Stream::open(&cluster, vec![start(5)]).await;
    assert!(matches!(leader.answer().await, follower_message::Message::Started(_)));
    leader.say(leader_message::Message::Standby(standby(&cluster))).await;
    leader.say(leader_message::Message::Standby(v1::Standby { detection_ms: 1, ..standby(&cluster) })).await;
    let heartbeat = v1::Heartbeat { round: 1, ..v1::Heartbeat::default() };
    leader.say(leader_message::Message::Heartbeat(heartbeat)).await;
    loop {
        match leader.answer().await {
            // What came before it was heard, too.
            follower_message::Message::Ack(ack) if ack.round == 1 => break,
            follower_message::Message::Ack(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let hostile = v1::Standby { after_ms: 200, ..standby(&cluster) };
    for _ in 0..50 {
        // The node is bound to the other leader of this epoch. It may refuse before it hears of the rest.
        let words = vec![start(6), leader_message::Message::Standby(hostile.clone())];
        let mut rival = Stream::open(&cluster, words).await;
        let follower_message::Message::Refused(refused) = rival.answer().await else { panic!("it is followed") };
        assert_eq!(refused.error.unwrap().reason(), Reason::StaleEpoch);
    }
    let begun = zue_log::Batch::epoch_start(Epoch(0), begins(5)).unwrap();
    let (prev, frames) = (Some(Tail::default().into()), begun.bytes().clone());
    leader.say(leader_message::Message::Frames(v1::Frames { prev, frames, commit_end: 0, round: 1 })).await;
    cluster.until(0, "told", |status| status.standby.as_ref() == Some(&standby(&cluster))).await;
}
