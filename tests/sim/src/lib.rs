//! A seeded simulation of a Zue cluster: the real rules, election and control planning, in a world whose network, disks, clocks,
//! controllers and clients fail as chance has it. One seed is one run, and the same run each time.

mod actors;
mod batch;
mod breaks;
mod check;
mod coverage;
mod dice;
mod disk;
mod end;
mod event;
mod faults;
mod left;
mod message;
mod node;
mod params;
mod search;
mod trace;
mod world;

pub use breaks::Break;
pub use coverage::done::{Done, Lost};
pub use coverage::{Coverage, Fault};
pub use end::{Failure, Options, Report, replay, run};
pub use left::FromBackup;
pub use node::maintenance::MaintenanceCounts;
pub use search::{Totals, search};
