//! What the driver lets everyone else see: the ends of the log, and who leads. Published through watches, so that who waits for
//! news needs no polling and who is slow misses only what is outdated.

use std::net::SocketAddr;
use std::sync::Arc;

use zue_core::{ClusterId, Epoch, Offset, ReplicaId, Runs, Tail};
use zue_proto::{cut, v1};

use crate::config::{is_address, is_word};
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
    /// Where reads end: what is committed and on this disk.
    pub(crate) fn readable(&self) -> Offset {
        self.commit_end.min(self.durable.end)
    }
}

/// What this replica does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Role {
    #[default]
    Idle,
    Follower,
    Leader,
    Failed,
}

/// A replica and where it is reached. Checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) id: ReplicaId,
    pub(crate) name: String,
    pub(crate) peer_address: String,
    pub(crate) client_address: String,
    /// Where somebody reached its peer address last.
    pub(crate) dial_address: Option<SocketAddr>,
    pub(crate) voter: bool,
}

/// What an append needs, and what there is of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) quorum: u32,
    pub(crate) writing: u32,
}

/// Who leads, and with whom.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct View {
    pub(crate) role: Role,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) epoch: Epoch,
    pub(crate) leader: Option<v1::LeaderHint>,
    pub(crate) members: Arc<[Member]>,
    /// Whom it does not reach, and why; on the leader.
    pub(crate) unreached: Arc<[(ReplicaId, String)]>,
    /// The names of the voters in sync; on the leader.
    pub(crate) isr: Arc<[String]>,
    /// How many voters an append must reach, and how many can write; on the leader.
    pub(crate) reach: Reach,
    /// Whether the leader's stream is open; on a follower.
    pub(crate) connected: Option<bool>,
    /// Why appends wait for the disk.
    pub(crate) full: Option<Stalled>,
    /// That this replica is no member any more, in words: what it holds is old, and others have what came since. `leader` is whom it
    /// followed last.
    pub(crate) left: Option<Arc<str>>,
    /// Whether no leader has fed this replica for long: it may be no member any more, and not know it.
    pub(crate) unfed: bool,
    /// Why the role is `Failed`, or what else a person should know.
    pub(crate) problem: Option<Arc<str>>,
    /// The starts of replicas that it knows of.
    pub(crate) runs: Arc<Runs>,
    /// By what it stands by.
    pub(crate) standby: Option<Arc<Standby>>,
    /// Who appointed it; on the leader.
    pub(crate) elected_by: Option<Arc<str>>,
}

/// A leadership, as its peer tasks need it.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: Epoch,
    pub(crate) me: Member,
    pub(crate) members: Arc<[Member]>,
}

/// A member that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadMember {
    #[error(transparent)]
    Id(#[from] zue_proto::Malformed),
    #[error("a member has the name {0:?}: at most 253 bytes without spaces and control characters are expected")]
    Name(String),
    #[error("member {name:?} has the {kind} address {address:?}: host:port is expected, and at most 253 bytes of host")]
    Address { name: String, kind: &'static str, address: String },
    #[error("member {name:?} has the dial address {address:?}: an IP address and a port are expected")]
    DialAddress { name: String, address: String },
    #[error("{count} members are more than the limit of {max}")]
    TooMany { count: usize, max: usize },
}

/// How many members a message may name: voters, as many old ones, and learners.
const MEMBERS_MAX: usize = 32;

impl Member {
    pub(crate) fn parse(wire: v1::Member, voter: bool) -> Result<Self, BadMember> {
        let v1::Member { replica_id, name, peer_address, client_address, dial_address: dial } = wire;
        let id = zue_proto::replica_id("replica_id", &replica_id)?;
        if !is_word(&name) {
            return Err(BadMember::Name(cut(name)));
        }
        for (kind, address) in [("peer", &peer_address), ("client", &client_address)] {
            if !is_address(address) {
                return Err(BadMember::Address { name, kind, address: cut(address.clone()) });
            }
        }
        let dial_address = Some(&dial).filter(|dial| !dial.is_empty()).map(|dial| dial.parse()).transpose();
        let Ok(dial_address) = dial_address else { return Err(BadMember::DialAddress { name, address: cut(dial) }) };
        Ok(Self { id, name, peer_address, client_address, dial_address, voter })
    }

    pub(crate) fn parse_all(wire: Vec<v1::Member>, voter: bool) -> Result<Vec<Self>, BadMember> {
        if wire.len() > MEMBERS_MAX {
            return Err(BadMember::TooMany { count: wire.len(), max: MEMBERS_MAX });
        }
        wire.into_iter().map(|member| Self::parse(member, voter)).collect()
    }

    pub(crate) fn to_wire(&self) -> v1::Member {
        v1::Member {
            replica_id: zue_proto::id_bytes(self.id.0),
            name: self.name.clone(),
            peer_address: self.peer_address.clone(),
            client_address: self.client_address.clone(),
            dial_address: self.dial_address.map(|at| at.to_string()).unwrap_or_default(),
        }
    }

    pub(crate) fn to_member_hint(&self, unreached: &[(ReplicaId, String)]) -> v1::MemberHint {
        let problem = unreached.iter().find(|(id, _)| *id == self.id).map(|(_, why)| why.clone()).unwrap_or_default();
        v1::MemberHint { name: self.name.clone(), address: self.client_address.clone(), voter: self.voter, problem }
    }

    pub(crate) fn to_hint(&self) -> v1::LeaderHint {
        v1::LeaderHint { name: self.name.clone(), address: self.client_address.clone() }
    }
}
