//! `zue read` and `zue tail`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use zue_client::{Client, Header, ReadOptions, Record};

use crate::Usage;
use crate::terminal::output::{JsonRecord, Out, Output, text_of};
use crate::terminal::stop::{self, Stopped};
use crate::terminal::times;
use crate::terminal::waiting::Waiting;

#[derive(Debug, Args)]
pub(crate) struct Read {
    /// The first offset [default: the first in the log]
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// Start at the first record appended at this moment or later: 2026-11-28T12:00:00+02:00, 2026-11-28 (in UTC), or
    /// milliseconds since 1970
    #[arg(long, value_name = "MOMENT", conflicts_with = "from", value_parser = times::moment)]
    pub(crate) at: Option<u64>,
    /// Start at the first record appended within this time, such as 90s, 15m or 36h
    #[arg(long, value_name = "TIME", conflicts_with_all = ["from", "at"], value_parser = times::span)]
    pub(crate) since: Option<Duration>,
    /// The largest number of records
    #[arg(short = 'n', long, value_name = "RECORDS")]
    pub(crate) max: Option<u64>,
    /// Include everything committed anywhere by now: the leader asks a majority whether it still leads
    #[arg(long, conflicts_with = "replica")]
    pub(crate) linearizable: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Wait for new records and print them
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The number of last records
    #[arg(short = 'n', long, value_name = "RECORDS", default_value_t = 10)]
    pub(crate) lines: u64,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// Print only values, byte for byte, one a line
    #[arg(long)]
    pub(crate) raw: bool,
    /// Read from this replica, and from no other
    #[arg(long, value_name = "NAME")]
    pub(crate) replica: Option<String>,
}

pub(crate) async fn run((client, mut waiting): (Client, Waiting), read: Read, output: Output) -> anyhow::Result<()> {
    let Read { from, at, since, max, linearizable, how } = read;
    check(&how, output)?;
    let since = since.map(|since| SystemTime::now().checked_sub(since).unwrap_or(UNIX_EPOCH));
    let from_timestamp_ms = at.or(since.map(unix_ms));
    let from = match (from, from_timestamp_ms) {
        (Some(from), _) => from,
        (None, Some(_)) => 0,
        (None, None) => waiting.on(client.range(how.replica.as_deref()), || true).await?.start,
    };
    // A limit of 0 is none on the wire.
    if max == Some(0) {
        return Ok(());
    }
    let options =
        ReadOptions { from, from_timestamp_ms, max, linearizable, replica: how.replica, ..ReadOptions::default() };
    print(&client, waiting, options, how.raw, output).await
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) async fn tail((client, mut waiting): (Client, Waiting), tail: Tail, output: Output) -> anyhow::Result<()> {
    let Tail { follow, lines, how } = tail;
    check(&how, output)?;
    let How { raw, replica } = how;
    let range = waiting.on(client.range(replica.as_deref()), || true).await?;
    waiting.goes_on();
    let from = range.end.saturating_sub(lines).max(range.start);
    // What is appended meanwhile is for `--follow`.
    let max = (!follow).then_some(range.end - from);
    if max == Some(0) {
        return Ok(());
    }
    let options = ReadOptions { from, max, follow, replica, ..ReadOptions::default() };
    print(&client, waiting, options, raw, output).await
}

/// `--raw` is a way to print of its own.
fn check(how: &How, output: Output) -> anyhow::Result<()> {
    if how.raw && output == Output::Json {
        return Err(Usage("--raw prints values alone, -o json objects: leave one of them out".to_owned()).into());
    }
    Ok(())
}

async fn print(
    client: &Client,
    mut waiting: Waiting,
    options: ReadOptions,
    raw: bool,
    output: Output,
) -> anyhow::Result<()> {
    let follow = options.follow;
    let mut stop = stop::listen().context("signals cannot be listened to")?;
    let mut next = None;
    let mut reader = client.read(options);
    let mut out = Out::new();
    loop {
        // Between two batches, so that no line is cut.
        let batch = tokio::select! {
            // One who follows waits for news, and for nobody.
            batch = waiting.on(reader.next(), || !follow) => batch,
            signal = stop.asked() => {
                let said = next.map_or_else(|| "nothing was read".to_owned(), |next| format!("go on with --from {next}"));
                return Err(Stopped { signal, said }.into());
            }
        };
        let Some(batch) = batch else { return Ok(()) };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                out.flush()?;
                return Err(error.into());
            }
        };
        waiting.goes_on();
        for record in &batch.records {
            match output {
                _ if raw => out.line(&record.value)?,
                Output::Json => out.json(&JsonRecord::from(record))?,
                Output::Table => out.line(line(record).as_bytes())?,
            }
        }
        out.flush()?;
        next = Some(batch.next);
    }
}

/// Offset, key, value, and headers if there are any; `-` stands for no key.
fn line(record: &Record) -> String {
    let key = record.key.as_ref().map_or_else(|| "-".to_owned(), |key| text_of(key));
    let header = |header: &Header| format!("\t{}={}", text_of(header.name.as_bytes()), text_of(&header.value));
    let headers: String = record.headers.iter().map(header).collect();
    format!("{}\t{key}\t{}{headers}", record.offset, text_of(&record.value))
}
