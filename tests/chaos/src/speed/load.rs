//! The load: a process of its own, with this build's client. It says when it is ready, begins when it is told to, and ends with a
//! line of JSON.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use zue_client::{AppendError, Client, ClientConfig, NewRecord, ReadOptions};

use super::cells::Kind;
use crate::cluster::tls;

pub(crate) const READY: &str = "ready";
/// Clients, or tasks, where there are many.
const MANY: usize = 64;
/// Values that are read, all together.
const READ_BYTES: usize = 128 << 20;
/// One record of so many has its time taken when they are pipelined.
const SAMPLED: u64 = 32;
/// Nothing may take longer: an append that does has failed.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// host:port of each node, with commas between
    #[arg(long, value_delimiter = ',', required = true)]
    servers: Vec<String>,
    #[arg(long, value_enum)]
    kind: Kind,
    /// Length of a value
    #[arg(long)]
    bytes: usize,
    #[arg(long)]
    millis: u64,
    /// Whose signature is believed of servers: with TLS
    #[arg(long, requires = "cert", requires = "key")]
    ca: Option<PathBuf>,
    #[arg(long, requires = "ca")]
    cert: Option<PathBuf>,
    #[arg(long, requires = "ca")]
    key: Option<PathBuf>,
}

/// The outcome. Another build may leave out, or add, what it likes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outcome {
    /// Acknowledged, or read.
    pub(crate) records: u64,
    pub(crate) failed: u64,
    /// Why the first that failed did.
    pub(crate) why: Option<String>,
    /// Until the last was acknowledged.
    pub(crate) seconds: f64,
    /// Of one record, or of one answer of a reading.
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

/// The counts of one task.
struct Tally {
    records: u64,
    failed: u64,
    why: Option<String>,
    /// Nanoseconds.
    took: Histogram<u32>,
}

impl Tally {
    fn new() -> Result<Self> {
        let took = Histogram::new_with_bounds(100, 60_000_000_000, 3)?;
        Ok(Self { records: 0, failed: 0, why: None, took })
    }

    fn took(&mut self, time: Duration) {
        self.took.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn failed(&mut self, count: u64, error: &AppendError) {
        self.failed += count;
        self.why.get_or_insert_with(|| error.to_string());
    }

    fn add(&mut self, other: Self) -> Result<()> {
        let Self { records, failed, why, took } = other;
        self.records += records;
        self.failed += failed;
        self.why = self.why.take().or(why);
        Ok(self.took.add(took)?)
    }

    fn outcome(self, seconds: f64) -> Outcome {
        let us = |share| self.took.value_at_quantile(share) as f64 / 1e3;
        Outcome {
            records: self.records,
            failed: self.failed,
            why: self.why,
            seconds,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: us(1.0),
        }
    }
}

pub(crate) fn run(options: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(Options { servers, kind, bytes, millis, ca, cert, key }: Options) -> Result<()> {
    let count = if kind == Kind::Clients64 { MANY } else { 1 };
    let files = ca.zip(cert).zip(key).map(|((ca, cert), key)| [ca, cert, key]);
    let (tls, in_flight_max) = (files.as_ref().map(tls).transpose()?, in_flight_max(kind));
    let config = ClientConfig { deadline: DEADLINE, in_flight_max, tls, ..ClientConfig::default() };
    let clients: Result<Vec<_>, _> = (0..count).map(|_| Client::new(servers.clone(), config.clone())).collect();
    let load = Load { kind, clients: clients?, value: Bytes::from(vec![b'x'; bytes]) };
    let lasting = Duration::from_millis(millis);
    if kind == Kind::Read {
        load.fill().await?;
    }
    let warm = load.go(lasting / 8).await?;
    ensure!(
        warm.failed == 0,
        "{} appends failed before anything was measured: {}",
        warm.failed,
        warm.why.unwrap_or_default()
    );
    println!("{READY}");
    std::io::stdin().read_line(&mut String::new()).context("nobody says when to begin")?;
    let begun = Instant::now();
    let tally = load.go(lasting).await?;
    println!("{}", serde_json::to_string(&tally.outcome(begun.elapsed().as_secs_f64()))?);
    Ok(())
}

fn in_flight_max(kind: Kind) -> usize {
    if kind == Kind::Tasks64 { MANY } else { ClientConfig::default().in_flight_max }
}

struct Load {
    kind: Kind,
    clients: Vec<Client>,
    value: Bytes,
}

impl Load {
    /// Uses the log for so long, and waits for what is under way.
    async fn go(&self, lasting: Duration) -> Result<Tally> {
        let until = Instant::now() + lasting;
        let tasks = if self.kind == Kind::Tasks64 { MANY } else { 1 };
        let mut running = JoinSet::new();
        for client in &self.clients {
            for _ in 0..tasks {
                let (client, value) = (client.clone(), self.value.clone());
                match self.kind {
                    Kind::Lat | Kind::Clients64 | Kind::Tasks64 => running.spawn(one_by_one(client, value, until)),
                    Kind::Pipe => running.spawn(pipelined(client, value, move |_| Instant::now() < until)),
                    Kind::Read => running.spawn(read(client, until)),
                };
            }
        }
        let mut all = Tally::new()?;
        while let Some(done) = running.join_next().await {
            all.add(done??)?;
        }
        Ok(all)
    }

    /// Appends what is to be read.
    async fn fill(&self) -> Result<()> {
        let count = u64::try_from(READ_BYTES / self.value.len().max(1))?;
        let client = self.clients.first().context("there is a client")?.clone();
        let filled = pipelined(client, self.value.clone(), move |pushed| pushed < count).await?;
        let Tally { records, failed, why, .. } = filled;
        ensure!(failed == 0 && records >= count, "{records} of {count} records to read: {}", why.unwrap_or_default());
        Ok(())
    }
}

fn record(value: &Bytes) -> NewRecord {
    NewRecord { value: value.clone(), ..NewRecord::default() }
}

async fn one_by_one(client: Client, value: Bytes, until: Instant) -> Result<Tally> {
    let mut tally = Tally::new()?;
    let mut begun = Instant::now();
    while begun < until {
        let appended = client.append(vec![record(&value)]).await;
        let now = Instant::now();
        match appended {
            Ok(_) => {
                tally.records += 1;
                tally.took(now - begun);
            }
            Err(error) => tally.failed(1, &error),
        }
        begun = now;
    }
    Ok(tally)
}

/// Pushes until there is enough, which is asked for now and then. An appender ends with its first failure.
async fn pipelined(client: Client, value: Bytes, goes_on: impl Fn(u64) -> bool + Send + 'static) -> Result<Tally> {
    let (appender, mut acks) = client.appender();
    let (sent, waiting) = mpsc::channel();
    let push = tokio::spawn(async move {
        let mut pushed = 0;
        while pushed % SAMPLED != 0 || goes_on(pushed) {
            if pushed % SAMPLED == 0 {
                // The receiver lives until all is acknowledged.
                let _ = sent.send((pushed, Instant::now()));
            }
            if appender.push(record(&value)).await.is_err() {
                break;
            }
            pushed += 1;
        }
        pushed
    });
    let mut tally = Tally::new()?;
    let mut failure = None;
    let mut next = None;
    while let Some(answer) = acks.next().await {
        match answer {
            Ok(batch) => tally.records += u64::from(batch.count),
            Err(error) => failure = Some(error),
        }
        let now = Instant::now();
        while let Some((number, begun)) = next.take().or_else(|| waiting.try_recv().ok()) {
            if number >= tally.records {
                next = Some((number, begun));
                break;
            }
            tally.took(now - begun);
        }
    }
    let pushed = push.await?;
    if let Some(error) = failure {
        tally.failed(pushed.saturating_sub(tally.records), &error);
    }
    Ok(tally)
}

/// From the first record to the last, again and again.
async fn read(client: Client, until: Instant) -> Result<Tally> {
    let mut tally = Tally::new()?;
    loop {
        let before = tally.records;
        let mut reader = client.read(ReadOptions::default());
        let mut begun = Instant::now();
        while let Some(batch) = reader.next().await {
            tally.records += u64::try_from(batch?.records.len())?;
            let now = Instant::now();
            tally.took(now - begun);
            begun = now;
            if begun >= until {
                return Ok(tally);
            }
        }
        ensure!(tally.records > before, "there is nothing to read");
    }
}
