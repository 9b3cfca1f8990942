//! `make chaos`: everything goes wrong for a while, under load; then every answer that was given is checked.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use zue_client::{Backoff, ClientConfig, ReadOptions};
use zue_tests::programs::program;

use crate::clients::Clients;
use crate::cluster::{Cluster, NodeHost};
use crate::faults::Faults;
use crate::network::{self, Network};
use crate::volume::Volume;
use crate::world::run as run_to_end;

/// Clients of each kind.
const APPENDING: usize = 4;
const PIPELINES: usize = 3;
const PEEKING: usize = 2;
const ASKING: usize = 3;
/// The time for which clients try. Some give up early, so that there are appends of which nobody was told what became of them.
const PATIENT: Duration = Duration::from_secs(15);
const IMPATIENT: Duration = Duration::from_millis(150);
/// Once nothing is wrong any more, the log must be writable, and all replicas the same, within this time.
const HEALED_WITHIN: Duration = Duration::from_mins(1);
const VOLUME_BYTES: u64 = 256 << 20;
/// The bytes that a second of the load may take.
const BYTES_A_SECOND: u64 = 2 << 20;

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) lasting: Duration,
    pub(crate) replicas: usize,
    /// A run with fewer kills of a leader has shown too little.
    pub(crate) leader_kills_min: u64,
    pub(crate) broken: Option<Break>,
}

/// A fault of Zue that no run may pass with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Break {
    /// All disks are put back to how they were a while before.
    RollBack,
    /// Reads that must show all that is committed ask any replica.
    StaleReads,
}

pub(crate) async fn run(dir: &Path, options: Options) -> Result<()> {
    let Options { seed, lasting, replicas, leader_kills_min, broken } = options;
    let durability = if seed.is_multiple_of(2) { "Sync" } else { "Os" };
    println!("seed {seed}: {replicas} replicas with durability {durability}, {lasting:?} of faults");
    let names: Vec<_> = (0..replicas).map(|node| format!("zue-{node}")).collect();
    let network = Network::new(names.iter().cloned().chain((0..2).map(|n| format!("control-{n}"))).collect())?;
    let bytes = VOLUME_BYTES + lasting.as_secs() * BYTES_A_SECOND;
    let volumes = names.iter().map(|name| Volume::new(dir, name, bytes)).collect::<Result<Vec<_>>>()?;
    let place = |(node, (name, volume)): (usize, (&String, &Volume))| NodeHost {
        name: name.clone(),
        ip: network::address(node),
        network: Some(name.clone()),
        data: volume.data(),
    };
    let places = names.iter().zip(&volumes).enumerate().map(place).collect();
    // Small segments, so that many are begun, cut and left. Processes are killed here, no machines: with either durability nothing may be
    // lost.
    let config = format!("log: {{segmentBytesMax: 2MiB, durability: {durability}}}\n");
    let mut cluster = Cluster::start(dir, places, &config).await?;
    let clients = Clients::new(cluster.client(patience(PATIENT))?, seed);
    let (mut appending, mut reading) = (JoinSet::new(), JoinSet::new());
    let over = |deadline| anyhow::Ok(clients.over(cluster.client(patience(deadline))?));
    let another = || over(PATIENT);
    for n in 0..APPENDING {
        appending.spawn(over(if n % 2 == 0 { PATIENT } else { IMPATIENT })?.append());
    }
    for n in 0..PIPELINES {
        appending.spawn(over(if n % 2 == 0 { PATIENT } else { IMPATIENT })?.pipeline());
    }
    for _ in 0..PEEKING {
        reading.spawn(another()?.peek(names.clone()));
    }
    for replica in names.iter().cloned().map(Some).chain([None]) {
        reading.spawn(another()?.follow(replica));
    }
    for replica in names.iter().cycle().take(ASKING) {
        let replica = Some(replica).filter(|_| broken == Some(Break::StaleReads));
        reading.spawn(another()?.ask(replica.cloned()));
    }
    let mut faults = Faults::new(seed, network, volumes, &dir.join("faults.log"))?;
    faults.run(&mut cluster, lasting).await?;
    if broken == Some(Break::RollBack) {
        faults.roll_back(&mut cluster).await?;
    }
    let healed = Instant::now();
    let acked = clients.figures().acked;
    while clients.figures().acked == acked {
        ensure!(healed.elapsed() < HEALED_WITHIN, "nothing is acknowledged {HEALED_WITHIN:?} after all was put right");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let writable = healed.elapsed();
    cluster.expect_whole(HEALED_WITHIN).await?;
    clients.stop();
    while let Some(ended) = tokio::time::timeout(HEALED_WITHIN, appending.join_next()).await? {
        ended?;
    }
    reading.shutdown().await;
    let end = read_all(&clients, &cluster, &names).await?;
    summary(&clients, &faults, writable, end);
    let problems = clients.finish(end);
    ensure!(problems.is_empty(), "seed {seed}: {}", problems.join("\n"));
    cluster.stop()?;
    for node in 0..replicas {
        // Every byte on the disks, too.
        let (zue, data) = (program("zue"), cluster.data(node));
        run_to_end(&zue.to_string_lossy(), &["log", "verify", &data.to_string_lossy()])?;
    }
    let kills = faults.leader_kills;
    ensure!(kills >= leader_kills_min, "a leader was killed {kills} times only, not {leader_kills_min}");
    println!("zero lost, zero doubled, zero reordered, zero stale, {replicas} replicas the same, {end} records");
    Ok(())
}

fn patience(deadline: Duration) -> ClientConfig {
    ClientConfig {
        deadline,
        attempt_timeout: Duration::from_secs(2),
        retry: Backoff { min: Duration::from_millis(10), max: Duration::from_millis(200) },
        ..ClientConfig::default()
    }
}

/// Reads the whole log of every replica once all have the same end; gives that.
async fn read_all(clients: &Clients, cluster: &Cluster, names: &[String]) -> Result<u64> {
    let begun = Instant::now();
    let end = loop {
        let status = cluster.status().await;
        let ends: Vec<_> = status.iter().map(|one| one.answer.as_ref().ok().map(|answer| answer.commit_end)).collect();
        if let (Some(Some(end)), true) = (ends.first(), ends.len() == names.len())
            && ends.iter().all(|other| *other == Some(*end))
        {
            break *end;
        }
        ensure!(begun.elapsed() < HEALED_WITHIN, "the replicas end at {ends:?} after {HEALED_WITHIN:?}: {status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for name in names {
        let from = clients.client.range(Some(name)).await?.start;
        let options = ReadOptions { from, replica: Some(name.clone()), ..ReadOptions::default() };
        let read = clients.read(name, options).await;
        ensure!(read == Ok(end), "{name} was read up to {read:?} instead of {end}");
    }
    Ok(end)
}

fn summary(clients: &Clients, faults: &Faults, writable: Duration, end: u64) {
    let figures = clients.figures();
    println!("\n| fault | times |\n|---|---|");
    for (fault, count) in &faults.counts {
        println!("| {fault:?} | {count} |");
    }
    let (gap, at) = figures.gap;
    println!("\n| figure | |\n|---|---|");
    println!("| leader killed | {} |", faults.leader_kills);
    println!("| records acknowledged | {} |", figures.acked);
    println!("| records in the log | {end} |");
    println!("| appends unanswered | {} |", figures.unknown);
    println!("| appends refused | {} |", figures.refused);
    println!("| records read | {} |", figures.reads);
    println!("| linearizable reads | {} |", figures.linearizable_reads);
    println!("| longest time without an acknowledgement | {gap:.2?}, until {at:.1?} |");
    println!("| writable after all was put right | {writable:.2?} |\n");
}
