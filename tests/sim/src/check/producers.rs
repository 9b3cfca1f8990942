//! Answers to producers: a repeated append is in the log, and a producer that is called unknown can find out by reading it.

use zue_core::{Epoch, Offset, ProducerId, Refusal};

use super::Checker;
use crate::node::process::Process;

impl Checker {
    pub(crate) fn called_duplicate(&mut self, nonce: u64, sequence: u64, count: u32) {
        let there = (0..u64::from(count)).all(|k| self.log.places.contains_key(&(nonce, sequence + k)));
        self.ensure(there, || {
            format!("append {sequence} of producer {nonce:x} is called a duplicate, and is not committed")
        });
    }

    /// Returns whether it lies in what an earlier cluster has left.
    pub(crate) fn was_left(&self, base: Offset) -> bool {
        self.epochs.from_backup.is_some() && self.epochs.committed_in.get(&Epoch(0)).is_some_and(|end| base < *end)
    }

    /// A replica refuses a producer's append.
    pub(crate) fn refused(&mut self, process: &Process, producer: ProducerId, refusal: &Refusal) {
        if *refusal != Refusal::UnknownProducer {
            return;
        }
        let (replica, ProducerId { born, nonce }) = (process.replica(), producer);
        let (id, horizon, commit_end) = (replica.id(), replica.producers().horizon(), replica.commit_end());
        self.ensure(born < horizon, || {
            format!("{id:?} calls producer {nonce:x} unknown, born at {born}, and has forgotten none after {horizon}")
        });
        // What is not committed is not read: it would be taken for absent.
        let from = commit_end.max(process.records.first());
        let waits = process.records.range(from, process.records.end()).iter().find(|record| record.nonce == nonce);
        if let Some(record) = waits {
            let at = record.offset;
            self.violated(format!("{id:?} calls producer {nonce:x} unknown before its record {at} is committed"));
        }
    }
}
