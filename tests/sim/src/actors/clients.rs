//! Producers that repeat what they do not know the outcome of, and readers.

mod acts;

use std::collections::BTreeMap;

use zue_core::{Offset, ProducerId};
use zue_history::{History, SeenRecord, Value};

use crate::batch::Record;
use crate::dice::Dice;
use crate::params::ClientParams;

#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) producers: Vec<Producer>,
    /// The greatest end that a client was told to be committed.
    pub(crate) known_end: Offset,
    /// All that clients were told.
    pub(crate) history: History,
    /// Producers by their nonces, as the history numbers them.
    numbers: BTreeMap<u64, u32>,
}

/// Appends in order, several at a time.
#[derive(Debug)]
pub(crate) struct Producer {
    id: ProducerId,
    next_sequence: u64,
    /// By first sequence: how many records, and the attempt under way.
    pending: BTreeMap<u64, Pending>,
    /// The replica that it believes to lead.
    target: usize,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    count: u32,
    attempt: u64,
    /// The last attempt was refused: it may go again once the one before it is answered.
    refused: bool,
}

impl Clients {
    pub(crate) fn new(params: &ClientParams, dice: &mut Dice) -> Self {
        let mut clients =
            Self { producers: Vec::new(), known_end: Offset(0), history: History::default(), numbers: BTreeMap::new() };
        for _ in 0..params.producers {
            clients.open(dice);
        }
        clients
    }

    /// The record as the history knows it; none that nobody sent.
    pub(crate) fn value(&self, nonce: u64, sequence: u64) -> Value {
        let producer = self.numbers.get(&nonce).copied().unwrap_or(u32::MAX);
        Value { producer, number: u32::try_from(sequence).unwrap_or(u32::MAX) }
    }

    fn seen(&self, record: &Record) -> SeenRecord {
        SeenRecord { value: self.value(record.nonce, record.sequence), digest: record.digest() }
    }

    fn read(&mut self, from: &str, records: &[Record]) {
        for record in records {
            let seen = self.seen(record);
            self.history.read(from, record.offset.0, seen);
        }
    }

    /// The part of all this that cannot be true, when this is the log.
    pub(crate) fn contradictions(&mut self, log: &[Record]) -> Vec<String> {
        self.read("the end", log);
        self.history.finish(u64::try_from(log.len()).unwrap_or(u64::MAX))
    }

    fn fresh(&mut self, dice: &mut Dice) -> Producer {
        let id = ProducerId { born: self.known_end, nonce: dice.bits() };
        let number = self.history.open();
        self.numbers.insert(id.nonce, number);
        Producer { id, next_sequence: 0, pending: BTreeMap::new(), target: 0 }
    }

    pub(crate) fn open(&mut self, dice: &mut Dice) {
        let producer = self.fresh(dice);
        self.producers.push(producer);
    }

    /// A record that was sent before all this; of each producer they come in order.
    pub(crate) fn sent_before(&mut self, record: &Record) {
        let number = *self.numbers.entry(record.nonce).or_insert_with(|| self.history.open());
        self.history.begin(number);
    }

    /// A producer from before tries its last append again, as soon as that times out. The place of the producer.
    pub(crate) fn try_again(&mut self, id: ProducerId, (sequence, count): (u64, u32)) -> usize {
        let pending = BTreeMap::from([(sequence, Pending { count, attempt: 0, refused: false })]);
        self.producers.push(Producer { id, next_sequence: sequence + u64::from(count), pending, target: 0 });
        self.producers.len() - 1
    }

    /// Returns whether every append was answered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.producers.iter().all(|producer| producer.pending.is_empty())
    }

    /// The replica that one of them believes to lead.
    pub(crate) fn believed_leader(&self) -> usize {
        self.producers.first().map_or(0, |producer| producer.target)
    }

    pub(crate) fn pending(&self) -> usize {
        self.producers.iter().map(|producer| producer.pending.len()).sum()
    }
}
