//! Controllers begin, take their steps, and die.

use std::rc::Rc;

use zue_core::control::machine::{
    Action, Answer as MachineAnswer, Backoff, Call as MachineCall, Event as MachineEvent, Failure, Input, Machine,
    NodeReport, Patience, Placed, StandbyTimes, StorePatience,
};
use zue_core::control::{ReplicaRole, ReplicaStatus, Step, Wish};
use zue_core::{Epoch, Millis, ReplicaId, Reply};
use zue_engine::standby::{self};

use super::{Appointed, Controller};
use crate::actors::mistakes::{PerhapsBroken, Whim};
use crate::actors::status::{StoreAnswer, StoreCall};
use crate::breaks::Break;
use crate::coverage::Fault;
use crate::event::Event;
use crate::message::{Address, Answer, Call, Caller, Message};
use crate::world::World;

impl World {
    pub(crate) fn new_controller(&mut self, home: Option<usize>) -> Controller {
        let whim = Rc::default();
        let rules = PerhapsBroken { rule: self.broken, whim: Rc::clone(&whim) };
        let (patience, seed) = (self.patience(), self.dice.bits());
        let duty = home.and_then(|home| self.duty(home));
        let machine = match &duty {
            None => Machine::new(rules, patience, seed),
            Some((standby, own)) => {
                let times = StandbyTimes { after_ms: standby.terms.after_ms, ..self.params.control.standby };
                Machine::standing_by(rules, patience, seed, *own, times)
            }
        };
        if let (Some(home), Some((standby, _))) = (home, &duty) {
            let id = self.machine(home).storage.id();
            self.check.is_told(id, standby);
        }
        Controller {
            machine,
            home,
            duty,
            life: self.next_id(),
            timer: 0,
            seen: vec![None; self.machines.len()],
            // Those of another mind begin clusters whatever the store says.
            careless: self.params.control.disagree.is_some() && self.dice.chance(0.5),
            whim,
            appointed: None,
            told: Step::Nothing,
            held: None,
        }
    }

    fn patience(&mut self) -> Patience {
        let c = &self.params.control;
        let soon = Backoff { min_ms: 20, max_ms: 2560 };
        let (low, high) = c.turn_ms;
        let (call_ms, seal_grace_ms, handover_deadline_ms) = (c.call_timeout_ms, c.seal_grace_ms, c.hand_over_ms);
        let appoint = Backoff { min_ms: call_ms, max_ms: 4 * call_ms };
        Patience {
            look_ms: self.dice.between((low, high)),
            call_ms,
            look_grace_ms: call_ms / 4,
            seal_ms: call_ms,
            seal_grace_ms,
            appoint,
            store: StorePatience { answer_ms: call_ms, failover_ms: call_ms / 2, retry: soon },
            handover_deadline_ms,
            election_retry: soon,
            members_retry: soon,
            handover_retry: soon,
            contested_retry: soon,
        }
    }

    pub(crate) fn wake_controller(&mut self, controller: usize) {
        // Once nothing goes wrong any more, a Lease lets one of them act: several at once are safe, and outbid each other.
        let is_other = self.controllers.get(controller).is_some_and(|at| at.home.is_none()) && controller > 0;
        if self.healed && is_other {
            return;
        }
        let now = self.now;
        let timer = self.next_id();
        let Some(at) = self.controllers.get_mut(controller) else { return };
        at.timer = timer;
        if at.home.is_some() && at.duty.is_none() {
            return; // It has nothing to do.
        }
        if let Some(Millis(due)) = at.machine.deadline() {
            self.at(due.max(now + 1), Event::Controller { controller, timer });
        }
    }

    /// The controller begins again from nothing.
    pub(crate) fn replace_controller(&mut self, controller: usize) {
        let Some(home) = self.controllers.get(controller).map(|at| at.home) else { return };
        let new = self.new_controller(home);
        if let Some(at) = self.controllers.get_mut(controller) {
            let held = at.held.take();
            *at = Controller { held, ..new };
        }
        self.wake_controller(controller);
    }

    /// The nodes stand by, each in its process, in some runs.
    pub(crate) fn restart_standby(&mut self, machine: usize) {
        let found = self.controllers.iter().position(|at| at.home == Some(machine));
        if let Some(controller) = found {
            self.replace_controller(controller);
        }
    }

    fn is_up(&self, controller: usize) -> bool {
        let home = self.controllers.get(controller).and_then(|at| at.home);
        home.is_none_or(|home| self.machines.get(home).is_some_and(|at| at.process.is_some()))
    }

    pub(crate) fn controller_timer(&mut self, controller: usize, timer: u64) {
        let Some(at) = self.controllers.get(controller).filter(|at| at.timer == timer) else { return };
        let home = at.home;
        let is_gone =
            self.params.control.stands_by && self.params.control.gone_after_ms.is_some_and(|at| self.now > at);
        if !self.is_up(controller) || is_gone && home.is_none() && !self.healed {
            return; // A new process has a new one; and so has who puts all right.
        }
        if let Some(home) = home.filter(|_| at.machine.is_at_rest())
            && self.duty(home) != at.duty
        {
            return self.replace_controller(controller); // It has a leader, or is to stand by otherwise.
        }
        if at.machine.is_at_rest() && home.is_none() && self.dice.chance(self.params.control.whim) {
            self.counts.faults.count(Fault::ControllerRogue);
            let machines = self.machines.len();
            let whim = Whim {
                epoch: self.dice.between((0, 3)),
                prefer: self.dice.index(machines),
                changed: self.dice.index(machines),
                change: self.dice.index(3),
            };
            let careless = self.dice.chance(0.75);
            if let Some(at) = self.controllers.get_mut(controller) {
                at.whim.set(Some(whim));
                at.careless = careless;
            }
        }
        let (wish, nodes) = self.wish_of(controller);
        if let Some(at) = self.controllers.get_mut(controller) {
            at.machine.wish(wish, nodes);
        }
        self.step_controller(controller, Input::Tick);
    }

    fn step_controller(&mut self, controller: usize, input: Input) {
        let now = Millis(self.now);
        let mut actions = Vec::new();
        let Some(at) = self.controllers.get_mut(controller) else { return };
        at.machine.step(now, input, &mut actions);
        self.perform(controller, actions);
    }

    fn perform(&mut self, controller: usize, actions: Vec<Action>) {
        let acts = actions.iter().any(|action| matches!(action, Action::Swap { .. } | Action::Call { .. }));
        if acts && self.dice.chance(self.params.control.stop) {
            self.counts.faults.count(Fault::ControllerStopped);
            return self.replace_controller(controller);
        }
        self.tell_plan(controller);
        for action in actions {
            self.act(controller, action);
        }
        self.wake_controller(controller);
    }

    fn tell_plan(&mut self, controller: usize) {
        let now = self.now;
        let Some(at) = self.controllers.get_mut(controller) else { return };
        if *at.machine.planned() != at.told {
            at.told = at.machine.planned().clone();
            let told = at.told.clone();
            self.trace.say(now, format_args!("controller {controller} plans {told:?}"));
        }
    }

    fn act(&mut self, controller: usize, action: Action) {
        let Some(life) = self.controllers.get(controller).map(|at| at.life) else { return };
        match action {
            Action::Look { look, .. } => {
                if let Some(at) = self.controllers.get_mut(controller) {
                    at.seen.fill(None);
                }
                for ordinal in 0..self.wish_of(controller).1 {
                    self.ask(controller, (look, true), ordinal, None, Call::Status);
                }
            }
            Action::Load { op } => self.call_store(controller, (life, op), StoreCall::Load),
            Action::Swap { op, from, to } => self.call_store(controller, (life, op), StoreCall::Swap { from, to }),
            Action::Call { attempt, ordinal, target, call, .. } => {
                let placed = |world: &Self, places| world.controllers.get(controller).map(|at| at.machines_of(places));
                let call = match call {
                    MachineCall::Seal { cluster, epoch } => Call::Seal { cluster, epoch },
                    MachineCall::Appoint { cluster, terms, places, reason: _ } => {
                        self.check_electorate(&terms.voters);
                        if let Some(at) = self.controllers.get_mut(controller) {
                            let sealed = at.seen.iter().enumerate();
                            let others = sealed.filter_map(|(n, seen)| Some((n, seen.as_ref()?.replica)));
                            let others = others.filter(|(_, id)| *id != target && terms.voters.contains(id));
                            let others = others.collect();
                            at.appointed = Some(Appointed { cluster, terms: terms.clone(), others });
                        }
                        Call::Appoint { cluster, terms, places: placed(self, places).unwrap_or_default() }
                    }
                    MachineCall::Learners { epoch, learners, places, standby, .. } => {
                        Call::Learners { epoch, learners, places, standby }
                    }
                    MachineCall::HandOver { epoch, to, deadline_ms, .. } => Call::HandOver { epoch, to, deadline_ms },
                };
                self.ask(controller, (attempt, false), ordinal, Some(target), call);
            }
            Action::Tell(event) => self.happened(controller, &event),
        }
    }

    fn happened(&mut self, controller: usize, event: &MachineEvent) {
        self.trace.say(self.now, format_args!("controller {controller}: {event:?}"));
        let home = self.controllers.get(controller).and_then(|at| at.home);
        match event {
            MachineEvent::LeaderElected { .. } if home.is_some() => self.counts.done.by_standbys += 1,
            MachineEvent::ElectionFailed { why: Failure::NotAppointed { .. }, .. }
                if self.broken_by(Break::TwoCandidates) =>
            {
                let Some(at) = self.controllers.get_mut(controller) else { return };
                let Some(Appointed { cluster, terms, others }) = at.appointed.take() else { return };
                if let Some((ordinal, other)) = others.first().copied() {
                    let places = terms.voters.iter().map(|id| (*id, None)).collect();
                    self.ask(controller, (0, false), ordinal, Some(other), Call::Appoint { cluster, terms, places });
                }
            }
            _ => {}
        }
    }

    fn ask(
        &mut self,
        controller: usize,
        (number, looks): (u64, bool),
        ordinal: usize,
        target: Option<ReplicaId>,
        call: Call,
    ) {
        let Some(at) = self.controllers.get(controller) else { return };
        let (life, address) = (at.life, at.address(controller));
        let Some(machine) = at.machine_of(ordinal) else { return };
        let caller = Caller::Controller { controller, address, life, number, looks, ordinal };
        self.send(address, Address::Machine(machine), Message::Call { caller, target, call });
    }

    pub(crate) fn store_answer(&mut self, controller: usize, (life, op): (u64, u64), answer: StoreAnswer) {
        let Some(at) = self.controllers.get(controller).filter(|at| at.life == life) else { return };
        let careless = at.careless;
        let input = match answer {
            StoreAnswer::Loaded(recorded) => Input::Loaded { op, result: Ok(recorded) },
            StoreAnswer::Swapped(done) => Input::Swapped { op, result: Ok(done || careless) },
            StoreAnswer::Refused => Input::Swapped { op, result: Err("refused".to_owned()) },
        };
        self.step_controller(controller, input);
    }

    pub(crate) fn controller_answer(&mut self, caller: Caller, answer: Answer) {
        let Caller::Controller { controller, life, number, looks, ordinal, .. } = caller else { return };
        if self.controllers.get(controller).is_none_or(|at| at.life != life) || !self.is_up(controller) {
            return;
        }
        let input = if looks {
            let told = match answer {
                Answer::Status(status) => {
                    let duty = self.controllers.get(controller).and_then(|at| at.duty.as_ref());
                    Some(match duty {
                        Some((standby, _)) => Box::new(standby.known_of(*status)),
                        None => status,
                    })
                }
                _ => None,
            };
            if let Some(at) = self.controllers.get_mut(controller)
                && let Some(place) = at.seen.get_mut(ordinal)
            {
                *place = told.as_ref().map(|told| told.seen.clone());
            }
            Input::Status { look: number, ordinal, told }
        } else {
            let answer = match answer {
                Answer::Reply(Reply::Sealed(mut sealed)) => {
                    sealed.cluster = sealed.cluster.filter(|_| sealed.durable.epoch > Epoch(0));
                    MachineAnswer::Sealed(Box::new(sealed))
                }
                Answer::Reply(Reply::Appointed(_)) => MachineAnswer::Appointed,
                Answer::Reply(Reply::Learners(_)) => MachineAnswer::Fed,
                Answer::Reply(Reply::HandedOver(_)) => MachineAnswer::HandedOver,
                answer => MachineAnswer::Failed(format!("{answer:?}")),
            };
            Input::Answer { attempt: number, ordinal, answer }
        };
        self.step_controller(controller, input);
    }

    /// The wish of a controller, and the number of nodes that it knows: those behind the first may be of another mind.
    fn wish_of(&self, controller: usize) -> (Wish, usize) {
        if let Some((standby, _)) = self.controllers.get(controller).and_then(|at| at.duty.as_ref()) {
            return (standby::wish(standby.as_ref()), standby.terms.members.len());
        }
        let control = &self.params.control;
        let standby_after_ms = control.stands_by.then_some(control.standby.after_ms);
        let replicas = control.disagree.filter(|_| controller > 0).unwrap_or(self.params.wish.replicas);
        (Wish { replicas, standby_after_ms, ..self.params.wish.clone() }, self.machines.len())
    }

    /// The report of a node to a controller beside its own state: where it was told that the voters are, and whom it does not reach.
    pub(crate) fn told(&self, machine: usize, seen: ReplicaStatus) -> NodeReport {
        let process = self.machines.get(machine).and_then(|at| at.process.as_ref());
        let known = process.and_then(|process| process.standing.known());
        let (standby, standby_epoch) =
            (known.map(|known| known.terms.clone()), known.map_or(Epoch(0), |known| known.epoch));
        let leads = matches!(seen.role, ReplicaRole::Leader { .. });
        let members = process.filter(|_| leads).into_iter().flat_map(|process| &process.members);
        let placed =
            |(id, at): (&ReplicaId, &Option<usize>)| Some(Placed { replica: *id, ordinal: (*at)?, is_reachable: true });
        let members = members.filter_map(placed).collect();
        let feeds = process.filter(|_| leads).into_iter().flat_map(|process| &process.feeds);
        let unreached = feeds.filter(|(_, feed)| feed.sender.is_none()).map(|(id, _)| *id).collect();
        let can_stand_by = true;
        // Who elected a leader is not kept: the pauses for which it matters are short here.
        let by_standby = false;
        NodeReport { seen, members, unreached, can_stand_by, standby, standby_epoch, by_standby }
    }
}
