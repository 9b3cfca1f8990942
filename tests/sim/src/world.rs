//! The world: machines, controllers, clients and the network between them, one event after the other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use zue_core::{Offset, ReplicaId, Session};
use zue_log::Durability;

use crate::actors::clients::Clients;
use crate::actors::controller::Controller;
use crate::actors::status::Status;
use crate::breaks::Break;
use crate::check::Checker;
use crate::coverage::done::Done;
use crate::coverage::{Coverage, Fault};
use crate::dice::Dice;
use crate::disk::Storage;
use crate::event::{Event, ProcessEvent};
use crate::faults::losses::Losses;
use crate::left::{FromBackup, Left};
use crate::message::{Address, Message};
use crate::node::ages::Clock;
use crate::node::maintenance::MaintenanceCounts;
use crate::node::process::Process;
use crate::params::{NetParams, Params};
use crate::trace::Trace;

/// The share of runs that have more faults of disks than can be made good.
const RECKLESS: f64 = 0.02;

#[derive(Debug)]
struct Scheduled {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The events to come, and their numbers.
#[derive(Debug, Default)]
struct Agenda {
    order: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    next_id: u64,
}

/// A machine: its disk survives, its process may not.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) storage: Storage,
    pub(crate) process: Option<Process>,
    /// Events for a paused process, in order, once it goes on.
    pub(crate) held: Option<Vec<Event>>,
    pub(crate) clock: Clock,
}

/// The network: who is where, who cannot reach whom, and the order within streams.
#[derive(Debug, Default)]
pub(crate) struct Net {
    /// The machine on which each replica was first seen; it stays there as long as its disk does.
    pub(crate) address_book: BTreeMap<ReplicaId, usize>,
    /// The number of partitions that keep messages from one to the other.
    pub(crate) blocked: BTreeMap<(Address, Address), u64>,
    broken: BTreeSet<Session>,
    last: BTreeMap<(Session, Address), u64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) faults: Coverage,
    pub(crate) faulty_ms: u64,
    pub(crate) done: Done,
    /// The maintenance of logs while they were used.
    pub(crate) maintenance: MaintenanceCounts,
    /// The beginning, if it was a restored log.
    pub(crate) from_backup: FromBackup,
    /// Committed records could be lost.
    pub(crate) lossy: bool,
    /// Up to where a person has trimmed what was lost.
    pub(crate) trimmed_by_hand: Offset,
    /// A person would have to give it up.
    pub(crate) stuck: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    agenda: Agenda,
    pub(crate) dice: Dice,
    pub(crate) params: Params,
    pub(crate) broken: Option<Break>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) controllers: Vec<Controller>,
    pub(crate) status: Status,
    pub(crate) clients: Clients,
    pub(crate) net: Net,
    pub(crate) check: Checker,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    /// The losses by faults.
    pub(crate) losses: Losses,
    /// Faults are over.
    pub(crate) healed: bool,
}

impl World {
    pub(crate) fn new(seed: u64, broken: Option<Break>, lines_max: Option<usize>) -> Self {
        let mut world = Self::empty(seed, broken, lines_max);
        let left = Left::draw(seed, &world.params).map(|left| world.begin_with(left));
        world.populate(left);
        world
    }

    /// A world in which nothing happens yet.
    pub(crate) fn empty(seed: u64, broken: Option<Break>, lines_max: Option<usize>) -> Self {
        let mut dice = Dice::new(seed);
        let mut params = Params::draw(&mut dice);
        params.make_rare(&mut Dice::new(seed.rotate_left(32)));
        params.hold_back(&mut Dice::new(seed.rotate_left(48)));
        Self {
            now: 0,
            agenda: Agenda::default(),
            broken,
            machines: Vec::new(),
            controllers: Vec::new(),
            status: Status::default(),
            clients: Clients::new(&params.clients, &mut dice),
            net: Net::default(),
            check: Checker::default(),
            trace: Trace::new(lines_max),
            counts: Counts::default(),
            losses: Losses::new(Dice::new(!seed).chance(RECKLESS)),
            healed: false,
            dice,
            params,
        }
    }

    /// Whatever there is begins, with what is restored to a machine.
    pub(crate) fn populate(&mut self, mut left: Option<(usize, Left)>) {
        self.check.ordered = !self.params.net.wild_streams;
        for _ in 0..self.params.control.controllers {
            let controller = self.new_controller(None);
            self.controllers.push(controller);
        }
        for machine in 0..self.params.machines {
            let (id, seed) = (ReplicaId(self.dice.id()), self.dice.bits());
            let (mut storage, clock) =
                (Storage::new(id, seed), Clock::draw(&mut self.dice, &self.params.clocks, machine));
            storage.keeps_trimmed = self.params.keeps_trimmed;
            storage.former.keeps_unpromised = self.params.faults.moments.forget_promise > 0.0;
            if self.params.lazy == Some(machine) {
                storage.durability = Durability::Os;
            }
            if let Some((_, left)) = left.take_if(|(at, _)| *at == machine) {
                self.restore_to(machine, &mut storage, &left);
            }
            self.machines.push(Machine { storage, process: None, held: None, clock });
            self.net.address_book.insert(id, machine);
            self.start_process(machine);
        }
        let standbys = if self.params.control.stands_by { self.machines.len() } else { 0 };
        for machine in 0..standbys {
            let controller = self.new_controller(Some(machine));
            self.controllers.push(controller);
        }
        for controller in 0..self.controllers.len() {
            self.wake_controller(controller);
        }
        for producer in 0..self.params.clients.producers {
            self.after((0, 50), Event::Produce { producer });
        }
        self.after((0, 50), Event::Read);
        if self.params.clients.trim_ms.1 > 0 {
            self.after(self.params.clients.trim_ms, Event::Trim);
        }
        if let Some(pause_ms) = self.backup_ms() {
            self.after(pause_ms, Event::BackUp);
        }
        if let Some(pause_ms) = self.params.stranger {
            self.after(pause_ms, Event::Stranger);
        }
        self.after((200, 600), Event::Fault);
    }

    pub(crate) fn broken_by(&self, rule: Break) -> bool {
        self.broken == Some(rule)
    }

    /// A number that was never used before.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.agenda.next_id += 1;
        self.agenda.next_id
    }

    pub(crate) fn machine(&mut self, machine: usize) -> &mut Machine {
        self.machines.get_mut(machine).expect("a machine of this world")
    }

    pub(crate) fn process(&mut self, machine: usize) -> Option<&mut Process> {
        self.machine(machine).process.as_mut()
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.agenda.order += 1;
        self.agenda.events.push(Reverse(Scheduled { at, order: self.agenda.order, event }));
    }

    pub(crate) fn after(&mut self, delay_ms: (u64, u64), event: Event) {
        let at = self.now + self.dice.between(delay_ms);
        self.at(at, event);
    }

    pub(crate) fn after_of(&mut self, machine: usize, delay_ms: (u64, u64), event: ProcessEvent) {
        let Some(life) = self.process(machine).map(|process| process.life) else { return };
        self.after(delay_ms, Event::OfProcess { machine, life, event });
    }

    /// Takes the next event. False when there is none.
    pub(crate) fn turn(&mut self) -> bool {
        let Some(Reverse(Scheduled { at, order, event })) = self.agenda.events.pop() else { return false };
        self.now = at;
        self.counts.events += 1;
        self.trace.mix(at);
        self.trace.mix(order);
        if let Some(event) = self.hold(event) {
            self.happen(event);
        }
        true
    }

    /// Keeps back what happens to a paused process or controller.
    fn hold(&mut self, event: Event) -> Option<Event> {
        let held = match &event {
            Event::Deliver { to: Address::Machine(machine), .. } | Event::OfProcess { machine, .. } => {
                &mut self.machine(*machine).held
            }
            Event::Deliver { to: Address::Controller(controller), .. }
            | Event::StoreAnswer { controller, .. }
            | Event::Controller { controller, .. } => match self.controllers.get_mut(*controller) {
                Some(Controller { home: Some(home), .. }) => match self.machines.get_mut(*home) {
                    Some(at) => &mut at.held,
                    None => return Some(event),
                },
                Some(at) => &mut at.held,
                None => return Some(event),
            },
            _ => return Some(event),
        };
        match held {
            Some(held) => {
                held.push(event);
                None
            }
            None => Some(event),
        }
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, *message),
            Event::OfProcess { machine, life, event } => {
                if self.process(machine).is_some_and(|process| process.life == life) {
                    self.process_event(machine, event);
                }
            }
            Event::StoreCall { controller, op, call } => self.store_call(controller, op, call),
            Event::StoreAnswer { controller, op, answer } => self.store_answer(controller, op, answer),
            Event::Controller { controller, timer } => self.controller_timer(controller, timer),
            Event::Produce { producer } => self.produce(producer),
            Event::AppendTimeout { producer, sequence, attempt } => self.append_again(producer, sequence, attempt),
            Event::Read => self.read_somewhere(),
            Event::Trim => self.take_snapshot(),
            Event::BackUp => self.back_up(),
            Event::Stranger => self.stranger(),
            Event::Fault => self.fault(),
            Event::Forget { epoch } => self.forget_promise(epoch),
            Event::Restart { machine } => self.restart(machine),
            Event::Resume { who } => self.resume(who),
            Event::DiskEmptied { machine } => self.empty_disk(machine),
            Event::Unblock { from, to } => {
                self.unblock(from, to);
            }
        }
    }

    fn deliver(&mut self, from: Address, to: Address, message: Message) {
        match to {
            Address::Machine(machine) => self.deliver_to_machine(machine, message),
            Address::Controller(_) => {
                if let Message::Answer { caller, answer } = message {
                    self.controller_answer(caller, answer);
                }
            }
            Address::Clients => {
                if let Message::Answer { caller, answer } = message {
                    self.client_answer(from, caller, answer);
                }
            }
        }
    }

    /// Sends a message, which may be lost, late, or repeated.
    pub(crate) fn send(&mut self, from: Address, to: Address, message: Message) {
        let stream = match &message {
            Message::Down { session, .. } | Message::Up { session, .. } => Some(*session),
            Message::Call { .. } | Message::Answer { .. } => None,
        };
        let NetParams { delay_ms, long_delay, long_delay_ms, drop, duplicate, wild_streams } = self.params.net;
        let in_order = stream.filter(|_| !wild_streams);
        if in_order.is_some_and(|session| self.net.broken.contains(&session)) {
            return;
        }
        let dropped = self.dice.chance(drop);
        if dropped {
            self.counts.faults.count(Fault::MessageLost);
        }
        if dropped || self.net.blocked.contains_key(&(from, to)) {
            // What is lost of a stream is lost with all that follows.
            self.net.broken.extend(in_order);
            return;
        }
        let late = self.dice.chance(long_delay);
        if late {
            self.counts.faults.count(Fault::MessageLate);
        }
        let delay_ms = if late { long_delay_ms } else { delay_ms };
        let mut at = self.now + self.dice.between(delay_ms);
        if let Some(session) = in_order {
            let last = self.net.last.entry((session, to)).or_default();
            at = at.max(*last);
            *last = at;
        } else if self.dice.chance(duplicate) {
            self.counts.faults.count(Fault::MessageTwice);
            let again = at + self.dice.between(long_delay_ms);
            self.at(again, Event::Deliver { from, to, message: Box::new(message.clone()) });
        }
        self.at(at, Event::Deliver { from, to, message: Box::new(message) });
    }
}
