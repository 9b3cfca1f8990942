//! `zue append`: one value, or a pipeline of lines with little of them in memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use tokio::io::{AsyncRead, BufReader};
use zue_client::{Appended, Appender, Client, Header, NewRecord};

use crate::args::{Append, Output};
use crate::lines::{LineError, Lines};
use crate::output::Out;

/// How much is read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What every record of this command has beside its value.
struct Frame {
    key: Option<Bytes>,
    headers: Vec<Header>,
}

#[derive(Serialize)]
struct JsonAppended {
    base_offset: u64,
    count: u32,
    epoch: u64,
}

impl Frame {
    fn record(&self, value: Bytes) -> NewRecord {
        NewRecord { key: self.key.clone(), value, headers: self.headers.clone() }
    }
}

pub(crate) async fn run(client: &Client, append: Append, output: Output) -> anyhow::Result<()> {
    let Append { value, file, key, header } = append;
    let headers = header.into_iter().map(|(name, value)| Header { name, value: value.into() }).collect();
    let frame = Frame { key: key.map(Bytes::from), headers };
    if let Some(value) = value {
        return one(client, frame.record(value.into()), output).await;
    }
    let input = match file {
        Some(path) => File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?,
        None => io::stdin().as_fd().try_clone_to_owned().context("standard input cannot be read")?.into(),
    };
    many(client, frame, tokio::fs::File::from_std(input), output).await
}

async fn one(client: &Client, record: NewRecord, output: Output) -> anyhow::Result<()> {
    let appended = client.append(vec![record]).await?;
    let mut out = Out::new();
    match output {
        Output::Table => out.line(appended.base_offset.to_string().as_bytes())?,
        Output::Json => out.json(&json(appended))?,
    }
    out.flush()
}

fn json(appended: Appended) -> JsonAppended {
    let Appended { base_offset, count, epoch } = appended;
    JsonAppended { base_offset, count, epoch }
}

async fn many(
    client: &Client,
    frame: Frame,
    input: impl AsyncRead + Unpin + Send + 'static,
    output: Output,
) -> anyhow::Result<()> {
    let (appender, mut acks) = client.appender();
    let lines = Lines::new(BufReader::with_capacity(BUFFER_BYTES, input));
    let pushing = tokio::spawn(push(lines, frame, appender));
    let mut told = Told { out: Out::new(), output, range: None, records: 0 };
    while let Some(ack) = acks.next().await {
        match ack {
            Ok(ack) => told.appended(ack)?,
            Err(error) => {
                told.end()?;
                let next = told.records + 1;
                return Err(anyhow::Error::new(error).context(format!("from record {next} of the input on")));
            }
        }
    }
    told.end()?;
    pushing.await?.with_context(|| format!("{} records were appended", told.records))
}

/// Pushes every line. What follows a line that cannot be read is not sent.
async fn push(
    mut lines: Lines<BufReader<impl AsyncRead + Unpin>>,
    frame: Frame,
    appender: Appender,
) -> Result<(), LineError> {
    while let Some(line) = lines.next().await? {
        if appender.push(frame.record(line)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Prints what is acknowledged: as json every batch at once, otherwise a range as long as offsets follow each other.
struct Told {
    out: Out,
    output: Output,
    range: Option<Range<u64>>,
    records: u64,
}

impl Told {
    fn appended(&mut self, appended: Appended) -> anyhow::Result<()> {
        let end = appended.base_offset + u64::from(appended.count);
        self.records += u64::from(appended.count);
        if self.output == Output::Json {
            self.out.json(&json(appended))?;
            return self.out.flush();
        }
        if let Some(range) = self.range.as_mut().filter(|range| range.end == appended.base_offset) {
            range.end = end;
            return Ok(());
        }
        self.end()?;
        self.range = Some(appended.base_offset..end);
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if let Some(Range { start, end }) = self.range.take() {
            self.out.line(format!("{start}..{end}").as_bytes())?;
        }
        self.out.flush()
    }
}
