//! Real nodes and a real controller under real faults (`make chaos`), and what appends and reads, failover, catch-up, a
//! stopped follower and strangers cost.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

mod clients;
mod cluster;
mod cost;
mod faults;
mod network;
mod run;
mod speed;
mod volume;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use rand::RngExt as _;
use tokio::signal::unix::{SignalKind, signal};
use zue_tests::programs::target_dir;

use crate::cluster::Cluster;

/// A run has shown too little when leaders were killed less often than this. At random it is three times as often.
const SECONDS_PER_LEADER_KILL: u64 = 15;
/// Nothing in the nodes' file.
const NO_CONFIG: &str = "{}";

#[derive(Debug, Parser)]
#[command(name = "zue-chaos")]
struct Arguments {
    /// Directory of the replicas' data and of what the programs say; deleted after a run that found nothing
    #[arg(long, default_value_os_t = target_dir().join("chaos"))]
    dir: PathBuf,
    /// Content of the nodes' file in a measurement, to try settings
    #[arg(long, default_value = NO_CONFIG, global = true)]
    node_config: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Inside(Inside),
    /// The load of `speed`: waits for a line on its input once it is ready, and ends with a line of JSON
    Load(speed::load::Options),
    /// A server of `speed --floor`
    #[command(hide = true)]
    Floor(speed::floor::Options),
}

/// Commands that run in a world of their own.
#[derive(Debug, Subcommand)]
enum Inside {
    /// Kills, stops, cuts off and fills at random, and checks every answer
    Run {
        /// Gives the order of the faults [default: any]
        #[arg(long)]
        seed: Option<u64>,
        /// Seconds of faults
        #[arg(long, default_value_t = 300)]
        duration: u64,
        /// Number of replicas [default: 3, with every fourth seed 5]
        #[arg(long)]
        replicas: Option<usize>,
        /// Fewer kills of a leader fail the run [default: one for each 15 seconds of faults]
        #[arg(long)]
        leader_kills: Option<u64>,
        /// Breaks on purpose what is promised: the run must fail
        #[arg(long = "break", value_enum)]
        broken: Option<run::Break>,
    },
    /// Kills the leader under load: how long until the next append is acknowledged
    Failover {
        #[arg(long, default_value_t = 30)]
        times: usize,
    },
    /// Takes a follower's disk away under load: how fast it catches up, and what appends notice of it
    Catchup {
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        #[arg(long, default_value_t = 1024)]
        mib: usize,
    },
    /// Stops a follower under load: what appends notice of it
    Stall {
        #[arg(long, default_value_t = 5)]
        windows: usize,
    },
    /// Lets strangers take all they can at all ports: what appends notice of it, and what memory the nodes take
    Attack {
        #[arg(long, default_value_t = 3)]
        windows: usize,
    },
    /// Keeps the machine busy: the leader must stay
    Quiet {
        /// Seconds
        #[arg(long, default_value_t = 600)]
        duration: u64,
    },
    /// Measures single, many and pipelined appends, and reads
    Speed(speed::Options),
}

fn main() -> ExitCode {
    let Arguments { dir, node_config, command } = Arguments::parse();
    let done = match command {
        Command::Inside(command) => run_in_a_world(dir, node_config, command),
        Command::Load(options) => speed::load::run(options),
        Command::Floor(options) => speed::floor::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zue-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_in_a_world(dir: PathBuf, node_config: String, command: Inside) -> Result<()> {
    world::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // The first process of a world gets no signal that it does not ask for.
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            done = act(dir, node_config, command) => done,
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    })
}

async fn act(dir: PathBuf, node_config: String, command: Inside) -> Result<()> {
    std::fs::create_dir_all(&dir)?;
    let dir = tempfile::Builder::new().prefix("run-").disable_cleanup(true).tempdir_in(dir.canonicalize()?)?;
    let cluster = async |dir| Cluster::on_loopback(dir, &node_config).await;
    let done = match command {
        Inside::Run { seed, duration, replicas, leader_kills, broken } => {
            let seed = seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
            let replicas = replicas.unwrap_or(if seed.is_multiple_of(4) { 5 } else { 3 });
            let lasting = Duration::from_secs(duration);
            let leader_kills_min = leader_kills.unwrap_or(duration / SECONDS_PER_LEADER_KILL);
            run::run(dir.path(), run::Options { seed, lasting, replicas, leader_kills_min, broken }).await
        }
        Inside::Failover { times } => cost::failover::run(cluster(dir.path()).await?, times).await,
        Inside::Catchup { rounds, mib } => cost::catchup::run(dir.path(), &node_config, rounds, mib).await,
        Inside::Stall { windows } => cost::stall::run(cluster(dir.path()).await?, windows).await,
        Inside::Attack { windows } => {
            zue_node::raise_open_files();
            cost::attack::run(cluster(dir.path()).await?, windows).await
        }
        Inside::Quiet { duration } => {
            // It appends for so long that it would fill a small disk.
            let config = if node_config == NO_CONFIG { "log: {retentionBytes: 256MiB}" } else { &node_config };
            cost::quiet::run(Cluster::on_loopback(dir.path(), config).await?, Duration::from_secs(duration)).await
        }
        Inside::Speed(options) => speed::run(dir.path(), options).await,
    };
    done.with_context(|| format!("what the programs said is in {}", dir.path().display()))?;
    drop(std::fs::remove_dir_all(dir.path()));
    Ok(())
}
