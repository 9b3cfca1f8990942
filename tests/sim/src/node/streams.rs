//! Streams from a leader to its followers, from both ends.

use zue_core::{ClockReading, Epoch, Input, ReplicaId, Session, Tail};
use zue_engine::sender::{COMMIT_NEWS_WITHIN_MS, News, Next, Sender, With};

use crate::batch::Batch;
use crate::breaks::Break;
use crate::coverage::Fault;
use crate::event::ProcessEvent;
use crate::message::{Address, Down, Message, Up};
use crate::node::process::{Feed, Inbound};
use crate::node::standby::Standby;
use crate::world::World;

impl World {
    // ---- the leader's end

    pub(crate) fn lead(&mut self, machine: usize, epoch: Epoch, followers: &[ReplicaId]) {
        let now = self.now;
        let Some(process) = self.machines.get_mut(machine).and_then(|at| at.process.as_mut()) else { return };
        let begins = process.led != Some(epoch);
        process.led = Some(epoch);
        let ended: Vec<_> = process.feeds.extract_if(.., |id, _| !followers.contains(id)).collect();
        let new: Vec<_> = followers.iter().filter(|id| !process.feeds.contains_key(id)).copied().collect();
        let feed =
            || Feed { session: None, sender: None, news_due: false, heard: now, retry_at: now, with_origin: false };
        process.feeds.extend(new.iter().map(|id| (*id, feed())));
        if begins {
            self.counts.done.elections += 1;
            self.check.leads(process, epoch);
        }
        self.trace.say(now, format_args!("{machine} leads {epoch} and feeds {followers:?}"));
        for (follower, feed) in ended {
            if let Some(session) = feed.session {
                self.send_down(machine, follower, session, Down::Close);
            }
        }
        if begins && self.dice.chance(self.params.faults.moments.forget_promise) {
            self.cut_off_leader(machine, epoch);
        }
        for follower in new {
            self.open_feed(machine, follower);
        }
        if begins && self.dice.chance(self.params.faults.moments.crash_leading) {
            self.counts.faults.count(Fault::LeaderStopped);
            self.after_of(machine, (0, 12), ProcessEvent::Crash);
        }
    }

    pub(crate) fn end_feeds(&mut self, machine: usize) {
        self.trace.say(self.now, format_args!("{machine} leads no more"));
        let Some(process) = self.process(machine) else { return };
        process.memory.clear();
        for (follower, feed) in std::mem::take(&mut process.feeds) {
            if let Some(session) = feed.session {
                self.send_down(machine, follower, session, Down::Close);
            }
        }
    }

    fn open_feed(&mut self, machine: usize, follower: ReplicaId) {
        let session = Session(self.next_id());
        let now = self.now;
        let retry_at = now + self.dice.between((0, 60));
        let Some(start) = self.handshake(machine, follower) else {
            let feed = self.process(machine).and_then(|process| process.feeds.get_mut(&follower));
            return feed.map_or((), |feed| feed.retry_at = retry_at);
        };
        let Some(feed) = self.process(machine).and_then(|process| process.feeds.get_mut(&follower)) else { return };
        (feed.session, feed.sender, feed.heard, feed.with_origin) = (Some(session), None, now, false);
        self.send_down(machine, follower, session, Down::Start(start));
    }

    fn send_down(&mut self, machine: usize, target: ReplicaId, session: Session, body: Down) {
        let told = self.process(machine).and_then(|process| *process.members.get(&target)?);
        let Some(to) = told.map(Address::Machine) else { return };
        self.send(Address::Machine(machine), to, Message::Down { session, machine, target, body });
    }

    fn close_feed(&mut self, machine: usize, follower: ReplicaId, session: Session, pause_ms: u64) {
        let retry_at = self.now + self.dice.between((0, pause_ms));
        let Some(process) = self.process(machine) else { return };
        if let Some(feed) = process.feeds.get_mut(&follower).filter(|feed| feed.session == Some(session)) {
            (feed.session, feed.sender, feed.retry_at) = (None, None, retry_at);
        }
        self.step(machine, Input::Disconnected { from: follower, session });
    }

    pub(crate) fn close_feeds(&mut self, machine: usize) {
        let Some(process) = self.process(machine) else { return };
        let open: Vec<_> = process.feeds.iter().filter_map(|(id, feed)| Some((*id, feed.session?))).collect();
        for (follower, session) in open {
            self.close_feed(machine, follower, session, 0);
        }
    }

    pub(crate) fn tick(&mut self, machine: usize) {
        self.step(machine, Input::Tick);
        self.look_for_leader(machine);
        let (now, timeout) = (self.now, self.params.node.stream_timeout_ms);
        let Some(process) = self.process(machine) else { return };
        let silent = |heard: u64| now.saturating_sub(heard) > timeout;
        process.inbound.retain(|_, inbound| now.saturating_sub(inbound.heard) < 4 * timeout);
        let ended = process.followed.filter(|s| process.inbound.get(s).is_none_or(|inbound| silent(inbound.heard)));
        process.feeds.values_mut().filter_map(|feed| feed.sender.as_mut()).for_each(Sender::heartbeat_due);
        let feeds: Vec<_> = process.feeds.iter().map(|(id, f)| (*id, f.session, silent(f.heard), f.retry_at)).collect();
        if let Some(session) = ended {
            self.step(machine, Input::StreamEnded { session });
        }
        for (follower, session, silent, retry_at) in feeds {
            match session {
                Some(session) if silent => {
                    self.send_down(machine, follower, session, Down::Close);
                    self.close_feed(machine, follower, session, 0);
                }
                None if now >= retry_at => self.open_feed(machine, follower),
                Some(_) | None => {}
            }
        }
        self.pump(machine);
    }

    /// Sends every follower what there is for it.
    pub(crate) fn pump(&mut self, machine: usize) {
        let Some(process) = self.process(machine).filter(|process| !process.feeds.is_empty()) else { return };
        let open: Vec<_> = process.feeds.iter().filter(|(_, feed)| feed.sender.is_some()).map(|(id, _)| *id).collect();
        for follower in open {
            while let Some((session, body)) = self.next_down(machine, follower) {
                self.send_down(machine, follower, session, body);
            }
        }
    }

    /// Sends a follower the next message. Where what it lacks cannot be read, the stream ends.
    fn next_down(&mut self, machine: usize, follower: ReplicaId) -> Option<(Session, Down)> {
        let (agreed_ms, tells) = (self.agreed_ms(machine), !self.broken_by(Break::StandbyUnlearned));
        let at = self.machines.get_mut(machine)?;
        let (process, storage) = (at.process.as_mut()?, &at.storage);
        let feed = process.feeds.get_mut(&follower)?;
        let (session, sender) = (feed.session?, feed.sender.as_mut()?);
        let replica = process.driver.replica();
        let news = News {
            log: replica.log(),
            commit_end: replica.commit_end(),
            round: replica.round(),
            log_start: replica.log_start(),
            runs: replica.runs(),
            standby: process.standing.known().filter(|_| tells),
        };
        let memory = &process.memory;
        let next = sender.next(&news, |prev, bytes_max| memory.after(prev, bytes_max));
        let (batch, With { commit_end, round, .. }) = match next {
            Next::Runs(runs) => return Some((session, Down::Runs(runs))),
            Next::Standby(standby) => return Some((session, Down::Standby(Standby::clone(&standby)))),
            Next::Heartbeat { commit_end, log_end, round, log_start } => {
                feed.news_due = false;
                return Some((session, Down::Heartbeat { commit_end, log_end, round, log_start, agreed_ms }));
            }
            Next::Later => {
                if !std::mem::replace(&mut feed.news_due, true) {
                    let within = (COMMIT_NEWS_WITHIN_MS, COMMIT_NEWS_WITHIN_MS);
                    self.after_of(machine, within, ProcessEvent::CommitNews { follower, session });
                }
                return None;
            }
            Next::Nothing => return None,
            Next::Frames(found, with) => (Batch::join(&found), with),
            // What left the memory may still be on its way to the disk.
            Next::Read { from, .. } if from >= storage.tail() => return None,
            Next::Read { from, bytes_max, .. } => match storage.read_frames(from, bytes_max) {
                Ok(Some(batch)) => {
                    let with = sender.read(batch.as_ref(), &news);
                    (batch, with)
                }
                Ok(None) => return None,
                Err(_) => {
                    // What it lacks is gone, and it is offered a new stream; or it cannot be read.
                    if from.end >= storage.held().1 && !storage.is_damaged() {
                        let what = format!("machine {machine} does not find what {follower:?} was sent last");
                        self.check.violated(what);
                    }
                    self.close_feed(machine, follower, session, 0);
                    return None;
                }
            },
        };
        feed.news_due = false;
        self.check.are_gone(storage.id(), batch.gone());
        Some((session, Down::Frames { batch, commit_end, round }))
    }

    /// A follower is to hear of what is committed, if it has not yet.
    pub(crate) fn commit_news(&mut self, machine: usize, follower: ReplicaId, session: Session) {
        let Some(process) = self.process(machine) else { return };
        let feed = process.feeds.get_mut(&follower).filter(|feed| feed.session == Some(session) && feed.news_due);
        if let Some(sender) = feed.and_then(|feed| feed.sender.as_mut()) {
            sender.heartbeat_due();
            self.pump(machine);
        }
    }

    pub(crate) fn hear_follower(&mut self, machine: usize, session: Session, from: ReplicaId, body: Up) {
        let (now, pace) = (self.now, self.params.node.pace);
        let Some(process) = self.process(machine) else { return };
        let leading = process.replica().log().epoch;
        let feed = process.feeds.get_mut(&from).filter(|feed| feed.session == Some(session));
        if let Some(feed) = feed {
            feed.heard = now;
            match &body {
                Up::Started { log, .. } if feed.sender.is_none() => {
                    let in_memory = process.memory.after(*log, 0).is_some();
                    feed.sender = Some(Sender::new(pace, *log, (process.driver.replica().log(), in_memory), true));
                    feed.news_due = false;
                }
                Up::Acked { durable, .. } => feed.sender.iter_mut().for_each(|sender| sender.acked(*durable)),
                Up::Started { .. } | Up::Trimmed { .. } => {}
                Up::Refused { needs_origin } => feed.with_origin = *needs_origin,
            }
        }
        let counted = |durable: Tail, old: bool| if old { Tail { epoch: leading, ..durable } } else { durable };
        let old = self.broken_by(Break::CountOldEpochs);
        if let Up::Started { clock_ms, .. } | Up::Acked { clock_ms, .. } = body {
            self.step(machine, Input::Clock(ClockReading::Follower { from, clock_ms }));
        }
        match body {
            Up::Started { log, durable, lineage, runs, .. } => {
                let durable = counted(durable, old);
                self.check.starting = true;
                self.step(machine, Input::Started { from, session, log, durable, lineage, runs });
                self.check.starting = false;
            }
            Up::Acked { durable, round, run, .. } => {
                let durable = counted(durable, old);
                self.step(machine, Input::Acked { from, session, durable, round, run });
            }
            Up::Trimmed { log_start } => self.step(machine, Input::Trimmed { from, log_start }),
            Up::Refused { .. } => self.close_feed(machine, from, session, 60),
        }
    }

    // ---- the follower's end

    pub(crate) fn send_up(&mut self, machine: usize, session: Session, body: Up) {
        let Some(at) = self.machines.get_mut(machine) else { return };
        let Some(process) = &mut at.process else { return };
        let Some(inbound) = process.inbound.get(&session) else { return };
        if let Up::Started { durable, .. } | Up::Acked { durable, .. } = &body {
            self.check.acks(&at.storage, inbound.epoch, *durable);
        }
        if let Up::Trimmed { log_start } = &body {
            self.check.says_trimmed(&at.storage, *log_start);
        }
        let (from, to) = (at.storage.id(), Address::Machine(inbound.machine));
        self.send(Address::Machine(machine), to, Message::Up { session, from, body });
    }

    pub(crate) fn hear_leader(
        &mut self,
        machine: usize,
        session: Session,
        leader: usize,
        target: ReplicaId,
        body: Down,
    ) {
        let now = self.now;
        let at = self.machine(machine);
        let id = at.storage.id();
        if target != id {
            let message = Message::Up { session, from: id, body: Up::Refused { needs_origin: false } };
            return self.send(Address::Machine(machine), Address::Machine(leader), message);
        }
        let Some(process) = &mut at.process else { return };
        if let Some(inbound) = process.inbound.get_mut(&session) {
            inbound.heard = now;
        }
        match body {
            Down::Start(start) => {
                process.inbound.insert(session, Inbound { machine: leader, epoch: start.epoch, heard: now });
                self.trace.say(
                    now,
                    format_args!(
                        "{machine} is offered stream {} of {} by {leader}, {}",
                        session.0, start.epoch, start.log
                    ),
                );
                let (epoch, by) = (start.epoch, start.leader);
                let Some(process) = self.process(machine) else { return };
                let followed = process.followed.replace(session);
                self.step(machine, Input::Start { session, start });
                let Some(process) = self.process(machine) else { return };
                if process.replica().promise() != (zue_core::Promise { epoch, leader: Some(by) }) {
                    process.followed = followed;
                }
            }
            Down::Frames { batch, commit_end, round } => self.frames(machine, session, batch, commit_end, round),
            Down::Heartbeat { commit_end, log_end, round, log_start, agreed_ms } => {
                self.step(machine, Input::Clock(ClockReading::Agreed { session, agreed_ms }));
                self.step(machine, Input::Heartbeat { session, commit_end, log_end, round });
                self.step(machine, Input::LogStart { session, log_start });
            }
            Down::Runs(runs) => self.step(machine, Input::Runs { session, runs }),
            Down::Standby(standby) => self.hear_standby(machine, session, standby),
            Down::Close => {
                process.inbound.remove(&session);
                self.step(machine, Input::StreamEnded { session });
            }
        }
    }

    fn frames(&mut self, machine: usize, session: Session, batch: Batch, commit_end: zue_core::Offset, round: u64) {
        let batch = match batch.arrive() {
            Ok(batch) => batch,
            Err(why) => return self.check.violated(format!("machine {machine} takes frames for wrong: {why}")),
        };
        let unchecked = self.broken_by(Break::FramesUnchecked);
        let Some(process) = self.process(machine) else { return };
        let log = process.replica().log();
        let prev = if unchecked && batch.tail() > log { log } else { batch.prev() };
        self.drive(machine, |driver, now, actions| {
            driver.frames(now, session, (batch, ()), (prev, commit_end, round), actions);
        });
    }
}
