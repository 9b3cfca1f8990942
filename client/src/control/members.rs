//! Changes of the members, as far as they are more than an election: whom the leader feeds, and what came of a change of voters.

use zue_core::control::{Reason, Seen, SeenRole};
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

/// Whom a leader is to feed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Feed<'a> {
    pub(super) nodes: &'a [NodeAddress],
    pub(super) seen: &'a [Option<Seen>],
    /// The epoch it leads.
    pub(super) epoch: Epoch,
    pub(super) leader: ReplicaId,
    pub(super) learners: Vec<ReplicaId>,
    /// Voters that are elsewhere than it was told.
    pub(super) moved: Vec<ReplicaId>,
}

impl<'a> Feed<'a> {
    /// What to tell a leader that looks for voters where they are not: they were silent when it was appointed, and guessed at. Only
    /// of those that answer now, and that it does not reach.
    pub(super) fn of_misled(
        nodes: &'a [NodeAddress],
        statuses: &[Result<v1::StatusResponse, String>],
        seen: &'a [Option<Seen>],
    ) -> Option<Self> {
        let leads = |seen: &&Seen| matches!(seen.role, SeenRole::Leader { .. });
        let leader =
            seen.iter().flatten().filter(leads).max_by_key(|seen| seen.last.as_ref().map(|last| last.epoch))?;
        let start = leader.last.as_ref()?;
        let status = statuses.get(seen::ordinal_of(seen, leader.replica)?)?.as_ref().ok()?;
        let SeenRole::Leader { followers, .. } = &leader.role else { return None };
        let elects =
            |id: &ReplicaId| start.voters.contains(id) || start.old_voters.iter().flatten().any(|old| old == id);
        let is_misled = |id: &ReplicaId| {
            let wire = zue_proto::id_bytes(id.0);
            let node = seen::ordinal_of(seen, *id).and_then(|ordinal| nodes.get(ordinal));
            let is_told = |node: &NodeAddress| {
                let known = status.members.iter().find(|member| member.replica_id == wire);
                known.is_some_and(|known| known.name == node.name && known.peer_address == node.peer_address)
            };
            let is_reached = status.followers.iter().any(|fed| fed.replica_id == wire && fed.connected);
            !is_reached && node.is_some_and(|node| !is_told(node))
        };
        let (electorate, learners): (Vec<_>, Vec<_>) = followers.iter().map(|(id, ..)| *id).partition(elects);
        let moved: Vec<ReplicaId> = electorate.into_iter().filter(is_misled).collect();
        let (epoch, leader) = (start.epoch, leader.replica);
        (!moved.is_empty()).then_some(Self { nodes, seen, epoch, leader, learners, moved })
    }
}

impl<S: Store> Controller<S> {
    /// Tells the leader whom to feed beside the voters, and where they are.
    pub(super) async fn feed(&mut self, feed: Feed<'_>, events: &mut Vec<Event>) {
        let Feed { nodes, seen, epoch, leader, ref learners, ref moved } = feed;
        let Some(node) = seen::ordinal_of(seen, leader).and_then(|ordinal| nodes.get(ordinal)) else { return };
        let cluster = self.recorded.cluster.or_else(|| seen.iter().flatten().find_map(|seen| seen.cluster));
        let request = v1::LearnersRequest {
            protocol_version: zue_proto::PROTOCOL_VERSION,
            cluster_id: seen::cluster_bytes(cluster),
            target: zue_proto::id_bytes(leader.0),
            epoch: epoch.0,
            learners: seen::members(learners, nodes, seen, &self.homes),
            moved_voters: seen::members(moved, nodes, seen, &self.homes),
        };
        let answer = match self.peers.client(node) {
            Ok(mut client) => peers::call(self.config.rpc_timeout, client.learners(request)).await,
            Err(why) => Err(why),
        };
        match answer {
            // It is given time to get through to them.
            Ok(_) if !moved.is_empty() => self.feeding.failed(self.config.election_retry),
            Ok(_) => self.feeding = Retry::default(),
            Err(why) => {
                self.feeding.failed(self.config.election_retry);
                events.push(Event::LearnersRefused { leader: node.name.clone(), why });
            }
        }
    }

    /// Takes note of what a change of voters came to. One that the answers did not bear out is tried again, after a pause that grows
    /// until a change succeeds, whatever else happens meanwhile: each try costs an epoch, and the learners their streams.
    pub(super) fn voters_changed(&mut self, attempt: &Attempt<'_>, choice: &Choice, events: &mut Vec<Event>) {
        let name = |id: ReplicaId| {
            let node = seen::ordinal_of(attempt.seen, id).and_then(|ordinal| attempt.nodes.get(ordinal));
            node.map_or_else(|| format!("replica {id}, which is at none of the nodes,"), |node| node.name.clone())
        };
        let (epoch, voters) = (attempt.epoch, choice.voters.len());
        let why =
            choice.unchanged.map_or_else(|| "too few answered".to_owned(), |why| attempt.with_names(&why.to_string()));
        let is_done = match attempt.change {
            Some(Change::Add(new)) => choice.voters.contains(&new),
            Some(Change::Remove(gone)) => !choice.voters.contains(&gone),
            None => choice.old_voters.is_none(),
        };
        events.push(match attempt.change {
            _ if !is_done => Event::VotersUnchanged { epoch, voters, why },
            Some(Change::Add(new)) => Event::VoterAdded { epoch, name: name(new), voters },
            Some(Change::Remove(gone)) => Event::VoterRemoved { epoch, name: name(gone), voters },
            None => Event::VotersSettled { epoch, voters },
        });
        if is_done {
            self.members = Retry::default();
        } else {
            self.members.failed(self.config.members_retry);
        }
    }
}

#[cfg(test)]
mod tests {
    use zue_core::{EpochStart, Offset, Tail};

    use super::*;

    fn node(ordinal: usize) -> NodeAddress {
        let name = format!("zue-{ordinal}");
        NodeAddress { peer_address: format!("{name}:1"), client_address: format!("{name}:2"), dial_address: None, name }
    }

    fn status(replica: u128) -> v1::StatusResponse {
        let start = EpochStart {
            epoch: Epoch(4),
            start: Offset(0),
            leader: ReplicaId(1),
            voters: [1, 2, 3].map(ReplicaId).to_vec(),
            quorum: 2,
            old_voters: None,
        };
        v1::StatusResponse {
            replica_id: zue_proto::id_bytes(replica),
            cluster_id: zue_proto::id_bytes(9),
            last_epoch_start: Some((&start).into()),
            durable: Some(Tail { epoch: Epoch(4), end: Offset(0) }.into()),
            ..v1::StatusResponse::default()
        }
    }

    /// Whom the leader, at the first node, is told of, and who learns: it looks for the voters at these nodes, and reaches those.
    fn told(looks: &[(u128, usize)], reaches: &[u128], silent: Option<usize>) -> Option<(Vec<u128>, Vec<u128>)> {
        let nodes = [0, 1, 2, 3].map(node);
        let member = |(id, ordinal): &(u128, usize)| v1::Member {
            replica_id: zue_proto::id_bytes(*id),
            name: node(*ordinal).name,
            peer_address: node(*ordinal).peer_address,
            client_address: String::new(),
        };
        let follower = |id: u128| v1::FollowerStatus {
            replica_id: zue_proto::id_bytes(id),
            connected: reaches.contains(&id),
            ..v1::FollowerStatus::default()
        };
        let mut leader = v1::StatusResponse {
            members: looks.iter().map(member).collect(),
            followers: [2, 3, 4].map(follower).to_vec(),
            ..status(1)
        };
        leader.set_role(v1::Role::Leader);
        let mut statuses = [Ok(leader), Ok(status(2)), Ok(status(3)), Ok(status(4))];
        if let Some(silent) = silent {
            statuses[silent] = Err("it is silent".to_owned());
        }
        let seen = seen::all(&mut statuses);
        let feed = Feed::of_misled(&nodes, &statuses, &seen)?;
        assert_eq!((feed.epoch, feed.leader), (Epoch(4), ReplicaId(1)));
        let numbers = |ids: Vec<ReplicaId>| ids.into_iter().map(|id| id.0).collect();
        Some((numbers(feed.moved), numbers(feed.learners)))
    }

    #[test]
    fn a_leader_is_told_where_the_voters_are_that_it_looks_for_elsewhere() {
        let swapped = [(1, 0), (2, 2), (3, 1)];
        assert_eq!(told(&swapped, &[4], None), Some((vec![2, 3], vec![4])));
        assert_eq!(told(&swapped, &[4], Some(1)), Some((vec![3], vec![4])));
        assert_eq!(told(&[(2, 1)], &[2, 4], None), Some((vec![3], vec![4])), "of one it knows no address");
        assert_eq!(told(&swapped, &[2, 3], None), None, "it reaches them");
        assert_eq!(told(&[(1, 0), (2, 1), (3, 2)], &[], None), None, "it knows");
        assert_eq!(told(&swapped, &[], Some(0)), None);
    }
}
