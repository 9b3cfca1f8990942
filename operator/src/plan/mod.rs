//! Plans: what a look at a cluster asks for. Pure, each is told the time.

pub mod budget;
pub mod event;
pub mod homing;
pub mod labels;
pub mod on_demand;
pub mod recover;
pub mod replace;
pub mod rolling;
pub mod rollout;
pub mod scale;
pub mod stuck;
pub mod switchover;
