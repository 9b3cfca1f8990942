//! Reads of running nodes: which replicas answer, how much they show, and what a reader that stands still costs the others.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

mod common;

use common::{Cluster, append_all, error_of, read_all};
use zue_core::election::{Change, choose};
use zue_proto::v1::{self, Consistency, Reason};

fn linearizable(from: u64) -> v1::ReadRequest {
    v1::ReadRequest { from, consistency: Consistency::Linearizable.into(), ..v1::ReadRequest::default() }
}

async fn read(cluster: &Cluster, ordinal: usize, request: v1::ReadRequest) -> Result<Vec<v1::Record>, tonic::Status> {
    let mut responses = cluster.client(ordinal).await.read(request).await?.into_inner();
    let mut records = Vec::new();
    while let Some(response) = responses.message().await? {
        records.extend(response.records);
    }
    Ok(records)
}

async fn end(cluster: &Cluster, ordinal: usize) -> Result<u64, tonic::Status> {
    let request = v1::DescribeRequest { consistency: Consistency::Linearizable.into(), ..Default::default() };
    Ok(cluster.client(ordinal).await.describe(request).await?.into_inner().commit_end)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linearizable_read_shows_all_that_was_acknowledged_and_only_the_leader_answers_it() {
    let mut cluster = Cluster::led().await;
    for n in 0..50 {
        append_all(&mut cluster.client(0).await, vec![format!("{n}").into_bytes()]).await;
        assert_eq!(end(&cluster, 0).await.unwrap(), n + 1);
        assert_eq!(read(&cluster, 0, linearizable(n)).await.unwrap().len(), 1);
    }
    for status in [read(&cluster, 1, linearizable(0)).await.unwrap_err(), end(&cluster, 1).await.unwrap_err()] {
        let (reason, error, _) = error_of(&status);
        assert_eq!(reason, Reason::NotLeader);
        assert_eq!(error.leader.unwrap().address, cluster.configs[0].listen.client.to_string());
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_leader_has_acknowledged_it_shows_to_whoever_asks_next() {
    let mut cluster = Cluster::led().await;
    let (mut appends, mut reads) = (cluster.client(0).await, cluster.client(0).await);
    for n in 0..2000 {
        append_all(&mut appends, vec![b"x".to_vec()]).await;
        let records = read_all(&mut reads, n).await;
        assert_eq!(records.len(), 1, "at {n}");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_does_not_know_that_it_was_deposed_answers_no_linearizable_read() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, vec![b"old".to_vec()]).await;
    // The others are asked for their promise, the leader is not.
    cluster.epoch += 1;
    let mut answers = Vec::new();
    for ordinal in [1, 2] {
        let request = cluster.seal_request(ordinal, cluster.epoch);
        let sealed = cluster.control(ordinal).await.seal(request).await.unwrap().into_inner();
        answers.push(common::sealed(sealed));
    }
    let (by_end, by_read) = tokio::join!(end(&cluster, 0), read(&cluster, 0, linearizable(0)));
    for status in [by_end.unwrap_err(), by_read.unwrap_err()] {
        let reason = error_of(&status).0;
        assert!(matches!(reason, Reason::NoQuorum | Reason::TimedOut), "{status:?}");
    }
    // The next leader takes it on as a follower.
    let choice = choose(&answers, None, None, None, None).unwrap();
    let leader = cluster.ids.iter().position(|id| *id == choice.leader).unwrap();
    let request = cluster.appoint_request(leader, cluster.epoch, &choice);
    cluster.control(leader).await.appoint(request).await.unwrap();
    cluster.settle(leader).await;
    assert_eq!(end(&cluster, leader).await.unwrap(), 1);
    assert_eq!(error_of(&end(&cluster, 0).await.unwrap_err()).0, Reason::NotLeader);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_leads_to_the_first_committed_record_that_is_no_older() {
    let mut cluster = Cluster::led().await;
    for n in 0..20 {
        append_all(&mut cluster.client(0).await, vec![vec![n; 100]]).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let all = read(&cluster, 0, v1::ReadRequest::default()).await.unwrap();
    assert_eq!(all.len(), 20);
    let at = |time: u64| v1::ReadRequest { from_timestamp_ms: Some(time), ..v1::ReadRequest::default() };
    for time in all.iter().flat_map(|record| [record.timestamp_ms, record.timestamp_ms + 1]).chain([0]) {
        let expected: Vec<_> = all.iter().filter(|record| record.timestamp_ms >= time).cloned().collect();
        assert_eq!(read(&cluster, 0, at(time)).await.unwrap(), expected);
    }
    // What comes later is waited for, and `from` is a bound too.
    let last = all.last().unwrap().timestamp_ms;
    let follow = v1::ReadRequest { follow: true, max_records: 1, ..at(last + 1) };
    let waiting = read(&cluster, 0, follow);
    let late = async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        append_all(&mut cluster.client(0).await, vec![b"late".to_vec()]).await;
    };
    let (waited, ()) = tokio::join!(waiting, late);
    assert_eq!(waited.unwrap()[0].offset, 20);
    let bounded = v1::ReadRequest { from: 7, ..at(0) };
    assert_eq!(read(&cluster, 0, bounded).await.unwrap()[0].offset, 7);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_follows_ends_at_a_replica_that_was_removed_while_it_was_down_and_goes_on_at_another() {
    let mut cluster = Cluster::led().await;
    append_all(&mut cluster.client(0).await, vec![b"old".to_vec()]).await;
    cluster.settle(0).await;
    cluster.stop(2).await;
    let (_, choice) = cluster.change(Some(0), Some(Change::Remove(cluster.ids[2]))).await;
    assert_eq!(choice.voters, cluster.ids[..2]);
    cluster.until(0, "settled", |status| status.settled).await;
    assert_eq!(cluster.change(Some(0), None).await.1.old_voters, None);
    cluster.until(0, "settled", |status| status.settled).await;
    append_all(&mut cluster.client(0).await, vec![b"new".to_vec()]).await;
    cluster.restart(2).await;
    let follow = || v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
    let mut here = cluster.client(2).await.read(follow()).await.unwrap().into_inner();
    let mut there = cluster.client(1).await.read(follow()).await.unwrap().into_inner();
    let mut read = Vec::new();
    let ended = tokio::time::timeout(common::PATIENCE, async {
        loop {
            match here.message().await {
                Ok(response) => read.extend(response.unwrap().records),
                Err(status) => break status,
            }
        }
    });
    let (reason, error, _) = error_of(&ended.await.unwrap());
    // Not even by the newest epoch that it holds it is none.
    assert_eq!((reason, read.len(), &*cluster.status(2).await.problem), (Reason::NotLeader, 1, ""));
    assert!(error.message.contains("no leader has fed this replica for 5s"), "{}", error.message);
    // One that is fed keeps its readers, however long they wait.
    append_all(&mut cluster.client(0).await, vec![b"newer".to_vec()]).await;
    let mut read = Vec::new();
    while read.len() < 3 {
        read.extend(there.message().await.unwrap().unwrap().records);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stand_still_hold_nobody_up_and_all_others_are_woken_by_each_commit() {
    let cluster = Cluster::led().await;
    let follow = || v1::ReadRequest { follow: true, ..v1::ReadRequest::default() };
    // A connection each, whose buffers fill up once nobody takes what comes.
    let mut still = Vec::new();
    for _ in 0..20 {
        still.push(cluster.client(0).await.read(follow()).await.unwrap().into_inner());
    }
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = cluster.client(0).await;
        for _ in 0..100 {
            let mut client = client.clone();
            tasks.spawn(async move {
                let mut records = client.read(follow()).await.unwrap().into_inner();
                let mut next = 0;
                while next < 300 {
                    for record in records.message().await.unwrap().unwrap().records {
                        assert_eq!(record.offset, next);
                        next += 1;
                    }
                }
            });
        }
    }
    for n in 0..30 {
        append_all(&mut cluster.client(0).await, (0..10).map(|_| vec![n; 1 << 10]).collect()).await;
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // They find everything once they go on.
    for records in &mut still {
        let mut next = 0;
        while next < 300 {
            for record in records.message().await.unwrap().unwrap().records {
                assert_eq!(record.offset, next);
                next += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_came_under_larger_limits_is_served_under_smaller_ones() {
    let large = |config: &mut zue_settings::NodeConfig| {
        config.limits.record_bytes_max = "32MiB".parse().unwrap();
        config.limits.append_bytes_max = "64MiB".parse().unwrap();
    };
    let mut cluster = Cluster::start(1, large).await;
    cluster.elect(Some(0)).await;
    let values = [vec![b'a'; 24 << 20], b"behind".to_vec()];
    for value in &values {
        append_all(&mut cluster.client(0).await, vec![value.clone()]).await;
    }
    cluster.stop(0).await;
    cluster.configs[0].limits.record_bytes_max = "4KiB".parse().unwrap();
    cluster.configs[0].limits.append_bytes_max = "8KiB".parse().unwrap();
    cluster.configs[0].limits.read_bytes_max = "4KiB".parse().unwrap();
    cluster.restart(0).await;
    cluster.elect(Some(0)).await;
    let read = read(&cluster, 0, linearizable(0)).await.unwrap();
    assert!(read.iter().map(|record| &record.value).eq(&values));
    cluster.stop_all().await;
}
