//! Whoever speaks to the nodes: clients, controllers with their record, and a stranger.

pub(crate) mod clients;
pub(crate) mod controller;
pub(crate) mod mistakes;
pub(crate) mod status;
mod stranger;
