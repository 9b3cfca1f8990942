//! Commands about records: each talks to the leader, or to one replica.

pub(crate) mod append;
pub(crate) mod bench;
mod lines;
pub(crate) mod read;
pub(crate) mod trim;
