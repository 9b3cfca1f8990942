//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use zue_controller::NodeAddress;

use crate::times;

const EXAMPLES: &str = "\
Examples:
  zue dev --data ./zue-data          a cluster of three replicas on this machine
  zue append hello                   append one record, print its offset
  zue append --file events.log       append a file, one record a line
  my-program | zue append            append what a program prints
  zue read --from 0 --max 10         print ten records
  zue tail -f                        print records as they come
  zue switchover --to zue-1          let zue-1 lead
  zue status                         who leads, who is in sync, who lags
  zue health                         all of that in a line, with an exit code for scripts
  zue verify                         whether all replicas hold the same
  zue log verify ./zue-data/zue-0    whether every byte of a stopped node's log is as it was written

Exit codes: 0 done, 1 failed, 2 wrong use, 130 and 143 ended by SIGINT and by SIGTERM.";

/// Zue, a replicated append-only log.
#[derive(Debug, Parser)]
#[command(name = "zue", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Servers of the cluster, host:port; one that answers is enough
    #[arg(long, global = true, env = "ZUE_SERVERS", value_delimiter = ',', value_parser = server, value_name = "HOST:PORT,…",
        default_value = "127.0.0.1:9440,127.0.0.1:9450,127.0.0.1:9460")]
    pub(crate) servers: Vec<String>,
    /// How to print; json is one object a line, with keys and values in base64
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// How long to try before giving up [default: 30s; `tail --follow` never gives up]
    #[arg(long, global = true, value_name = "TIME", value_parser = times::duration)]
    pub(crate) deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) shows: crate::shows::Shows,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append records and print their offsets
    Append(Append),
    /// Print records from an offset on, up to the end
    Read(Read),
    /// Print the last records
    Tail(Tail),
    /// Let the log start later, and print where it starts: what lies before is gone
    Trim(Trim),
    /// Show the replicas; fails when nobody leads, or below quorum
    #[command(after_help = "Exit codes: 0 appends can be committed, 1 they cannot be, 2 wrong use.")]
    Status,
    /// Say in a line whether all is well, with an exit code for scripts and monitoring
    #[command(after_help = HEALTH)]
    Health,
    /// Let another replica lead, without a failed append
    Switchover(Switchover),
    /// Compare what the replicas hold, record by record
    Verify(crate::verify::Verify),
    /// Measure how many appends there are in a second, and how long each takes
    Bench(Bench),
    /// Run a cluster on this machine, for development
    Dev(Dev),
    /// Run only the controller, for nodes started by hand
    Control(Control),
    /// Make the certificates of a cluster whose nodes are started by hand
    #[command(subcommand)]
    Tls(crate::tls::Tls),
    /// Look after the log in a data directory whose node does not run
    #[command(subcommand)]
    Log(Log),
    /// Make backups of a log, list them, check them, remove them
    #[command(subcommand)]
    Backup(crate::backup::Backup),
    /// Make a log of a backup, in a directory for a new cluster
    #[command(after_help = crate::backup::RESTORE_HELP)]
    Restore(crate::backup::Restore),
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Check every byte and name what is damaged; changes nothing
    #[command(after_help = LOG_EXIT_CODES)]
    Verify(LogDir),
    /// Print what the files hold, frame by frame; changes nothing
    #[command(after_help = LOG_EXIT_CODES)]
    Dump(LogDump),
    /// Do what a node does when it opens its log: cut a torn tail, make indexes again, remove left-overs
    #[command(after_help = LOG_EXIT_CODES)]
    Repair(LogRepair),
    /// Take back trims, as far as the segments are still there (log.trimDelay)
    #[command(after_help = LOG_UNTRIM_HELP)]
    Untrim(LogDir),
}

const HEALTH: &str = "\
Exit codes, as of a Nagios plugin:
  0 ok        one leads, and every voter is in sync
  1 warning   appends are committed, but a voter is not in sync, or a replica reports a problem
  2 critical  nobody leads, or too few voters are in reach: appends are not committed
  3 unknown   no server answers, or wrong use";

const LOG_UNTRIM_HELP: &str = "\
A replica that was trimmed tells the others, and they trim again: stop every node, take the trims back on every one, then start them.
Exit codes: 0 done, 1 damaged, 2 wrong use or not to be read.";
const LOG_EXIT_CODES: &str = "Exit codes: 0 sound, 1 damaged, 2 wrong use or not to be read.";

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
    /// The first offset [default: the first that is there]
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// How many records at most
    #[arg(long, value_name = "RECORDS")]
    pub(crate) max: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct LogRepair {
    #[command(flatten)]
    pub(crate) dir: LogDir,
    /// Only say what would be done; changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without VALUE, every line of the file or of standard input is a record, without its newline; an empty line is an empty value. What
is acknowledged is printed as ranges of offsets: 0..100 are the records 0 to 99; with -o json also who appended it (producer, sequence),
and whether it was in the log already (duplicate). Ctrl-C ends it between two records, and it says how far it has come.

An append that failed and may be in the log all the same names its producer and sequence. Repeated with these, from the same record on,
what was appended is kept once.")]
pub(crate) struct Append {
    /// The value of one record
    #[arg(conflicts_with = "file")]
    pub(crate) value: Option<String>,
    /// Append the lines of this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The key of every record
    #[arg(short, long)]
    pub(crate) key: Option<String>,
    /// A header of every record; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// Repeat an append of this producer, as an error or -o json named it
    #[arg(long, value_name = "HEX", value_parser = producer, requires = "sequence")]
    pub(crate) producer: Option<[u8; 16]>,
    /// The sequence of its first record
    #[arg(long, value_name = "N", requires = "producer")]
    pub(crate) sequence: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The leader passes this on to the controller (the operator, `zue dev`, `zue control`), which does it as soon as the replica is in sync.
Not for clusters with a static leader: there the controller is told which one leads.")]
pub(crate) struct Switchover {
    /// The name of the replica that is to lead
    #[arg(long, value_name = "NAME")]
    pub(crate) to: String,
}

#[derive(Debug, Args)]
pub(crate) struct Read {
    /// The first offset [default: the first that is there]
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// From the first record on that was appended at this moment or later: 2026-11-28T12:00:00+02:00, 2026-11-28 (in UTC), or
    /// milliseconds since 1970
    #[arg(long, value_name = "MOMENT", conflicts_with = "from", value_parser = times::moment)]
    pub(crate) at: Option<u64>,
    /// From the first record on that was appended within this time, such as 90s, 15m or 36h
    #[arg(long, value_name = "TIME", conflicts_with_all = ["from", "at"], value_parser = times::span)]
    pub(crate) since: Option<Duration>,
    /// How many records at most
    #[arg(short = 'n', long, value_name = "RECORDS")]
    pub(crate) max: Option<u64>,
    /// Up to all that is committed anywhere by now: the leader asks a majority whether it still leads
    #[arg(long, conflicts_with = "replica")]
    pub(crate) linearizable: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Go on with the records that come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many of the last records
    #[arg(short = 'n', long, value_name = "RECORDS", default_value_t = 10)]
    pub(crate) lines: u64,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Trim {
    /// The first offset to be kept; all before it must be committed
    #[arg(long, value_name = "OFFSET")]
    pub(crate) before: u64,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// Values only, byte for byte, one a line
    #[arg(long)]
    pub(crate) raw: bool,
    /// Read from this replica, and from no other
    #[arg(long, value_name = "NAME")]
    pub(crate) replica: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints a line for every window, and one for the whole run. Without --rate the next append begins when one is answered. With it
appends begin at a steady rate, whatever the answers do: one that has to wait, because --in-flight are under way, has waited since
its turn. The records stay in the log.")]
pub(crate) struct Bench {
    /// How long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::duration)]
    pub(crate) duration: Duration,
    /// The length of a window
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = times::window)]
    pub(crate) every: Duration,
    /// Bytes of a record's value: a number, or a size such as 4KiB, up to 32MiB
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = times::value_bytes)]
    pub(crate) size: u32,
    /// Records of an append
    #[arg(long, value_name = "RECORDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// Appends under way at once, at most
    #[arg(long, value_name = "APPENDS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) in_flight: u32,
    /// Appends that begin in a second [default: as many as are answered]
    #[arg(long, value_name = "APPENDS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Where to keep the data; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// How many replicas; another number than last time adds or removes some, one by one
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) replicas: u16,
    /// Replica i listens on PORT + 10 i for clients, + 1 for peers, + 2 for metrics; on loopback only
    #[arg(long, default_value_t = 9440, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// With TLS: make everything for it in the data directory, and print the flags that clients need
    #[arg(long)]
    pub(crate) tls: bool,
    #[command(flatten)]
    pub(crate) leadership: Leadership,
}

/// How a cluster is led.
#[derive(Clone, Debug, Args)]
pub(crate) struct Leadership {
    /// How many replicas must have a record before it is committed [default: a majority]
    #[arg(long)]
    pub(crate) quorum: Option<u32>,
    /// Replace a leader that is lost, or wait for the named one
    #[arg(long, value_enum, default_value_t)]
    pub(crate) policy: Policy,
    /// Which replica leads, counted from 0; with the policy automatic only at first, and where several are equal
    #[arg(long, value_name = "ORDINAL", default_value_t = 0)]
    pub(crate) leader: usize,
    /// How long a leader must be silent to be lost, from 300ms to 1m; at least three times the nodes' heartbeatInterval
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = times::detection_time)]
    pub(crate) detection_time: Duration,
    /// How long after that no controller has to have acted before a node elects by itself, from 200ms to 1h
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = times::standby_after)]
    pub(crate) standby_after: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Policy {
    #[default]
    Automatic,
    Static,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  zue control --state ./control --nodes a=10.0.0.1:9441/10.0.0.1:9440,b=10.0.0.2:9441/10.0.0.2:9440,c=10.0.0.3:9441/10.0.0.3:9440")]
pub(crate) struct Control {
    /// All replicas in their order, each a name, where peers and where clients reach it
    #[arg(long, value_delimiter = ',', value_parser = node, required = true, value_name = "NAME=PEER/CLIENT,…")]
    pub(crate) nodes: Vec<NodeAddress>,
    /// How many of them are to be members, the first ones; all if it is not said. The others give up their votes one by one
    #[arg(long, value_name = "N")]
    pub(crate) replicas: Option<usize>,
    /// Where to write down what was decided; keep it
    #[arg(long, value_name = "FILE")]
    pub(crate) state: PathBuf,
    /// Reach the nodes with TLS: holds tls.crt and tls.key of a controller, and peer-ca.crt; read again for each connection
    #[arg(long, value_name = "DIR")]
    pub(crate) tls_folder: Option<PathBuf>,
    /// Required: never without TLS. Permissive: without it where a node cannot
    #[arg(long, value_name = "MODE", default_value = "Required", requires = "tls_folder")]
    pub(crate) tls_mode: crate::tls::Mode,
    #[command(flatten)]
    pub(crate) leadership: Leadership,
}

fn server(text: &str) -> Result<String, String> {
    zue_client::check_address(text).map_err(|bad| bad.to_string())?;
    Ok(text.to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("name=value is expected")?;
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// As it is printed: 32 hexadecimal digits.
fn producer(text: &str) -> Result<[u8; 16], String> {
    let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let id = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
    id.map(u128::to_be_bytes)
        .ok_or_else(|| "a producer is 32 hexadecimal digits, as an error or -o json named it".to_owned())
}

fn node(text: &str) -> Result<NodeAddress, String> {
    let parts = text.split_once('=').and_then(|(name, addresses)| Some((name, addresses.split_once('/')?)));
    let Some((name, (peer_address, client_address))) = parts.filter(|(name, _)| !name.is_empty()) else {
        return Err("name=peer_host:port/client_host:port is expected".to_owned());
    };
    for address in [peer_address, client_address] {
        zue_client::check_address(address).map_err(|bad| bad.to_string())?;
    }
    let (name, peer_address, client_address) = (name.to_owned(), peer_address.to_owned(), client_address.to_owned());
    Ok(NodeAddress { name, peer_address, dial_address: None, client_address, last_address: None, replica: None })
}

impl Dev {
    /// The address of one port of one replica: 0 for clients, 1 for peers, 2 for metrics.
    pub(crate) fn address(&self, ordinal: u16, port: u16) -> Option<SocketAddr> {
        let port = self.port.checked_add(ordinal.checked_mul(10)?)?.checked_add(port)?;
        Some(SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port)))
    }
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
    fn a_node_is_a_name_and_two_addresses() {
        let address = node("a=h:1/i:2").unwrap();
        assert_eq!((address.peer_address.as_str(), address.client_address.as_str()), ("h:1", "i:2"));
        for bad in ["", "a", "a=h:1", "=h:1/i:2", "a=h/i:2", "a=h:1/i"] {
            assert!(node(bad).is_err(), "{bad}");
        }
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
