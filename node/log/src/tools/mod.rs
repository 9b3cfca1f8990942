//! Looking at a log that no node has open.

pub(crate) mod copy;
pub(crate) mod dump;
pub(crate) mod inspect;
