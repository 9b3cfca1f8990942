//! The state that a replica reports. Changes nothing.

use alloc::vec::Vec;

use crate::producers::Producers;
use crate::replica::progress::{IsrCounts, Leader, Progress};
use crate::replica::state::{Replica, Role};
use crate::types::history::History;
use crate::types::incarnations::{Lineage, Runs};
use crate::types::io::Millis;
use crate::types::recovered::Promise;
use crate::types::{ClusterId, Epoch, Offset, ReplicaId, Tail};

/// The state that a leader or follower reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoleView {
    /// Neither leads nor follows.
    Idle {
        /// The time that it has waited for a leader, in milliseconds, since it started or made its last promise.
        waiting_ms: u64,
    },
    /// Follows.
    Follower {
        /// Whom.
        leader: ReplicaId,
        /// In which epoch.
        epoch: Epoch,
        /// True if a stream is open.
        connected: bool,
        /// The time since the leader was heard from, in milliseconds.
        silence_ms: u64,
        /// The leader's log end, as last heard.
        leader_log_end: Offset,
    },
    /// Leads.
    Leader {
        /// In which epoch.
        epoch: Epoch,
        /// True if the epoch's start is committed.
        settled: bool,
        /// True if new appends are held back for a hand-over.
        handing_over: bool,
        /// Whom it feeds, and how far they are.
        followers: Vec<(ReplicaId, Progress)>,
        /// The voters as far as they are settled: while a change of voters is under way, those before it, who are still asked.
        electorate: Vec<ReplicaId>,
        /// Those of them in sync, itself included.
        isr: Vec<ReplicaId>,
        /// The number of voters that an append must reach.
        quorum: u32,
        /// The number of voters that can write, by all that is known, itself included.
        writing: usize,
    },
    /// Its disk or log failed.
    Failed,
}

impl Replica {
    /// Its role, as of `now`.
    pub fn role(&self, now: Millis) -> RoleView {
        match &self.role {
            Role::Idle => RoleView::Idle { waiting_ms: now.since(self.idle_since) },
            Role::Failed => RoleView::Failed,
            Role::Follower(following) => RoleView::Follower {
                leader: following.leader,
                epoch: following.epoch,
                connected: following.session.is_some(),
                silence_ms: now.since(following.heard),
                leader_log_end: following.leader_log_end,
            },
            Role::Leader(leader) => RoleView::Leader {
                epoch: leader.start.epoch,
                settled: leader.settled,
                handing_over: leader.hand_over.is_some(),
                followers: leader.followers.iter().map(|(id, progress)| (*id, progress.clone())).collect(),
                electorate: self.settled_voters(leader).to_vec(),
                isr: leader.in_sync_of(self.settled_voters(leader)),
                quorum: leader.start.quorum,
                writing: leader.writing(&leader.start.voters, self.log.tail.end, now, self.limits.sync),
            },
        }
    }

    /// A change is settled by an epoch without old voters, once its start is committed. Until then an election may ask those before.
    fn settled_voters<'a>(&'a self, leader: &'a Leader) -> &'a [ReplicaId] {
        let starts = self.log.history.starts();
        let before = starts.len().checked_sub(2).and_then(|at| starts.get(at));
        // Those that a restored log names are of another cluster.
        let known = before.filter(|before| !leader.settled && leader.start.follows(before)).unwrap_or(&leader.start);
        known.old_voters.as_ref().unwrap_or(&known.voters)
    }

    /// Its identity.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Its cluster; none before its first epoch.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The cluster whose first epoch start is durable here. Before, a cluster is only named: a controller that wrote it down could begin
    /// no other, should the appointment die.
    pub fn begun_cluster(&self) -> Option<ClusterId> {
        self.cluster.filter(|_| self.promise.binds(self.id, self.log.history.at(self.log.durable.epoch)))
    }

    /// Returns whether it holds a log, and belongs to no cluster: it was restored from a backup. A new cluster may begin with it.
    pub fn is_seed(&self) -> bool {
        self.cluster.is_none() && (self.log.tail != Tail::default() || !self.log.history.is_empty())
    }

    /// Its promise.
    pub fn promise(&self) -> Promise {
        self.promise
    }

    /// The epoch starts in its log.
    pub fn history(&self) -> &History {
        &self.log.history
    }

    /// The end of its log, as asked of the disk.
    pub fn log(&self) -> Tail {
        self.log.tail
    }

    /// The durable part of the log.
    pub fn durable(&self) -> Tail {
        self.log.durable
    }

    /// The known commit end.
    pub fn commit_end(&self) -> Offset {
        self.log.commit_end
    }

    /// Up to where it may have acknowledged what its disk has lost since.
    pub fn suspect(&self) -> Option<Tail> {
        self.doubts.suspect
    }

    /// The appends of the producers, as far as it knows.
    pub fn producers(&self) -> &Producers {
        &self.log.producers
    }

    /// Returns whether records within its log are damaged.
    pub fn is_damaged(&self) -> bool {
        self.doubts.damaged
    }

    /// Returns whether its disk was found to be restored from a copy: it takes part in nothing.
    pub fn is_restored(&self) -> bool {
        self.starts.restored
    }

    /// The starts of its disk.
    pub fn lineage(&self) -> &Lineage {
        &self.starts.lineage
    }

    /// The starts of replicas that it knows of, its own among them.
    pub fn runs(&self) -> &Runs {
        &self.starts.runs
    }

    /// The number of times voters came into sync and fell out, while this replica led.
    pub fn isr_counts(&self) -> IsrCounts {
        self.counts.isr
    }
}
