//! The time for which the log is not writable after its leader was killed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tonic::transport::{Channel, Endpoint};
use zue_bench::stats::{median, percentile};
use zue_client::ClientConfig;
use zue_proto::v1::control_client::ControlClient;
use zue_proto::v1::{Role, StatusRequest, StatusResponse};

use super::load::{Load, Pace};
use super::table::Table;
use crate::cluster::{Cluster, Leader};

const GOAL_MS: f64 = 1000.0;
/// Elections without a controller.
const ALONE_GOAL_MS: f64 = 3000.0;
const WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(3);

/// The end of the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Kill,
    /// The controller is killed before it.
    KillAlone,
    Stop,
}

/// When, after the kill.
#[derive(Clone, Copy, Debug)]
struct Phases {
    /// A voter has promised to follow no longer.
    noticed: Duration,
    /// Another one leads.
    appointed: Duration,
    /// An append was acknowledged by it.
    writable: Duration,
}

pub(crate) async fn run(mut cluster: Cluster, times: usize) -> Result<()> {
    let load = Load::start(&cluster.client(ClientConfig::default())?, Pace::Closed);
    let mut table = Table::new("failover", &["end", "round", "noticed_ms", "appointed_ms", "writable_ms"]);
    let mut goals = vec![];
    // One that is stopped says nothing and refuses nothing: only its silence tells, as with a machine that has lost its power.
    for (end, times) in [(End::Kill, times), (End::KillAlone, times), (End::Stop, times.div_ceil(3))] {
        let mut all = vec![];
        for round in 0..times {
            let leader = cluster.expect_whole(WITHIN).await?;
            let Phases { noticed, appointed, writable } = one(&mut cluster, &load, leader, end).await?;
            match end {
                End::Kill => cluster.start_node(leader.node),
                End::KillAlone => {
                    cluster.start_node(leader.node);
                    cluster.start_controller(0)?;
                }
                End::Stop => cluster.signal(leader.node, "CONT"),
            }
            let ms = [noticed, appointed, writable].map(|time| time.as_secs_f64() * 1e3);
            table.row([format!("{end:?}"), round.to_string()].into_iter().chain(ms.map(rounded)).collect());
            all.push(ms);
        }
        let column = |which: usize| all.iter().map(|ms| ms[which]).collect::<Vec<_>>();
        for (name, share) in [("median", 0.5), ("p95", 0.95), ("max", 1.0)] {
            let cells = (0..3).map(|which| rounded(percentile(&column(which), share)));
            table.row([format!("{end:?}"), name.to_owned()].into_iter().chain(cells).collect());
        }
        goals.push((median(&column(2)), percentile(&column(2), 0.95)));
    }
    load.stop().await?;
    let names = [("SIGKILL", Some(GOAL_MS)), ("SIGKILL, without a controller", Some(ALONE_GOAL_MS)), ("SIGSTOP", None)];
    for ((median, p95), (name, goal)) in goals.into_iter().zip(names) {
        table.goal(&format!("writable after {name} of the leader, median, ms"), median, "", true);
        let is_met = goal.is_none_or(|goal| p95 <= goal);
        let bound = goal.map(|goal| format!("<= {goal}")).unwrap_or_default();
        table.goal(&format!("writable after {name} of the leader, p95, ms"), p95, &bound, is_met);
    }
    table.write()
}

fn rounded(ms: f64) -> String {
    format!("{ms:.0}")
}

/// Waits until the nodes have been told by what they stand by.
async fn stand_by(nodes: &mut [ControlClient<Channel>]) -> Result<()> {
    let begun = Instant::now();
    for node in nodes {
        while node.status(StatusRequest {}).await?.into_inner().standby.is_none_or(|standby| standby.members.len() < 3)
        {
            (begun.elapsed() < WITHIN).then_some(()).context("the nodes do not stand by")?;
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn one(cluster: &mut Cluster, load: &Load, leader: Leader, end: End) -> Result<Phases> {
    let mut others = vec![];
    for node in (0..cluster.len()).filter(|node| *node != leader.node) {
        let address = format!("http://{}:9441", cluster.ip(node));
        others.push(ControlClient::new(Endpoint::from_shared(address)?.connect().await?));
    }
    if end == End::KillAlone {
        stand_by(&mut others).await?;
        cluster.kill_controller(0);
    }
    drop(load.take());
    let killed = Instant::now();
    match end {
        End::Kill | End::KillAlone => cluster.kill(leader.node),
        End::Stop => cluster.signal(leader.node, "STOP"),
    }
    let (mut noticed, mut appointed) = (None, None);
    loop {
        let at = killed.elapsed();
        for other in &mut others {
            let status: StatusResponse = other.status(StatusRequest {}).await?.into_inner();
            if status.promised > leader.epoch {
                noticed.get_or_insert(at);
                if status.role() == Role::Leader {
                    appointed.get_or_insert(at);
                }
            }
        }
        // What the killed one had acknowledged may still arrive: only the next epoch counts.
        if let Some(first) = load.take().iter().filter(|sample| sample.epoch > leader.epoch).map(|ack| ack.at).min() {
            let writable = first - killed;
            // It may have been seen a look too late.
            let by = |seen: Option<Duration>| seen.unwrap_or(writable).min(writable);
            return Ok(Phases { noticed: by(noticed), appointed: by(appointed), writable });
        }
        (killed.elapsed() < WITHIN).then_some(()).context("not writable again")?;
        tokio::time::sleep(LOOK).await;
    }
}
