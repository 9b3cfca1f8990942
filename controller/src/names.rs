//! Events of the machine, with the names of the nodes in place of ordinals and ids.

use std::time::Duration;

use zue_core::ReplicaId;
use zue_core::control::machine::{self, Failure, Who};
use zue_proto::v1;

use super::{Event, NodeAddress};

/// The replicas and their nodes, as last seen.
pub(super) struct Names<'a> {
    pub(super) nodes: &'a [NodeAddress],
    pub(super) statuses: &'a [Result<v1::StatusResponse, String>],
}

impl Names<'_> {
    fn at(&self, ordinal: usize) -> String {
        self.nodes.get(ordinal).map_or_else(|| format!("node {ordinal}"), |node| node.name.clone())
    }

    fn of(&self, who: Who) -> String {
        let elsewhere = || format!("replica {}, which is at none of the nodes,", who.replica);
        who.ordinal.map_or_else(elsewhere, |ordinal| self.at(ordinal))
    }

    /// A text that names nodes instead of replicas.
    fn within(&self, text: &str) -> String {
        let named = self.nodes.iter().zip(self.statuses);
        let id = |status: &v1::StatusResponse| zue_proto::replica_id("replica_id", &status.replica_id).ok();
        let known = named.filter_map(|(node, status)| Some((id(status.as_ref().ok()?)?, &node.name)));
        known.fold(text.to_owned(), |text, (id, name): (ReplicaId, _)| text.replace(&format!("replica {id}"), name))
    }

    fn why(&self, why: &Failure) -> String {
        match why {
            Failure::Store(why) => format!("it could not be written down: {why}"),
            Failure::Conflict => "another controller wrote meanwhile".to_owned(),
            Failure::NoEpochLeft(epoch) => {
                format!(
                    "no epoch is left beside {epoch}, which is written down: the replicas have promised the last ones"
                )
            }
            Failure::NoChoice { choice, refusals } => {
                let refusals = refusals.iter().map(|(ordinal, why)| format!("; {}: {why}", self.at(*ordinal)));
                format!("{choice}{}", refusals.collect::<String>())
            }
            Failure::DataGone(cluster) => {
                format!("cluster {cluster} is recorded, but every replica that answers is blank")
            }
            Failure::NotAppointed { leader, why } => format!("{} cannot be appointed: {why}", self.of(*leader)),
        }
    }

    pub(super) fn event(&self, event: machine::Event) -> Event {
        use machine::Event as MachineEvent;
        match event {
            MachineEvent::Bootstrapped { cluster, epoch } => Event::Bootstrapped { cluster, epoch },
            MachineEvent::LeaderElected { epoch, leader, reason } => {
                Event::LeaderElected { epoch, leader: self.of(leader), reason }
            }
            MachineEvent::ElectionFailed { epoch, why } => Event::ElectionFailed { epoch, why: self.why(&why) },
            MachineEvent::HandedOver { from, to, epoch, took_ms } => {
                Event::HandedOver { from: self.of(from), to: self.of(to), epoch, took: Duration::from_millis(took_ms) }
            }
            MachineEvent::HandOverFailed { from, to, why } => {
                let why = why.unwrap_or_else(|| "it was not elected".to_owned());
                Event::HandOverFailed { from: self.of(from), to: self.of(to), why }
            }
            MachineEvent::VoterAdded { epoch, voter, voters } => {
                Event::VoterAdded { epoch, name: self.of(voter), voters }
            }
            MachineEvent::VoterRemoved { epoch, voter, voters } => {
                Event::VoterRemoved { epoch, name: self.of(voter), voters }
            }
            MachineEvent::VotersSettled { epoch, voters } => Event::VotersSettled { epoch, voters },
            MachineEvent::VotersUnchanged { epoch, voters, why } => {
                let why = why.map_or_else(|| "too few answered".to_owned(), |why| self.within(&why.to_string()));
                Event::VotersUnchanged { epoch, voters, why }
            }
            MachineEvent::LearnersRefused { leader, why } => Event::LearnersRefused { leader: self.of(leader), why },
            MachineEvent::Contested { epoch } => Event::Contested { epoch },
            MachineEvent::TermsContested { epoch } => Event::TermsContested { epoch },
            MachineEvent::Blocked(blocked) => Event::Blocked(blocked),
            MachineEvent::StoreFailed { why } => Event::StoreFailed { why },
        }
    }
}
