//! The cost of strangers at all the ports of all the nodes for those who append: windows with and without, in turns; and the memory that
//! the nodes take, beside what they say they may.

use std::time::Duration;

use anyhow::{Context as _, Result};
use zue_bench::stats::median;
use zue_client::ClientConfig;
use zue_tests::attack::{Attack, Scale, Target, peak_memory};

use super::load::{Load, Pace, Window};
use super::table::Table;
use crate::cluster::Cluster;

const WINDOW: Duration = Duration::from_secs(15);
const SETTLE: Duration = Duration::from_secs(3);
const WITHIN: Duration = Duration::from_mins(1);
/// The nodes and the strangers share a machine: more would measure that.
const A_SECOND: f64 = 1000.0;
/// Each of these is as much as the default limits let in, or more.
const SCALE: Scale = Scale { connections: 1100, reads: 1024, calls: 40 };

pub(crate) async fn run(cluster: Cluster, windows: usize) -> Result<()> {
    let bound = cluster.memory_bound()?;
    let load = Load::start(&cluster.client(ClientConfig::default())?, Pace::Open(A_SECOND));
    let mut table = Table::new("attack", &["window", "strangers", "records_s", "p50_ms", "p99_ms", "peak_mib"]);
    let (mut calm, mut attacked) = (vec![], vec![]);
    for window in 0..windows {
        for with in [false, true] {
            cluster.expect_whole(WITHIN).await?;
            let mut attacks = vec![];
            for node in (0..cluster.len()).filter(|_| with) {
                attacks.push(Attack::on(target(&cluster, node)?, SCALE));
            }
            tokio::time::sleep(SETTLE).await;
            let Window { rate, p50_ms, p99_ms } = load.window(WINDOW).await;
            for attack in attacks {
                attack.stop().await;
            }
            let peak = peak(&cluster) >> 20;
            let shown = [rate, p50_ms, p99_ms].map(|value| format!("{value:.2}"));
            let cells = [window.to_string(), with.to_string()].into_iter().chain(shown).chain([peak.to_string()]);
            table.row(cells.collect());
            if with { &mut attacked } else { &mut calm }.push(rate);
        }
    }
    load.stop().await?;
    let kept = median(&attacked) / median(&calm);
    table.goal("rate of appends that strangers leave, of 1", kept, ">= 0.9", kept >= 0.9);
    let peak = peak(&cluster);
    table.goal("most memory of a node, MiB", (peak >> 20) as f64, &format!("< {}", bound >> 20), peak < bound);
    table.write()
}

fn peak(cluster: &Cluster) -> u64 {
    cluster.processes().map(peak_memory).max().unwrap_or_default()
}

fn target(cluster: &Cluster, node: usize) -> Result<Target> {
    let port = |port: u16| format!("{}:{port}", cluster.ip(node)).parse().context("an address");
    Ok(Target { client: port(9440)?, peer: port(9441)?, metrics: port(9442)? })
}
