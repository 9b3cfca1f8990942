//! Faults that a simulated disk is told to have.

use std::io;

/// Faults of one disk; calls and operations are named by their numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) fail_call_at: Option<(u64, io::ErrorKind)>,
    pub(super) lies: bool,
    pub(super) fail_at: Option<(u64, io::ErrorKind)>,
    pub(super) stop_at: Option<u64>,
    /// The number of bytes that can still be reserved; any number if none is said.
    pub(super) room: Option<usize>,
    /// By how many bytes files can still grow as they are written; any number if none is said.
    pub(super) growth: Option<usize>,
}
