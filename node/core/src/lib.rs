//! The rules of a Zue replica: facts in, work out. No I/O, no clock, no async, no payload bytes.
#![no_std]

extern crate alloc;

mod ages;
mod backlog;
mod clocks;
pub mod control;
mod disk;
pub mod election;
mod following;
mod history;
mod io;
mod joint;
mod leader;
mod leading;
mod producers;
pub mod quorum;
mod reads;
mod recovered;
mod refusal;
mod replica;
mod runs;
mod trim;
mod types;
mod view;

pub use ages::{Aged, Ages};
pub use clocks::{CLOCK_TOLERANCE_MS, Shown};
pub use history::{EpochStart, History, Origin, OutOfOrder, VOTERS_MAX};
pub use io::{FrameFacts, Input, Millis, Output, Reply, RequestId, Session, Start, Terms, Ticket};
pub use joint::Joint;
pub use leader::{IsrCounts, Progress, SyncLimits};
pub use producers::{Appended, BadTable, ProducerId, ProducerLimits, Producers, Verdict};
pub use recovered::{Limits, Promise, Recovered};
pub use refusal::Refusal;
pub use replica::Replica;
pub use runs::{LINEAGE_MAX, Lineage, RUNS_MAX, Run, Runs};
pub use types::{ClusterId, EPOCHS_AHEAD_MAX, Epoch, OFFSET_MAX, OFFSETS_AHEAD_MAX, Offset, ReplicaId, Tail};
pub use view::RoleView;
