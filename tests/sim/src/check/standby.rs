//! By what nodes stand by: as a controller has told some leader, of the voters of its epoch, and nothing older than was known.

use zue_core::ReplicaId;
use zue_engine::standby::Standby as _;

use super::Checker;
use crate::node::standby::Standby;

impl Checker {
    /// A controller has told a leader.
    pub(crate) fn told_to_stand_by(&mut self, standby: &Standby) {
        if !self.standby.terms.contains(standby) {
            self.standby.terms.push(standby.clone());
        }
    }

    /// A node stands by as it was told just now.
    pub(crate) fn stands_by(&mut self, id: ReplicaId, life: u64, standby: &Standby) {
        let epoch = standby.epoch;
        let before =
            self.standby.stood_by.insert(id, (life, epoch)).filter(|(of, _)| *of == life).map(|(_, before)| before);
        self.ensure(before <= Some(epoch), || format!("{id:?} stood by as told in {before:?}, and now as in {epoch}"));
        self.is_told(id, standby);
        let voters = self.epochs.begun.get(&epoch).map(|start| start.voters.clone()).unwrap_or_default();
        let are_they = standby.members().count() == voters.len() && standby.members().all(|id| voters.contains(&id));
        self.ensure(are_they, || format!("{id:?} stands by among others than the voters of epoch {epoch}: {voters:?}"));
    }

    /// A node may act by this.
    pub(crate) fn is_told(&mut self, id: ReplicaId, standby: &Standby) {
        let is_told = self.standby.terms.contains(standby);
        self.ensure(is_told, || format!("{id:?} stands by as nobody has told: {standby:?}"));
    }
}
