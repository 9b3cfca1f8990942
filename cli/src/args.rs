//! The command line as a whole. The arguments of a command stand beside its code.

use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::backup::{Backup, RESTORE_HELP, Restore};
use crate::cluster::health::EXIT_CODES as HEALTH;
use crate::cluster::switchover::Switchover;
use crate::cluster::verify::Verify;
use crate::log::LogCommand;
use crate::records::append::Append;
use crate::records::bench::Bench;
use crate::records::read::{Read, Tail};
use crate::records::trim::Trim;
use crate::serve::control::Control;
use crate::serve::dev::Dev;
use crate::shows::Shows;
use crate::terminal::output::Output;
use crate::terminal::times;
use crate::tls::Tls;

const EXAMPLES: &str = "\
Examples:
  zue dev --data ./zue-data          a cluster of three replicas on this machine
  zue append hello                   append one record, print its offset
  zue append --file events.log       append a file, one record a line
  my-program | zue append            append what a program prints
  zue read --from 0 --max 10         print ten records
  zue tail -f                        print records as they come
  zue switchover --to zue-1          make zue-1 the leader
  zue status                         who leads, who is in sync, who lags
  zue health                         all of that in one line, with an exit code for scripts
  zue verify                         check that all replicas hold the same records
  zue log verify ./zue-data/zue-0    check every byte of a stopped node's log

Exit codes: 0 done, 1 failed, 2 wrong use, 130 and 143 ended by SIGINT and by SIGTERM.";

/// Zue, a replicated append-only log.
#[derive(Debug, Parser)]
#[command(name = "zue", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Servers of the cluster, host:port; one that answers is enough
    #[arg(long, global = true, env = "ZUE_SERVERS", value_delimiter = ',', value_parser = server, value_name = "HOST:PORT,…",
        default_value = "127.0.0.1:9440,127.0.0.1:9450,127.0.0.1:9460")]
    pub(crate) servers: Vec<String>,
    /// Output format; json is one object a line, with keys and values in base64
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Time to try before giving up [default: 30s; `tail --follow` never gives up]
    #[arg(long, global = true, value_name = "TIME", value_parser = times::duration)]
    pub(crate) deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) shows: Shows,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append records and print their offsets
    Append(Append),
    /// Print records, from an offset up to the end
    Read(Read),
    /// Print the last records
    Tail(Tail),
    /// Remove the oldest records, and print the new start of the log
    Trim(Trim),
    /// Show the replicas; fails when nobody leads, or below quorum
    #[command(after_help = "Exit codes: 0 appends can be committed, 1 they cannot be, 2 wrong use.")]
    Status,
    /// Print the health in one line, with an exit code for scripts and monitoring
    #[command(after_help = HEALTH)]
    Health,
    /// Make another replica the leader, without a failed append
    Switchover(Switchover),
    /// Compare the replicas, record by record
    Verify(Verify),
    /// Measure appends per second and their latency
    Bench(Bench),
    /// Run a cluster on this machine, for development
    Dev(Dev),
    /// Run only the controller, for nodes started by hand
    Control(Control),
    /// Make the certificates of a cluster whose nodes are started by hand
    #[command(subcommand)]
    Tls(Tls),
    /// Check and repair the log in the data directory of a stopped node
    #[command(subcommand)]
    Log(LogCommand),
    /// Make, list, check and remove backups of a log
    #[command(subcommand)]
    Backup(Backup),
    /// Restore a backup to a directory, for a new cluster
    #[command(after_help = RESTORE_HELP)]
    Restore(Restore),
    /// Print the version
    Version,
}

fn server(text: &str) -> Result<String, String> {
    zue_client::check_address(text).map_err(|bad| bad.to_string())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_use_is_told_by_the_parser() {
        let lines = [
            "zue append a --file b",
            "zue append --header x",
            "zue append a --producer 0000000000000000000000000000002a",
            "zue append a --sequence 3",
            "zue append a --producer 2a --sequence 3",
            "zue append a --producer +000000000000000000000000000002a --sequence 3",
            "zue dev",
            "zue dev --data d --replicas 0",
            "zue dev --data d --replicas 10",
            "zue status --servers nowhere",
            "zue read --from x",
            "zue status -o yaml",
            "zue control --state s --nodes a",
            "zue dev --data d --policy sometimes",
            "zue dev --data d --detection-time 299ms",
            "zue dev --data d --detection-time 2m",
            "zue bench --every 1ms",
            "zue read --at yesterday",
            "zue read --at 2026-11-28T12:00:00",
            "zue bench --size 33MiB",
            "zue status --deadline 0s",
            "zue read --since 1h --from 3",
            "zue bench --batch 0",
            "zue read --linearizable --replica zue-1",
        ];
        for line in lines {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_certificates_key_comes_before_the_command_and_a_records_behind_it() {
        let line = "zue --key own.key append --cert own.crt --ca ca.crt --key record x";
        let Cli { shows, command, .. } = Cli::try_parse_from(line.split(' ')).unwrap();
        assert!(matches!(command, Command::Append(Append { key: Some(key), .. }) if key == "record"));
        assert!(format!("{shows:?}").contains("own.key"), "{shows:?}");
        for command in ["read", "tail", "trim --before 1", "status", "switchover --to a", "bench", "dev --data d"] {
            let line = format!("zue --key own.key --cert own.crt {command}");
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_value_that_begins_with_a_dash_comes_after_two() {
        let cli = Cli::try_parse_from(["zue", "append", "--", "-x"]).unwrap();
        assert!(matches!(cli.command, Command::Append(Append { value: Some(value), .. }) if value == "-x"));
    }
}
