//! Opening a log: which files it is, what of them is whole, and what may be lost.

pub(crate) mod agreement;
pub(crate) mod chain;
pub(crate) mod open;
pub(crate) mod scan;
pub(crate) mod tail_check;
