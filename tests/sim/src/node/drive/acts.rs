//! A driver takes a step, and what it asks for is carried out.

use zue_core::control::{ReplicaRole, ReplicaStatus};
use zue_core::{Epoch, Input, Millis, Offset, Refusal, ReplicaId, Reply, RoleView, Session, Ticket};
use zue_engine::disk_queue::Task;
use zue_engine::driver::{Now, StreamAnswer};
use zue_log::ReadError;

use super::Driver;
use crate::batch::{Batch, Record};
use crate::breaks::Break;
use crate::disk::Work;
use crate::message::{Address, Answer, Call, Caller, Message, Up};
use crate::node::ages::Clock;
use crate::node::appends::Append;
use crate::node::process::{Process, Waiting, WaitingFor};
use crate::world::World;

type Action = zue_engine::driver::Action<Append>;

impl World {
    /// Lets a replica take one input.
    pub(crate) fn step(&mut self, machine: usize, input: Input) {
        self.drive(machine, |driver, now, actions| driver.step(now, input, actions));
    }

    /// Lets a driver do something, and carries out what follows.
    pub(crate) fn drive(&mut self, machine: usize, drive: impl FnOnce(&mut Driver, Now, &mut Vec<Action>)) {
        let now = Now { at: self.clock(machine), wall_ms: self.wall(machine) };
        let Some(process) = self.process(machine) else { return };
        let (mut actions, before_ms) = (Vec::new(), process.driver.last_timestamp_ms());
        drive(&mut process.driver, now, &mut actions);
        for action in actions {
            self.carry_out(machine, action, before_ms);
        }
        self.pump(machine);
        let at = self.machines.get(machine).and_then(|at| Some((at, at.process.as_ref()?)));
        if let Some((at, process)) = at {
            self.check.stepped(process, &at.storage);
        }
        self.note_held(machine);
    }

    fn carry_out(&mut self, machine: usize, action: Action, before_ms: u64) {
        match action {
            Action::Disk(Task { ticket, work, .. }) => {
                let work = self.note_work(machine, work);
                self.ask_disk(machine, ticket, work);
            }
            Action::Lengthen(ticket, batch, _) => self.write_led(machine, ticket, batch, before_ms),
            Action::Answer(waiter, reply) => self.reply(machine, waiter, reply),
            Action::Say(session, word) => self.say(machine, session, word),
            Action::Lead(epoch, followers) => self.lead(machine, epoch, &followers),
            Action::StepDown => self.end_feeds(machine),
            Action::Committed(end) => self.committed(machine, end),
            Action::Parted(why) => self.check.violated(format!("machine {machine} stops: {why}")),
        }
    }

    /// Takes note of what the disk is asked for; perhaps breaks a rule.
    fn note_work(&mut self, machine: usize, work: Work) -> Work {
        let now = self.now;
        match &work {
            Work::Restored => {
                self.trace.say(now, format_args!("{machine} finds that its disk is an old copy"));
                let is_restored = self.machine(machine).storage.is_restored();
                self.check.found_restored(is_restored);
            }
            Work::Cut(to) => {
                self.trace.say(now, format_args!("{machine} cuts to {to}"));
                if let Some(process) = self.machines.get_mut(machine).and_then(|at| at.process.as_mut()) {
                    process.records.truncate(to.end);
                    self.check.cut(process, *to);
                }
            }
            Work::Write(batch) => {
                if let Some(process) = self.process(machine) {
                    process.records.extend(batch.records());
                }
            }
            Work::Reset(origin) => self.note_reset(machine, origin),
            Work::Trim(before) => return Work::Trim(self.trimmed_before(machine, *before)),
            _ => {}
        }
        work
    }

    /// Sends a follower's words to its leader.
    pub(crate) fn say(&mut self, machine: usize, session: Session, word: StreamAnswer) {
        let clock_ms = self.wall(machine);
        let Some(process) = self.process(machine) else { return };
        let (lineage, runs) = (process.replica().lineage().clone(), process.replica().runs().clone());
        let body = match word {
            StreamAnswer::Started(log, durable) => Up::Started { log, durable, lineage, runs, clock_ms },
            StreamAnswer::Ack(durable, round) => Up::Acked { durable, round, run: lineage.run(), clock_ms },
            StreamAnswer::Trimmed(log_start) if self.is_untold(machine, log_start) => return,
            StreamAnswer::Trimmed(log_start) => Up::Trimmed { log_start },
            StreamAnswer::Refused(refusal) => {
                self.trace.say(self.now, format_args!("{machine} refuses stream {}: {refusal}", session.0));
                Up::Refused { needs_origin: matches!(refusal, Refusal::NeedsOrigin { .. }) }
            }
        };
        self.send_up(machine, session, body);
    }

    /// Writes what a leader adds to its log, and keeps it for its followers.
    fn write_led(&mut self, machine: usize, ticket: Ticket, batch: Batch, before_ms: u64) {
        if !batch.records().is_empty() && self.is_borne_out(machine) {
            self.check.stamped(batch.last_ms(), before_ms, self.now + Clock::RIGHT_MS);
        }
        self.check.appended(&batch, self.now);
        let Some(process) = self.process(machine) else { return };
        process.records.extend(batch.records());
        process.memory.push(batch.clone());
        self.ask_disk(machine, ticket, Work::Write(batch));
    }

    fn committed(&mut self, machine: usize, end: Offset) {
        let Some(at) = self.machines.get_mut(machine) else { return };
        at.storage.note_commit(end);
        let Some(process) = &at.process else { return };
        let leads = matches!(process.replica().role(Millis::default()), RoleView::Leader { .. });
        self.trace.say(self.now, format_args!("{machine} knows {end} to be committed"));
        self.check.committed(process, &at.storage, leads, end);
    }

    // ---- calls and replies

    pub(crate) fn deliver_to_machine(&mut self, machine: usize, message: Message) {
        if self.machine(machine).process.is_none() {
            // Sometimes the caller is told at once that nobody listens.
            if let Message::Call { caller, .. } = message
                && self.dice.chance(0.5)
            {
                self.answer(machine, caller, Answer::Unreachable);
            }
            return;
        }
        match message {
            Message::Call { caller, target, call } => {
                if target.is_some_and(|target| target != self.machine(machine).storage.id()) {
                    return self.answer(machine, caller, Answer::Unreachable);
                }
                self.call(machine, caller, call);
            }
            Message::Down { session, machine: leader, target, body } => {
                self.hear_leader(machine, session, leader, target, body);
            }
            Message::Up { session, from, body } => self.hear_follower(machine, session, from, body),
            Message::Answer { caller: caller @ Caller::Controller { .. }, answer } => {
                self.controller_answer(caller, answer);
            }
            Message::Answer { caller, answer } => self.fetched(machine, caller, answer),
        }
    }

    fn call(&mut self, machine: usize, caller: Caller, call: Call) {
        if !matches!(call, Call::Status | Call::Read { .. } | Call::End | Call::Append { .. } | Call::Fetch { .. }) {
            self.trace.say(self.now, format_args!("{machine} gets {call:?}"));
        }
        let clock = self.clock(machine);
        let ask = |world: &mut Self, of| world.process(machine).map(|at| at.driver.ask(Waiting { caller, of }));
        match call {
            Call::Status => {
                let named = self.broken_by(Break::RestoredNamed);
                let Some(process) = self.process(machine) else { return };
                let mut seen = seen(process, clock);
                if named {
                    seen.cluster = process.replica().cluster();
                }
                let told = self.told(machine, seen);
                self.answer(machine, caller, Answer::Status(Box::new(told)));
            }
            Call::Read { from, records_max } => self.read(machine, caller, from, records_max),
            Call::End => {
                let Some(process) = self.process(machine) else { return };
                let leads = matches!(process.replica().role(clock), RoleView::Leader { .. });
                let commit_end = process.replica().commit_end();
                if leads && self.broken_by(Break::ReadUnconfirmed) {
                    return self.answer(machine, caller, Answer::Reply(Reply::ReadConfirmed { commit_end }));
                }
                let Some(request) = ask(self, WaitingFor::Other) else { return };
                self.step(machine, Input::ConfirmRead { request });
            }
            Call::Fetch { cluster, from, upto } => self.give(machine, caller, cluster, (from, upto)),
            Call::Trim { before } => self.take_trim(machine, caller, before),
            Call::Seal { cluster, epoch } => {
                let Some(request) = ask(self, WaitingFor::Seal(epoch)) else { return };
                self.step(machine, Input::Seal { request, cluster, epoch });
            }
            Call::Appoint { cluster, terms, places } => {
                self.learn_places(machine, terms.epoch, places);
                self.crash_restored(machine);
                let Some(request) = ask(self, WaitingFor::Other) else { return };
                self.step(machine, Input::Appoint { request, cluster, terms });
            }
            call @ Call::Learners { .. } => self.take_learners(machine, caller, call),
            Call::HandOver { epoch, to, deadline_ms } => {
                let Some(request) = ask(self, WaitingFor::Other) else { return };
                self.step(machine, Input::HandOver { request, epoch, to, deadline_ms });
            }
            Call::Append { producer, sequence, count } => {
                self.take_append(machine, caller, (producer, sequence, count));
            }
        }
    }

    pub(crate) fn take_trim(&mut self, machine: usize, caller: Caller, before: Offset) {
        self.check.trim_asked(before);
        let early = self.broken_by(Break::TrimAnsweredEarly);
        let waiting = Waiting { caller, of: WaitingFor::Trim(before) };
        let Some(request) = self.process(machine).map(|process| process.driver.ask(waiting)) else { return };
        self.step(machine, Input::Trim { request, before });
        let log_start = self.process(machine).map(|process| process.replica().log_start());
        if let Some(log_start) = log_start.filter(|log_start| early && *log_start >= before) {
            self.reply(machine, waiting, Reply::Trimmed(log_start));
        }
    }

    /// The machines of those that it is to feed, as known or guessed.
    pub(crate) fn learn_places(&mut self, machine: usize, epoch: Epoch, places: Vec<(ReplicaId, Option<usize>)>) {
        let Some(process) = self.process(machine) else { return };
        if process.replica().promise().epoch == epoch {
            process.members.extend(places);
        }
    }

    pub(crate) fn reply(&mut self, machine: usize, Waiting { caller, of }: Waiting, mut reply: Reply) {
        let Some(at) = self.machines.get_mut(machine) else { return };
        let Some(process) = &at.process else { return };
        if !matches!((&reply, of), (Reply::Refused(_), WaitingFor::Append { .. })) {
            self.trace.say(self.now, format_args!("{machine} answers {of:?}: {reply:?}"));
        }
        if self.broken == Some(Break::SealedReportsCommitted)
            && let Reply::Sealed(sealed) = &mut reply
        {
            sealed.durable.end = sealed.commit_end;
        }
        if self.broken == Some(Break::ForgottenEarly) && reply == Reply::Refused(Refusal::PerhapsForgotten) {
            reply = Reply::Refused(Refusal::UnknownProducer);
        }
        match (&reply, of) {
            (Reply::Sealed(sealed), WaitingFor::Seal(epoch)) => self.check.sealed(&at.storage, epoch, sealed),
            (Reply::Refused(Refusal::Duplicate(_)), WaitingFor::Append { producer, sequence, count }) => {
                self.check.called_duplicate(producer.nonce, sequence, count);
            }
            (Reply::Refused(refusal), WaitingFor::Append { producer, .. }) => {
                self.check.refused(process, producer, refusal);
            }
            (Reply::Appended { base, .. }, WaitingFor::Append { producer, sequence, count }) => {
                self.check.acknowledged(producer.nonce, sequence, count, *base);
            }
            (Reply::Trimmed(at_least), WaitingFor::Trim(before)) => {
                self.counts.done.trims += 1;
                self.check.trim_answered(process, &at.storage, before, *at_least);
            }
            (Reply::Refused(Refusal::OtherVoters { epoch, before }), _)
                if matches!(caller, Caller::Controller { .. }) =>
            {
                self.check.violated(format!("the voters of epoch {epoch} do not follow from those of {before}"));
            }
            (Reply::Appointed(start), _) => self.check.appointed(&at.storage, start),
            _ => {}
        }
        let is_trimmed = matches!(reply, Reply::Trimmed(_));
        self.answer(machine, caller, Answer::Reply(reply));
        if is_trimmed {
            self.crash_trimmed((0, 3));
        }
    }

    pub(crate) fn answer(&mut self, machine: usize, caller: Caller, answer: Answer) {
        self.send(Address::Machine(machine), caller.address(), Message::Answer { caller, answer });
    }

    fn read(&mut self, machine: usize, caller: Caller, from: Offset, records_max: u64) {
        let uncommitted = self.broken_by(Break::ReadUncommitted);
        let serves_damage = self.broken_by(Break::DamageServed);
        let at = self.machine(machine);
        let Some(process) = &at.process else { return };
        let upto = if uncommitted { at.storage.tail().end } else { process.replica().commit_end() };
        if from > upto {
            return;
        }
        // A leader may know records to be committed before it has written them itself.
        let upto = upto.min(at.storage.tail().end).min(from.plus(records_max));
        if from < at.storage.log_start() {
            let refused = matches!(at.storage.read(from, from.plus(1)), Err(ReadError::OutOfRange { .. }));
            let what = || format!("machine {machine} gives record {from}, which is trimmed");
            return self.check.ensure(refused, what);
        }
        match at.storage.read(from.min(upto), upto) {
            Ok(records) => {
                self.check.read(from.min(upto), upto, &records);
                self.answer(machine, caller, Answer::Records { from, end: upto.max(from), records });
            }
            Err(_) if at.storage.is_damaged() && serves_damage => {
                let records = vec![Record::default(); 1];
                self.check.read(from.min(upto), upto, &records);
            }
            Err(_) if at.storage.is_damaged() => self.answer(machine, caller, Answer::Unreachable),
            Err(error) => self.check.violated(format!("machine {machine} cannot read from {from}: {error}")),
        }
    }
}

/// The status of a replica for a controller.
fn seen(process: &Process, now: Millis) -> ReplicaStatus {
    let replica = process.replica();
    let role = match replica.role(now) {
        RoleView::Idle { waiting_ms } => ReplicaRole::Idle { waiting_ms },
        RoleView::Failed => ReplicaRole::Failed,
        RoleView::Follower { silence_ms, connected, .. } => ReplicaRole::Follower { silence_ms, connected },
        RoleView::Leader { handing_over, followers, settled, .. } => ReplicaRole::Leader {
            log_end: replica.log().end,
            settled,
            followers: followers
                .iter()
                .map(|(id, f)| (*id, f.in_sync && f.session.is_some(), f.durable.end))
                .collect::<Vec<(ReplicaId, _, _)>>(),
            far: followers.iter().filter(|(_, f)| f.lag_bytes > 8).map(|(id, _)| *id).collect(),
            handing_over,
            switch_to: None,
        },
    };
    ReplicaStatus {
        replica: replica.id(),
        cluster: replica.begun_cluster(),
        promised: replica.promise().epoch,
        bound: replica.promise().leader,
        last: replica.history().at(replica.durable().epoch).cloned(),
        durable: replica.durable(),
        suspect: replica.suspect(),
        damaged: replica.is_damaged(),
        leaving: false,
        role,
    }
}
