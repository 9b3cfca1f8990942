//! A seeded simulation of a Zue cluster: the real rules, election and control planning, in a world whose network, disks, clocks,
//! controllers and clients fail as chance has it. One seed is one run, and the same run each time.

mod ages;
mod appends;
mod batch;
mod breaks;
mod check;
mod clients;
mod controller;
mod copies;
mod coverage;
mod dice;
mod drive;
mod end;
mod faults;
mod flips;
mod forgotten;
mod left;
mod losses;
mod message;
mod mistakes;
mod params;
mod process;
mod reads;
mod rewrites;
mod search;
mod standby;
mod status;
mod storage;
mod stranger;
mod streams;
mod trace;
mod trims;
mod upkeep;
mod world;

pub use breaks::Break;
pub use coverage::{Coverage, Fault};
pub use end::{Failure, Options, Report, replay, run};
pub use left::FromBackup;
pub use search::{Totals, search};
pub use upkeep::Kept;
