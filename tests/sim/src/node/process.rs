//! A process on a machine: the replica, its disk's queue, its streams. What a node's driver does, without threads.

mod acts;

use std::collections::BTreeMap;

use zue_core::{Epoch, Offset, ProducerId, Replica, ReplicaId, Session, Ticket};
use zue_engine::disk_queue::Queue;
use zue_engine::ring::Ring;
use zue_engine::sender::Sender;
use zue_engine::standby::StandbyState;

use crate::batch::{Batch, Held};
use crate::message::Caller;
use crate::node::drive::Driver;
use crate::node::maintenance::Maintenance;
use crate::node::standby::Standby;

#[derive(Debug)]
pub(crate) struct Process {
    /// No two processes have the same.
    pub(crate) life: u64,
    pub(crate) driver: Driver,
    pub(crate) writer: Writer,
    /// The records of the log as the replica knows it, written or not.
    pub(crate) records: Held,
    pub(crate) feeds: BTreeMap<ReplicaId, Feed>,
    /// The nodes of those that it was told of.
    pub(crate) members: BTreeMap<ReplicaId, Option<usize>>,
    /// The epoch in which it last led.
    pub(crate) led: Option<Epoch>,
    /// A leader's newest batches.
    pub(crate) memory: Ring<Batch>,
    pub(crate) inbound: BTreeMap<Session, Inbound>,
    /// The stream that was last followed.
    pub(crate) followed: Option<Session>,
    /// The maintenance of logs, in runs that have it.
    pub(crate) maintenance: Option<Maintenance>,
    pub(crate) standing: StandbyState<Standby>,
}

impl Process {
    pub(crate) fn replica(&self) -> &Replica {
        self.driver.replica()
    }
}

/// The one who waits for a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) caller: Caller,
    /// The epoch of a seal; the producer and sequence of an append; where a trim lets the log begin.
    pub(crate) of: WaitingFor,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitingFor {
    Seal(Epoch),
    Append { producer: ProducerId, sequence: u64, count: u32 },
    Trim(Offset),
    Other,
}

/// The disk's work that is not done yet.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) queue: Queue<Batch, Option<()>>,
    busy: bool,
    /// There was no room for what comes next.
    full: bool,
    /// The last work that is written and not synced.
    written: Ticket,
}

impl Writer {
    /// Returns whether there was no room for what comes next.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }
}

/// A stream to a follower.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) session: Option<Session>,
    /// Once the follower has said where its log is.
    pub(crate) sender: Option<Sender<Standby>>,
    /// It is soon to hear of a commit.
    pub(crate) news_due: bool,
    pub(crate) heard: u64,
    pub(crate) retry_at: u64,
    /// It has said that it has to begin anew.
    pub(crate) with_origin: bool,
}

/// A stream from a leader.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) machine: usize,
    pub(crate) epoch: Epoch,
    pub(crate) heard: u64,
}
