//! The log against a model of plain vectors, under random appends, epochs, cuts, trims, crashes and reads.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a panic is how a test fails"
)]

mod common;

use common::{SimLog, append, batch, open, read_all, read_from, start};
use proptest::prelude::*;
use zue_core::{Epoch, Offset, Tail};
use zue_log::sim::SimDisk;
use zue_log::{Batch, ReadError};

#[derive(Clone, Debug)]
enum Step {
    Append {
        records: u8,
        bytes: usize,
    },
    Epoch {
        skip: u64,
    },
    Sync,
    /// The part of the frames that is kept, in 255ths.
    Cut {
        kept: u8,
    },
    /// The part that is taken of what is left, in 255ths.
    Trim {
        taken: u8,
    },
    Crash {
        seed: u64,
    },
    Kill,
    Close,
    Read {
        from: u8,
        bytes_max: usize,
    },
    Replicate {
        from: u8,
        bytes_max: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u8..5, 0_usize..9000).prop_map(|(records, bytes)| Step::Append { records, bytes }),
        2 => (1_u64..3).prop_map(|skip| Step::Epoch { skip }),
        2 => Just(Step::Sync),
        2 => any::<u8>().prop_map(|kept| Step::Cut { kept }),
        2 => any::<u8>().prop_map(|taken| Step::Trim { taken }),
        1 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        2 => (any::<u8>(), 0_usize..20_000).prop_map(|(from, bytes_max)| Step::Read { from, bytes_max }),
        2 => (any::<u8>(), 0_usize..20_000).prop_map(|(from, bytes_max)| Step::Replicate { from, bytes_max }),
    ]
}

/// A frame: an epoch start, or the records of one append.
#[derive(Clone, PartialEq, Debug)]
enum Entry {
    Start(u64),
    Append(Vec<Vec<u8>>),
}

/// Records with their epochs, and epoch starts.
type Held = (Vec<(u64, Vec<u8>)>, Vec<(u64, u64)>);

#[derive(Clone, PartialEq, Debug, Default)]
struct Model(Vec<Entry>);

impl Model {
    fn end(&self) -> u64 {
        self.records().len() as u64
    }

    fn records(&self) -> Vec<(u64, Vec<u8>)> {
        let (mut epoch, mut out) = (0, Vec::new());
        for entry in &self.0 {
            match entry {
                Entry::Start(next) => epoch = *next,
                Entry::Append(values) => out.extend(values.iter().map(|value| (epoch, value.clone()))),
            }
        }
        out
    }

    fn epochs(&self) -> Vec<(u64, u64)> {
        let start = |(at, entry): (usize, &Entry)| match entry {
            Entry::Start(epoch) => Some((*epoch, Self(self.0[..at].to_vec()).end())),
            Entry::Append(_) => None,
        };
        self.0.iter().enumerate().filter_map(start).collect()
    }

    fn tail(&self) -> Tail {
        Tail { epoch: Epoch(self.epochs().last().map_or(0, |(epoch, _)| *epoch)), end: Offset(self.end()) }
    }

    /// The records and epochs of a log that begins later.
    fn from(&self, log_start: u64) -> Held {
        let (mut records, mut epochs) = (self.records(), self.epochs());
        let begun = epochs.iter().filter(|(_, start)| *start < log_start).count();
        epochs.drain(..begun.saturating_sub(1));
        (records.split_off(usize::try_from(log_start).unwrap()), epochs)
    }

    fn prefix(&self, fraction: u8) -> Self {
        Self(self.0[..self.0.len() * usize::from(fraction) / 255].to_vec())
    }
}

fn held(log: &SimLog) -> Held {
    let mut history = log.history().clone();
    history.trim(log.log_start());
    (read_all(log), history.starts().iter().map(|start| (start.epoch.0, start.start.0)).collect())
}

fn read(log: &SimLog, model: &Model, from: u8, bytes_max: usize) {
    let log_start = log.log_start().0;
    let from = log_start + (model.end() - log_start) * u64::from(from) / 255;
    let chunk = log.reader().read(Offset(from), Offset(u64::MAX), bytes_max).unwrap();
    let read: Vec<_> = chunk.records().map(|record| record.unwrap().value.to_vec()).collect();
    let held = model.records();
    let held = &held[usize::try_from(from).unwrap()..];
    assert!(read.iter().zip(held).all(|(read, (_, held))| read == held));
    assert!(!read.is_empty() || held.is_empty());
}

fn replicate(log: &SimLog, model: &Model, from: u8, bytes_max: usize) {
    let prefix = model.prefix(from);
    if Offset(prefix.end()) >= log.log_start() {
        let frames = log.reader().read_frames(prefix.tail(), log.tail(), bytes_max).unwrap();
        assert_eq!(frames.is_none(), prefix == *model);
        assert!(frames.is_none_or(|frames| frames.prev() == prefix.tail() && frames.tail() > prefix.tail()));
    }
}

fn run(steps: &[Step]) {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk);
    let mut model = Model::default();
    let (mut durable, mut log_start) = (0, 0);
    for step in steps {
        match *step {
            Step::Append { records, bytes } => {
                let value = |index| vec![index; bytes / usize::from(records)];
                let values: Vec<_> = (0..records).map(value).collect();
                append(&mut log, &values);
                model.0.push(Entry::Append(values));
            }
            Step::Epoch { skip } => {
                let Tail { epoch: last, end } = log.tail();
                log.set_promise(Epoch(last.0 + skip).max(log.meta().promise.epoch), None, None).unwrap();
                log.append(&Batch::epoch_start(last, start(last.0 + skip, end.0)).unwrap()).unwrap();
                model.0.push(Entry::Start(last.0 + skip));
            }
            Step::Sync => {
                log.sync().unwrap();
                durable = model.0.len();
            }
            Step::Cut { kept } => {
                let prefix = model.prefix(kept);
                if prefix.end() < log_start {
                    continue;
                }
                model = prefix;
                log.cut(model.tail()).unwrap();
                durable = model.0.len();
            }
            Step::Trim { taken } => {
                log_start += (model.end() - log_start) * u64::from(taken) / 255;
                log.note_commit(Offset(log_start));
                log.trim(Offset(log_start)).unwrap();
                let reaches = |kept: &usize| Model(model.0[..*kept].to_vec()).end() >= log_start;
                durable = (durable..=model.0.len()).find(reaches).unwrap();
            }
            Step::Crash { seed } => {
                disk.crash(seed);
                drop(log);
                log = open(&disk).0;
                let may_be = (durable..=model.0.len()).map(|kept| Model(model.0[..kept].to_vec()));
                let same = |model: &Model| model.from(log_start) == held(&log);
                model = may_be.into_iter().find(same).expect("a crash keeps a prefix that has all that was durable");
                durable = model.0.len();
            }
            Step::Kill => {
                drop(log);
                log = open(&disk).0;
                durable = model.0.len();
            }
            Step::Close => {
                log.close().unwrap();
                log = open(&disk).0;
                durable = model.0.len();
            }
            Step::Read { from, bytes_max } => read(&log, &model, from, bytes_max),
            Step::Replicate { from, bytes_max } => replicate(&log, &model, from, bytes_max),
        }
        assert_eq!((log.tail(), log.log_start()), (model.tail(), Offset(log_start)), "after {step:?}");
    }
    assert_eq!(held(&log), model.from(log_start));
    let middle = log_start.midpoint(model.end());
    assert_eq!(read_from(&log.reader(), middle), model.records()[usize::try_from(middle).unwrap()..]);
    let beyond = log.reader().read(Offset(model.end() + 1), Offset(u64::MAX), 1);
    assert!(matches!(beyond, Err(ReadError::OutOfRange { .. })));
    let wrong = batch(Tail { end: Offset(model.end() + 1), ..log.tail() }, &["x"]);
    assert!(log.append(&wrong).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_log_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}
