//! Steps of a replica: facts in, and its outputs carried out, as a node's driver does.

use zue_core::control::{Seen, SeenRole};
use zue_core::{
    Epoch, Input, Millis, Offset, Output, ProducerId, Refusal, ReplicaId, Reply, RequestId, RoleView, Tail,
};

use zue_log::ReadError;

use crate::batch::{Batch, Record};
use crate::breaks::Break;
use crate::message::{Address, Answer, Call, Caller, Message, Up};
use crate::process::{Process, Waiting, WaitingFor};
use crate::storage::Work;
use crate::world::World;

/// What the outputs of a step may ask to be written.
#[derive(Debug)]
pub(crate) enum Payload {
    Append { producer: ProducerId, sequence: u64, count: u32 },
    Frames(Batch),
}

impl World {
    pub(crate) fn step(&mut self, machine: usize, input: Input, mut payload: Option<Payload>) {
        let now = self.clock(machine);
        let Some(process) = self.process(machine) else { return };
        let mut outputs = Vec::new();
        process.replica.step(now, input, &mut outputs);
        for output in outputs {
            self.output(machine, output, &mut payload);
        }
        self.pump(machine);
        let at = self.machines.get(machine).and_then(|at| Some((at, at.process.as_ref()?)));
        if let Some((at, process)) = at {
            self.check.stepped(process, &at.storage);
        }
        self.note_held(machine);
    }

    pub(crate) fn output(&mut self, machine: usize, output: Output, payload: &mut Option<Payload>) {
        match output {
            Output::WritePromise { ticket, epoch, leader, cluster } => {
                self.ask_disk(machine, ticket, Work::Promise { epoch, leader, cluster });
            }
            Output::WriteRuns { ticket, runs } => self.ask_disk(machine, ticket, Work::Runs(runs)),
            Output::WriteRestored { ticket } => {
                self.trace.say(self.now, format_args!("{machine} finds that its disk is an old copy"));
                self.check.found_restored(self.machines.get(machine).is_some_and(|at| at.storage.is_restored()));
                self.ask_disk(machine, ticket, Work::Restored);
            }
            Output::WriteSuspect(ticket, suspect) => self.ask_disk(machine, ticket, Work::Suspect(suspect)),
            Output::Cut { ticket, to } => {
                self.trace.say(self.now, format_args!("{machine} cuts to {to}"));
                if let Some(process) = self.machines.get_mut(machine).and_then(|at| at.process.as_mut()) {
                    process.records.truncate(to.end);
                    self.check.cut(process);
                }
                self.ask_disk(machine, ticket, Work::Cut(to));
            }
            Output::Trim { ticket, before } => self.trim(machine, ticket, before),
            Output::Reset { ticket, origin } => self.begin_anew(machine, ticket, origin),
            Output::SendTrimmed { session, log_start } => self.say_trimmed(machine, session, log_start),
            Output::WriteEpochStart { ticket, start } => {
                let Some(process) = self.process(machine) else { return };
                let depth = process.replica.history().depth();
                let before = depth.checked_sub(2).and_then(|n| process.replica.history().starts().get(n));
                let last = before.map(|start| start.epoch).unwrap_or_default();
                self.write_led(machine, ticket, Batch::epoch_start(last, start));
            }
            Output::WriteAppend { ticket, base, epoch } => {
                let Some(Payload::Append { producer, sequence, count }) = payload.take() else { return };
                let time = self.stamp(machine);
                let shape = self.params.clients.shape;
                let batch = Batch::append(Tail { epoch, end: base }, time, (producer, sequence, count), shape);
                self.write_led(machine, ticket, batch);
            }
            Output::WriteFrames { ticket } => {
                let Some(Payload::Frames(batch)) = payload.take() else { return };
                if let Some(process) = self.process(machine) {
                    process.records.extend(batch.records());
                    process.last_ms = process.last_ms.max(batch.last_ms());
                }
                self.ask_disk(machine, ticket, Work::Write(batch));
            }
            Output::Reply(request, reply) => self.reply(machine, request, reply),
            Output::SendStarted { session, log, durable } => {
                let Some(process) = self.process(machine) else { return };
                let (lineage, runs) = (process.replica.lineage().clone(), process.replica.runs().clone());
                let clock_ms = self.wall(machine);
                self.send_up(machine, session, Up::Started { log, durable, lineage, runs, clock_ms });
            }
            Output::SendAck { session, durable, round } => {
                let Some(run) = self.process(machine).map(|process| process.replica.lineage().run()) else { return };
                let clock_ms = self.wall(machine);
                self.send_up(machine, session, Up::Acked { durable, round, run, clock_ms });
            }
            Output::Refuse { session, refusal } => {
                self.trace.say(self.now, format_args!("{machine} refuses stream {}: {refusal}", session.0));
                let needs_origin = matches!(refusal, Refusal::NeedsOrigin { .. });
                self.send_up(machine, session, Up::Refused { needs_origin });
            }
            Output::Lead { epoch, followers } => self.lead(machine, epoch, &followers),
            Output::StepDown => self.end_feeds(machine),
            Output::Committed(end) => self.committed(machine, end),
        }
    }

    /// Writes what a leader adds to its log, and keeps it for its followers.
    fn write_led(&mut self, machine: usize, ticket: zue_core::Ticket, batch: Batch) {
        let memory_batches = self.params.memory_batches;
        self.check.appended(&batch, self.now);
        let Some(process) = self.process(machine) else { return };
        process.records.extend(batch.records());
        process.memory.push_back(batch.clone());
        let unwritten = process.writer.queue.len() + 1;
        while process.memory.len() > memory_batches.max(unwritten) {
            process.memory.pop_front();
        }
        self.ask_disk(machine, ticket, Work::Write(batch));
    }

    fn committed(&mut self, machine: usize, end: Offset) {
        let Some(at) = self.machines.get_mut(machine) else { return };
        at.storage.note_commit(end);
        let Some(process) = &at.process else { return };
        let leads = matches!(process.replica.role(Millis::default()), RoleView::Leader { .. });
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
        let request = RequestId(self.next_id());
        if !matches!(call, Call::Status | Call::Read { .. } | Call::End | Call::Append { .. } | Call::Fetch { .. }) {
            self.trace.say(self.now, format_args!("{machine} gets {call:?} (request {})", request.0));
        }
        let clock = self.clock(machine);
        let (input, of, payload) = match call {
            Call::Status => {
                let Some(process) = self.process(machine) else { return };
                let seen = seen(process, clock);
                let told = self.told(machine, seen);
                return self.answer(machine, caller, Answer::Status(told));
            }
            Call::Read { from, records_max } => return self.read(machine, caller, from, records_max),
            Call::End => {
                let Some(process) = self.process(machine) else { return };
                let leads = matches!(process.replica.role(clock), RoleView::Leader { .. });
                let commit_end = process.replica.commit_end();
                if leads && self.broken_by(Break::ReadUnconfirmed) {
                    return self.answer(machine, caller, Answer::Reply(Reply::ReadConfirmed { commit_end }));
                }
                (Input::ConfirmRead { request }, WaitingFor::Other, None)
            }
            Call::Fetch { cluster, from, upto } => return self.give(machine, caller, cluster, (from, upto)),
            Call::Trim { before } => {
                self.check.trim_asked(before);
                (Input::Trim { request, before }, WaitingFor::Trim(before), None)
            }
            Call::Seal { cluster, epoch } => (Input::Seal { request, cluster, epoch }, WaitingFor::Seal(epoch), None),
            Call::Appoint { cluster, terms, places } => {
                self.learn_places(machine, terms.epoch, places);
                (Input::Appoint { request, cluster, terms }, WaitingFor::Other, None)
            }
            Call::Learners { epoch, learners, places } => {
                self.learn_places(machine, epoch, places);
                (Input::Learners { request, epoch, learners }, WaitingFor::Other, None)
            }
            Call::HandOver { epoch, to, deadline_ms } => {
                (Input::HandOver { request, epoch, to, deadline_ms }, WaitingFor::Other, None)
            }
            Call::Append { producer, sequence, count } => {
                let known = (!self.broken_by(Break::NoDedup)).then_some((producer, sequence));
                let payload = Payload::Append { producer, sequence, count };
                let of = WaitingFor::Append { producer, sequence, count };
                (Input::Append { request, producer: known, count, bytes: count.into() }, of, Some(payload))
            }
        };
        let early = matches!(of, WaitingFor::Trim(_)) && self.broken_by(Break::TrimAnsweredEarly);
        let unconfirmed = self.broken_by(Break::UnknownUnconfirmed);
        let Some(process) = self.process(machine) else { return };
        process.waiting.insert(request, Waiting { caller, of });
        let leads = matches!(process.replica.role(clock), RoleView::Leader { .. });
        let is_ahead = matches!(of, WaitingFor::Append { producer, .. } if producer.born > process.replica.log().end);
        if unconfirmed && leads && is_ahead {
            return self.reply(machine, request, Reply::Refused(Refusal::UnknownProducer));
        }
        let before = process.replica.log().end;
        self.step(machine, input, payload);
        if let (WaitingFor::Append { count, .. }, true) = (of, self.broken_by(Break::AnswerEarly))
            && let Some(epoch) = self.process(machine).map(|process| process.replica.log())
            && epoch.end > before
        {
            let (base, epoch) = (before, epoch.epoch);
            self.reply(machine, request, Reply::Appended { base, count, epoch, duplicate: false });
        }
        let log_start = self.process(machine).map(|process| process.replica.log_start());
        if let (WaitingFor::Trim(before), true, Some(log_start)) = (of, early, log_start)
            && log_start >= before
        {
            self.reply(machine, request, Reply::Trimmed(log_start));
        }
    }

    /// Where those are that it is to feed, or are guessed to be.
    fn learn_places(&mut self, machine: usize, epoch: Epoch, places: Vec<(ReplicaId, Option<usize>)>) {
        let Some(process) = self.process(machine) else { return };
        if process.replica.promise().epoch == epoch {
            process.members.extend(places);
        }
    }

    fn reply(&mut self, machine: usize, request: RequestId, mut reply: Reply) {
        let Some(at) = self.machines.get_mut(machine) else { return };
        let Some(process) = &mut at.process else { return };
        let Some(Waiting { caller, of }) = process.waiting.remove(&request) else { return };
        if !matches!((&reply, of), (Reply::Refused(_), WaitingFor::Append { .. })) {
            self.trace.say(self.now, format_args!("{machine} answers request {}: {reply:?}", request.0));
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
                self.counts.trims += 1;
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
        let upto = if uncommitted { at.storage.tail().end } else { process.replica.commit_end() };
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

/// What a replica says of itself to a controller.
fn seen(process: &Process, now: Millis) -> Seen {
    let replica = &process.replica;
    let role = match replica.role(now) {
        RoleView::Idle { waiting_ms } => SeenRole::Idle { waiting_ms },
        RoleView::Failed => SeenRole::Failed,
        RoleView::Follower { silence_ms, connected, .. } => SeenRole::Follower { silence_ms, connected },
        RoleView::Leader { handing_over, followers, settled, .. } => SeenRole::Leader {
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
    Seen {
        replica: replica.id(),
        // A cluster begins with an epoch start.
        cluster: replica.cluster().filter(|_| replica.durable().epoch > Epoch(0)),
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
