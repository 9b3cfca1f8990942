//! The storage node as a program: exit code 0 after a stop that was asked for, 1 when something failed, 2 for wrong
//! usage, and for a directory that a later version has written.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use zue_node::Node;
use zue_settings::{Args, MemoryBound, NodeConfig};

fn main() -> ExitCode {
    let code = run_to_end(&Args::parse());
    zue_telemetry::finish();
    code
}

fn run_to_end(args: &Args) -> ExitCode {
    let config = match zue_node::config_of(args) {
        Ok(config) => config,
        Err(error) => {
            zue_telemetry::say(format!("zue-node: {:#}", anyhow::Error::new(error)));
            return ExitCode::from(2);
        }
    };
    match prepare(args, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            zue_telemetry::say(format!("zue-node: {error:#}"));
            if error.chain().any(zue_node::is_of_later_version) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn prepare(args: &Args, config: NodeConfig) -> anyhow::Result<()> {
    if args.print_config {
        return zue_telemetry::print(&serde_yaml::to_string(&config)?).context("standard output cannot be written");
    }
    if args.print_limits {
        let bound = MemoryBound::of(&config).to_string();
        return zue_telemetry::print(&bound).context("standard output cannot be written");
    }
    zue_telemetry::init(args.log_format, "info")?;
    zue_node::raise_and_check_open_files();
    let runtime = runtime_of_clients().context("no runtime")?;
    let ended = runtime.block_on(run(config));
    // A disk that hangs must not keep the process from ending.
    runtime.shutdown_background();
    ended
}

/// The runtime of the clients, with a thread for each core but the replica's.
fn runtime_of_clients() -> std::io::Result<Runtime> {
    match std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1)) {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

async fn run(config: NodeConfig) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let node = tokio::select! {
        node = Node::start(config) => node?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    // With a failed storage it goes on telling so until a person stops it: a restart would only hide it.
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        ended = node.ended() => anyhow::bail!("{ended}, for a fault of this program: see the lines before"),
    };
    tracing::info!(signal, "stopping");
    tokio::select! {
        () = node.leave() => {}
        // Whoever asks twice is in a hurry.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    node.stop().await;
    Ok(())
}
