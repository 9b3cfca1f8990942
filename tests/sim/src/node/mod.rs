//! A node of the simulation: the engine's driver, disk queue, streams and maintenance in a process that may die, on a machine with clocks.

pub(crate) mod ages;
pub(crate) mod appends;
pub(crate) mod drive;
pub(crate) mod maintenance;
pub(crate) mod process;
pub(crate) mod standby;
mod streams;
mod trims;
