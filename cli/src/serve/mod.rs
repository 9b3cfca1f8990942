//! Commands that run until they are stopped: a cluster on this machine, or a controller for nodes elsewhere.

pub(crate) mod control;
pub(crate) mod dev;
mod dev_tls;
mod node;
