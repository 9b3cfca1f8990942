//! A replica and its addresses, checked where they come in; and this replica itself.

use std::net::SocketAddr;
use std::time::Duration;

use zue_core::{Lineage, ReplicaId};
use zue_proto::{cut, v1};
use zue_settings::{is_address, is_word};

/// A replica and where it is reached. Checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) id: ReplicaId,
    pub(crate) name: String,
    pub(crate) peer_address: String,
    pub(crate) client_address: String,
    /// The place where somebody reached its peer address last.
    pub(crate) dial_address: Option<SocketAddr>,
    pub(crate) voter: bool,
}

/// This replica; does not change while it runs.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: ReplicaId,
    pub(crate) name: String,
    /// The address that clients are told.
    pub(crate) client_address: String,
    /// The address at which peers reach it, as far as it knows.
    pub(crate) peer_address: String,
    /// The starts of its disk.
    pub(crate) lineage: Lineage,
    pub(crate) durability: &'static str,
    /// The interval at which it lets itself be heard when it leads.
    pub(crate) heartbeat: Duration,
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

/// The most members that a message may name: voters, as many old ones, and learners.
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
