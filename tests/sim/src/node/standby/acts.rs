//! A node is told by what to stand by, and acts on it.

use std::sync::Arc;

use zue_core::control::machine::{Placed, StandbyTerms};
use zue_core::{Epoch, Input, Refusal, Replica, ReplicaId, Reply, RequestId, Session};
use zue_engine::driver::Action;
use zue_engine::standby::{Duty, StandbyState, are_voters};

use super::Standby;
use crate::breaks::Break;
use crate::event::ProcessEvent;
use crate::message::{Answer, Call, Caller};
use crate::node::process::{Waiting, WaitingFor};
use crate::world::World;

impl World {
    /// The duty of the machine's node.
    pub(crate) fn duty(&self, machine: usize) -> Option<Duty<Standby>> {
        let process = self.machines.get(machine)?.process.as_ref()?;
        process.standing.duty(process.replica().id())
    }

    /// The standby knowledge of a node that starts.
    pub(crate) fn standing_of(&mut self, machine: usize) -> StandbyState<Standby> {
        let kept = self.machine(machine).storage.standby.clone();
        StandbyState::new(if self.broken_by(Break::StandbyUntold) { Some(self.untold()) } else { kept })
    }

    /// Breaks a rule: what nobody has told.
    fn untold(&self) -> Arc<Standby> {
        let wish = &self.params.wish;
        let member = |(ordinal, at): (usize, &crate::world::Machine)| Placed {
            replica: at.storage.id(),
            ordinal,
            is_reachable: true,
        };
        let members = self.machines.iter().enumerate().map(member).collect();
        let (policy, preferred, detection_ms) = (wish.policy, wish.ordinal, wish.detection_ms);
        let terms = StandbyTerms { policy, preferred, detection_ms, after_ms: 0, members };
        Arc::new(Standby { terms, epoch: Epoch(0) })
    }

    /// Something is told, or looked at. What that changes is kept, and acted on.
    fn stand(&mut self, machine: usize, change: impl FnOnce(&mut StandbyState<Standby>, &Replica)) {
        let Some(process) = self.machines.get_mut(machine).and_then(|at| at.process.as_mut()) else { return };
        let before = process.standing.known().cloned();
        change(&mut process.standing, process.driver.replica());
        if let Some(known) = process.standing.known().filter(|known| before.as_ref() != Some(*known)) {
            let (id, life, known) = (process.replica().id(), process.life, Arc::clone(known));
            self.trace.say(self.now, format_args!("{machine} stands by as told in {}: {:?}", known.epoch, known.terms));
            self.check.stands_by(id, life, &known);
            let (write_ms, sync_ms) = (self.params.disk.write_ms, self.params.disk.sync_ms);
            self.after_of(machine, (write_ms.0 + sync_ms.0, write_ms.1 + sync_ms.1), ProcessEvent::Keep);
            self.pump(machine);
        }
        self.act_on_duty(machine);
    }

    /// By what it stands by is on the disk.
    pub(crate) fn keep_standby(&mut self, machine: usize) {
        let at = self.machine(machine);
        at.storage.standby = at.process.as_ref().and_then(|process| process.standing.known().cloned());
    }

    fn act_on_duty(&mut self, machine: usize) {
        let idle = self.controllers.iter().position(|at| at.home == Some(machine) && at.duty.is_none());
        if let Some(controller) = idle.filter(|_| self.duty(machine).is_some()) {
            self.replace_controller(controller);
        }
    }

    pub(crate) fn look_for_leader(&mut self, machine: usize) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        let open = process.followed.filter(|session| process.inbound.contains_key(session));
        self.stand(machine, |standing, replica| {
            standing.look(replica, &replica.role(now), |session| open == Some(session), false);
        });
    }

    /// A leader tells by what to stand by.
    pub(crate) fn hear_standby(&mut self, machine: usize, session: Session, standby: Standby) {
        // Of a stream that was refused it is nobody's word.
        if let Some(process) = self.process(machine).filter(|process| process.followed == Some(session)) {
            process.standing.hear(session, standby);
        }
    }

    pub(crate) fn take_learners(&mut self, machine: usize, caller: Caller, call: Call) {
        let Call::Learners { epoch, learners, places, standby } = call else { return };
        self.learn_places(machine, epoch, places);
        let standby = standby.map(|terms| Standby { terms, epoch });
        let Some(process) = self.process(machine) else { return };
        let request = process.driver.ask(Waiting { caller, of: WaitingFor::Other });
        if !self.learn(machine, request, (epoch, learners), standby) {
            let refused = Reply::Refused(Refusal::Impossible("those are not the voters"));
            self.answer(machine, caller, Answer::Reply(refused));
        }
    }

    /// A leader is told whom to feed, and by what to stand by. Not so if those are not the voters.
    pub(crate) fn learn(
        &mut self,
        machine: usize,
        request: RequestId,
        (epoch, learners): (Epoch, Vec<ReplicaId>),
        standby: Option<Standby>,
    ) -> bool {
        let others = self.broken_by(Break::StandbyOfOthers);
        let Some(process) = self.process(machine) else { return true };
        let are_they = |standby: &Standby| others || are_voters(process.replica(), epoch, standby);
        if !standby.as_ref().is_none_or(are_they) {
            return false;
        }
        let mut taken = false;
        self.drive(machine, |driver, now, actions| {
            driver.step(now, Input::Learners { request, epoch, learners }, actions);
            taken = actions.iter().any(|action| matches!(action, Action::Lead(..)));
        });
        if let Some(standby) = standby.filter(|_| taken) {
            self.check.told_to_stand_by(&standby);
            self.stand(machine, |standing, replica| standing.tell(replica, epoch, standby));
        }
        true
    }

    /// A stranger says on its stream that it alone is to stand by. The node looks at once.
    pub(crate) fn hear_stranger(&mut self, machine: usize, session: Session, standby: Standby) {
        let (now, is_believed) = (self.clock(machine), self.broken_by(Break::StandbyBelieved));
        self.stand(machine, |standing, replica| {
            if is_believed {
                standing.tell(replica, standby.epoch, standby.clone());
            }
            standing.hear(session, standby);
            standing.look(replica, &replica.role(now), |open| open == session, false);
        });
    }

    /// Returns whether all voters stand by as their leader does, and it by who votes; and whether that is on their disks.
    pub(crate) fn are_told(&self, voters: &[ReplicaId], leader: usize) -> bool {
        let standing = |machine: usize| {
            let at = self.machines.get(machine)?;
            let known = at.process.as_ref()?.standing.known()?;
            (at.storage.standby.as_ref() == Some(known)).then_some(&known.terms)
        };
        let Some(terms) = standing(leader) else { return false };
        let are_they =
            terms.members.len() == voters.len() && terms.members.iter().all(|member| voters.contains(&member.replica));
        let mut nodes = (0..self.machines.len())
            .filter(|n| self.machines.get(*n).is_some_and(|at| voters.contains(&at.storage.id())));
        are_they && nodes.all(|machine| standing(machine) == Some(terms))
    }
}
