//! temporary
mod common;
use common::*;
use std::time::Instant;
use zue_proto::v1;

#[tokio::test(flavor = "multi_thread")]
async fn bench() {
    for nodes in [1, 3] {
        for durability in [zue_node::Durability::Sync, zue_node::Durability::Os] {
            for (per, streams) in [(1usize, 1usize), (1, 8), (100, 4)] {
                let mut cluster = Cluster::start(nodes, |c| {
                    c.log.durability = durability;
                })
                .await;
                cluster.elect(Some(0)).await;
                cluster.settle(0).await;
                let total = if per == 1 { 100_000usize } else { 1_000_000 };
                let begun = Instant::now();
                let mut tasks = Vec::new();
                for _ in 0..streams {
                    let mut client = cluster.client(0).await;
                    tasks.push(tokio::spawn(async move {
                        let n = total / streams / per;
                        let requests = tokio_stream::iter((0..n).map(move |_| request(vec![value([7u8; 100]); per])));
                        let mut answers = client.append_stream(requests).await.unwrap().into_inner();
                        let mut got = 0;
                        while let Some(answer) = answers.message().await.unwrap() {
                            assert!(matches!(answer.outcome, Some(v1::append_stream_response::Outcome::Appended(_))));
                            got += 1;
                        }
                        assert_eq!(got, n);
                    }));
                }
                for task in tasks {
                    task.await.unwrap();
                }
                let spent = begun.elapsed();
                let fsyncs = cluster.metric(0, "zue_fsync_duration_seconds_count");
                println!(
                    "{nodes} nodes {durability:?} {per}/append {streams} streams: {:.0} records/s, {fsyncs} fsyncs, {spent:?}",
                    total as f64 / spent.as_secs_f64()
                );
                if per == 100 && nodes == 3 {
                    let begun = Instant::now();
                    let n = read_all(&mut cluster.client(0).await, 0).await.len();
                    println!("read {n} in {:?}", begun.elapsed());
                }
                // latency one by one
                if per == 1 && streams == 1 {
                    let mut client = cluster.client(0).await;
                    let mut all = Vec::new();
                    for _ in 0..500 {
                        let begun = Instant::now();
                        client.append(request(vec![value([7u8; 100])])).await.unwrap();
                        all.push(begun.elapsed());
                    }
                    all.sort();
                    println!("  unary p50 {:?} p99 {:?}", all[250], all[495]);
                }
                cluster.stop_all().await;
            }
        }
    }
}
