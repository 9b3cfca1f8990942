//! A stranger: whoever reaches the port of the peers. It sends one message at a time, such as a bug, an old version or a node that was
//! taken over might, and it never leads a quorum. No one message of it may end the log, or take anything of it.

use bytes::Bytes;
use zue_core::{
    ClusterId, EPOCHS_AHEAD_MAX, Epoch, EpochStart, History, Input, Joint, OFFSET_MAX, OFFSETS_AHEAD_MAX, Offset,
    Origin, ProducerId, Producers, Promise, Replica, ReplicaId, RoleView, Run, Runs, Session, Start, Tail, Terms,
};
use zue_log::{BatchBuilder, Limits};

use crate::batch::Batch;
use crate::breaks::Break;
use crate::coverage::Fault;
use crate::disk::Work;
use crate::event::Event;
use crate::node::standby::Standby;
use crate::world::World;

/// A deed of a stranger.
type Message = fn(&mut World, usize);

/// Its words after the first ones.
enum Then {
    Standby(Standby),
    Fact(Input),
    Frames(Batch),
}

/// The identity that it claims, and its knowledge of the one it speaks to: that tells all of it to whoever asks.
struct Spoken {
    me: ReplicaId,
    id: ReplicaId,
    cluster: Option<ClusterId>,
    promised: Epoch,
    history: History,
    log: Tail,
    commit_end: Offset,
    /// The time of the last record, ms.
    last_ms: u64,
    /// The others that it may know.
    others: Vec<ReplicaId>,
    starts: u64,
    /// The stream that it follows.
    followed: Option<Session>,
}

impl World {
    pub(crate) fn stranger(&mut self) {
        let Some(pause_ms) = self.params.stranger.filter(|_| !self.healed) else { return };
        self.after(pause_ms, Event::Stranger);
        let machine = self.dice.index(self.machines.len());
        let at = self.machine(machine);
        if at.held.is_some() || at.process.is_none() {
            return;
        }
        let messages: [Message; 11] = [
            Self::stranger_seals,
            Self::stranger_is_refused,
            Self::stranger_trims,
            Self::stranger_tells_of_starts,
            Self::stranger_sends_frames,
            Self::stranger_parts,
            Self::stranger_cuts,
            Self::stranger_begins_anew,
            Self::stranger_counts_on,
            Self::stranger_controls,
            Self::stranger_stands_by,
        ];
        let chosen = self.dice.index(messages.len());
        let Some((was_failed, promised)) = self.is_failed(machine) else { return };
        self.counts.faults.count(Fault::StrangerSpoke);
        self.trace.say(self.now, format_args!("a stranger speaks to {machine}: message {chosen}"));
        if let Some(message) = messages.get(chosen) {
            message(self, machine);
        }
        // Not so if its disk has stopped it meanwhile.
        let Some((has_ended, now)) = self.is_failed(machine) else { return };
        self.check.ensure(was_failed || !has_ended, || format!("a message of a stranger makes {machine} fail"));
        self.check.ensure(now.0 <= promised.0.saturating_add(EPOCHS_AHEAD_MAX), || {
            format!("a message of a stranger takes {machine} from epoch {promised} to {now}")
        });
    }

    fn is_failed(&mut self, machine: usize) -> Option<(bool, Epoch)> {
        let now = self.clock(machine);
        let process = self.process(machine)?;
        Some((process.replica().role(now) == RoleView::Failed, process.replica().promise().epoch))
    }

    /// Its words about itself; none of a replica that has nothing yet.
    fn spoken_to(&mut self, machine: usize) -> Option<Spoken> {
        let me = ReplicaId(self.dice.id());
        let others: Vec<ReplicaId> = self.machines.iter().map(|at| at.storage.id()).collect();
        let process = self.process(machine)?;
        let replica = process.replica();
        let (id, end) = (replica.id(), replica.log().end);
        let last = end.0.checked_sub(1).and_then(|last| process.records.get(Offset(last)));
        Some(Spoken {
            me,
            id,
            cluster: replica.cluster(),
            promised: replica.promise().epoch,
            history: replica.history().clone(),
            log: replica.log(),
            commit_end: replica.commit_end(),
            last_ms: last.map_or(0, |record| record.timestamp_ms),
            others: others.into_iter().filter(|other| *other != id).collect(),
            starts: replica.lineage().starts,
            followed: process.followed,
        })
        .filter(|spoken| !spoken.history.is_empty() && spoken.cluster.is_some())
    }

    /// Says something on a stream of its own.
    fn stranger_says(&mut self, machine: usize, start: Start, then: Vec<Then>, session: Session) {
        let promise = Promise { epoch: start.epoch, leader: Some(start.leader) };
        let Some(process) = self.process(machine) else { return };
        let before = held(process.replica());
        let at_once = process.replica().joint(&start).ok().and_then(|joint| joined(joint, &start));
        self.step(machine, Input::Start { session, start });
        if let Some((tail, last_ms)) = at_once.filter(|_| self.broken_by(Break::JointAtOnce)) {
            // It is as if the start were enough.
            let producer = ProducerId { born: tail.end, nonce: 1 };
            let batch = Batch::append(tail, last_ms, (producer, 0, 1), self.params.clients.shape);
            self.stranger_goes_on(machine, session, Then::Frames(batch));
        }
        let Some(process) = self.process(machine) else { return };
        let after = held(process.replica());
        self.check.ensure(before == after, || {
            format!("one start of a stranger takes the log of {machine} from {before:?} to {after:?}")
        });
        if let Some(process) = self.process(machine).filter(|process| process.replica().promise() == promise) {
            process.followed = Some(session);
        }
        for then in then {
            self.stranger_goes_on(machine, session, then);
        }
        self.step(machine, Input::StreamEnded { session });
    }

    fn stranger_goes_on(&mut self, machine: usize, session: Session, then: Then) {
        match then {
            Then::Fact(input) => self.step(machine, input),
            Then::Standby(standby) => self.hear_stranger(machine, session, standby),
            Then::Frames(batch) => {
                let told = (batch.prev(), Offset(0), 0);
                self.drive(machine, |driver, now, actions| {
                    driver.frames(now, session, (batch, ()), told, actions);
                });
            }
        }
    }

    fn stranger_seals(&mut self, machine: usize) {
        let Some(process) = self.process(machine) else { return };
        let (cluster, promised) = (process.replica().cluster(), process.replica().promise().epoch.0);
        let ahead = self.dice.pick(&[1, 2, EPOCHS_AHEAD_MAX, EPOCHS_AHEAD_MAX + 1, 1 << 40, u64::MAX]);
        let epoch = Epoch(promised.saturating_add(ahead));
        if ahead > EPOCHS_AHEAD_MAX && self.broken_by(Break::AnyEpochPromised) {
            // It is as if it had accepted that.
            let work = Work::Promise { epoch: Epoch(promised.saturating_add(1 << 40)), leader: None, cluster };
            let _ = self.machine(machine).storage.write(&work);
            return self.crash_for_a_while(machine);
        }
        let Some(request) = self.process(machine).map(|process| process.driver.request()) else { return };
        self.step(machine, Input::Seal { request, cluster, epoch });
    }

    /// A start that nobody takes, with starts of disks that never were.
    fn stranger_is_refused(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let epoch = Epoch(spoken.promised.0.saturating_sub(self.dice.between((1, 3))));
        let runs = self.invented(&spoken);
        let start = Start { epoch, runs: runs.clone(), ..spoken.start(self.dice.between((1, 3))) };
        self.stranger_tells(machine, &spoken, start, runs);
    }

    fn stranger_tells_of_starts(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let runs = self.invented(&spoken);
        let start = Start { runs: runs.clone(), ..spoken.start(self.dice.between((1, 3))) };
        self.stranger_tells(machine, &spoken, start, runs);
    }

    fn stranger_tells(&mut self, machine: usize, spoken: &Spoken, start: Start, runs: Runs) {
        let session = Session(self.next_id());
        if let Some(followed) = spoken.followed.filter(|_| self.broken_by(Break::StartBelieved)) {
            // It is as if the leader had said so.
            self.step(machine, Input::Runs { session: followed, runs: runs.clone() });
        }
        self.stranger_says(machine, start, vec![Then::Fact(Input::Runs { session, runs })], session);
    }

    /// Starts of the one that it speaks to, and of others, which never were.
    fn invented(&mut self, spoken: &Spoken) -> Runs {
        let ahead = self.dice.pick(&[1, 5, 1 << 60]);
        let run = Run { starts: spoken.starts.saturating_add(ahead), nonce: self.dice.bits() };
        let own = self.dice.chance(0.5).then_some(spoken.id);
        spoken.others.iter().copied().chain(own).chain([spoken.me]).map(|id| (id, run)).collect()
    }

    /// It says that its log begins where all that is committed ends.
    fn stranger_trims(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let (session, log_start, log_end) = (Session(self.next_id()), spoken.commit_end, spoken.log.end);
        if let Some(session) = spoken.followed.filter(|_| self.broken_by(Break::AnyLogStart)) {
            self.step(machine, Input::LogStart { session, log_start });
        }
        let heartbeat = Input::Heartbeat { session, commit_end: log_start, log_end, round: 0 };
        let then = [heartbeat, Input::LogStart { session, log_start }].map(Then::Fact).into();
        let start = spoken.start(self.dice.between((1, 3)));
        self.stranger_says(machine, start, then, session);
    }

    /// Frames that are none of any log: they take too many offsets, or are older than what is there.
    fn stranger_sends_frames(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let session = Session(self.next_id());
        let start = spoken.start(self.dice.between((1, 3)));
        let is_unbounded = self.broken_by(Break::OffsetsUnbounded);
        let far = self.dice.pick(&[OFFSETS_AHEAD_MAX + 1, OFFSET_MAX.0 - spoken.log.end.0 + 1, u64::MAX]);
        let far = if is_unbounded { 1000 } else { far };
        let frames = if self.dice.chance(0.5) {
            let bytes = gap(spoken.log, spoken.last_ms, spoken.log.end.0.saturating_add(far));
            let decoded = zue_log::Batch::decode(bytes, spoken.log, &Limits::default()).ok();
            let what = || "a gap is taken that no log has".to_owned();
            self.check.ensure(decoded.is_none() || is_unbounded, what);
            decoded
        } else {
            let mut builder = BatchBuilder::new(spoken.log, 0, Limits::default());
            let pushed = builder.push(None, b"old", [], None);
            pushed.and_then(|()| builder.finish()).ok().filter(|_| spoken.last_ms > 0)
        };
        let unchecked = self.broken_by(Break::TimesUnchecked);
        let taken = frames.filter(|frames| unchecked || frames.follows_time(spoken.last_ms).is_ok());
        let then = taken.map(|frames| Then::Frames(frames.into()));
        self.stranger_says(machine, start, then.into_iter().collect(), session);
    }

    /// A history that parts from what is committed.
    fn stranger_parts(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let Some(parted) = spoken.commit_end.0.checked_sub(1).map(Offset) else { return };
        let Start { epoch, .. } = spoken.start(1);
        let mut starts: Vec<EpochStart> = spoken.history.starts().to_vec();
        starts.retain(|start| start.start <= parted);
        starts.push(spoken.epoch_start(epoch, parted));
        let Ok(history) = History::new(starts) else { return };
        let log = Tail { epoch, end: parted };
        let session = Session(self.next_id());
        let start = Start { history, log, ..spoken.start(1) };
        self.stranger_says(machine, start, Vec::new(), session);
        if self.broken_by(Break::ForeignHistoryFails) {
            self.step(machine, Input::DiskFailed);
        }
    }

    /// A history that parts where all that is known to be committed ends: what follows is to go.
    fn stranger_cuts(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let Start { epoch, .. } = spoken.start(1);
        let mut starts: Vec<EpochStart> = spoken.history.starts().to_vec();
        starts.retain(|start| start.start < spoken.commit_end);
        starts.push(spoken.epoch_start(epoch, spoken.commit_end));
        let Ok(history) = History::new(starts) else { return };
        let log = Tail { epoch, end: spoken.commit_end.plus(self.dice.between((0, 8))) };
        let session = Session(self.next_id());
        let start = Start { history, log, ..spoken.start(1) };
        self.stranger_says(machine, start, Vec::new(), session);
    }

    /// A log that begins a little further on: all of this one's is to go.
    fn stranger_begins_anew(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let ahead = self.dice.between((1, 300));
        let at = spoken.log.end.plus(ahead);
        let Start { epoch, .. } = spoken.start(1);
        let Ok(history) = History::new(vec![spoken.epoch_start(epoch, spoken.log.end)]) else { return };
        let producers = Producers::new(self.params.node.producer_limits);
        let origin = Origin { at, history: history.clone(), timestamp_ms: spoken.last_ms, producers };
        let log = Tail { epoch, end: at.plus(self.dice.between((0, 8))) };
        let session = Session(self.next_id());
        let start = Start { history, log, oldest: at, origin: Some(origin), ..spoken.start(1) };
        self.stranger_says(machine, start, Vec::new(), session);
    }

    /// Epochs and offsets that no log reaches.
    fn stranger_counts_on(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let session = Session(self.next_id());
        let start = match self.dice.index(3) {
            0 => spoken.start(self.dice.pick(&[EPOCHS_AHEAD_MAX + 1, 1 << 40, u64::MAX])),
            1 => Start { commit_end: OFFSET_MAX, ..spoken.start(EPOCHS_AHEAD_MAX) },
            _ => {
                let at = Offset(self.dice.pick(&[spoken.log.end.0 + OFFSETS_AHEAD_MAX + 1, OFFSET_MAX.0, u64::MAX]));
                let (history, producers) = (History::default(), Producers::new(self.params.node.producer_limits));
                let origin = Some(Origin { at, history, timestamp_ms: u64::MAX, producers });
                let start = spoken.start(1);
                let log = Tail { end: at, ..start.log };
                // None of what it shares with the other: it would have to begin anew.
                let history = History::new(vec![spoken.epoch_start(start.epoch, at)]).unwrap_or_default();
                Start { history, log, oldest: at, origin, ..start }
            }
        };
        self.stranger_says(machine, start, Vec::new(), session);
    }

    /// It says that it alone is to stand by.
    fn stranger_stands_by(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let (session, start) = (Session(self.next_id()), spoken.start(self.dice.between((1, 3))));
        let then = Then::Standby(Standby::alone(spoken.me, start.epoch));
        self.stranger_says(machine, start, vec![then], session);
    }

    /// Sends words of a controller, and of a follower that it has named.
    fn stranger_controls(&mut self, machine: usize) {
        let Some(spoken) = self.spoken_to(machine) else { return };
        let Some(request) = self.process(machine).map(|process| process.driver.request()) else { return };
        let (from, epoch) = (spoken.me, spoken.log.epoch);
        match self.dice.index(3) {
            0 => {
                let terms = Terms { epoch: spoken.promised, voters: vec![spoken.id], quorum: 1, old_voters: None };
                let cluster = spoken.cluster.unwrap_or(ClusterId(1));
                // Where these may come next, whoever appoints is a controller, and chooses.
                let is_base =
                    |last: &EpochStart| [Some(&last.voters), last.old_voters.as_ref()].contains(&Some(&terms.voters));
                let is_alone = spoken.history.last().is_none_or(is_base);
                if !is_alone {
                    self.step(machine, Input::Appoint { request, cluster, terms });
                }
            }
            1 => self.step(machine, Input::HandOver { request, epoch, to: from, deadline_ms: u64::MAX }),
            _ => {
                let standby = self.dice.chance(0.5).then(|| Standby::alone(from, epoch));
                self.learn(machine, request, (epoch, vec![from]), standby);
                let (session, runs) = (Session(self.next_id()), self.invented(&spoken));
                let (log, lineage) = (spoken.log, zue_core::Lineage { starts: 1, nonces: vec![7] });
                self.step(machine, Input::Started { from, session, log, durable: log, lineage, runs });
                self.step(machine, Input::Trimmed { from, log_start: spoken.commit_end });
            }
        }
    }
}

impl Spoken {
    /// The handshake of one who leads an epoch so far above the promise, and whose log has all of this one's.
    fn start(&self, ahead: u64) -> Start {
        let epoch = Epoch(self.promised.0.saturating_add(ahead));
        let mut history = self.history.clone();
        let _ = history.push(self.epoch_start(epoch, self.log.end));
        Start {
            cluster: self.cluster.unwrap_or(ClusterId(1)),
            leader: self.me,
            epoch,
            history,
            log: Tail { epoch, end: self.log.end },
            commit_end: self.commit_end,
            oldest: Offset(0),
            origin: None,
            runs: Runs::default(),
        }
    }

    fn epoch_start(&self, epoch: Epoch, start: Offset) -> EpochStart {
        let voters = [self.me, self.id].to_vec();
        EpochStart { epoch, start, leader: self.me, voters, quorum: 2, old_voters: None }
    }
}

/// The state that no start is to change.
fn held(replica: &Replica) -> (Tail, Offset, Offset, usize) {
    (replica.log(), replica.log_start(), replica.commit_end(), replica.history().depth())
}

/// The end and the time from which the log goes on, where a joint takes something of it.
fn joined(joint: Joint, start: &Start) -> Option<(Tail, u64)> {
    match joint {
        Joint::End => None,
        Joint::Cut(to) => Some((to, u64::MAX >> 1)),
        Joint::Origin => start.origin.as_ref().map(|origin| (origin.tail(), origin.timestamp_ms)),
    }
}

/// The frame of a gap from the end of the log on.
fn gap(log: Tail, timestamp_ms: u64, end: u64) -> Bytes {
    let words = [log.end.0, log.epoch.0, timestamp_ms, end, 0];
    let body: Vec<u8> =
        [4, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(words.into_iter().flat_map(u64::to_le_bytes)).collect();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let checked = [length.as_slice(), &body].concat();
    [crc32fast::hash(&checked).to_le_bytes().as_slice(), &checked].concat().into()
}
