//! The operator as a program that acts: one loop for all clusters and one task for each, the Lease, and calls to the API server.

mod backups;
pub mod cluster_task;
mod entries;
pub mod http;
pub mod kubernetes;
pub mod lease;
pub mod operator;
pub mod shared;
pub mod store;
