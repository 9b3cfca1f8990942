//! Who sent a record, and an append as deduplication knows it.

use zue_core::{Appended, Offset, ProducerId};

/// Who sent a record, so that it is appended once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Producer {
    /// The producer's id, random.
    pub id: u128,
    /// The record's number among those of this producer.
    pub sequence: u64,
}

/// The records of one append by one producer: their sequences are consecutive, like their offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerRun {
    /// The producer's id.
    pub id: u128,
    /// The sequence of the first record.
    pub sequence: u64,
    /// The offset of the first record.
    pub base: Offset,
    /// How many records.
    pub count: u64,
}

impl ProducerRun {
    /// Behind its last record.
    pub(crate) fn end(&self) -> Offset {
        self.base.plus(self.count)
    }

    /// As the rules of deduplication know it.
    pub fn appended(&self) -> Appended {
        let Self { id, sequence, base, count } = *self;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Appended { producer: ProducerId::from_u128(id), sequence, count, base }
    }
}
