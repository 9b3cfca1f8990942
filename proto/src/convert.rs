//! Wire <-> core types. Whatever comes from the network is checked here and nowhere else.

use bytes::Bytes;
use zue_core::{
    ClusterId, Epoch, EpochStart, History, LINEAGE_MAX, Lineage, OFFSET_MAX, Offset, Origin, ProducerLimits, Producers,
    RUNS_MAX, ReplicaId, Run, Runs, Tail,
};

use crate::v1;

/// A message that says something impossible.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// An id of the wrong length, or all zeroes.
    #[error("{field} is {bytes} bytes long; an id has 16, not all zero")]
    Id {
        /// The field.
        field: &'static str,
        /// The length found.
        bytes: usize,
    },
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An offset that no log reaches.
    #[error("{field} is {found}: the greatest offset is {OFFSET_MAX}")]
    Offset {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// An epoch start that cannot be.
    #[error("the start of epoch {epoch} is impossible: {reason}")]
    EpochStart {
        /// Its epoch.
        epoch: u64,
        /// Its fault.
        reason: &'static str,
    },
    /// Epoch starts out of order.
    #[error(transparent)]
    History(#[from] zue_core::OutOfOrder),
    /// Bytes that are no message.
    #[error("the message cannot be decoded: {0}")]
    Wire(&'static str),
    /// A table of producers that is none.
    #[error(transparent)]
    Producers(#[from] zue_core::BadTable),
}

fn id(field: &'static str, bytes: &[u8]) -> Result<u128, Malformed> {
    match <[u8; 16]>::try_from(bytes).map(u128::from_be_bytes) {
        Ok(id) if id != 0 => Ok(id),
        _ => Err(Malformed::Id { field, bytes: bytes.len() }),
    }
}

/// The 16 bytes of an id.
pub fn id_bytes(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// A replica id from its 16 bytes; `field` names it in the error.
pub fn replica_id(field: &'static str, bytes: &[u8]) -> Result<ReplicaId, Malformed> {
    id(field, bytes).map(ReplicaId)
}

/// A cluster id from its 16 bytes; none where it is empty.
pub fn cluster_id(bytes: &[u8]) -> Result<Option<ClusterId>, Malformed> {
    if bytes.is_empty() { Ok(None) } else { id("cluster_id", bytes).map(|id| Some(ClusterId(id))) }
}

/// Several replica ids.
pub fn replica_ids(field: &'static str, ids: &[Bytes]) -> Result<Vec<ReplicaId>, Malformed> {
    ids.iter().map(|bytes| replica_id(field, bytes)).collect()
}

/// An offset that a log can have; `field` names it in the error.
pub fn offset(field: &'static str, found: u64) -> Result<Offset, Malformed> {
    Some(Offset(found)).filter(|offset| *offset <= OFFSET_MAX).ok_or(Malformed::Offset { field, found })
}

/// A tail; an absent one is the empty log's.
pub fn tail(wire: Option<v1::Tail>) -> Tail {
    wire.map_or_else(Tail::default, |tail| Tail { epoch: Epoch(tail.epoch), end: Offset(tail.end) })
}

/// A checked epoch start.
pub fn epoch_start(wire: v1::EpochStart) -> Result<EpochStart, Malformed> {
    let v1::EpochStart { epoch, start, leader, voters, quorum, old_voters } = wire;
    let start = EpochStart {
        epoch: Epoch(epoch),
        start: offset("start", start)?,
        leader: replica_id("leader", &leader)?,
        voters: replica_ids("voters", &voters)?,
        quorum,
        old_voters: if old_voters.is_empty() { None } else { Some(replica_ids("old_voters", &old_voters)?) },
    };
    start.check().map_err(|reason| Malformed::EpochStart { epoch, reason })?;
    Ok(start)
}

/// A checked history.
pub fn history(wire: Vec<v1::EpochStart>) -> Result<History, Malformed> {
    let starts = wire.into_iter().map(epoch_start).collect::<Result<Vec<_>, _>>()?;
    Ok(History::new(starts)?)
}

/// A checked origin. The table of who appended what is made to fit the limits.
pub fn origin(wire: v1::Origin, limits: ProducerLimits) -> Result<Origin, Malformed> {
    let v1::Origin { at, history: starts, timestamp_ms, producers } = wire;
    let producers = Producers::decode(&producers, limits)?;
    Ok(Origin { at: offset("at", at)?, history: history(starts)?, timestamp_ms, producers })
}

/// The starts of a disk; of too many the newest.
pub fn lineage(wire: Option<v1::Lineage>) -> Lineage {
    let v1::Lineage { starts, mut nonces } = wire.unwrap_or_default();
    nonces.truncate(LINEAGE_MAX);
    Lineage { starts, nonces }
}

/// Starts of replicas, as many as are remembered.
pub fn runs(wire: &[v1::Run]) -> Result<Runs, Malformed> {
    let run = |run: &v1::Run| {
        let v1::Run { replica_id: id, starts, nonce } = run;
        Ok((replica_id("runs", id)?, Run { starts: *starts, nonce: *nonce }))
    };
    wire.iter().take(RUNS_MAX).map(run).collect()
}

/// Starts of replicas as they travel.
pub fn runs_to_wire(runs: &Runs) -> Vec<v1::Run> {
    let run = |(id, Run { starts, nonce }): (ReplicaId, Run)| v1::Run { replica_id: id_bytes(id.0), starts, nonce };
    runs.iter().map(run).collect()
}

impl From<&Lineage> for v1::Lineage {
    fn from(lineage: &Lineage) -> Self {
        Self { starts: lineage.starts, nonces: lineage.nonces.clone() }
    }
}

/// The ids of members.
pub fn members(field: &'static str, wire: &[v1::Member]) -> Result<Vec<ReplicaId>, Malformed> {
    wire.iter().map(|member| replica_id(field, &member.replica_id)).collect()
}

impl From<Tail> for v1::Tail {
    fn from(tail: Tail) -> Self {
        Self { epoch: tail.epoch.0, end: tail.end.0 }
    }
}

impl From<&EpochStart> for v1::EpochStart {
    fn from(start: &EpochStart) -> Self {
        let EpochStart { epoch, start, leader, voters, quorum, old_voters } = start;
        let ids = |ids: &[ReplicaId]| ids.iter().map(|id| id_bytes(id.0)).collect();
        Self {
            epoch: epoch.0,
            start: start.0,
            leader: id_bytes(leader.0),
            voters: ids(voters),
            quorum: *quorum,
            old_voters: old_voters.as_deref().map(ids).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_no_log_reaches_is_named_with_the_greatest() {
        assert_eq!(offset("oldest", OFFSET_MAX.0), Ok(OFFSET_MAX));
        for found in [OFFSET_MAX.0 + 1, u64::MAX] {
            let refused = offset("oldest", found).unwrap_err().to_string();
            assert_eq!(refused, format!("oldest is {found}: the greatest offset is 9223372036854775808"));
        }
    }
}
