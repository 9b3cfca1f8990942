//! The state of a replica. Its rules are in the other rooms; invariants are at the fields.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use crate::producers::Producers;
use crate::replica::progress::{IsrCounts, Leader};
use crate::replica::waiting::{Effect, Waiting};
use crate::types::history::{History, Origin};
use crate::types::incarnations::{Lineage, Runs};
use crate::types::io::{Millis, RequestId, Session, Ticket};
use crate::types::recovered::{Limits, Promise};
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

/// A joint that takes something of the log and is not carried out yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Pending {
    Cut(Tail),
    Reset(Box<Origin>),
}

/// What every message of a leader tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    pub(crate) commit_end: Offset,
    pub(crate) log_end: Offset,
    pub(crate) round: u64,
}

/// What a replica does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Idle,
    Follower(Following),
    Leader(Leader),
    Failed,
}

/// The stream a follower listens to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Following {
    pub(crate) session: Option<Session>,
    pub(crate) leader: ReplicaId,
    pub(crate) epoch: Epoch,
    pub(crate) heard: Millis,
    /// What the leader said is committed; may lie beyond what is durable here.
    pub(crate) commit_end: Offset,
    pub(crate) leader_log_end: Offset,
    /// Where the leader's log starts; may lie beyond what is known here to be committed.
    pub(crate) log_start: Offset,
    /// The greatest round that the leader has told on this stream.
    pub(crate) round: u64,
    /// The agreed time that the leader told last on this stream.
    pub(crate) agreed_ms: Option<u64>,
    /// The starts of replicas that the leader knows of.
    pub(crate) runs: Runs,
    /// What is to go of the log before anything of the leader's follows. Only while its stream is open.
    pub(crate) pending: Option<Pending>,
}

/// A replica of the log.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) limits: Limits,
    pub(crate) cluster: Option<ClusterId>,
    /// As asked of the disk; acted on at once, told to others only when durable.
    pub(crate) promise: Promise,
    pub(crate) history: History,
    /// The end of the log, as asked of the disk.
    pub(crate) log: Tail,
    /// What is durable. Invariant: a prefix of the log, `durable <= log`.
    pub(crate) durable: Tail,
    /// What is known to be committed. Invariants: never falls; `commit_end <= log.end`.
    pub(crate) commit_end: Offset,
    /// Where the log starts, as asked of the disk. Invariants: never falls; `log_start <= commit_end`.
    pub(crate) log_start: Offset,
    /// The same, as it is on the disk.
    pub(crate) trimmed: Offset,
    pub(crate) producers: Producers,
    /// Up to where it may have acknowledged what it does not hold any more. Invariant: above `durable`.
    pub(crate) suspect: Option<Tail>,
    /// The epoch it had promised when it started. Its answer to that seal may tell of more than is left: a loss need not show.
    pub(crate) sealed_before_start: Epoch,
    /// Records within its log are damaged: it is not to lead while another holds as much.
    pub(crate) damaged: bool,
    pub(crate) lineage: Lineage,
    /// The starts that are known, its own among them, as asked of the disk.
    pub(crate) runs: Runs,
    /// The same, as they are on the disk.
    pub(crate) noted: Runs,
    pub(crate) restored: bool,
    pub(crate) role: Role,
    pub(crate) idle_since: Millis,
    pub(crate) isr_counts: IsrCounts,
    /// Since when work for the disk waits for room.
    pub(crate) full_since: Option<Millis>,
    /// The newest round of questions to followers. Invariant: never falls, so that no answer of an earlier epoch fits a later round.
    pub(crate) round: u64,
    pub(crate) issued: Ticket,
    pub(crate) persisted: Ticket,
    pub(crate) effects: VecDeque<(Ticket, Effect)>,
    /// Appends by the offset after which they are answered.
    pub(crate) waiting: BTreeMap<(Offset, RequestId), Waiting>,
}
