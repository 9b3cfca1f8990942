//! The driver's state, as everyone else sees it: the ends of the log, and who leads. Published through watches, so that who waits for
//! news needs no polling and who is slow misses only what is outdated.

use std::sync::Arc;

use zue_core::{ClusterId, Epoch, Offset, ReplicaId, Runs, Tail};
use zue_proto::v1;

use crate::driver::member::Member;
use crate::standby::Standby;
use crate::storage::Stalled;

/// The ends of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) log_start: Offset,
    /// The end of the log, as asked of the disk.
    pub(crate) log: Tail,
    pub(crate) durable: Tail,
    /// A leader may know more to be committed than its own disk holds: reads end at the lower of the two.
    pub(crate) commit_end: Offset,
    /// The newest round of questions to the followers.
    pub(crate) round: u64,
}

impl Ends {
    /// The end of reads: records before it are committed and on this disk.
    pub(crate) fn readable(&self) -> Offset {
        self.commit_end.min(self.durable.end)
    }
}

/// The part that this replica plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Role {
    #[default]
    Idle,
    Follower,
    Leader,
    Failed,
}

/// The voters that an append needs, and those in reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) quorum: u32,
    pub(crate) writing: u32,
}

/// The leader, and its members.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ReplicaView {
    pub(crate) role: Role,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) epoch: Epoch,
    pub(crate) leader: Option<v1::LeaderHint>,
    pub(crate) members: Arc<[Member]>,
    /// The knowledge of a leader.
    pub(crate) as_leader: LeaderView,
    /// The knowledge of a follower.
    pub(crate) as_follower: FollowerView,
    /// Why appends wait for the disk.
    pub(crate) full: Option<Stalled>,
    /// Set once this replica is no member any more, in words: its records are old, and newer ones are elsewhere. `leader` is the one
    /// that it followed last.
    pub(crate) left: Option<Arc<str>>,
    /// Why the role is `Failed`, or what else a person should know.
    pub(crate) problem: Option<Arc<str>>,
    /// The starts of replicas that it knows of.
    pub(crate) runs: Arc<Runs>,
    /// The terms by which it stands by.
    pub(crate) standby: Option<Arc<Standby>>,
}

/// The knowledge of a leader; empty elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LeaderView {
    /// The followers that it does not reach, and why.
    pub(crate) unreached: Arc<[(ReplicaId, String)]>,
    /// The names of the voters in sync.
    pub(crate) isr: Arc<[String]>,
    /// The number of voters that an append must reach, and of those that can write.
    pub(crate) reach: Reach,
    /// The one who appointed it.
    pub(crate) elected_by: Option<Arc<str>>,
}

/// The knowledge of a follower; empty elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct FollowerView {
    /// True while the leader's stream is open.
    pub(crate) connected: Option<bool>,
    /// True once no leader has fed this replica for long: it may be no member any more, and not know it.
    pub(crate) unfed: bool,
}

/// The driver has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this replica is shutting down")]
pub(crate) struct DriverEnded;

/// A leadership, as its peer tasks need it.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: Epoch,
    pub(crate) me: Member,
    pub(crate) members: Arc<[Member]>,
}
