//! Standing by, as nodes do it: by what their leader or a controller has told them, kept on the disk a little later, and by nothing
//! else. Who stands by knows no nodes but those.

mod acts;

use zue_core::control::Policy;
use zue_core::control::machine::{NodeReport, Placed, StandbyTerms};
use zue_core::{Epoch, ReplicaId};

/// By what a node stands by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standby {
    /// The members are at machines.
    pub(crate) terms: StandbyTerms,
    pub(crate) epoch: Epoch,
}

impl zue_engine::standby::Standby for Standby {
    fn policy(&self) -> Policy {
        self.terms.policy
    }

    fn preferred(&self) -> usize {
        self.terms.preferred
    }

    fn detection_ms(&self) -> u64 {
        self.terms.detection_ms
    }

    fn members(&self) -> impl Iterator<Item = ReplicaId> {
        self.terms.members.iter().map(|member| member.replica)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn told_in(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }
}

impl Standby {
    /// Of one alone, who may be nobody.
    pub(crate) fn alone(replica: ReplicaId, epoch: Epoch) -> Self {
        let members = vec![Placed { replica, ordinal: 0, is_reachable: true }];
        let (policy, preferred, detection_ms, after_ms) = (Policy::Automatic, 0, 1, 1);
        Self { terms: StandbyTerms { policy, preferred, detection_ms, after_ms, members }, epoch }
    }

    /// The machine of a member.
    pub(crate) fn machine(&self, place: usize) -> Option<usize> {
        self.terms.members.get(place).map(|member| member.ordinal)
    }

    /// The status of a node, of those nodes alone that are known here, by their places.
    pub(crate) fn known_of(&self, mut told: NodeReport) -> NodeReport {
        let place = |placed: &mut Placed| {
            let found = self.terms.members.iter().position(|member| member.ordinal == placed.ordinal);
            placed.ordinal = found.unwrap_or_default();
            found.is_some()
        };
        told.members.retain_mut(place);
        if let Some(terms) = &mut told.standby {
            terms.members.retain_mut(place);
        }
        told
    }
}
