//! Changes of the members, as far as they are more than an election: whom the leader feeds, and what came of a change of voters.

use zue_core::control::{Reason, Seen};
use zue_core::election::{Change, Choice};
use zue_core::{Epoch, ReplicaId};
use zue_proto::v1;

use crate::backoff::Retry;

use super::election::Attempt;
use super::{Controller, Event, NodeAddress, Store, peers, seen};

/// Whether an epoch begins for the sake of the voters alone.
pub(super) const fn is_change(reason: Reason) -> bool {
    matches!(reason, Reason::VotersChange | Reason::VotersSettled)
}

impl<S: Store> Controller<S> {
    /// Tells the leader whom to feed beside the voters.
    pub(super) async fn feed(
        &mut self,
        nodes: &[NodeAddress],
        seen: &[Option<Seen>],
        epoch: Epoch,
        leader: ReplicaId,
        learners: &[ReplicaId],
        events: &mut Vec<Event>,
    ) {
        let Some(node) = seen::ordinal_of(seen, leader).and_then(|ordinal| nodes.get(ordinal)) else { return };
        let cluster = self.recorded.cluster.or_else(|| seen.iter().flatten().find_map(|seen| seen.cluster));
        let request = v1::LearnersRequest {
            protocol_version: zue_proto::PROTOCOL_VERSION,
            cluster_id: seen::cluster_bytes(cluster),
            target: zue_proto::id_bytes(leader.0),
            epoch: epoch.0,
            learners: seen::members(learners, nodes, seen, &self.homes),
        };
        let fed = match self.peers.client(node) {
            Ok(mut client) => peers::call(self.config.rpc_timeout, client.learners(request)).await,
            Err(why) => Err(why),
        };
        match fed {
            Ok(_) => self.members = Retry::default(),
            Err(why) => {
                self.members.failed(self.config.election_retry);
                events.push(Event::LearnersRefused { leader: node.name.clone(), why });
            }
        }
    }

    /// Takes note of what a change of voters came to. One that the answers did not bear out is tried again, after a pause: each try
    /// costs an epoch.
    pub(super) fn voters_changed(&mut self, attempt: &Attempt<'_>, choice: &Choice, events: &mut Vec<Event>) {
        let name = |id: ReplicaId| {
            let node = seen::ordinal_of(attempt.seen, id).and_then(|ordinal| attempt.nodes.get(ordinal));
            node.map_or_else(|| format!("replica {id}, which is at none of the nodes,"), |node| node.name.clone())
        };
        let (epoch, voters) = (attempt.epoch, choice.voters.len());
        let is_done = match attempt.change {
            Some(Change::Add(new)) => choice.voters.contains(&new),
            Some(Change::Remove(gone)) => !choice.voters.contains(&gone),
            None => choice.old_voters.is_none(),
        };
        events.push(match attempt.change {
            _ if !is_done => Event::VotersUnchanged { epoch, voters },
            Some(Change::Add(new)) => Event::VoterAdded { epoch, name: name(new), voters },
            Some(Change::Remove(gone)) => Event::VoterRemoved { epoch, name: name(gone), voters },
            None => Event::VotersSettled { epoch, voters },
        });
        if is_done {
            self.members = Retry::default();
        } else {
            self.members.failed(self.config.election_retry);
        }
    }
}
