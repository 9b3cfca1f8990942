//! The operator as a program that acts: one loop for all clusters and one task for each, and what it serves over HTTP.

mod backups;
pub mod cluster_task;
mod entries;
pub mod http;
pub mod operator;
pub mod shared;
