//! The cost of one stopped follower of three for those who append: windows with and without, in turns.

use std::time::Duration;

use anyhow::Result;
use zue_bench::stats::median;
use zue_client::ClientConfig;

use super::load::{Load, Pace, Window};
use super::table::Table;
use crate::cluster::Cluster;

const WINDOW: Duration = Duration::from_secs(8);
/// Until what follows a signal has passed.
const SETTLE: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_mins(1);

pub(crate) async fn run(cluster: Cluster, windows: usize) -> Result<()> {
    let load = Load::start(&cluster.client(ClientConfig::default())?, Pace::Closed);
    let columns =
        &["window", "rate_whole", "rate_stopped", "p50_whole_ms", "p50_stopped_ms", "p99_whole_ms", "p99_stopped_ms"];
    let mut table = Table::new("stall", columns);
    let (mut rates, mut p99s) = (vec![], vec![]);
    for window in 0..windows {
        let leader = cluster.expect_whole(WITHIN).await?;
        tokio::time::sleep(SETTLE).await;
        let whole: Window = load.window(WINDOW).await;
        let follower = (leader.node + 1 + window % 2) % cluster.len();
        cluster.signal(follower, "STOP");
        tokio::time::sleep(SETTLE).await;
        let stopped = load.window(WINDOW).await;
        cluster.signal(follower, "CONT");
        let mut row = vec![window.to_string()];
        row.extend([whole.rate, stopped.rate].map(|rate| format!("{rate:.0}")));
        let times = [whole.p50_ms, stopped.p50_ms, whole.p99_ms, stopped.p99_ms];
        row.extend(times.map(|ms| format!("{ms:.2}")));
        table.row(row);
        rates.push(stopped.rate / whole.rate);
        p99s.push(stopped.p99_ms / whole.p99_ms);
    }
    load.stop().await?;
    let (rate, p99) = (median(&rates), median(&p99s));
    table.goal("appends a second, one follower stopped / none", rate, ">= 0.8", rate >= 0.8);
    table.goal("p99 of appends, one follower stopped / none", p99, "<= 1.5", p99 <= 1.5);
    table.write()
}
