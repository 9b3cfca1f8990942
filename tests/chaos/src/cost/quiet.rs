//! Measures whether a machine that is merely busy makes a leader look dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use zue_client::ClientConfig;

use super::load::{Load, Pace};
use super::table::Table;
use crate::cluster::Cluster;

const WINDOW: Duration = Duration::from_secs(20);
/// Threads that do nothing but take time from the others.
const HOGS: usize = 2;
const WITHIN: Duration = Duration::from_mins(1);

pub(crate) async fn run(cluster: Cluster, lasting: Duration) -> Result<()> {
    let begun_in = cluster.expect_whole(WITHIN).await?.epoch;
    let load = Load::start(&cluster.client(ClientConfig::default())?, Pace::Closed);
    let stop = Arc::<AtomicBool>::default();
    for _ in 0..HOGS {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
    }
    let mut table = Table::new("quiet", &["second", "rate", "p50_ms", "p99_ms", "epoch"]);
    let begun = Instant::now();
    let mut epoch = begun_in;
    while begun.elapsed() < lasting {
        let window = load.window(WINDOW.min(lasting)).await;
        epoch = cluster.expect_leader(WITHIN).await?.epoch;
        let figures = [window.p50_ms, window.p99_ms].map(|ms| format!("{ms:.2}"));
        let second = begun.elapsed().as_secs().to_string();
        table.row(
            [second, format!("{:.0}", window.rate)].into_iter().chain(figures).chain([epoch.to_string()]).collect(),
        );
    }
    stop.store(true, Ordering::Relaxed);
    load.stop().await?;
    let changes = epoch - begun_in;
    table.goal("changes of leader without a reason", changes as f64, "0", changes == 0);
    table.write()?;
    ensure!(changes == 0, "the leader was changed {changes} times, and nothing was wrong");
    Ok(())
}
