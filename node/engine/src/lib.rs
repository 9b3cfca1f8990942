//! The work of a node around the rules of its replica, for the node and for the simulation alike. Knows no thread, no socket and no
//! clock: the node's shell brings them, and the simulation brings its own.

pub mod disk_queue;
pub mod driver;
#[cfg(test)]
mod made;
pub mod maintenance;
pub mod ring;
pub mod room;
pub mod sender;
pub mod standby;
