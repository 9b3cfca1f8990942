//! The state of a replica. Its rules are in the other rooms; invariants are at the fields.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use crate::producers::Producers;
use crate::replica::progress::{IsrCounts, Leader};
use crate::replica::waiting::{Effect, Waiting};
use crate::types::history::{History, Origin};
use crate::types::incarnations::{Lineage, Runs};
use crate::types::io::{Millis, RequestId, Session, Ticket};
use crate::types::output::Output;
use crate::types::recovered::{Limits, Promise};
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

/// A joint that takes something of the log and is not carried out yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Pending {
    Cut(Tail),
    Reset(Box<Origin>),
}

/// The content of every message of a leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LeaderFacts {
    pub(crate) commit_end: Offset,
    pub(crate) log_end: Offset,
    pub(crate) round: u64,
}

/// The role of a replica.
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
    /// The commit end as the leader told it; may lie beyond what is durable here.
    pub(crate) commit_end: Offset,
    pub(crate) leader_log_end: Offset,
    /// The offset at which the leader's log starts; may lie beyond what is known here to be committed.
    pub(crate) log_start: Offset,
    /// The greatest round that the leader has told on this stream.
    pub(crate) round: u64,
    /// The agreed time that the leader told last on this stream.
    pub(crate) agreed_ms: Option<u64>,
    /// The starts of replicas that the leader knows of.
    pub(crate) runs: Runs,
    /// The part of the log that is to go before anything of the leader's follows. Only while its stream is open.
    pub(crate) pending: Option<Pending>,
}

/// The log, as it was asked of the disk, and how much of it is durable and committed.
#[derive(Clone, Debug)]
pub(crate) struct LogState {
    /// The epoch starts in it.
    pub(crate) history: History,
    /// Its end, as asked of the disk.
    pub(crate) tail: Tail,
    /// The durable part of it. Invariant: a prefix, `durable <= tail`.
    pub(crate) durable: Tail,
    /// The known commit end. Invariants: never falls; `commit_end <= tail.end`.
    pub(crate) commit_end: Offset,
    /// Its start, as asked of the disk. Invariants: never falls; `start <= commit_end`.
    pub(crate) start: Offset,
    /// The same, as it is on the disk.
    pub(crate) trimmed: Offset,
    /// The appends in it, by producer.
    pub(crate) producers: Producers,
}

/// Records that may be missing, or cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Doubts {
    /// Up to where it may have acknowledged what it does not hold any more. Invariant: above `durable`.
    pub(crate) suspect: Option<Tail>,
    /// The epoch it had promised when it started. Its answer to that seal may tell of more than is left: a loss need not show.
    pub(crate) sealed_before_start: Epoch,
    /// Records within its log are damaged: it is not to lead while another holds as much.
    pub(crate) damaged: bool,
}

/// Starts of disks, its own and those of others.
#[derive(Clone, Debug)]
pub(crate) struct Starts {
    pub(crate) lineage: Lineage,
    /// The starts that are known, its own among them, as asked of the disk.
    pub(crate) runs: Runs,
    /// The same, as they are on the disk.
    pub(crate) noted: Runs,
    /// The disk is a copy that was put back.
    pub(crate) restored: bool,
}

/// Work that was asked of the disk, and the steps that follow once it is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Since when work waits for room.
    pub(crate) full_since: Option<Millis>,
    pub(crate) issued: Ticket,
    /// Invariant: `persisted <= issued`.
    pub(crate) persisted: Ticket,
    /// Invariant: in the order of their tickets, none of which is durable.
    pub(crate) effects: VecDeque<(Ticket, Effect)>,
}

/// Numbers that outlast a leadership.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// The newest round of questions to followers. Invariant: never falls, so that no answer of an earlier epoch fits a later round.
    pub(crate) round: u64,
    pub(crate) isr: IsrCounts,
}

/// A replica of the log.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) limits: Limits,
    pub(crate) cluster: Option<ClusterId>,
    /// As asked of the disk; acted on at once, told to others only when durable.
    pub(crate) promise: Promise,
    pub(crate) log: LogState,
    pub(crate) doubts: Doubts,
    pub(crate) starts: Starts,
    pub(crate) role: Role,
    pub(crate) idle_since: Millis,
    pub(crate) counts: Counts,
    pub(crate) disk: Asked,
    /// Appends by the offset after which they are answered.
    pub(crate) waiting: BTreeMap<(Offset, RequestId), Waiting>,
}

impl LogState {
    fn check(&self) {
        assert!(self.durable <= self.tail, "more is durable than was written");
        assert!(self.commit_end <= self.tail.end, "the commit end is beyond the log");
        assert!(self.start <= self.commit_end, "the log starts behind what is committed");
        assert!(self.trimmed <= self.start, "more was trimmed than was asked for");
        assert!(self.history.last().is_none_or(|last| last.start <= self.tail.end), "an epoch starts behind the log");
        assert_eq!(self.history.last_epoch(), self.tail.epoch, "the log ends in an epoch that has not started in it");
    }
}

impl Asked {
    fn check(&self) {
        assert!(self.persisted <= self.issued, "the disk has done work that was never asked for");
        let waits = |(ticket, _): &(Ticket, Effect)| self.persisted < *ticket || *ticket == self.issued;
        assert!(self.effects.front().is_none_or(waits), "an effect waits for work that is done");
        let last = self.effects.back().map_or(Ticket::default(), |(ticket, _)| *ticket);
        assert!(last <= self.issued, "an effect waits for work that was never asked for");
        debug_assert!(self.effects.iter().is_sorted_by_key(|(ticket, _)| *ticket), "effects are out of order");
    }
}

impl Replica {
    /// Holds the invariants of the fields, after each step.
    pub(crate) fn check(&self) {
        self.log.check();
        self.disk.check();
        let (log, promise) = (&self.log, self.promise);
        assert!(self.doubts.suspect.is_none_or(|lost| lost > log.durable), "what is durable is called lost");
        assert!(log.history.last_epoch() <= promise.epoch, "an epoch was accepted above the promise");
        assert!(!self.starts.restored || self.role == Role::Failed, "a disk that was put back takes part");
        self.check_waiting();
        match &self.role {
            Role::Leader(leader) => {
                leader.check(log, self.counts.round);
                assert_eq!((promise.epoch, promise.leader), (leader.start.epoch, Some(self.id)), "it leads unpromised");
                assert_eq!(log.history.last(), Some(&leader.start), "a leader's log goes on in another epoch");
                assert!(!leader.settled || log.commit_end >= leader.start.start, "an epoch is settled uncommitted");
                debug_assert!(self.cluster.is_some(), "it leads in no cluster");
                debug_assert!(leader.reads.len() <= self.limits.reads_max, "more reads wait than may");
            }
            Role::Follower(following) => {
                let promised = (promise.epoch, promise.leader);
                assert_eq!(promised, (following.epoch, Some(following.leader)), "it follows unpromised");
                assert!(following.leader != self.id, "a replica follows itself");
                debug_assert!(self.cluster.is_some(), "it follows in no cluster");
                assert!(following.session.is_some() || following.pending.is_none(), "a closed stream is to be joined");
                let joint = following.pending.as_ref().map(Pending::tail);
                assert!(joint.is_none_or(|joint| joint.end >= log.commit_end), "what is committed is to be cut");
            }
            Role::Failed => assert!(self.disk.effects.is_empty(), "what a failed disk has done is told"),
            Role::Idle => {}
        }
    }

    /// Holds what is true of what a step asks for: each piece of the disk's work once and in order, and no word of what is not durable.
    pub(crate) fn check_asked(&self, before: Ticket, asked: &[Output]) {
        let tickets = asked.iter().filter_map(Output::ticket);
        let given = (before.0..self.disk.issued.0).map(|last| Ticket(last.saturating_add(1)));
        debug_assert!(tickets.eq(given), "the disk is asked for something out of order, or not at all");
        let is_durable = |told: &Output| match told {
            Output::SendAck { durable, .. } | Output::SendStarted { durable, .. } => *durable <= self.log.durable,
            Output::SendTrimmed { log_start, .. } => *log_start <= self.log.trimmed,
            _ => true,
        };
        debug_assert!(asked.iter().all(is_durable), "what is not durable is told");
    }

    /// Holds that a step told of what it changed: the promise, the commit end, and that it leads no more.
    pub(crate) fn check_told(&self, (promise, commit_end, led): (Promise, Offset, bool), asked: &[Output]) {
        let is_promise = |told: &Output| matches!(told, Output::WritePromise { .. });
        debug_assert!(promise == self.promise || asked.iter().any(is_promise), "a promise is not written down");
        let is_told = commit_end == self.log.commit_end || asked.contains(&Output::Committed(self.log.commit_end));
        debug_assert!(is_told, "a commit is not told");
        let leads = matches!(self.role, Role::Leader(_));
        debug_assert!(!led || leads || asked.contains(&Output::StepDown), "one leads no more, and its streams go on");
    }

    /// Appends wait for a commit, and only where somebody may still commit them here.
    fn check_waiting(&self) {
        let end = |entry: Option<(&(Offset, RequestId), &Waiting)>| entry.map(|((end, _), _)| *end);
        let (first, last) = (end(self.waiting.first_key_value()), end(self.waiting.last_key_value()));
        assert!(first.is_none_or(|end| end > self.log.commit_end), "an append that is committed was not answered");
        assert!(last.is_none_or(|end| end <= self.log.tail.end), "an append waits that is not in the log");
        assert!(self.waiting.len() <= self.limits.waiting_max, "more appends wait than may");
        let may_commit = matches!(self.role, Role::Leader(_) | Role::Idle);
        assert!(may_commit || self.waiting.is_empty(), "an append waits where it cannot be answered");
    }
}
