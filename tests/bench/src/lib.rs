//! Rounds of figures, their medians and their plots, for all that measures.

#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "statistics are of floating point"
)]

pub mod plot;
pub mod series;
pub mod stats;
