//! Commands about the replicas side by side, and about who leads.

pub(crate) mod health;
pub(crate) mod status;
pub(crate) mod switchover;
mod together;
pub(crate) mod verify;
