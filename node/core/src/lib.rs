//! The rules of a Zue replica: facts in, work out. No I/O, no clock, no async, no payload bytes.
#![no_std]

extern crate alloc;

mod ages;
pub mod control;
mod producers;
pub mod quorum;
mod replica;
mod types;

pub use ages::{Aged, Ages};
pub use control::election;
pub use producers::{Appended, BadTable, ProducerId, ProducerLimits, Producers, Verdict};
pub use replica::clocks::CLOCK_TOLERANCE_MS;
pub use replica::joint::Joint;
pub use replica::progress::{IsrCounts, Progress};
pub use replica::role_view::RoleView;
pub use replica::state::Replica;
pub use types::history::{EpochStart, History, Origin, OutOfOrder, VOTERS_MAX};
pub use types::incarnations::{KnownStarts, LINEAGE_MAX, Lineage, RUNS_MAX, Run, Runs};
pub use types::io::{ClockReading, FrameFacts, Input, Millis, RequestId, Session, Start, Terms, Ticket};
pub use types::output::{Output, Reply};
pub use types::recovered::{Limits, Promise, Recovered, SyncLimits};
pub use types::refusal::Refusal;
pub use types::{ClusterId, EPOCHS_AHEAD_MAX, Epoch, OFFSET_MAX, OFFSETS_AHEAD_MAX, Offset, ReplicaId, Tail};
