//! The Rust client of Zue, and the shell around its rules of control.

mod backoff;
pub mod control;
mod net;

pub use backoff::Backoff;
pub use net::{BadAddress, check_address};
