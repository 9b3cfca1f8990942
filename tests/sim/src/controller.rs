//! Controllers: they remember nothing between turns, work side by side and stop anywhere. What to do is decided by the real
//! `plan` and `choose`; the order of an attempt (reserve, seal, choose, appoint) is that of the client's controller.

use zue_core::control::{Reason, Recorded, Seen, Step, Wish, plan};
use zue_core::election::{Change, Choice, First, Sealed, choose};
use zue_core::{ClusterId, Epoch, ReplicaId, Reply, Terms};

use crate::breaks::Break;
use crate::coverage::Fault;
use crate::message::{Address, Answer, Call, Caller, Message};
use crate::status::{StoreAnswer, StoreCall};
use crate::world::{Event, World};

#[derive(Debug, Default)]
pub(crate) struct Controller {
    /// What answers and timers must name to be heard.
    phase: u64,
    state: State,
    /// The plan that the trace told last.
    told: Option<Step>,
    /// Elections that failed in a row: the pause after them grows, so that controllers don't outbid each other for ever.
    failed: u32,
    /// What happens to it, in order, once it is no longer paused.
    pub(crate) held: Option<Vec<Event>>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    Looking {
        seen: Vec<Option<Seen>>,
        missing: usize,
        recorded: Option<Recorded>,
    },
    HandingOver(Attempt),
    Reserving(Attempt),
    Sealing {
        attempt: Attempt,
        answers: Vec<(usize, Sealed)>,
        missing: usize,
        grace: bool,
    },
    /// Waiting for the leader to take its appointment, or its learners.
    Asking,
}

/// One attempt at an epoch.
#[derive(Clone, Debug)]
struct Attempt {
    seen: Vec<Option<Seen>>,
    recorded: Recorded,
    epoch: Epoch,
    prefer: Option<ReplicaId>,
    without: Option<ReplicaId>,
    change: Option<Change>,
    /// How many replicas are wished for.
    replicas: usize,
    reason: Reason,
    /// It goes on whatever the store says: no mistake of a controller may do harm.
    careless: bool,
}

impl Attempt {
    fn cluster(&self) -> Option<ClusterId> {
        self.recorded.cluster.or_else(|| self.seen.iter().flatten().find_map(|seen| seen.cluster))
    }

    /// Who is at the first machines, so many of them.
    fn at_first(&self, machines: usize) -> Vec<ReplicaId> {
        self.seen.iter().take(machines).flatten().map(|seen| seen.replica).collect()
    }
}

fn next_epoch(recorded: &Recorded, seen: &[Option<Seen>]) -> Epoch {
    let known = seen.iter().flatten().map(|seen| seen.promised).max().unwrap_or_default();
    Epoch(known.max(recorded.epoch).0 + 1)
}

impl World {
    pub(crate) fn wake_controller(&mut self, controller: usize) {
        let failed = self.controllers.get(controller).map_or(0, |at| at.failed);
        let phase = self.enter(controller, State::Waiting);
        // Once nothing goes wrong any more, a Lease lets one of them act: several at once are safe, and outbid each other.
        if self.healed && controller > 0 {
            return;
        }
        let (low, high) = self.params.control.turn_ms;
        self.after((low, high + (20 << failed.min(7)) - 20), Event::Controller { controller, phase });
    }

    fn set_failed(&mut self, controller: usize, failed: impl FnOnce(u32) -> u32) {
        if let Some(at) = self.controllers.get_mut(controller) {
            at.failed = failed(at.failed);
        }
    }

    /// Whether the controller stops here: the next one begins from nothing.
    fn stops(&mut self) -> bool {
        let stops = self.dice.chance(self.params.control.stop);
        if stops {
            self.counts.faults.count(Fault::ControllerStopped);
        }
        stops
    }

    fn enter(&mut self, controller: usize, state: State) -> u64 {
        let phase = self.next_id();
        if let Some(at) = self.controllers.get_mut(controller) {
            (at.phase, at.state) = (phase, state);
        }
        phase
    }

    /// Enters a state that ends by itself after a time.
    fn enter_for(&mut self, controller: usize, state: State, ms: u64) -> u64 {
        let phase = self.enter(controller, state);
        let at = self.now + ms;
        self.at(at, Event::Controller { controller, phase });
        phase
    }

    /// Done for this turn.
    fn end_turn(&mut self, controller: usize) {
        self.set_failed(controller, |_| 0);
        self.wake_controller(controller);
    }

    /// Nothing came of it: the next turn begins from nothing, later and later.
    fn give_up(&mut self, controller: usize) {
        self.set_failed(controller, |failed| failed + 1);
        self.wake_controller(controller);
    }

    fn ask(&mut self, controller: usize, phase: u64, ordinal: usize, target: Option<ReplicaId>, call: Call) {
        let caller = Caller::Controller { controller, phase, ordinal };
        let message = Message::Call { caller, target, call };
        self.send(Address::Controller(controller), Address::Machine(ordinal), message);
    }

    pub(crate) fn controller_timer(&mut self, controller: usize, phase: u64) {
        let Some(at) = self.controllers.get_mut(controller).filter(|at| at.phase == phase) else { return };
        match std::mem::take(&mut at.state) {
            State::Waiting => self.look(controller),
            State::Looking { seen, recorded: Some(recorded), .. } => self.decide(controller, seen, recorded),
            State::Sealing { attempt, answers, .. } => self.choose(controller, &attempt, &answers),
            _ => self.give_up(controller),
        }
    }

    fn look(&mut self, controller: usize) {
        let machines = self.machines.len();
        let looking = State::Looking { seen: vec![None; machines], missing: machines + 1, recorded: None };
        let phase = self.enter_for(controller, looking, self.params.control.call_timeout_ms);
        self.call_store(controller, phase, StoreCall::Load);
        for ordinal in 0..machines {
            self.ask(controller, phase, ordinal, None, Call::Status);
        }
    }

    pub(crate) fn store_answer(&mut self, controller: usize, phase: u64, answer: StoreAnswer) {
        let Some(at) = self.controllers.get_mut(controller).filter(|at| at.phase == phase) else { return };
        match (std::mem::take(&mut at.state), answer) {
            (State::Looking { seen, missing, .. }, StoreAnswer::Loaded(recorded)) => {
                at.state = State::Looking { seen, missing: missing.saturating_sub(1), recorded: Some(recorded) };
                self.looked(controller, phase);
            }
            (State::Reserving(attempt), StoreAnswer::Swapped(done)) if done || attempt.careless => {
                self.seal(controller, attempt);
            }
            _ => self.give_up(controller),
        }
    }

    pub(crate) fn controller_answer(&mut self, controller: usize, caller: Caller, answer: Answer) {
        let Caller::Controller { phase, ordinal, .. } = caller else { return };
        let Some(at) = self.controllers.get_mut(controller).filter(|at| at.phase == phase) else { return };
        match &mut at.state {
            State::Looking { seen, missing, .. } => {
                *missing = missing.saturating_sub(1);
                if let (Answer::Status(status), Some(place)) = (answer, seen.get_mut(ordinal)) {
                    *place = Some(status);
                }
                self.looked(controller, phase);
            }
            State::Sealing { answers, missing, .. } => {
                *missing = missing.saturating_sub(1);
                if let Answer::Reply(Reply::Sealed(sealed)) = answer
                    && !answers.iter().any(|(at, _)| *at == ordinal)
                {
                    answers.push((ordinal, sealed));
                }
                self.sealed_one(controller, phase);
            }
            State::HandingOver(attempt) => {
                let attempt = attempt.clone();
                match answer {
                    Answer::Reply(Reply::HandedOver(_)) => self.reserve(controller, attempt),
                    _ => self.give_up(controller),
                }
            }
            State::Asking => match answer {
                Answer::Reply(Reply::Appointed(_) | Reply::Learners(_)) => self.end_turn(controller),
                _ => self.give_up(controller),
            },
            State::Waiting | State::Reserving(_) => {}
        }
    }

    fn looked(&mut self, controller: usize, phase: u64) {
        let Some(at) = self.controllers.get(controller) else { return };
        if matches!(&at.state, State::Looking { missing: 0, .. }) {
            self.controller_timer(controller, phase);
        }
    }

    fn decide(&mut self, controller: usize, seen: Vec<Option<Seen>>, recorded: Recorded) {
        if self.stops() {
            return self.end_turn(controller);
        }
        let held = |seen: &Seen| seen.cluster.filter(|_| seen.last.is_some());
        let found = seen.iter().flatten().find_map(held);
        if let (None, Some(cluster)) = (recorded.cluster, found) {
            // Written down before anything else is done; the next turn goes on.
            let to = Recorded { cluster: Some(cluster), ..recorded.clone() };
            let phase = self.enter_for(controller, State::Waiting, self.params.control.call_timeout_ms);
            return self.call_store(controller, phase, StoreCall::Swap { from: recorded, to });
        }
        if self.dice.chance(self.params.control.whim) {
            return self.elect_on_a_whim(controller, seen, recorded);
        }
        let wish = self.wish_of(controller);
        let (mut step, replicas) = (plan(&wish, &recorded, &seen), wish.replicas);
        if let (Step::Elect { epoch, .. } | Step::HandOver { next: epoch, .. }, true) =
            (&mut step, self.broken_by(Break::EpochsNotClimbed))
        {
            *epoch = next_epoch(&recorded, &seen);
        }
        let told = self.controllers.get_mut(controller).and_then(|at| at.told.replace(step.clone()));
        if told.as_ref() != Some(&step) {
            self.trace.say(self.now, format_args!("controller {controller} plans {step:?}"));
        }
        match step {
            Step::Nothing | Step::Blocked(_) => self.end_turn(controller),
            Step::Elect { epoch, prefer, without, change, reason } => {
                let careless = false;
                let attempt = Attempt { seen, recorded, epoch, prefer, without, change, replicas, reason, careless };
                self.reserve(controller, attempt);
            }
            Step::Feed { epoch, leader, learners } => {
                let Some(Address::Machine(ordinal)) = self.address_of(leader) else { return self.give_up(controller) };
                let phase = self.enter_for(controller, State::Asking, self.params.control.call_timeout_ms);
                self.ask(controller, phase, ordinal, Some(leader), Call::Learners { epoch, learners });
            }
            Step::HandOver { epoch, from, to, next } => {
                let Some(ordinal) = seen.iter().position(|seen| seen.as_ref().is_some_and(|s| s.replica == from))
                else {
                    return self.give_up(controller);
                };
                let attempt = Attempt {
                    seen,
                    recorded,
                    epoch: next,
                    prefer: Some(to),
                    without: None,
                    change: None,
                    replicas,
                    reason: Reason::HandOver,
                    careless: false,
                };
                let deadline_ms = self.params.control.hand_over_ms;
                let phase = self.enter_for(controller, State::HandingOver(attempt), deadline_ms + 100);
                self.ask(controller, phase, ordinal, Some(from), Call::HandOver { epoch, to, deadline_ms });
            }
        }
    }

    /// What a controller wishes for: those behind the first may be of another mind.
    fn wish_of(&self, controller: usize) -> Wish {
        let wish = self.params.wish.clone();
        match self.params.control.disagree {
            Some(replicas) if controller > 0 => Wish { replicas, ..wish },
            _ => wish,
        }
    }

    /// An election that nothing asks for, of an epoch that may be taken, with or without the store.
    fn elect_on_a_whim(&mut self, controller: usize, seen: Vec<Option<Seen>>, recorded: Recorded) {
        let next = next_epoch(&recorded, &seen);
        let epoch = Epoch((next.0 + self.dice.between((0, 3))).saturating_sub(2).max(1));
        let someone = self.dice.index(seen.len());
        let prefer = seen.get(someone).and_then(Option::as_ref).map(|seen| seen.replica);
        let first = seen.iter().all(|seen| seen.as_ref().is_some_and(|seen| seen.last.is_none()));
        let reason = if first { Reason::Bootstrap } else { Reason::NoLeader };
        self.counts.faults.count(Fault::ControllerRogue);
        let change = self.change_on_a_whim(&seen);
        self.trace.say(self.now, format_args!("controller {controller} elects {epoch} on a whim, {change:?}"));
        let (replicas, careless) = (self.wish_of(controller).replicas, self.dice.chance(0.5));
        let attempt = Attempt { seen, recorded, epoch, prefer, without: None, change, replicas, reason, careless };
        if self.dice.chance(0.5) { self.seal(controller, attempt) } else { self.reserve(controller, attempt) }
    }

    /// Some replica, a voter or not, is to vote or to vote no more, whatever is wished.
    fn change_on_a_whim(&mut self, seen: &[Option<Seen>]) -> Option<Change> {
        let someone = self.dice.index(seen.len());
        let someone = seen.get(someone).and_then(Option::as_ref).map(|seen| seen.replica)?;
        match self.dice.index(3) {
            0 => None,
            1 => Some(Change::Add(someone)),
            _ => Some(Change::Remove(someone)),
        }
    }

    fn reserve(&mut self, controller: usize, attempt: Attempt) {
        let from = attempt.recorded.clone();
        let to = Recorded { epoch: attempt.epoch, ..from.clone() };
        let phase = self.enter_for(controller, State::Reserving(attempt), self.params.control.call_timeout_ms);
        self.call_store(controller, phase, StoreCall::Swap { from, to });
    }

    fn seal(&mut self, controller: usize, mut attempt: Attempt) {
        if self.stops() {
            return self.end_turn(controller);
        }
        attempt.recorded.epoch = attempt.epoch;
        let (cluster, epoch) = (attempt.cluster(), attempt.epoch);
        let ours =
            |seen: &&Seen| (seen.cluster.is_none() || seen.cluster == cluster) && Some(seen.replica) != attempt.without;
        let targets: Vec<_> = attempt
            .seen
            .iter()
            .enumerate()
            .filter_map(|(ordinal, seen)| Some((ordinal, seen.as_ref().filter(ours)?.replica)))
            .collect();
        let state = State::Sealing { attempt, answers: Vec::new(), missing: targets.len(), grace: false };
        let phase = self.enter_for(controller, state, self.params.control.call_timeout_ms);
        for (ordinal, target) in targets {
            self.ask(controller, phase, ordinal, Some(target), Call::Seal { cluster, epoch });
        }
    }

    /// Once the answers are enough, the others are waited for only a little.
    fn sealed_one(&mut self, controller: usize, phase: u64) {
        let grace_ms = self.params.control.seal_grace_ms;
        let Some(at) = self.controllers.get(controller) else { return };
        let State::Sealing { attempt, answers, missing, grace } = &at.state else { return };
        if *missing == 0 {
            return self.controller_timer(controller, phase);
        }
        if *grace || self.choice(attempt, answers).is_none() {
            return;
        }
        if let Some(Controller { state: State::Sealing { grace, .. }, .. }) = self.controllers.get_mut(controller) {
            *grace = true;
        }
        let at = self.now + grace_ms;
        self.at(at, Event::Controller { controller, phase });
    }

    fn choice(&self, attempt: &Attempt, answers: &[(usize, Sealed)]) -> Option<Choice> {
        let mut in_order = answers.to_vec();
        in_order.sort_by_key(|(ordinal, _)| *ordinal);
        let answers: Vec<Sealed> = in_order.into_iter().map(|(_, sealed)| sealed).collect();
        let Attempt { prefer, change, replicas, reason, .. } = *attempt;
        let (voters, all) = (attempt.at_first(replicas), attempt.at_first(attempt.seen.len()));
        let listed = if self.broken == Some(Break::FirstOfWished) { &voters } else { &all };
        let first = Some(First { voters: &voters, listed }).filter(|_| reason == Reason::Bootstrap);
        let chosen = choose(&answers, prefer, first, self.params.wish.quorum, change).ok();
        self.broken.map_or_else(|| chosen.clone(), |rule| rule.choose(chosen.clone(), prefer, change, &answers))
    }

    fn choose(&mut self, controller: usize, attempt: &Attempt, answers: &[(usize, Sealed)]) {
        let Some(choice) = self.choice(attempt, answers) else { return self.give_up(controller) };
        if choice.bootstrap && attempt.recorded.cluster.is_some() || self.stops() {
            return self.give_up(controller);
        }
        let sealed_cluster = answers.iter().find_map(|(_, sealed)| sealed.cluster);
        let cluster = sealed_cluster.unwrap_or_else(|| ClusterId(self.dice.id()));
        self.trace.say(self.now, format_args!("controller {controller} chooses {choice:?} for {}", attempt.epoch));
        self.appoint(controller, attempt, choice, cluster);
    }

    fn appoint(&mut self, controller: usize, attempt: &Attempt, choice: Choice, cluster: ClusterId) {
        if self.stops() {
            return self.end_turn(controller);
        }
        let Choice { leader, voters, quorum, old_voters, bootstrap: _, unchanged: _ } = choice;
        self.check_electorate(&voters);
        let terms = Terms { epoch: attempt.epoch, voters, quorum, old_voters };
        let Some(Address::Machine(ordinal)) = self.address_of(leader) else { return self.give_up(controller) };
        let phase = self.enter_for(controller, State::Asking, self.params.control.call_timeout_ms);
        self.ask(controller, phase, ordinal, Some(leader), Call::Appoint { cluster, terms });
    }
}
