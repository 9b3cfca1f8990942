//! Replication between nodes: streams to followers and from a leader, and records fetched for repairs.

pub(crate) mod address_book;
pub(crate) mod cache;
pub(crate) mod ended;
pub(crate) mod fetch;
pub(crate) mod handshake;
pub(crate) mod peer;
pub(crate) mod receiver;
pub(crate) mod sender;
