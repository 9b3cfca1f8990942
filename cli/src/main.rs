//! The command line of Zue: parses, runs one command, and turns its end into an exit code and one clear line.

mod args;
mod backup;
mod cluster;
mod kubectl;
mod log;
mod records;
mod serve;
mod shows;
mod terminal;
mod tls;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use zue_client::{AppendError, Client, ClientConfig, Error, Reason};
use zue_telemetry::LogFormat;

use args::{Cli, Command};
use cluster::{health, status, switchover, verify};
use records::{append, bench, read, trim};
use serve::{control, dev};
use terminal::output::{self, BrokenPipe, Output};
use terminal::stop::Stopped;
use terminal::waiting::Waiting;

/// A wrong use that only shows once the command runs; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let code = if kubectl::is_called(std::env::args_os().next().as_deref()) {
        kubectl::main()
    } else {
        match Cli::try_parse() {
            Ok(cli) => ended(run_to_end(cli)),
            Err(wrong) => misused(&wrong),
        }
    };
    zue_telemetry::finish();
    code
}

fn run_to_end(cli: Cli) -> anyhow::Result<ExitCode> {
    zue_telemetry::init(LogFormat::Text, "warn")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(run(cli));
    // A read of standard input cannot be called off; it must not keep the program.
    runtime.shutdown_background();
    result
}

/// Help and versions were asked for. Whatever else cannot be parsed is wrong use.
fn misused(wrong: &clap::Error) -> ExitCode {
    // Whoever does not read it has seen enough.
    let _ = wrong.print();
    let asks_for_health = std::env::args_os().any(|arg| arg == "health");
    match wrong.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if asks_for_health => ExitCode::from(health::UNKNOWN),
        _ => ExitCode::from(WRONG_USE),
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { servers, output, deadline, shows, command } = cli;
    let config = ClientConfig::default();
    let goes_on = matches!(&command, Command::Tail(tail) if tail.follow);
    let patience = if goes_on { Duration::MAX } else { config.deadline };
    let config = ClientConfig { deadline: deadline.unwrap_or(patience), ..config };
    let client = || -> anyhow::Result<(Client, Waiting)> {
        let client = Client::new(servers.clone(), shows.to_config(config.clone())?)?;
        let waiting = Waiting::new(&client, &servers, deadline.or((!goes_on).then_some(patience)));
        Ok((client, waiting))
    };
    match command {
        Command::Append(append) => append::run(client()?, append, output).await?,
        Command::Read(read) => read::run(client()?, read, output).await?,
        Command::Tail(tail) => read::tail(client()?, tail, output).await?,
        Command::Trim(trim) => trim::run(client()?, trim, output).await?,
        Command::Status => return status::run(&client()?.0, output).await,
        Command::Health => return health::run(&client()?.0, output).await,
        Command::Switchover(switchover) => switchover::run(client()?, switchover, output).await?,
        Command::Verify(verify) => return verify::run(client()?, verify, output).await,
        Command::Bench(bench) => bench::run(&servers, &shows.to_config(config)?, bench, output).await?,
        Command::Dev(_) | Command::Control(_) if output == Output::Json => {
            return Err(Usage("`zue dev` and `zue control` print for people only: leave -o json out".to_owned()).into());
        }
        Command::Dev(dev) => dev::run(dev).await?,
        Command::Control(control) => control::run(control).await?,
        Command::Tls(tls) => tls::run(tls)?,
        Command::Log(log) => return log::run(log, output),
        Command::Backup(backup) => return backup::run(backup, client, output).await,
        Command::Restore(restore) => backup::restore(restore, output).await?,
        Command::Version => {
            output::version(output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    // Whoever read our output has seen enough.
    if error.is::<BrokenPipe>() {
        return ExitCode::SUCCESS;
    }
    let append = || error.chain().find_map(|cause| cause.downcast_ref::<AppendError>()).map(|error| &error.error);
    let of_client = error.chain().find_map(|cause| cause.downcast_ref::<Error>()).or_else(append);
    match of_client.and_then(remedy) {
        Some(remedy) => zue_telemetry::say(format!("zue: {error:#}; {remedy}")),
        None => zue_telemetry::say(format!("zue: {error:#}")),
    }
    match error.downcast_ref::<Stopped>() {
        Some(stopped) => ExitCode::from(stopped.signal.code()),
        None if error.is::<Usage>() || error.chain().any(zue_node::is_of_later_version) => ExitCode::from(WRONG_USE),
        None => ExitCode::FAILURE,
    }
}

/// The advice where no server answers.
const NO_SERVER: &str =
    "start a local cluster with `zue dev --data DIR`, or name the servers with --servers or ZUE_SERVERS";
const SOME_MISSING: &str = "`zue status` shows which replicas are missing";

/// The remedy, where it is not in the error itself.
pub(crate) fn remedy(error: &Error) -> Option<&'static str> {
    let last = if let Error::TimedOut { last, .. } = error { last } else { error };
    match last {
        Error::NoLeader(no_leader) if no_leader.is_misplaced => None,
        Error::NoLeader(no_leader) if no_leader.answered.is_empty() => Some(NO_SERVER),
        Error::NoLeader(no_leader) if no_leader.named.is_none() || !no_leader.is_followed => Some(SOME_MISSING),
        Error::Refused(refused) if refused.reason == Reason::NoQuorum => Some(SOME_MISSING),
        _ => None,
    }
}
