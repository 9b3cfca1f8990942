//! Clients that append and read without a pause, and tell the history everything.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prost::Message as _;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use zue_client::{Appended, Client, Error, NewRecord, ReadBatch, ReadOptions};
use zue_history::{History, SeenRecord, Value};

/// Between two appends of one client.
const PAUSE: Duration = Duration::from_millis(4);
const VALUE_BYTES_MAX: usize = 400;
const RECORDS_MAX: usize = 4;

/// The state that all clients share.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pub(crate) client: Client,
    told: Arc<Mutex<ClientHistory>>,
    stop: Arc<AtomicBool>,
    seeds: Arc<AtomicU64>,
}

#[derive(Debug)]
struct ClientHistory {
    history: History,
    begun: Instant,
    last_ack: Instant,
    /// The longest time without an acknowledgement, and when it ended.
    gap: (Duration, Duration),
    /// Appends that failed, by what is known of them.
    unknown: u64,
    refused: u64,
}

/// Figures of all clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) acked: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) reads: u64,
    pub(crate) linearizable_reads: u64,
    pub(crate) gap: (Duration, Duration),
}

impl Clients {
    pub(crate) fn new(client: Client, seed: u64) -> Self {
        let now = Instant::now();
        let told = ClientHistory {
            history: History::default(),
            begun: now,
            last_ack: now,
            gap: <(Duration, Duration)>::default(),
            unknown: 0,
            refused: 0,
        };
        Self { client, told: Arc::new(Mutex::new(told)), stop: Arc::default(), seeds: Arc::new(AtomicU64::new(seed)) }
    }

    /// The same, over another client: it finds the leader by itself, and may stay with one that leads no longer.
    pub(crate) fn over(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    fn told(&self) -> MutexGuard<'_, ClientHistory> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn figures(&self) -> Figures {
        let told = self.told();
        Figures {
            acked: told.history.acked,
            unknown: told.unknown,
            refused: told.refused,
            reads: told.history.reads,
            linearizable_reads: told.history.linearizable_reads,
            gap: told.gap,
        }
    }

    pub(crate) fn finish(&self, end: u64) -> Vec<String> {
        self.told().history.finish(end)
    }

    /// The appending clients end when what they have begun is answered.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn dice(&self) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(self.seeds.fetch_add(1, Ordering::Relaxed))
    }

    fn begin(&self, producer: u32) -> Value {
        self.told().history.begin(producer)
    }

    fn open(&self) -> u32 {
        self.told().history.open()
    }

    fn acked(&self, values: impl IntoIterator<Item = Value>, appended: Appended) {
        let mut told = self.told();
        for (value, offset) in values.into_iter().zip(appended.base_offset..) {
            told.history.acked(value, offset);
        }
        let now = Instant::now();
        let gap = now - told.last_ack;
        if gap > told.gap.0 {
            told.gap = (gap, now - told.begun);
        }
        told.last_ack = now;
    }

    fn failed(&self, values: impl IntoIterator<Item = Value>, is_unknown: bool) {
        let mut told = self.told();
        for value in values {
            if is_unknown {
                told.unknown += 1;
            } else {
                told.refused += 1;
                told.history.refused(value);
            }
        }
    }

    fn read_by(&self, from: &str, batch: &ReadBatch) {
        let mut told = self.told();
        told.history.committed(batch.commit_end);
        for record in &batch.records {
            // What no client of this run has written is told as unasked.
            let value = Value::parse(&record.value).unwrap_or(Value { producer: u32::MAX, number: 0 });
            let mut digest = DefaultHasher::new();
            digest.write(&record.encode_to_vec());
            told.history.read(from, record.offset, SeenRecord { value, digest: digest.finish() });
        }
    }

    /// Appends a few records at a time, each append after the answer to the one before.
    pub(crate) async fn append(self) {
        let mut dice = self.dice();
        let mut producer = self.open();
        while self.goes_on() {
            let values: Vec<_> = (0..dice.random_range(1..=RECORDS_MAX)).map(|_| self.begin(producer)).collect();
            let records = values.iter().map(|value| record(*value, &mut dice)).collect();
            match self.client.append(records).await {
                Ok(appended) => self.acked(values, appended),
                Err(error) => {
                    self.failed(values, error.is_unknown);
                    // What is unknown may still arrive, behind what comes next: another producer, in whose order it is not.
                    producer = self.open();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Appends through a pipeline.
    pub(crate) async fn pipeline(self) {
        while self.goes_on() {
            let producer = self.open();
            let (appender, mut acks) = self.client.appender();
            let (sent, mut waiting) = mpsc::unbounded_channel();
            let push = async {
                let mut dice = self.dice();
                while self.goes_on() {
                    let value = self.begin(producer);
                    // The receiver lives as long as this runs.
                    let _ = sent.send(value);
                    if appender.push(record(value, &mut dice)).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                drop((appender, sent));
            };
            let take = async {
                while let Some(answer) = acks.next().await {
                    match answer {
                        Ok(at) => {
                            let mut values = VecDeque::new();
                            for _ in 0..at.count {
                                values.extend(waiting.recv().await);
                            }
                            self.acked(values, at);
                        }
                        Err(_) => break,
                    }
                }
                // The pusher notices that the appender has failed.
                while let Some(value) = waiting.recv().await {
                    self.failed([value], true);
                }
            };
            tokio::join!(push, take);
        }
    }

    /// Follows the log from its beginning: what one replica gives, or the leader.
    pub(crate) async fn follow(self, replica: Option<String>) {
        let name = replica.clone().unwrap_or_else(|| "the leader".to_owned());
        let mut from = 0;
        loop {
            let options = ReadOptions { from, follow: true, replica: replica.clone(), ..ReadOptions::default() };
            match self.read(&name, options).await {
                Ok(next) | Err((next, None)) => from = next,
                Err((next, Some(log_start))) => from = next.max(log_start),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads a few records from anywhere.
    pub(crate) async fn peek(self, replicas: Vec<String>) {
        let mut dice = self.dice();
        loop {
            let replica = replicas.get(dice.random_range(0..replicas.len())).cloned();
            let from = dice.random_range(0..=self.told().history.floor());
            let name = replica.clone().unwrap_or_default();
            let _ = self.read(&name, ReadOptions { from, max: Some(50), replica, ..ReadOptions::default() }).await;
            tokio::time::sleep(PAUSE * 5).await;
        }
    }

    /// Asks what is committed, in ways that must show all that anybody was told before. Unless `by` names a replica: then it asks
    /// that one, as if it had to know.
    pub(crate) async fn ask(self, by: Option<String>) {
        let mut turn = 0_u64;
        loop {
            turn += 1;
            let floor = self.told().history.floor();
            let from = floor.saturating_sub(10);
            let options = ReadOptions { from, linearizable: true, ..ReadOptions::default() };
            let end = match &by {
                Some(replica) => self.client.range(Some(replica)).await.map(|range| range.end).ok(),
                None if turn.is_multiple_of(2) => self.client.end().await.ok(),
                None => self.read("the leader", options).await.ok(),
            };
            if let Some(end) = end {
                self.told().history.linearizable(floor, end);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads to the end of what is asked for. Gives where it ended, and where the log begins if that was the reason.
    pub(crate) async fn read(&self, name: &str, options: ReadOptions) -> Result<u64, (u64, Option<u64>)> {
        let mut next = options.from;
        let mut reader = self.client.read(options);
        while let Some(batch) = reader.next().await {
            match batch {
                Ok(batch) => {
                    self.read_by(name, &batch);
                    next = batch.records.last().map_or(next, |record| record.offset + 1);
                }
                Err(Error::Refused(refused)) => return Err((next, Some(refused.log_start))),
                Err(_) => return Err((next, None)),
            }
        }
        Ok(next)
    }
}

fn record(value: Value, dice: &mut Xoshiro256PlusPlus) -> NewRecord {
    let bytes = dice.random_range(0..=VALUE_BYTES_MAX);
    NewRecord { value: value.encode(bytes).into(), ..NewRecord::default() }
}
