//! The speed at which a replica whose disk was lost catches up, and the cost for those who append meanwhile.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use zue_bench::stats::median;
use zue_client::{Client, ClientConfig, NewRecord};

use super::load::{Load, Pace, VALUE_BYTES, Window};
use super::table::Table;
use crate::cluster::Cluster;

const BEFORE: Duration = Duration::from_secs(6);
const SETTLE: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_mins(2);
const GOAL_MB: f64 = 200.0;
const GOAL_OF_COPY: f64 = 0.4;

/// The result of one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    took: Duration,
    /// MB/s of records, and of the files when they are copied.
    speed: f64,
    copy: f64,
    before: Window,
    during: Window,
}

pub(crate) async fn run(dir: &Path, config: &str, rounds: usize, mib: usize) -> Result<()> {
    let columns = &[
        "round",
        "caught_up_s",
        "catch_up_mb_s",
        "copy_mb_s",
        "p99_before_ms",
        "p99_during_ms",
        "rate_before",
        "rate_during",
    ];
    let mut table = Table::new("catchup", columns);
    let mut found = vec![];
    for number in 0..rounds {
        // Each begins anew, so that each has the same to catch up with.
        let home = dir.join(format!("round-{number}"));
        std::fs::create_dir(&home)?;
        let round = round(&home, config, mib).await?;
        let Round { took, speed, copy, before, during } = round;
        let mut row = vec![number.to_string(), format!("{:.2}", took.as_secs_f64())];
        row.extend([speed, copy].map(|speed| format!("{speed:.0}")));
        row.extend([before.p99_ms, during.p99_ms].map(|ms| format!("{ms:.2}")));
        row.extend([before.rate, during.rate].map(|rate| format!("{rate:.0}")));
        table.row(row);
        found.push(round);
        std::fs::remove_dir_all(&home)?;
    }
    let half = |of: fn(&Round) -> f64| median(&found.iter().map(of).collect::<Vec<_>>());
    let (speed, of_copy) = (half(|round| round.speed), half(|round| round.speed / round.copy));
    let slower = half(|round| round.during.p99_ms / round.before.p99_ms);
    let is_fast = speed >= GOAL_MB || of_copy >= GOAL_OF_COPY;
    table.goal("catch-up of records, MB/s", speed, ">= 200, or", is_fast);
    table.goal("catch-up / a copy of the files with fsync", of_copy, ">= 0.4", is_fast);
    table.goal("p99 of appends during / before", slower, "<= 2", slower <= 2.0);
    table.write()
}

async fn round(home: &Path, config: &str, mib: usize) -> Result<Round> {
    let mut cluster = Cluster::on_loopback(home, config).await?;
    let client = cluster.client(ClientConfig::default())?;
    let full = Load::start(&client, Pace::Closed);
    let capacity = full.window(BEFORE).await.rate;
    full.stop().await?;
    fill(&client, mib).await?;
    let leader = cluster.expect_whole(WITHIN).await?;
    let load = Load::start(&client, Pace::Open(capacity / 2.0));
    // What it begins with, connections and producers, is not measured.
    load.window(SETTLE).await;
    let before = load.window(BEFORE).await;
    let follower = (leader.node + 1) % cluster.len();
    cluster.kill(follower);
    std::fs::remove_dir_all(cluster.data(follower))?;
    drop(load.take());
    let begun = Instant::now();
    cluster.start_node(follower);
    let records = caught_up(&cluster, follower).await?;
    let took = begun.elapsed();
    let during = Window::of(&load.take(), took);
    load.stop().await?;
    // At the end: what it leaves to the disk would make the appends before slow.
    let copy = copy_speed(cluster.data(leader.node).to_owned(), home.join("copy")).await?;
    cluster.stop()?;
    let speed = records as f64 * VALUE_BYTES as f64 / 1e6 / took.as_secs_f64();
    Ok(Round { took, speed, copy, before, during })
}

/// Appends so much.
async fn fill(client: &Client, mib: usize) -> Result<()> {
    let (appender, mut acks) = client.appender();
    let record = NewRecord { value: vec![b'x'; VALUE_BYTES].into(), ..NewRecord::default() };
    let push = async move {
        for _ in 0..(mib << 20) / VALUE_BYTES {
            if appender.push(record.clone()).await.is_err() {
                break;
            }
        }
    };
    let take = async {
        while let Some(answer) = acks.next().await {
            answer?;
        }
        anyhow::Ok(())
    };
    tokio::join!(push, take).1
}

/// Waits until the node has, for the first time, all that was committed when it was asked. Gives how many records.
async fn caught_up(cluster: &Cluster, node: usize) -> Result<u64> {
    let begun = Instant::now();
    let eye = cluster.client(ClientConfig { deadline: Duration::from_millis(200), ..ClientConfig::default() })?;
    loop {
        let committed = eye.range(None).await.map(|range| range.end);
        let own = eye.range(Some(cluster.name(node))).await;
        if let (Ok(committed), Ok(own)) = (committed, own)
            && committed > 0
            && own.end >= committed
        {
            return Ok(own.end - own.start);
        }
        ensure!(begun.elapsed() < WITHIN, "{} has not caught up after {WITHIN:?}", cluster.name(node));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// MB/s of a copy of a replica's segments to the same disk, synced at the end of each.
async fn copy_speed(from: PathBuf, to: PathBuf) -> Result<f64> {
    let copy = move || {
        std::fs::create_dir(&to)?;
        let mut block = vec![0; 1 << 20];
        let (mut bytes, begun) = (0_usize, Instant::now());
        for entry in std::fs::read_dir(&from)? {
            let entry = entry?;
            if entry.path().extension().is_none_or(|extension| extension != "log") {
                continue;
            }
            let mut source = std::fs::File::open(entry.path())?;
            let mut target = std::fs::File::create(to.join(entry.file_name()))?;
            loop {
                let count = source.read(&mut block)?;
                if count == 0 {
                    break;
                }
                target.write_all(block.get(..count).context("no more than the block")?)?;
                bytes += count;
            }
            target.sync_all()?;
        }
        let speed = bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();
        std::fs::remove_dir_all(&to)?;
        anyhow::Ok(speed)
    };
    tokio::task::spawn_blocking(copy).await?
}
