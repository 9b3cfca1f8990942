//! The cost of failover, of catch-up and of a stopped follower, with real processes under load.

#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "statistics are of floating point"
)]

pub(crate) mod attack;
pub(crate) mod catchup;
pub(crate) mod failover;
mod load;
pub(crate) mod quiet;
pub(crate) mod stall;
mod table;
