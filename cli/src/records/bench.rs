//! `zue bench`: appends as fast as they are answered, or at a steady rate, and tells how many and how soon, window by window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use zue_client::{Client, ClientConfig, IN_FLIGHT_MAX, NewRecord};
use zue_settings::ByteSize;

use crate::Usage;
use crate::terminal::output::{Out, Output};
use crate::terminal::stop::{self, Signal, Stopped};
use crate::terminal::times;
use crate::terminal::waiting::Waiting;

#[derive(Debug, Args)]
#[command(after_help = "\
Prints a line for every window, and one for the whole run. Without --rate, the next append begins when one is answered. With --rate,
appends begin at a steady rate, whatever the answers do. An append that waits because --in-flight are under way counts its latency from
its scheduled start. The records stay in the log.")]
pub(crate) struct Bench {
    /// The length of the run
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = times::duration)]
    pub(crate) duration: Duration,
    /// The length of a window
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = times::window)]
    pub(crate) every: Duration,
    /// Bytes in a record's value: a number, or a size such as 4KiB, up to 32MiB
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = times::value_bytes)]
    pub(crate) size: u32,
    /// Records in an append
    #[arg(long, value_name = "RECORDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// Appends under way at once, at most
    #[arg(long, value_name = "APPENDS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) in_flight: u32,
    /// Appends started per second [default: as many as are answered]
    #[arg(long, value_name = "APPENDS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
}

/// Latencies, counted by size: each bucket is at most a 32nd wider than its values.
#[derive(Clone, Debug)]
struct Latencies {
    counts: Vec<u64>,
    max: Duration,
}

/// No server takes a larger append.
const APPEND_BYTES_MAX: u64 = 64 << 20;

/// Buckets of one power of two, as a power of two.
const FINE_BITS: u32 = 5;

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; bucket_of(u64::MAX) + 1], max: Duration::ZERO }
    }
}

/// Up to 2^5 µs every value has its bucket; from there on 32 share each power of two.
fn bucket_of(micros: u64) -> usize {
    let coarse = (u64::BITS - micros.leading_zeros()).saturating_sub(FINE_BITS + 1);
    let bucket = (u64::from(coarse) << FINE_BITS) + (micros >> coarse);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The greatest value of a bucket.
fn micros_of(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    let coarse = (bucket >> FINE_BITS).saturating_sub(1);
    let fine = bucket - (coarse << FINE_BITS);
    u64::try_from(((u128::from(fine) + 1) << coarse) - 1).unwrap_or(u64::MAX)
}

impl Latencies {
    fn note(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket_of(micros)) {
            *count += 1;
        }
        self.max = self.max.max(latency);
    }

    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.max = self.max.max(other.max);
    }

    /// The value that `percent` of them do not exceed, in milliseconds.
    fn percentile(&self, percent: u64) -> f64 {
        let wanted = (self.counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let longest = u64::try_from(self.max.as_micros()).unwrap_or(u64::MAX);
        millis(Duration::from_micros(reached.map_or(0, micros_of).min(longest)))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The counts of a time span.
#[derive(Clone, Debug, Default)]
struct Window {
    appends: u32,
    failed: u32,
    latencies: Latencies,
    /// Why the first that failed did.
    why: Option<String>,
}

impl Window {
    fn add(&mut self, other: Self) {
        let Self { appends, failed, latencies, why } = other;
        self.appends = self.appends.saturating_add(appends);
        self.failed = self.failed.saturating_add(failed);
        self.latencies.add(&latencies);
        self.why = self.why.take().or(why);
    }
}

/// A window for programs; the last one is of the whole run.
#[derive(Serialize)]
struct Shown {
    total: bool,
    seconds: f64,
    appends: u32,
    appends_per_second: f64,
    records_per_second: f64,
    megabytes_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    failed: u32,
}

impl Shown {
    fn new(window: &Window, took: Duration, bench: &Bench, total: bool) -> Self {
        let seconds = took.as_secs_f64();
        let appends_per_second = f64::from(window.appends) / seconds;
        let records_per_second = appends_per_second * f64::from(bench.batch);
        Self {
            total,
            seconds,
            appends: window.appends,
            appends_per_second,
            records_per_second,
            megabytes_per_second: records_per_second * f64::from(bench.size) / 1e6,
            p50_ms: window.latencies.percentile(50),
            p99_ms: window.latencies.percentile(99),
            max_ms: millis(window.latencies.max),
            failed: window.failed,
        }
    }

    fn line(&self) -> String {
        let Self { records_per_second, megabytes_per_second, p50_ms, p99_ms, max_ms, failed, .. } = self;
        let name = if self.total { "total".to_owned() } else { format!("{:.1}s", self.seconds) };
        format!(
            "{name:>7} {records_per_second:>11.0} {megabytes_per_second:>9.2} {p50_ms:>9.2} {p99_ms:>9.2} {max_ms:>9.2} {failed:>7}"
        )
    }
}

/// The state that the workers share.
struct Load {
    records: Vec<NewRecord>,
    begun: Instant,
    /// Appends a second; none: the next begins when one is answered.
    rate: Option<u32>,
    begun_appends: AtomicU64,
    window: Mutex<Window>,
}

impl Load {
    /// Waits for the next append's turn. Who comes late has waited since that turn, which counts.
    async fn turn(&self) -> Instant {
        let Some(rate) = self.rate else { return Instant::now() };
        let nth = self.begun_appends.fetch_add(1, Ordering::Relaxed);
        let nanos = u128::from(nth) * 1_000_000_000 / u128::from(rate.max(1));
        let due = self.begun + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        if due <= Instant::now() {
            return due;
        }
        sleep_until(due).await;
        Instant::now()
    }

    async fn work(&self, client: Client) {
        loop {
            let begun = self.turn().await;
            let appended = client.append(self.records.clone()).await;
            let latency = begun.elapsed();
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            match appended {
                Ok(_) => {
                    window.appends = window.appends.saturating_add(1);
                    window.latencies.note(latency);
                }
                Err(error) => {
                    window.failed = window.failed.saturating_add(1);
                    window.why.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }

    fn take(&self) -> Window {
        std::mem::take(&mut *self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) async fn run(servers: &[String], config: &ClientConfig, bench: Bench, output: Output) -> anyhow::Result<()> {
    let bytes = u64::from(bench.size) * u64::from(bench.batch);
    if bytes > APPEND_BYTES_MAX {
        let Bench { size, batch, .. } = bench;
        let max = ByteSize(APPEND_BYTES_MAX);
        return Err(Usage(format!(
            "--batch {batch} of --size {size} are {bytes} bytes: no append is larger than {max}"
        ))
        .into());
    }
    let value = Bytes::from(vec![b'z'; usize::try_from(bench.size)?]);
    let record = NewRecord { key: None, value, headers: Vec::new() };
    let load = Arc::new(Load {
        records: vec![record; usize::try_from(bench.batch)?],
        begun: Instant::now(),
        rate: bench.rate,
        begun_appends: AtomicU64::new(0),
        window: Mutex::default(),
    });
    let mut workers = JoinSet::new();
    let mut client = None;
    for worker in 0..usize::try_from(bench.in_flight)? {
        if worker % IN_FLIGHT_MAX == 0 {
            let config = ClientConfig { in_flight_max: IN_FLIGHT_MAX, ..config.clone() };
            client = Some(Client::new(servers.to_vec(), config)?);
        }
        let (Some(client), load) = (client.clone(), Arc::clone(&load)) else { break };
        workers.spawn(async move { load.work(client).await });
    }
    let Some(client) = client else { unreachable!("at least one append is under way") };
    let told = tell(&load, &bench, output, Waiting::new(&client, servers, Some(config.deadline))).await;
    workers.shutdown().await;
    let (total, stopped) = told?;
    if let Some(why) = total.why {
        bail!("{} appends failed, the first: {why}", total.failed);
    }
    match stopped {
        Some(signal) => Err(Stopped { signal, said: format!("{} appends were answered", total.appends) }.into()),
        None => Ok(()),
    }
}

/// Prints every window, then all of them together, also when a signal ends it before its time.
async fn tell(
    load: &Load,
    bench: &Bench,
    output: Output,
    mut waiting: Waiting,
) -> anyhow::Result<(Window, Option<Signal>)> {
    let mut stop = stop::listen().context("signals cannot be listened to")?;
    let mut out = Out::new();
    let mut show = |shown: &Shown| {
        match output {
            Output::Table => out.line(shown.line().as_bytes())?,
            Output::Json => out.json(shown)?,
        }
        out.flush()
    };
    if output == Output::Table {
        crate::terminal::output::line("   TIME   RECORDS/S      MB/S    P50 MS    P99 MS    MAX MS  FAILED")?;
    }
    let every = bench.every;
    let mut ticks = interval_at(load.begun + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = load.begun + bench.duration;
    let (mut total, mut since) = (Window::default(), load.begun);
    let (mut is_over, mut stopped) = (false, None);
    while !is_over {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(end) => is_over = true,
            signal = stop.asked() => {
                stopped = Some(signal);
                is_over = true;
            }
        }
        let (window, now) = (load.take(), Instant::now());
        let took = now - since;
        if window.appends == 0 {
            waiting.look(since, took >= Duration::from_secs(1));
        } else {
            waiting.goes_on();
        }
        if !is_over || took > every / 2 {
            show(&Shown { seconds: millis(now - load.begun) / 1e3, ..Shown::new(&window, took, bench, false) })?;
        }
        since = now;
        total.add(window);
    }
    show(&Shown::new(&total, since - load.begun, bench, true))?;
    Ok((total, stopped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_32nd_wider_than_its_values() {
        let mut before = None;
        for micros in (0..100_000).chain([1 << 40, u64::MAX - 1, u64::MAX]) {
            let bucket = bucket_of(micros);
            let most = micros_of(bucket);
            assert!(most >= micros && most - micros <= micros / 32, "{micros} is in a bucket up to {most}");
            assert!(before.is_none_or(|before| before == bucket || before + 1 == bucket || micros > 100_000));
            before = Some(bucket);
        }
    }

    #[test]
    fn a_percentile_is_not_exceeded_by_so_many() {
        let mut latencies = Latencies::default();
        (1..=100).for_each(|ms| latencies.note(Duration::from_millis(ms)));
        let near = |percent, ms: f64| (latencies.percentile(percent) - ms).abs() <= ms / 32.0;
        assert!(near(50, 50.0) && near(99, 99.0) && near(100, 100.0));
        assert!(Latencies::default().percentile(99) < f64::EPSILON);
    }
}
