//! Three nodes and a controller, in one process: what is acknowledged is there, on every replica, whatever stops and starts.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, append_all, epoch_of, error_of, read_all, request, value};
use zue_core::election::{Change, NoChoice, choose};
use zue_proto::v1::{self, Outcome, Reason, Role};

fn texts(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(|n| format!("record {n}").into_bytes()).collect()
}

async fn append(cluster: &Cluster, ordinal: usize, text: &str) -> Result<v1::AppendResponse, tonic::Status> {
    let mut client = cluster.client(ordinal).await;
    client.append(request(vec![value(text)])).await.map(tonic::Response::into_inner)
}

async fn producer(cluster: &Cluster, ordinal: usize) -> bytes::Bytes {
    let opened = cluster.client(ordinal).await.open_producer(v1::OpenProducerRequest {}).await.unwrap();
    opened.into_inner().producer_id
}

fn numbered(producer_id: &bytes::Bytes, sequence: u64, text: &str) -> v1::AppendRequest {
    v1::AppendRequest { producer_id: producer_id.clone(), sequence, ..request(vec![value(text)]) }
}

/// Waits until a replica knows that much to be committed.
async fn until_committed(cluster: &Cluster, ordinal: usize, end: u64) {
    cluster.until(ordinal, "committed", |status| status.commit_end >= end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_read_from_every_replica_byte_for_byte() {
    let mut cluster = Cluster::led().await;
    let records = vec![
        v1::NewRecord { key: Some("k".into()), value: "v".into(), headers: vec![] },
        v1::NewRecord { key: Some("".into()), value: "".into(), headers: vec![] },
        v1::NewRecord {
            key: None,
            value: vec![0, 255, 10, 13].into(),
            headers: vec![v1::Header { name: "trace".to_owned(), value: "7".into() }],
        },
    ];
    let appended = cluster.client(0).await.append(request(records.clone())).await.unwrap().into_inner();
    assert_eq!((appended.base_offset, appended.count, appended.duplicate), (0, 3, false));
    append_all(&mut cluster.client(0).await, texts(3..2000)).await;
    let from_leader = read_all(&mut cluster.client(0).await, 0).await;
    assert_eq!(from_leader.len(), 2000);
    for (record, new) in from_leader.iter().zip(&records) {
        assert_eq!((&record.key, &record.value, &record.headers), (&new.key, &new.value, &new.headers));
    }
    for ordinal in [1, 2] {
        until_committed(&cluster, ordinal, 2000).await;
        assert_eq!(read_all(&mut cluster.client(ordinal).await, 0).await, from_leader, "replica {ordinal}");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_names_the_leader_and_where_it_is() {
    let cluster = Cluster::led().await;
    let (reason, error, _) = error_of(&append(&cluster, 1, "x").await.unwrap_err());
    assert_eq!((reason, error.outcome()), (Reason::NotLeader, Outcome::NotAppended));
    let leader = error.leader.unwrap();
    assert_eq!(leader.address, cluster.configs[0].listen.client.to_string());
    for ordinal in 0..3 {
        let described = cluster.client(ordinal).await.describe(v1::DescribeRequest::default()).await.unwrap();
        let described = described.into_inner();
        assert_eq!(described.leader.as_ref(), Some(&leader));
        assert_eq!(described.members.iter().filter(|member| member.voter).count(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_append_is_kept_once_across_leaders_and_restarts() {
    let mut cluster = Cluster::led().await;
    let id = producer(&cluster, 2).await;
    let mut client = cluster.client(0).await;
    let first = client.append(numbered(&id, 0, "a")).await.unwrap().into_inner();
    let again = client.append(numbered(&id, 0, "a")).await.unwrap().into_inner();
    assert_eq!((again.base_offset, again.duplicate), (first.base_offset, true));
    let (reason, error, _) = error_of(&client.append(numbered(&id, 5, "z")).await.unwrap_err());
    assert_eq!((reason, error.expected_sequence), (Reason::SequenceGap, 1));
    cluster.settle(0).await;

    cluster.stop(0).await;
    assert_eq!(cluster.elect(Some(1)).await, 1);
    cluster.settle(1).await;
    let other = cluster.client(1).await.append(numbered(&id, 0, "a")).await.unwrap().into_inner();
    assert_eq!((other.base_offset, other.duplicate), (first.base_offset, true), "another leader knows it too");

    cluster.stop(1).await;
    cluster.restart(1).await;
    cluster.restart(0).await;
    let leader = cluster.elect(Some(1)).await;
    cluster.settle(leader).await;
    let after = cluster.client(leader).await.append(numbered(&id, 0, "a")).await.unwrap().into_inner();
    assert_eq!((after.base_offset, after.duplicate), (first.base_offset, true), "it is rebuilt from the log");
    let next = cluster.client(leader).await.append(numbered(&id, 1, "b")).await.unwrap().into_inner();
    assert!(!next.duplicate);
    assert_eq!(read_all(&mut cluster.client(leader).await, 0).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_append_many_times_at_once_is_stored_once() {
    let cluster = Cluster::led().await;
    let id = producer(&cluster, 0).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (mut client, request) = (cluster.client(0).await, numbered(&id, 0, "once"));
        calls.push(tokio::spawn(async move { client.append(request).await.unwrap().into_inner() }));
    }
    let mut duplicates = 0;
    for call in calls {
        let appended = call.await.unwrap();
        assert_eq!(appended.base_offset, 0);
        duplicates += usize::from(appended.duplicate);
    }
    assert_eq!(duplicates, 19);
    assert_eq!(read_all(&mut cluster.client(0).await, 0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_shortly_is_caught_up_from_memory() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, texts(0..100)).await;
    cluster.settle(0).await;
    cluster.stop(2).await;
    append_all(&mut cluster.client(0).await, texts(100..300)).await;
    let before = (cluster.metric(0, "zue_inline_catchups_total"), cluster.metric(0, "zue_repair_batches_total"));
    cluster.restart(2).await;
    cluster.settle(0).await;
    let after = (cluster.metric(0, "zue_inline_catchups_total"), cluster.metric(0, "zue_repair_batches_total"));
    assert_eq!(after, (before.0 + 1, before.1), "from memory, not from the disk");
    until_committed(&cluster, 2, 300).await;
    assert_eq!(read_all(&mut cluster.client(2).await, 0).await.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_is_repaired_from_the_log_while_appends_go_on() {
    let mut cluster = Cluster::start(3, |config| {
        config.replication.inline_catchup_records = 50;
        config.replication.repair_batch_bytes = zue_settings::ByteSize(4096);
        config.log.segment_bytes_max = zue_settings::ByteSize(64 << 10);
    })
    .await;
    cluster.elect(Some(0)).await;
    cluster.settle(0).await;
    cluster.stop(2).await;
    append_all(&mut cluster.client(0).await, texts(0..5000)).await;
    let inline_before = cluster.metric(0, "zue_inline_catchups_total");
    cluster.restart(2).await;
    append_all(&mut cluster.client(0).await, texts(5000..6000)).await;
    cluster.settle(0).await;
    assert!(cluster.metric(0, "zue_repair_records_total") >= 4900);
    assert_eq!(cluster.metric(0, "zue_inline_catchups_total"), inline_before);
    until_committed(&cluster, 2, 6000).await;
    let expected = read_all(&mut cluster.client(0).await, 0).await;
    assert_eq!(read_all(&mut cluster.client(2).await, 0).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_leader_leads_again_at_a_higher_epoch_and_nothing_is_lost() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, texts(0..500)).await;
    cluster.stop(0).await;
    cluster.restart(0).await;
    let (reason, ..) = error_of(&append(&cluster, 0, "too early").await.unwrap_err());
    assert_eq!(reason, Reason::NotLeader, "leadership does not survive a restart");
    assert_eq!(cluster.elect(Some(0)).await, 0);
    cluster.settle(0).await;
    assert_eq!(epoch_of(&cluster.status(0).await).0, 2);
    append_all(&mut cluster.client(0).await, texts(500..600)).await;
    let values: Vec<_> =
        read_all(&mut cluster.client(0).await, 0).await.into_iter().map(|r| r.value.to_vec()).collect();
    assert_eq!(values, texts(0..600));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_without_the_leader_goes_on_and_the_old_leader_joins_it() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, texts(0..200)).await;
    // Sealed by two: the third still believes that it leads, and gets nothing committed.
    cluster.epoch += 1;
    let mut answers = Vec::new();
    for ordinal in [1, 2] {
        let request = cluster.seal_request(ordinal, cluster.epoch);
        answers.push(cluster.control(ordinal).await.seal(request).await.unwrap().into_inner());
    }
    let late = tokio::time::timeout(Duration::from_millis(300), append(&cluster, 0, "never")).await;
    if let Ok(answered) = late {
        let (reason, ..) = error_of(&answered.unwrap_err());
        assert_eq!(reason, Reason::NoQuorum);
    }
    let answers: Vec<_> = answers.into_iter().map(common::sealed).collect();
    let choice = choose(&answers, None, None, None, None).unwrap();
    let leader = cluster.ids.iter().position(|id| *id == choice.leader).unwrap();
    let appoint = cluster.appoint_request(leader, cluster.epoch, &choice);
    cluster.control(leader).await.appoint(appoint).await.unwrap();
    cluster.settle(leader).await;
    cluster.until(0, "the old leader follows", |status| status.role() == Role::Follower).await;
    append(&cluster, leader, "new").await.unwrap();
    cluster.settle(leader).await;
    let expected = read_all(&mut cluster.client(leader).await, 0).await;
    until_committed(&cluster, 0, 201).await;
    assert_eq!(read_all(&mut cluster.client(0).await, 0).await, expected);
    assert!(expected.iter().all(|record| record.value != "never"), "it had no quorum");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_appends_fail_in_time_and_reads_go_on() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, texts(0..50)).await;
    cluster.settle(0).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    cluster.until(0, "both are missed", |status| status.followers.iter().all(|f| !f.connected)).await;
    let begun = Instant::now();
    let (reason, error, _) = error_of(&append(&cluster, 0, "x").await.unwrap_err());
    assert_eq!((reason, error.outcome()), (Reason::NoQuorum, Outcome::NotAppended));
    assert_eq!(error.message, "1 of 3 voters are in reach, 2 are needed");
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(read_all(&mut cluster.client(0).await, 0).await.len(), 50);

    cluster.restart(1).await;
    cluster.until(0, "one is back", |status| status.followers.iter().any(|f| f.connected)).await;
    append(&cluster, 0, "x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_stopped_and_started_again_keep_the_data() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, texts(0..1000)).await;
    let expected = read_all(&mut cluster.client(0).await, 0).await;
    cluster.stop_all().await;
    for ordinal in 0..3 {
        cluster.restart(ordinal).await;
    }
    // What a replica had written down as committed can be read before anybody leads.
    let early = read_all(&mut cluster.client(1).await, 0).await;
    assert_eq!(early[..], expected[..early.len()]);
    let leader = cluster.elect(Some(0)).await;
    cluster.settle(leader).await;
    for ordinal in 0..3 {
        until_committed(&cluster, ordinal, 1000).await;
        assert_eq!(read_all(&mut cluster.client(ordinal).await, 0).await, expected, "replica {ordinal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_lost_its_disk_is_another_replica_which_learns_and_takes_its_place() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, texts(0..500)).await;
    cluster.wipe(2).await;
    cluster
        .until(0, "refused", |status| status.followers.iter().any(|f| f.problem.contains("the message is for")))
        .await;
    // More than the leader keeps in memory would do as well: what it lacks comes from the disk.
    cluster.teach(0, &[2]).await;
    let (lost, new) = (cluster.lost[0].0, cluster.ids[2]);
    let learns = |status: &v1::StatusResponse| {
        let learner = status.followers.iter().find(|f| f.replica_id == zue_proto::id_bytes(new.0));
        learner.is_some_and(|f| !f.voter && f.in_sync && f.connected && f.lag_records == 0)
    };
    cluster.until(0, "the learner has caught up", learns).await;
    assert_eq!(read_all(&mut cluster.client(2).await, 0).await.len(), 500);
    let described = cluster.client(2).await.describe(v1::DescribeRequest::default()).await.unwrap().into_inner();
    assert!(described.members.iter().any(|member| member.name == "zue-2" && !member.voter), "{described:?}");

    let (leader, choice) = cluster.change(Some(0), Some(Change::Remove(lost))).await;
    assert_eq!((leader, choice.voters), (0, vec![cluster.ids[0], cluster.ids[1]]));
    cluster.until(0, "settled", |status| status.settled).await;
    cluster.teach(0, &[2]).await;
    cluster.until(0, "the learner has caught up again", learns).await;
    let (leader, choice) = cluster.change(Some(0), Some(Change::Add(new))).await;
    assert_eq!((leader, choice.voters), (0, cluster.ids.clone()));
    cluster.until(0, "settled", |status| status.settled).await;
    let (leader, choice) = cluster.change(Some(0), None).await;
    assert_eq!((leader, choice.old_voters), (0, None));
    cluster.settle(0).await;
    // It votes and commits like any other.
    cluster.stop(1).await;
    append(&cluster, 0, "with the new one").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_is_named_no_more_is_fed_no_more_while_the_others_are() {
    let mut cluster = Cluster::start(4, |_| {}).await;
    cluster.elect(Some(0)).await;
    cluster.settle(0).await;
    assert_eq!(cluster.change(Some(0), Some(Change::Remove(cluster.ids[3]))).await.1.voters, cluster.ids[..3]);
    cluster.settle(0).await;
    assert_eq!(cluster.change(Some(0), None).await.1.old_voters, None);
    cluster.until(0, "its voters", |s| s.followers.iter().filter(|f| f.connected).count() == 2).await;
    cluster.teach(0, &[3]).await;
    append_all(&mut cluster.client(0).await, texts(0..10)).await;
    until_committed(&cluster, 3, 10).await;
    cluster.teach(0, &[]).await;
    append_all(&mut cluster.client(0).await, texts(10..20)).await;
    until_committed(&cluster, 1, 20).await;
    until_committed(&cluster, 2, 20).await;
    let status = cluster.status(3).await;
    assert_eq!(status.commit_end, 10);
    cluster.until(3, "it says so", |status| status.problem.starts_with("no member since epoch 3")).await;
    assert_eq!(cluster.status(0).await.followers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_follows_gets_what_is_appended_later_from_a_follower_too() {
    let cluster = Cluster::led().await;
    for ordinal in [0, 1] {
        let from = u64::try_from(ordinal).unwrap();
        cluster.until(ordinal, "as far as the leader", |status| status.commit_end >= from).await;
        let follow = v1::ReadRequest { from, follow: true, max_records: 1, ..v1::ReadRequest::default() };
        let mut responses = cluster.client(ordinal).await.read(follow).await.unwrap().into_inner();
        let first = responses.message().await.unwrap().unwrap();
        assert_eq!((first.records.len(), first.commit_end), (0, from));
        append(&cluster, 0, "news").await.unwrap();
        let begun = Instant::now();
        let next = responses.message().await.unwrap().unwrap();
        assert_eq!((next.records[0].offset, &next.records[0].value[..]), (from, &b"news"[..]));
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!(responses.message().await.unwrap(), None, "it asked for one record");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_holds_appends_and_loses_none() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, texts(0..100)).await;
    let hand_over = v1::HandoverRequest {
        protocol_version: zue_proto::PROTOCOL_VERSION,
        cluster_id: cluster.cluster_bytes(),
        target: zue_proto::id_bytes(cluster.ids[0].0),
        epoch: cluster.epoch,
        to: zue_proto::id_bytes(cluster.ids[1].0),
        deadline_ms: 2000,
    };
    let log = cluster.control(0).await.handover(hand_over.clone()).await.unwrap().into_inner().log.unwrap();
    assert_eq!(log.end, 100);
    let mut client = cluster.client(0).await;
    let held = tokio::spawn(async move { client.append(request(vec![value("held")])).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!held.is_finished(), "a new append waits while the leader hands over");
    assert_eq!(cluster.elect(Some(1)).await, 1, "the target wins the election");
    let (reason, error, _) = error_of(&held.await.unwrap().unwrap_err());
    assert_eq!((reason, error.outcome()), (Reason::NotLeader, Outcome::NotAppended));
    cluster.settle(1).await;
    append(&cluster, 1, "after").await.unwrap();

    // At its deadline a hand-over that nobody finishes is over, and what was held goes on.
    let back = v1::HandoverRequest {
        target: zue_proto::id_bytes(cluster.ids[1].0),
        epoch: cluster.epoch,
        to: zue_proto::id_bytes(cluster.ids[2].0),
        deadline_ms: 300,
        ..hand_over
    };
    cluster.control(1).await.handover(back).await.unwrap();
    append(&cluster, 1, "later").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_is_a_cluster_too() {
    let mut cluster = Cluster::start(1, |_| {}).await;
    cluster.elect(None).await;
    assert_eq!(append_all(&mut cluster.client(0).await, texts(0..100)).await, (0..100).collect::<Vec<u64>>());
    assert_eq!(read_all(&mut cluster.client(0).await, 90).await.len(), 10);
}

async fn trim(cluster: &Cluster, ordinal: usize, before: u64) -> Result<u64, tonic::Status> {
    let request = v1::TrimRequest { log: String::new(), before };
    cluster.client(ordinal).await.trim(request).await.map(|answer| answer.into_inner().log_start)
}

/// The refusal of a read of what was trimmed. The replica knows of a trim before its disk has done it, and reads go by the disk.
async fn refused_read(cluster: &Cluster, ordinal: usize, from: u64) -> tonic::Status {
    let begun = Instant::now();
    loop {
        let request = v1::ReadRequest { from, ..v1::ReadRequest::default() };
        match cluster.client(ordinal).await.read(request).await {
            Err(refused) => return refused,
            Ok(_) => assert!(begun.elapsed() < common::PATIENCE, "what was trimmed is still read"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trim_is_kept_by_every_replica_and_by_one_that_was_away_and_by_one_whose_disk_was_lost() {
    let small = |config: &mut zue_settings::NodeConfig| {
        common::quick(config);
        config.log.segment_bytes_max = zue_settings::ByteSize(32 << 10);
        // So that the one that was away has to begin anew.
        config.log.trim_delay = zue_settings::Time::from_millis(0);
        config.replication.inline_catchup_bytes = zue_settings::ByteSize(64 << 10);
    };
    let mut cluster = Cluster::start(3, small).await;
    cluster.elect(Some(0)).await;
    cluster.settle(0).await;
    let long = |range: std::ops::Range<usize>| range.map(|n| format!("record {n} {}", "x".repeat(2000)).into_bytes());
    append_all(&mut cluster.client(0).await, long(0..100).collect()).await;
    cluster.settle(0).await;
    // It misses all that is trimmed, and what follows.
    cluster.stop(2).await;
    let id = producer(&cluster, 0).await;
    for sequence in 0..3 {
        cluster.client(0).await.append(numbered(&id, sequence, "once")).await.unwrap();
    }
    append_all(&mut cluster.client(0).await, long(103..200).collect()).await;
    let (reason, error, _) = error_of(&trim(&cluster, 0, 201).await.unwrap_err());
    assert_eq!((reason, error.log_start, error.commit_end), (Reason::OffsetOutOfRange, 0, 200));
    assert_eq!(error_of(&trim(&cluster, 1, 150).await.unwrap_err()).0, Reason::NotLeader);
    assert_eq!(trim(&cluster, 0, 190).await.unwrap(), 190);
    assert_eq!(trim(&cluster, 0, 20).await.unwrap(), 190);
    cluster.until(1, "trimmed", |status| status.log_start == 190).await;
    cluster.restart(2).await;
    cluster.until(2, "trimmed", |status| status.log_start == 190 && status.commit_end == 200).await;
    let kept = read_all(&mut cluster.client(0).await, 190).await;
    assert_eq!(kept.len(), 10);
    assert_eq!(read_all(&mut cluster.client(2).await, 190).await, kept);
    let (reason, error, _) = error_of(&refused_read(&cluster, 2, 189).await);
    assert_eq!((reason, error.log_start), (Reason::OffsetOutOfRange, 190));
    // It leads, and knows who appended what lies before its log.
    cluster.stop(1).await;
    cluster.settle(0).await;
    cluster.elect(Some(2)).await;
    cluster.settle(2).await;
    let again = cluster.client(2).await.append(numbered(&id, 1, "once")).await.unwrap().into_inner();
    assert_eq!((again.base_offset, again.duplicate), (101, true));
    append(&cluster, 2, "more").await.unwrap();
    cluster.stop_all().await;
    cluster.restart(2).await;
    assert_eq!(cluster.status(2).await.log_start, 190);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_retention_goes_from_every_replica_and_the_rest_stays() {
    const KEPT: u64 = 128 << 10;
    let small = |config: &mut zue_settings::NodeConfig| {
        common::quick(config);
        config.log.segment_bytes_max = zue_settings::ByteSize(32 << 10);
        config.log.retention_bytes = Some(zue_settings::ByteSize(KEPT));
    };
    let mut cluster = Cluster::start(3, small).await;
    cluster.elect(Some(0)).await;
    cluster.settle(0).await;
    let values: Vec<Vec<u8>> = (0..200).map(|n| format!("record {n} {}", "x".repeat(2000)).into_bytes()).collect();
    // One by one: what waits together is written as one batch, and a segment takes a batch whole.
    let mut client = cluster.client(0).await;
    for value in &values {
        append_all(&mut client, vec![value.clone()]).await;
    }
    // Of 400 KiB all goes but as much, and less than one segment besides: it holds eleven records.
    let is_kept = |status: &v1::StatusResponse| (KEPT..KEPT + 11 * 2000).contains(&((200 - status.log_start) * 2000));
    for ordinal in 0..3 {
        cluster.until(ordinal, "trimmed", is_kept).await;
    }
    let log_start = cluster.status(0).await.log_start;
    for ordinal in 0..3 {
        cluster.until(ordinal, "trimmed alike", |status| status.log_start == log_start).await;
        let (reason, error, _) = error_of(&refused_read(&cluster, ordinal, log_start - 1).await);
        assert_eq!((reason, error.log_start), (Reason::OffsetOutOfRange, log_start));
        let read = read_all(&mut cluster.client(ordinal).await, log_start).await;
        let kept: Vec<Vec<u8>> = read.into_iter().map(|record| record.value.to_vec()).collect();
        assert_eq!(kept, values[usize::try_from(log_start).unwrap()..]);
        let is_segment = |file: &std::fs::DirEntry| file.path().extension().is_some_and(|end| end == "log");
        let segments = || {
            let files = std::fs::read_dir(&cluster.configs[ordinal].data_dir).unwrap();
            files.filter(|file| is_segment(file.as_ref().unwrap())).count()
        };
        let begun = Instant::now();
        while segments() > 7 {
            assert!(begun.elapsed() < common::PATIENCE, "the files of what was trimmed are still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // The next leader goes on with it.
    cluster.stop(0).await;
    cluster.elect(Some(1)).await;
    cluster.settle(1).await;
    append_all(&mut cluster.client(1).await, values).await;
    cluster.until(2, "trimmed further", |status| status.log_start > log_start).await;
    cluster.stop_all().await;
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_restored_from_a_copy_takes_part_in_nothing_and_says_why() {
    let mut cluster = Cluster::led().await;
    append(&cluster, 0, "before").await.unwrap();
    cluster.settle(0).await;
    cluster.stop(2).await;
    let (data, copy) = (cluster.configs[2].data_dir.clone(), tempfile::tempdir().unwrap());
    copy_dir(&data, copy.path());
    // It goes on, and the others hear of its start in front of what they are sent next.
    cluster.restart(2).await;
    cluster.settle(0).await;
    append(&cluster, 0, "after").await.unwrap();
    cluster.settle(0).await;
    cluster.stop(2).await;
    copy_dir(copy.path(), &data);
    // The leader tells it at once.
    cluster.restart(2).await;
    let is_out = |status: &v1::StatusResponse| status.role() == Role::Failed && status.problem.contains("restored");
    cluster.until(2, "it says that it was restored", is_out).await;
    append(&cluster, 0, "without it").await.unwrap();
    let refused = cluster.control(2).await.seal(cluster.seal_request(2, 9)).await.unwrap_err();
    assert_eq!(error_of(&refused).0, Reason::StorageFailed);
    // Another start changes nothing.
    cluster.stop(2).await;
    cluster.restart(2).await;
    assert!(is_out(&cluster.status(2).await));
    // Nobody has told this copy anything, and the only one that answers beside it remembers.
    cluster.stop(2).await;
    cluster.stop(0).await;
    copy_dir(copy.path(), &data);
    cluster.restart(2).await;
    let answers = cluster.seal_all().await;
    assert_eq!(answers.len(), 2);
    let chosen = choose(&answers, None, None, None, None);
    assert!(matches!(chosen, Err(NoChoice::NoMajority { answered: 1, voters: 3, .. })), "{chosen:?}");
    // Its volume is deleted: another replica takes its place.
    cluster.restart(0).await;
    let old = cluster.ids[2];
    cluster.wipe(2).await;
    let (leader, _) = cluster.change(Some(0), None).await;
    cluster.teach(leader, &[2]).await;
    cluster.settle(leader).await;
    for change in [Change::Remove(old), Change::Add(cluster.ids[2])] {
        let (leader, _) = cluster.change(Some(leader), Some(change)).await;
        if change == Change::Remove(old) {
            cluster.teach(leader, &[2]).await;
        }
        cluster.settle(leader).await;
    }
    append(&cluster, leader, "at last").await.unwrap();
    cluster.settle(leader).await;
    let values: Vec<_> = read_all(&mut cluster.client(leader).await, 0).await.into_iter().map(|r| r.value).collect();
    assert_eq!(values, ["before", "after", "without it", "at last"]);
}
