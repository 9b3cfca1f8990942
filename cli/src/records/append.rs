//! `zue append`: one value, or a pipeline of lines with little of them in memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncRead, BufReader};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};
use zue_client::{AppendError, AppendId, Appended, Appender, Client, Header, NewRecord};

use crate::records::lines::{LineError, Lines};
use crate::terminal::output::{BrokenPipe, Out, Output};
use crate::terminal::stop::{self, Signal, Stop, Stopped};
use crate::terminal::waiting::Waiting;

/// The number of bytes that are read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// The time to wait for answers to what is under way when no more of the input is to be appended.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
#[command(after_help = "\
Without VALUE, every line of the file or of standard input is a record, without its newline; an empty line is an empty value.
Acknowledged records are printed as ranges of offsets: 0..100 are the records 0 to 99. With -o json each range also has its producer and
sequence, and says whether it was in the log already (duplicate). Ctrl-C ends the append between two records, and it prints its progress.

An append that failed and may be in the log all the same prints its producer and sequence. Repeat it with these, from the same record
on: every record is kept once.")]
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

/// The parts of every record of this command beside its value.
struct Frame {
    key: Option<Bytes>,
    headers: Vec<Header>,
}

#[derive(Serialize)]
struct JsonAppended {
    base_offset: u64,
    count: u32,
    epoch: u64,
    duplicate: bool,
    producer: String,
    sequence: u64,
}

impl Frame {
    fn record(&self, value: Bytes) -> NewRecord {
        NewRecord { key: self.key.clone(), value, headers: self.headers.clone() }
    }
}

pub(crate) async fn run((client, waiting): (Client, Waiting), append: Append, output: Output) -> anyhow::Result<()> {
    let Append { value, file, key, header, producer, sequence } = append;
    let again = producer.map(|producer| AppendId { producer, sequence: sequence.unwrap_or_default() });
    let headers = header.into_iter().map(|(name, value)| Header { name, value: value.into() }).collect();
    let frame = Frame { key: key.map(Bytes::from), headers };
    if let Some(value) = value {
        return one(&client, waiting, again, frame.record(value.into()), output).await;
    }
    let input = match file.filter(|path| path != Path::new("-")) {
        Some(path) => File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?,
        None => io::stdin().as_fd().try_clone_to_owned().context("standard input cannot be read")?.into(),
    };
    many(&client, waiting, again, frame, tokio::fs::File::from_std(input), output).await
}

async fn one(
    client: &Client,
    mut waiting: Waiting,
    again: Option<AppendId>,
    record: NewRecord,
    output: Output,
) -> anyhow::Result<()> {
    let mut stop = stop::listen().context("signals cannot be listened to")?;
    let append = async {
        match again {
            Some(id) => client.append_again(id, vec![record]).await,
            None => client.append(vec![record]).await,
        }
    };
    let appended = tokio::select! {
        appended = waiting.on(append, || true) => appended?,
        signal = stop.asked() => {
            let said = "the record may have been appended, or may yet be".to_owned();
            return Err(Stopped { signal, said }.into());
        }
    };
    let offset = appended.base_offset;
    let mut out = Out::new();
    let told = match output {
        Output::Table => out.line(offset.to_string().as_bytes()),
        Output::Json => out.json(&json(appended)),
    };
    told.and_then(|()| out.flush())
        .map_err(|error| untold(error, format!("the record was appended at offset {offset}")))
}

/// Adds what was appended to an error of standard output, which did not take it.
fn untold(error: anyhow::Error, said: String) -> anyhow::Error {
    if error.is::<BrokenPipe>() { anyhow::anyhow!("{BrokenPipe}: {said}") } else { error.context(said) }
}

fn json(appended: Appended) -> JsonAppended {
    let Appended { base_offset, count, epoch, duplicate, id } = appended;
    let producer = format!("{:032x}", u128::from_be_bytes(id.producer));
    JsonAppended { base_offset, count, epoch, duplicate, producer, sequence: id.sequence }
}

async fn many(
    client: &Client,
    waiting: Waiting,
    again: Option<AppendId>,
    frame: Frame,
    input: impl AsyncRead + Unpin + Send + 'static,
    output: Output,
) -> anyhow::Result<()> {
    let stop = stop::listen().context("signals cannot be listened to")?;
    let (appender, acks) = again.map_or_else(|| client.appender(), |id| client.appender_again(id));
    let lines = Lines::new(BufReader::with_capacity(BUFFER_BYTES, input));
    let pushed = Arc::<AtomicU64>::default();
    let pushing = tokio::spawn(push(lines, frame, appender, Arc::clone(&pushed)));
    let mut pipeline = Pipeline { told: AckPrinter::new(output), waiting, pushing, pushed, ended_by: None };
    let answered = pipeline.run(acks, stop).await;
    let end = pipeline.told.end();
    pipeline.end(answered, end).await
}

/// Pushes every line, and counts them. What follows a line that cannot be read is not sent.
async fn push(
    mut lines: Lines<BufReader<impl AsyncRead + Unpin>>,
    frame: Frame,
    appender: Appender,
    pushed: Arc<AtomicU64>,
) -> Result<(), LineError> {
    while let Some(line) = lines.next().await? {
        if appender.push(frame.record(line)).await.is_err() {
            break;
        }
        pushed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Why no more of the input is appended.
enum EndedBy {
    Signal(Signal),
    /// Standard output does not take what is acknowledged.
    Output(anyhow::Error),
}

/// The end of the answers.
enum Answered {
    /// All that was pushed is acknowledged.
    All,
    /// Not within the time for it.
    Late,
    Failed(AppendError),
}

/// An input on its way into the log.
struct Pipeline {
    told: AckPrinter,
    waiting: Waiting,
    pushing: JoinHandle<Result<(), LineError>>,
    pushed: Arc<AtomicU64>,
    ended_by: Option<EndedBy>,
}

impl Pipeline {
    /// Takes the answers. When asked to stop it pushes no more, and waits a little for the answers to what is under way, so that it
    /// can say how far the input was appended.
    async fn run(&mut self, mut acks: zue_client::Acks, mut stop: Stop) -> Answered {
        let mut until = None;
        loop {
            tokio::select! {
                ack = self.waiting.on(acks.next(), || self.pushed.load(Ordering::Relaxed) > self.told.records) => match ack {
                    None => return Answered::All,
                    Some(Err(error)) => return Answered::Failed(error),
                    Some(Ok(ack)) => {
                        self.waiting.goes_on();
                        if let Err(error) = self.told.appended(ack) {
                            self.stop(EndedBy::Output(error), &mut until);
                        }
                    }
                },
                signal = stop.asked() => self.stop(EndedBy::Signal(signal), &mut until),
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Answered::Late,
            }
        }
    }

    fn stop(&mut self, by: EndedBy, until: &mut Option<Instant>) {
        self.pushing.abort();
        self.ended_by.get_or_insert(by);
        until.get_or_insert_with(|| Instant::now() + ANSWERS_WITHIN);
    }

    async fn end(self, answered: Answered, end: anyhow::Result<()>) -> anyhow::Result<()> {
        let Self { told, waiting: _, pushing, pushed, ended_by } = self;
        let pushed = pushed.load(Ordering::Relaxed);
        let ended_by = ended_by.or(end.err().map(EndedBy::Output));
        let read = match answered {
            Answered::Failed(error) => return Err(anyhow::Error::new(error).context(told.until_then())),
            Answered::All if ended_by.is_none() => pushing.await,
            _ => Ok(Ok(())),
        };
        let said = told.so_far(pushed);
        match ended_by {
            None => read_to_its_end(read).context(said),
            Some(EndedBy::Signal(signal)) => Err(Stopped { signal, said }.into()),
            Some(EndedBy::Output(error)) => Err(untold(error, said)),
        }
    }
}

fn read_to_its_end(read: Result<Result<(), LineError>, JoinError>) -> anyhow::Result<()> {
    Ok(read??)
}

/// Prints what is acknowledged: as json every batch at once, otherwise a range as long as offsets follow each other.
struct AckPrinter {
    out: Out,
    output: Output,
    /// The last offsets that follow each other.
    range: Option<Range<u64>>,
    is_printed: bool,
    records: u64,
}

impl AckPrinter {
    fn new(output: Output) -> Self {
        Self { out: Out::new(), output, range: None, is_printed: true, records: 0 }
    }

    fn appended(&mut self, appended: Appended) -> anyhow::Result<()> {
        let end = appended.base_offset + u64::from(appended.count);
        self.records += u64::from(appended.count);
        if let Some(range) = self.range.as_mut().filter(|range| range.end == appended.base_offset) {
            range.end = end;
        } else {
            let printed = self.end();
            self.range = Some(appended.base_offset..end);
            printed?;
        }
        self.is_printed = false;
        if self.output == Output::Json {
            self.out.json(&json(appended))?;
            return self.out.flush();
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if let Some(Range { start, end }) = &self.range
            && self.output == Output::Table
            && !std::mem::replace(&mut self.is_printed, true)
        {
            self.out.line(format!("{start}..{end}").as_bytes())?;
        }
        self.out.flush()
    }

    /// The text that tells what is in the log.
    fn acknowledged(&self) -> String {
        let records = match self.records {
            1 => "1 record was appended".to_owned(),
            records => format!("{records} records were appended"),
        };
        match &self.range {
            None => "no record was appended".to_owned(),
            Some(Range { start, end }) if end - start == self.records => format!("{records}, as {start}..{end}"),
            Some(Range { start, end }) => format!("{records}, the last ones as {start}..{end}"),
        }
    }

    /// The same, in front of what has failed.
    fn until_then(&self) -> String {
        format!("{}; from record {} of the input on", self.acknowledged(), self.records + 1)
    }

    /// The progress of the input in the log, of which so many records were pushed, and where to go on.
    fn so_far(&self, pushed: u64) -> String {
        let (appended, next) = (self.acknowledged(), self.records + 1);
        let doubt = match pushed {
            pushed if pushed == next => format!("; record {next} may have been appended as well"),
            pushed if pushed > next => format!("; records {next} to {pushed} may have been appended as well"),
            _ => String::new(),
        };
        format!("{appended}{doubt}; go on with record {next} of the input")
    }
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
