//! The cost of single appends, many clients, pipelined appends and reads, of one build or of two in turns.

#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "statistics are of floating point"
)]

pub(crate) mod cells;
mod counters;
mod driver;
pub(crate) mod floor;
pub(crate) mod load;
mod report;

pub(crate) use driver::{Options, run};
