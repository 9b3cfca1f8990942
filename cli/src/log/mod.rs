//! `zue log`: looks after the log in a data directory whose node does not run. What it tells of a log is the log's own code's word.

pub(crate) mod damage;
mod detach;
mod dump;
mod repair;
mod untrim;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::terminal::output::Output;
use damage::directory;

/// The exit code of a log that is damaged.
const DAMAGED: u8 = 1;

const LOG_UNTRIM_HELP: &str = "\
A trimmed replica tells the others, and they trim again: stop every node, undo the trims on every node, then start them.
Exit codes: 0 done, 1 damaged, 2 wrong use or not to be read.";
const LOG_DETACH_HELP: &str = "\
DANGER: whatever the lost replicas acknowledged and this log does not hold is lost. Detach one log only, of the replica that holds
most; the others of the old cluster must never run again. Docs: docs/runbooks/LostMajority.md.
The log is of a new replica and of no cluster then: the first node that is started on it, with all others blank, begins a new cluster
with what it holds. Exit codes: 0 done, 1 damaged, or of another cluster or replica, 2 wrong use or not to be read.";
const LOG_EXIT_CODES: &str = "Exit codes: 0 sound, 1 damaged, 2 wrong use or not to be read.";

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Check every byte and name the damage; changes nothing
    #[command(after_help = LOG_EXIT_CODES)]
    Verify(LogDir),
    /// Print the content of the files, frame by frame; changes nothing
    #[command(after_help = LOG_EXIT_CODES)]
    Dump(LogDump),
    /// Repair the log as a node does when it opens it: cut a torn tail, rebuild indexes, remove left-overs
    #[command(after_help = LOG_EXIT_CODES)]
    Repair(LogRepair),
    /// Undo trims whose segments still exist (log.trimDelay)
    #[command(after_help = LOG_UNTRIM_HELP)]
    Untrim(LogDir),
    /// Make this log leave a cluster of which a majority is gone for good, and begin a new cluster
    #[command(after_help = LOG_DETACH_HELP)]
    Detach(detach::LogDetach),
}

#[derive(Debug, Args)]
pub(crate) struct LogDir {
    /// The node's data directory
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct LogDump {
    #[command(flatten)]
    pub(crate) dir: LogDir,
    /// The first offset [default: the first in the log]
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// The largest number of records
    #[arg(long, value_name = "RECORDS")]
    pub(crate) max: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct LogRepair {
    #[command(flatten)]
    pub(crate) dir: LogDir,
    /// Only print the repairs; changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) fn run(command: LogCommand, output: Output) -> anyhow::Result<ExitCode> {
    zue_node::raise_open_files();
    let is_sound = match command {
        LogCommand::Verify(of) => verify::run(&directory(&of.dir)?, output)?,
        LogCommand::Dump(LogDump { dir, from, max }) => {
            dump::run(&directory(&dir.dir)?, from.unwrap_or(0), max, output)?
        }
        LogCommand::Repair(LogRepair { dir, dry_run }) => {
            repair::run(&dir.dir, &directory(&dir.dir)?, dry_run, output)?
        }
        LogCommand::Untrim(of) => {
            directory(&of.dir)?;
            untrim::run(&of.dir, output)?
        }
        LogCommand::Detach(detach) => detach::run(&detach, output)?,
    };
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}
