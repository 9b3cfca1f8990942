//! The store in which controllers write down what they do: compare-and-swap, read late, refused, or restored from an old backup.

mod acts;

use zue_core::control::Recorded;

#[derive(Debug, Default)]
pub(crate) struct Status {
    now: Recorded,
    /// All values there ever were.
    past: Vec<Recorded>,
    /// Until then nobody is answered.
    away_until: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum StoreCall {
    Load,
    Swap { from: Recorded, to: Recorded },
}

#[derive(Clone, Debug)]
pub(crate) enum StoreAnswer {
    Loaded(Recorded),
    Swapped(bool),
    /// Nothing was written, or so it says.
    Refused,
}
