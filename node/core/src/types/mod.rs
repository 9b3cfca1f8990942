//! The words of the protocol as types: offsets, epochs, identities and the end of a log.
//! No rule is in here.

pub(crate) mod history;
pub(crate) mod incarnations;
pub(crate) mod io;
pub(crate) mod output;
pub(crate) mod recovered;
pub(crate) mod refusal;
pub(crate) mod sealed;

use core::fmt;

/// A place between two records: the number of records before it. Record `n` lies between offsets `n` and `n + 1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

/// The name of one leadership with one set of voters; 0 is before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A data directory, named at random when it is initialised. An emptied disk is a different replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u128);

/// A cluster, named at random when its first epoch starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// The end of a log: the last epoch start it holds, then its end offset. Of two logs the greater one is the more
/// complete; two prefixes of one log are ordered by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Tail {
    /// The epoch of the last epoch start in the log; 0 if there is none.
    pub epoch: Epoch,
    /// The end offset (exclusive).
    pub end: Offset,
}

/// The greatest distance between a replica's promise and the next one: epochs are counted up one by one, and no one message may use
/// up those that are left.
pub const EPOCHS_AHEAD_MAX: u64 = 1 << 20;

impl Epoch {
    /// Returns whether a replica that has promised that one may promise this one.
    #[must_use]
    pub const fn follows(self, promised: Self) -> bool {
        self.0 > promised.0 && self.0 - promised.0 <= EPOCHS_AHEAD_MAX
    }
}

/// The greatest offset that a log reaches: half of all numbers, so that what is added to one never wraps around.
pub const OFFSET_MAX: Offset = Offset(1 << 63);

/// The number of offsets that one message may take, or pass over: no log holds as many records, and no one message may use up the offsets
/// that are left.
pub const OFFSETS_AHEAD_MAX: u64 = 1 << 40;
const _: () = assert!(OFFSET_MAX.0.checked_add(OFFSETS_AHEAD_MAX).is_some(), "what is added to an offset wraps around");

impl Offset {
    /// The offset `records` further on, unless no log reaches that far.
    #[must_use]
    pub fn checked_plus(self, records: u64) -> Option<Self> {
        self.0.checked_add(records).map(Self).filter(|end| *end <= OFFSET_MAX)
    }

    /// The offset `records` further on; saturates, as no log reaches 2^64 records.
    #[must_use]
    pub const fn plus(self, records: u64) -> Self {
        Self(self.0.saturating_add(records))
    }

    /// The number of records between `earlier` and this offset; 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{:x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{:x}", self.0)
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {} end {}", self.epoch, self.end)
    }
}

/// A monotonic time in milliseconds; only differences count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds since `earlier`; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
