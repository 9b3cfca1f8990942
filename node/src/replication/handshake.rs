//! A leader's first message to a follower: who leads, since when, and what it knows.

use zue_core::{Origin, ProducerLimits, Producers};
use zue_proto::{PROTOCOL_VERSION, id_bytes, v1};

use crate::driver::state::{DriverEnded, Ends};
use crate::replication::ended::Ended;
use crate::replication::peer::Peer;

/// The most bytes of the table of producers that a follower gets to begin anew with: the rest of the message fits beside it.
const TABLE_BYTES_MAX: usize = 60 << 20;

/// The first message to a follower; with the place to begin anew, if it has asked for that.
pub(crate) async fn start_message(peer: &Peer, with_origin: bool) -> Result<v1::Start, Ended> {
    let leadership = &peer.leadership;
    let (reader, producers) = (peer.shared.reader.clone(), peer.shared.producers);
    let origin = if with_origin {
        let read = tokio::task::spawn_blocking(move || reader.origin(producers).map(|origin| to_wire(&origin))).await;
        let origin = read.map_err(|_| DriverEnded)?.map_err(|error| Ended::Read(zue_engine::room::full(&error)))?;
        Some(origin)
    } else {
        None
    };
    let (history, oldest) = peer.shared.reader.held();
    let oldest = origin.as_ref().map_or(oldest.0, |origin| origin.at);
    let Ends { log, commit_end, .. } = *peer.handle.ends.borrow();
    Ok(v1::Start {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: id_bytes(leadership.cluster.0),
        target: id_bytes(peer.member.id.0),
        leader: Some(leadership.me.to_wire()),
        epoch: leadership.epoch.0,
        history: history.starts().iter().map(Into::into).collect(),
        log: Some(log.into()),
        commit_end: commit_end.0,
        members: leadership.members.iter().map(crate::driver::member::Member::to_wire).collect(),
        oldest,
        origin,
        runs: zue_proto::runs_to_wire(&peer.handle.view.borrow().runs),
    })
}

/// An origin as it is sent. If the table of producers is too large for a message, those that appended longest ago are left out:
/// the follower refuses them like forgotten ones.
fn to_wire(origin: &Origin) -> v1::Origin {
    let (mut table, mut producers_max) = (origin.producers.encode(), origin.producers.len());
    while table.len() > TABLE_BYTES_MAX && producers_max > 0 {
        producers_max /= 2;
        let limits = ProducerLimits { producers_max, ..origin.producers.limits() };
        table = Producers::decode(&table, limits).map_or_else(|_| Vec::new(), |fewer| fewer.encode());
    }
    let history = origin.history.starts().iter().map(Into::into).collect();
    v1::Origin { at: origin.at.0, history, timestamp_ms: origin.timestamp_ms, producers: table.into() }
}
