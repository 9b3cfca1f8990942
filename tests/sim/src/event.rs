//! Events, their times, and those whom they befall.

use zue_core::{Epoch, ReplicaId, Session, Ticket};

use crate::actors::status::{StoreAnswer, StoreCall};
use crate::message::{Address, Message};

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver { from: Address, to: Address, message: Box<Message> },
    OfProcess { machine: usize, life: u64, event: ProcessEvent },
    StoreCall { controller: usize, op: (u64, u64), call: StoreCall },
    StoreAnswer { controller: usize, op: (u64, u64), answer: StoreAnswer },
    Controller { controller: usize, timer: u64 },
    Produce { producer: usize },
    AppendTimeout { producer: usize, sequence: u64, attempt: u64 },
    Read,
    Trim,
    BackUp,
    Stranger,
    Fault,
    Forget { epoch: Epoch },
    Restart { machine: usize },
    Resume { who: Address },
    DiskEmptied { machine: usize },
    Unblock { from: Address, to: Address },
}

/// Something that happens to one process, as long as it lives.
#[derive(Debug)]
pub(crate) enum ProcessEvent {
    Tick,
    DiskWrite,
    DiskSync,
    Persisted(Ticket),
    Maintenance,
    /// By what it stands by gets to the disk.
    Keep,
    /// A follower is to hear of what is committed.
    CommitNews {
        follower: ReplicaId,
        session: Session,
    },
    Crash,
}
