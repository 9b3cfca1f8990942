//! Names of appends and of those who append.

use std::fmt;

/// Names an append for good: repeated under this name, its records are kept once. See [`crate::Client::append_again`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AppendId {
    /// The producer's id, as a server has given it out.
    pub producer: [u8; 16],
    /// The number of records that the producer has appended before.
    pub sequence: u64,
}

impl fmt::Display for AppendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "producer {:032x}, sequence {}", u128::from_be_bytes(self.producer), self.sequence)
    }
}

/// A producer, and what it appends next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Producer {
    pub(crate) id: [u8; 16],
    pub(crate) next_sequence: u64,
    /// Behind all that it is known to have appended.
    pub(crate) known_end: u64,
}

impl Producer {
    pub(crate) fn again(AppendId { producer, sequence }: AppendId) -> Self {
        Self { id: producer, next_sequence: sequence, known_end: 0 }
    }

    pub(crate) fn next(&self) -> AppendId {
        AppendId { producer: self.id, sequence: self.next_sequence }
    }
}

/// The place of the records of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The offset of the first.
    pub base_offset: u64,
    /// Their number; they follow each other.
    pub count: u32,
    /// The epoch in which they were committed, or found to be.
    pub epoch: u64,
    /// They were in the log already, from an earlier try.
    pub duplicate: bool,
    /// The append, by its producer.
    pub id: AppendId,
}
