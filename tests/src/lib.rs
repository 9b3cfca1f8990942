//! Parts that the tests of real processes and of real Kubernetes share.

#![allow(clippy::indexing_slicing, reason = "these are tests: what is not there fails them")]

pub mod acks;
pub mod attack;
pub mod identities;
pub mod load;
pub mod programs;
pub mod replicas;
pub mod three;
pub mod watch;
