//! The driver: lets the replica decide, and turns what it asks for into work for the disk, words for streams, and answers.

use std::collections::{BTreeMap, VecDeque};

use zue_core::{
    Epoch, EpochStart, FrameFacts, Input, Millis, Offset, Output, ProducerId, Refusal, Replica, ReplicaId, Reply,
    RequestId, RoleView, Session, Tail, Ticket,
};
use zue_log::{Batch, Fault, ProducerRun};

use crate::disk_queue::{Task, Work};

/// The most appends that are held back.
const HELD_MAX: usize = 4096;

/// The time by the clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// The monotonic one.
    pub at: Millis,
    /// The wall clock, ms since the Unix epoch.
    pub wall_ms: u64,
}

/// An append, as the caller hands it to the driver.
pub trait Append: Sized {
    /// Frames, with whatever goes with them.
    type Batch: AsRef<Batch> + From<Batch>;
    /// The one who waits for an answer.
    type Waiter;
    /// A share of what is bounded, held until something is durable.
    type Share;

    /// The producer and the first sequence.
    fn producer(&self) -> Option<(ProducerId, u64)>;
    /// The number of records.
    fn count(&self) -> u32;
    /// Their length together, about.
    fn bytes(&self) -> u64;
    /// Tells whether nobody waits any more: then it gets no offset.
    fn is_given_up(&self) -> bool;
    /// The frames that follow `prev`, who waits, and what is held until they are durable.
    ///
    /// # Errors
    /// The frames are over a limit that the append was checked against before.
    fn write(self, prev: Tail, timestamp_ms: u64) -> Result<Written<Self>, Fault>;
    /// The one who waits, where nothing is written.
    fn into_waiter(self) -> Self::Waiter;
}

/// The frames of an append, who waits, and what is held until they are durable.
pub type Written<A> = (<A as Append>::Batch, <A as Append>::Waiter, <A as Append>::Share);

/// A message to a leader on its stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamAnswer {
    /// The end of the log, and of what is durable.
    Started(Tail, Tail),
    /// The durable end, and the greatest round heard of.
    Ack(Tail, u64),
    /// The durable start of the log.
    Trimmed(Offset),
    /// The stream is refused, and over.
    Refused(Refusal),
}

/// Work to be done, in this order.
#[derive(Debug)]
pub enum Action<A: Append> {
    /// The disk is to do that.
    Disk(Task<A::Batch, Option<A::Share>>),
    /// The same, of a batch that this leader adds to its log: its followers are to have it.
    Lengthen(Ticket, A::Batch, Option<A::Share>),
    /// Somebody who waits is to be answered.
    Answer(A::Waiter, Reply),
    /// A leader is to be told that.
    Say(Session, StreamAnswer),
    /// These followers are to be fed, and no others.
    Lead(Epoch, Vec<ReplicaId>),
    /// Nobody is to be fed any more.
    StepDown,
    /// So much is committed.
    Committed(Offset),
    /// The log and what is known of it have parted: nothing of it is to be trusted from here on.
    Parted(String),
}

/// The driver. `A` is what its appends are.
#[derive(Debug)]
pub struct Driver<A: Append> {
    replica: Replica,
    waiters: BTreeMap<RequestId, A::Waiter>,
    requests: u64,
    /// Appends that came during a hand-over, or while a new leader connects to its followers, in their order.
    held: VecDeque<A>,
    last_timestamp_ms: u64,
    outputs: Vec<Output>,
}

impl<A: Append> Driver<A> {
    /// The driver of a replica that starts. `last_timestamp_ms` is the time of its last record.
    pub fn new(replica: Replica, last_timestamp_ms: u64) -> Self {
        let (waiters, held, outputs) = (BTreeMap::new(), VecDeque::new(), Vec::new());
        Self { replica, waiters, requests: 0, held, last_timestamp_ms, outputs }
    }

    /// The replica that it decides by.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The time of the last record that it knows of, ms since the Unix epoch: what it appends next is not older.
    pub fn last_timestamp_ms(&self) -> u64 {
        self.last_timestamp_ms
    }

    /// The number of those who wait for an answer.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Ends: who waits learns nothing any more. Gives the appends that were held back.
    pub fn end(self) -> impl Iterator<Item = A> {
        self.held.into_iter()
    }

    /// Trims what lies before, which is older, or more, than is to be kept: who leads does, and the others follow.
    pub fn may_trim(&self, now: Millis, before: Offset) -> bool {
        let (replica, leads) = (&self.replica, matches!(self.replica.role(now), RoleView::Leader { .. }));
        leads && before > replica.log_start() && before <= replica.commit_end()
    }

    /// A name for a request that nobody waits for.
    pub fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// A name for a request that somebody waits for.
    pub fn ask(&mut self, waiter: A::Waiter) -> RequestId {
        let request = self.request();
        self.waiters.insert(request, waiter);
        request
    }

    /// Takes one fact. Appends and frames have their own ways in: [`Driver::append`] and [`Driver::frames`].
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Action<A>>) {
        let may_release = matches!(
            input,
            Input::Tick
                | Input::Started { .. }
                | Input::Start { .. }
                | Input::Seal { .. }
                | Input::Appoint { .. }
                | Input::Learners { .. }
                | Input::HandOver { .. }
        );
        let mut outputs = self.decide(now, input);
        outputs.drain(..).for_each(|output| self.one(output, out));
        self.outputs = outputs;
        if may_release && !self.held.is_empty() {
            self.release(now, out);
        }
    }

    fn decide(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.replica.step(now.at, input, &mut outputs);
        outputs
    }

    /// Takes an append, behind those that are held back.
    pub fn append(&mut self, now: Now, append: A, out: &mut Vec<Action<A>>) {
        if self.held.is_empty() { self.take(now, append, out) } else { self.hold(append, out) }
    }

    fn take(&mut self, now: Now, append: A, out: &mut Vec<Action<A>>) {
        if append.is_given_up() {
            return;
        }
        let request = self.request();
        let (producer, count, bytes) = (append.producer(), append.count(), append.bytes());
        let mut outputs = self.decide(now, Input::Append { request, producer, count, bytes });
        let mut append = Some(append);
        for output in outputs.drain(..) {
            let is_of_it = match &output {
                Output::WriteAppend { request: of, .. } | Output::Reply(of, _) => *of == request,
                _ => false,
            };
            match (output, append.take_if(|_| is_of_it)) {
                (Output::WriteAppend { request, ticket, base, epoch }, Some(append)) => {
                    self.write(now, append, (request, ticket, Tail { epoch, end: base }), out);
                }
                (Output::Reply(_, Reply::Refused(Refusal::HandingOver | Refusal::Connecting)), Some(append)) => {
                    self.hold(append, out);
                }
                (Output::Reply(_, reply), Some(append)) => out.push(Action::Answer(append.into_waiter(), reply)),
                (output, _) => self.one(output, out),
            }
        }
        self.outputs = outputs;
        if let Some(append) = append {
            // A repeated one: it is in the log already, and answered when that commits.
            self.waiters.insert(request, append.into_waiter());
        }
    }

    fn write(
        &mut self,
        now: Now,
        append: A,
        (request, ticket, prev): (RequestId, Ticket, Tail),
        out: &mut Vec<Action<A>>,
    ) {
        let timestamp_ms = self.replica.timestamp_ms(now.at, now.wall_ms);
        self.last_timestamp_ms = self.last_timestamp_ms.max(timestamp_ms);
        match append.write(prev, self.last_timestamp_ms) {
            Ok((batch, waiter, share)) => {
                self.waiters.insert(request, waiter);
                out.push(Action::Lengthen(ticket, batch, Some(share)));
            }
            Err(fault) => {
                out.push(Action::Parted(format!("records that were within all limits cannot be encoded: {fault}")));
            }
        }
    }

    fn hold(&mut self, append: A, out: &mut Vec<Action<A>>) {
        if self.held.len() < HELD_MAX {
            self.held.push_back(append);
        } else {
            out.push(Action::Answer(append.into_waiter(), Reply::Refused(Refusal::Overloaded(HELD_MAX))));
        }
    }

    /// Tries the held appends again; they are held again if what holds them goes on.
    fn release(&mut self, now: Now, out: &mut Vec<Action<A>>) {
        for _ in 0..self.held.len() {
            let Some(append) = self.held.pop_front() else { break };
            let held_before = self.held.len();
            self.take(now, append, out);
            if self.held.len() > held_before {
                // The first is held again, behind the others: it goes back in front, and the rest stays.
                self.held.rotate_right(1);
                break;
            }
        }
    }

    /// Takes frames of a leader's stream, checked before, with what the leader knows to be committed and its newest round.
    pub fn frames(
        &mut self,
        now: Now,
        session: Session,
        (batch, share): (A::Batch, A::Share),
        (prev, commit_end, round): (Tail, Offset, u64),
        out: &mut Vec<Action<A>>,
    ) {
        let mut outputs =
            self.decide(now, Input::Frames { session, prev, facts: facts(batch.as_ref()), commit_end, round });
        let mut frames = Some((batch, share));
        for output in outputs.drain(..) {
            let is_of_them = matches!(output, Output::WriteFrames { .. });
            match (output, frames.take_if(|_| is_of_them)) {
                (Output::WriteFrames { ticket }, Some((batch, share))) => {
                    // Should this replica lead next: its own timestamps must not fall below these.
                    let last_ms = batch.as_ref().timestamps_ms().map_or(0, |(_, last)| last);
                    self.last_timestamp_ms = self.last_timestamp_ms.max(last_ms);
                    out.push(Action::Disk(Task { ticket, work: Work::Write(batch), share: Some(share) }));
                }
                (output, _) => self.one(output, out),
            }
        }
        self.outputs = outputs;
    }

    fn one(&mut self, output: Output, out: &mut Vec<Action<A>>) {
        let (ticket, work) = match output {
            Output::WritePromise { ticket, epoch, leader, cluster } => {
                (ticket, Work::Promise { epoch, leader, cluster })
            }
            Output::WriteRuns { ticket, runs } => (ticket, Work::Runs(runs)),
            Output::WriteRestored { ticket } => (ticket, Work::Restored),
            Output::WriteSuspect(ticket, suspect) => (ticket, Work::Suspect(suspect)),
            Output::Cut { ticket, to } => (ticket, Work::Cut(to)),
            Output::Trim { ticket, before } => (ticket, Work::Trim(before)),
            Output::Reset { ticket, origin } => {
                self.last_timestamp_ms = self.last_timestamp_ms.max(origin.timestamp_ms);
                (ticket, Work::Reset(Box::new(origin)))
            }
            output => return out.extend(self.other(output)),
        };
        out.push(Action::Disk(Task { ticket, work, share: None }));
    }

    fn other(&mut self, output: Output) -> Option<Action<A>> {
        Some(match output {
            Output::WriteEpochStart { ticket, start } => self.epoch_start(ticket, start),
            Output::Reply(request, reply) => Action::Answer(self.waiters.remove(&request)?, reply),
            Output::SendStarted { session, log, durable } => Action::Say(session, StreamAnswer::Started(log, durable)),
            Output::SendAck { session, durable, round } => Action::Say(session, StreamAnswer::Ack(durable, round)),
            Output::SendTrimmed { session, log_start } => Action::Say(session, StreamAnswer::Trimmed(log_start)),
            Output::Refuse { session, refusal } => Action::Say(session, StreamAnswer::Refused(refusal)),
            Output::Lead { epoch, followers } => Action::Lead(epoch, followers),
            Output::StepDown => Action::StepDown,
            Output::Committed(end) => Action::Committed(end),
            unexpected => Action::Parted(format!("nothing is at hand for {unexpected:?}")),
        })
    }

    fn epoch_start(&self, ticket: Ticket, start: EpochStart) -> Action<A> {
        let starts = self.replica.history().starts();
        let last = starts.iter().rev().map(|before| before.epoch).find(|epoch| *epoch < start.epoch);
        match Batch::epoch_start(last.unwrap_or_default(), start) {
            Ok(batch) => Action::Lengthen(ticket, batch.into(), None),
            Err(fault) => Action::Parted(fault.to_string()),
        }
    }
}

/// Facts of frames, as a replica wants them.
fn facts(batch: &Batch) -> FrameFacts {
    let appends = batch.producers().iter().map(ProducerRun::appended).collect();
    FrameFacts { end: batch.tail(), epoch_starts: batch.epoch_starts().to_vec(), appends }
}

#[cfg(test)]
mod tests {
    use zue_core::{
        ClusterId, History, KnownStarts, Limits, Lineage, ProducerLimits, Producers, Promise, Recovered, Run, Runs,
        Terms,
    };
    use zue_log::BatchBuilder;

    use super::*;

    /// An append of one record, by whom it is known.
    #[derive(Debug)]
    struct Named {
        name: &'static str,
        producer: Option<(ProducerId, u64)>,
    }

    impl Append for Named {
        type Batch = Batch;
        type Waiter = &'static str;
        type Share = ();

        fn producer(&self) -> Option<(ProducerId, u64)> {
            self.producer
        }

        fn count(&self) -> u32 {
            1
        }

        fn bytes(&self) -> u64 {
            1
        }

        fn is_given_up(&self) -> bool {
            self.name == "given up"
        }

        fn write(self, prev: Tail, timestamp_ms: u64) -> Result<(Batch, &'static str, ()), Fault> {
            let mut batch = BatchBuilder::new(prev, timestamp_ms, zue_log::Limits::default());
            batch.push(None, self.name.as_bytes(), [], None)?;
            Ok((batch.finish()?, self.name, ()))
        }

        fn into_waiter(self) -> &'static str {
            self.name
        }
    }

    fn by(name: &'static str) -> Named {
        Named { name, producer: None }
    }

    struct World {
        driver: Driver<Named>,
        now: Now,
        actions: Vec<Action<Named>>,
        ticket: Ticket,
        answers: Vec<(&'static str, Reply)>,
    }

    impl World {
        /// A replica that leads those voters in epoch 1.
        fn leading(voters: Vec<ReplicaId>) -> Self {
            let id = ReplicaId(1);
            let recovered = Recovered {
                id,
                cluster: None,
                promise: Promise::default(),
                history: History::default(),
                log: Tail::default(),
                commit_end: Offset(0),
                log_start: Offset(0),
                producers: Producers::new(ProducerLimits { producers_max: 9, appends_max: 9, all_appends_max: 9 }),
                suspect: None,
                damaged: false,
                starts: KnownStarts { lineage: Lineage { starts: 1, nonces: vec![1] }, runs: Runs::default() },
                restored: false,
            };
            let driver = Driver::new(Replica::new(Limits::default(), recovered), 1000);
            let now = Now { at: Millis(0), wall_ms: 2000 };
            let (actions, ticket, answers) = (Vec::new(), Ticket(0), Vec::new());
            let mut world = Self { driver, now, actions, ticket, answers };
            let request = world.driver.ask("seal");
            world.step(Input::Seal { request, cluster: None, epoch: Epoch(1) });
            world.persist();
            let request = world.driver.ask("appoint");
            let quorum = u32::try_from(voters.len()).unwrap();
            let terms = Terms { epoch: Epoch(1), voters, quorum, old_voters: None };
            world.step(Input::Appoint { request, cluster: ClusterId(7), terms });
            world.persist();
            world.follower(|from, run, durable| {
                let lineage = Lineage { starts: run.starts, nonces: vec![run.nonce] };
                Input::Started { from, session: Session(1), log: durable, durable, lineage, runs: Runs::default() }
            });
            world.persist();
            assert!(matches!(world.answers[..], [("seal", Reply::Sealed(_)), ("appoint", Reply::Appointed(_))]));
            world.answers.clear();
            world
        }

        fn step(&mut self, input: Input) {
            self.driver.step(self.now, input, &mut self.actions);
            self.carry_out();
        }

        fn append(&mut self, append: Named) {
            self.driver.append(self.now, append, &mut self.actions);
            self.carry_out();
        }

        fn persist(&mut self) {
            self.step(Input::Persisted(self.ticket));
        }

        /// The other voter, if there is one, says something of the log up to its end.
        fn follower(&mut self, says: impl FnOnce(ReplicaId, Run, Tail) -> Input) {
            let log = self.driver.replica().log();
            self.step(says(ReplicaId(2), Run { starts: 3, nonce: 2 }, log));
        }

        fn carry_out(&mut self) {
            for action in self.actions.drain(..) {
                match action {
                    Action::Disk(Task { ticket, .. }) | Action::Lengthen(ticket, ..) => self.ticket = ticket,
                    Action::Answer(waiter, reply) => self.answers.push((waiter, reply)),
                    Action::Parted(why) => panic!("{why}"),
                    _ => {}
                }
            }
        }

        fn answered(&mut self) -> Vec<(&'static str, Option<(u64, bool)>)> {
            let short = |reply| match reply {
                Reply::Appended { base, duplicate, .. } => Some((base.0, duplicate)),
                _ => None,
            };
            std::mem::take(&mut self.answers).into_iter().map(|(name, reply)| (name, short(reply))).collect()
        }
    }

    #[test]
    fn each_append_is_answered_as_itself_and_one_that_is_repeated_once_the_first_try_is_committed() {
        let mut world = World::leading(vec![ReplicaId(1)]);
        let producer = Some((ProducerId { born: Offset(0), nonce: 5 }, 0));
        world.append(by("first"));
        world.append(Named { name: "second", producer });
        world.append(Named { name: "again", producer });
        world.append(by("given up"));
        world.append(by("third"));
        assert_eq!(world.answered(), []);
        world.persist();
        let expected = [
            ("first", Some((0, false))),
            ("second", Some((1, false))),
            ("again", Some((1, true))),
            ("third", Some((2, false))),
        ];
        assert_eq!(world.answered(), expected);
        world.append(Named { name: "late", producer });
        assert_eq!(world.answered(), [("late", Some((1, true)))]);
        assert_eq!(world.driver.waiting(), 0);
    }

    #[test]
    fn appends_that_come_during_a_hand_over_are_held_in_their_order_until_it_is_over() {
        let mut world = World::leading(vec![ReplicaId(1), ReplicaId(2)]);
        world.append(by("before"));
        let request = world.driver.ask("hand over");
        world.step(Input::HandOver { request, epoch: Epoch(1), to: ReplicaId(2), deadline_ms: 100 });
        world.append(by("first"));
        world.append(by("second"));
        world.step(Input::Tick);
        assert_eq!(world.answered(), []);
        world.now.at = Millis(100);
        world.step(Input::Tick);
        world.persist();
        world.follower(|from, run, durable| Input::Acked { from, session: Session(1), durable, round: 0, run });
        let expected = [
            ("hand over", None),
            ("before", Some((0, false))),
            ("first", Some((1, false))),
            ("second", Some((2, false))),
        ];
        assert_eq!(world.answered(), expected);
    }

    #[test]
    fn only_so_many_appends_are_held() {
        let mut world = World::leading(vec![ReplicaId(1), ReplicaId(2)]);
        let request = world.driver.request();
        world.step(Input::HandOver { request, epoch: Epoch(1), to: ReplicaId(2), deadline_ms: 100 });
        (0..HELD_MAX).for_each(|_| world.append(by("held")));
        assert_eq!(world.answered(), []);
        world.append(by("one more"));
        assert_eq!(world.answers, [("one more", Reply::Refused(Refusal::Overloaded(HELD_MAX)))]);
        assert_eq!(world.driver.end().count(), HELD_MAX);
    }

    #[test]
    fn what_it_appends_is_no_older_than_what_is_there() {
        let mut world = World::leading(vec![ReplicaId(1)]);
        world.append(by("first"));
        assert_eq!(world.driver.last_timestamp_ms(), 2000);
        world.now.wall_ms = 500;
        world.append(by("second"));
        assert_eq!(world.driver.last_timestamp_ms(), 2000);
    }
}
