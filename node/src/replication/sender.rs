//! One replication stream, from the leader's side: carries out what the engine's sender says. Ends with the reason why.

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use zue_core::{ClockReading, Offset, Run, Tail};
use zue_engine::sender::{COMMIT_NEWS_WITHIN_MS, News, Next, Pace, Sender, With};
use zue_log::{Batch, ReadError};
use zue_proto::v1::replication_client::ReplicationClient;
use zue_proto::v1::{self, FollowerMessage, LeaderMessage, follower_message, leader_message};
use zue_settings::fixed::PEER_MESSAGE_BYTES_MAX;

use crate::driver::handle::Fact;
use crate::driver::pace::{Alarm, in_step};
use crate::driver::state::{DriverEnded, Ends, ReplicaView};
use crate::num::wide;
use crate::rarely::Rarely;
use crate::replication::ended::Ended;
use crate::replication::handshake::start_message;
use crate::replication::peer::Peer;
use crate::server::body_limit::longer;
use crate::server::net;
use crate::standby::Standby;

/// The time that a follower has to answer a leader's first words: it may have to write its promise and to cut. They may take longer to get
/// there if they are long.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A follower answers each heartbeat; silent for this many of them, or for the least time, it is given up.
const SILENT_HEARTBEATS: u32 = 15;
const SILENCE_MIN: Duration = Duration::from_secs(3);
/// The pause for the disk's thread when frames that left the memory are not on the disk yet.
const NOT_WRITTEN_YET: Duration = Duration::from_millis(20);
/// The number of messages that wait for the connection.
const OUTGOING_MAX: usize = 2;
const COMMIT_NEWS_WITHIN: Duration = Duration::from_millis(COMMIT_NEWS_WITHIN_MS);
/// A stream that was open for so long was of use, even if there was nothing to acknowledge.
const LIFE_MIN: Duration = Duration::from_secs(1);

type Reading = Pin<Box<dyn Future<Output = Result<Option<Batch>, ReadError>> + Send + Sync>>;

/// An open stream to a follower that has answered.
pub(crate) struct FollowerStream<'a> {
    peer: &'a Peer,
    id: zue_core::Session,
    watched: Watched,
    /// The start of the follower's disk that it is of.
    run: Run,
    sender: Sender<Standby>,
    outgoing: mpsc::Sender<LeaderMessage>,
    incoming: Streaming<FollowerMessage>,
    timers: Timers,
    next: Option<LeaderMessage>,
    reading: Option<Reading>,
    usage: Usage,
}

/// The driver's state, as the follower is to hear of it.
struct Watched {
    ends: watch::Receiver<Ends>,
    view: watch::Receiver<ReplicaView>,
    view_changes: Rarely<Result<(), DriverEnded>>,
}

/// The use that a stream was of.
struct Usage {
    begun: Instant,
    /// The follower's end when it was asked, and whether it has acknowledged more.
    had: Tail,
    has_moved: bool,
}

impl Usage {
    fn was_made(&self) -> bool {
        self.has_moved || self.begun.elapsed() >= LIFE_MIN
    }
}

/// Moments at which something is to happen though nothing comes.
struct Timers {
    heartbeat: Interval,
    /// When the follower is to hear of a commit, if frames do not tell it before.
    commit_news_due: Option<Instant>,
    commit_news: Alarm,
    /// When the follower was heard last.
    heard: Instant,
    silence: Alarm,
    /// When the follower's clock is told of again.
    clock_due: Instant,
}

impl Timers {
    fn new(heartbeat: Duration) -> Self {
        Self {
            heartbeat: in_step(heartbeat),
            commit_news_due: None,
            commit_news: Alarm::new(),
            heard: Instant::now(),
            silence: Alarm::new(),
            clock_due: Instant::now(),
        }
    }
}

/// The next event on a stream.
enum Event {
    Heard(Option<FollowerMessage>),
    Read(Result<Option<Batch>, ReadError>),
    HeartbeatDue,
    /// There may be something to send.
    News,
}

impl Drop for FollowerStream<'_> {
    fn drop(&mut self) {
        let fact = Fact::Disconnected { from: self.peer.member.id, session: self.id };
        if let Err(mpsc::error::TrySendError::Full(fact)) = self.peer.handle.facts.try_send(fact) {
            let facts = self.peer.handle.facts.clone();
            tokio::spawn(async move { facts.send(fact).await });
        }
    }
}

/// Waits for the next change from here on.
fn next_change(mut view: watch::Receiver<ReplicaView>) -> Rarely<Result<(), DriverEnded>> {
    view.mark_unchanged();
    Rarely::new(async move { view.changed().await.map_err(|_| DriverEnded) })
}

/// News for the follower.
fn news<'a>(ends: &Ends, view: &'a ReplicaView) -> News<'a, Standby> {
    let Ends { log, commit_end, round, log_start, .. } = *ends;
    News { log, commit_end, round, log_start, runs: &view.runs, standby: view.standby.as_ref() }
}

fn message(message: leader_message::Message) -> LeaderMessage {
    LeaderMessage { message: Some(message) }
}

impl<'a> FollowerStream<'a> {
    /// Opens a stream and agrees on where the follower's log ends.
    pub(crate) async fn open(peer: &'a Peer, with_origin: bool) -> Result<Self, Ended> {
        let start_message = start_message(peer, with_origin).await?;
        let place = peer.shared.address_book.of(&peer.member);
        let (channel, at) = net::connect(&place).await.map_err(Ended::Connect)?;
        let opened = Self::agree(peer, channel, start_message).await;
        match opened.as_ref().map_or_else(Ended::is_of_the_follower, |_| Some(true)) {
            Some(true) => place.worked(at),
            Some(false) => _ = place.is_wrong(at),
            None => {}
        }
        opened
    }

    async fn agree(peer: &'a Peer, channel: Channel, start_message: v1::Start) -> Result<Self, Ended> {
        let mut client = ReplicationClient::new(channel)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_decoding_message_size(net::ANSWER_BYTES_MAX);
        let table_bytes = start_message.origin.as_ref().map_or(0, |origin| origin.producers.len());
        let within = START_TIMEOUT + longer(wide(table_bytes));
        let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
        // There is room for the first message.
        let _ = outgoing.try_send(message(leader_message::Message::Start(start_message)));
        let opening = async {
            let mut incoming = client.follow(ReceiverStream::new(messages)).await?.into_inner();
            Ok::<_, Status>((incoming.message().await?, incoming))
        };
        let (first, incoming) = timeout(within, opening).await.map_err(|_| Ended::Timeout(within))??;
        let started = match first.and_then(|first| first.message) {
            Some(follower_message::Message::Started(started)) => started,
            Some(follower_message::Message::Refused(refused)) => return Err(Ended::refused(refused)),
            Some(follower_message::Message::Ack(_) | follower_message::Message::Trimmed(_)) => {
                return Err(Ended::OutOfTurn);
            }
            None => return Err(Ended::Closed),
        };
        let (log, durable) = (zue_proto::tail(started.log), zue_proto::tail(started.durable));
        let lineage = zue_proto::lineage(started.lineage);
        let runs = zue_proto::runs(&started.runs).map_err(|malformed| Ended::Call(malformed.to_string()))?;
        let (settings, leader) = (&peer.shared.settings, peer.handle.ends.borrow().log);
        let pace = Pace {
            window_bytes: settings.inflight_bytes_max.length(),
            batch_bytes: settings.repair_batch_bytes.length(),
            near_records: settings.inline_catchup_records,
        };
        let in_memory = peer.shared.cache.after(log, 0).is_some();
        let mut session = Self {
            peer,
            id: peer.handle.session(),
            watched: Watched {
                ends: peer.handle.ends.clone(),
                view: peer.handle.view.clone(),
                view_changes: next_change(peer.handle.view.clone()),
            },
            run: lineage.run(),
            sender: Sender::new(pace, log, (leader, in_memory), started.can_stand_by),
            outgoing,
            incoming,
            timers: Timers::new(settings.heartbeat()),
            next: None,
            reading: None,
            usage: Usage { begun: Instant::now(), had: durable, has_moved: false },
        };
        session.tell_clock(started.clock_ms).await?;
        session.tell(Fact::Started { from: peer.member.id, session: session.id, log, durable, lineage, runs }).await?;
        if leader.end > log.end && !session.sender.is_repairing() {
            peer.shared.metrics.inline_catchups.inc();
        }
        Ok(session)
    }

    async fn tell(&self, fact: Fact) -> Result<(), Ended> {
        Ok(self.peer.handle.fact(fact).await?)
    }

    /// Tells what the follower's clock shows, if it says so; a heartbeat's time later again, however often it does.
    async fn tell_clock(&mut self, clock_ms: u64) -> Result<(), Ended> {
        if clock_ms == 0 || Instant::now() < self.timers.clock_due {
            return Ok(());
        }
        self.timers.clock_due = Instant::now() + self.peer.shared.settings.heartbeat();
        self.tell(Fact::Clock(ClockReading::Follower { from: self.peer.member.id, clock_ms })).await
    }

    /// Feeds the follower until something ends that; and whether it was of use. If not, the next stream may fare no better: what is
    /// wrong, damage perhaps, shows only once a stream is open.
    pub(crate) async fn feed(mut self) -> (Ended, bool) {
        loop {
            if let Err(ended) = self.turn().await {
                return (ended, self.usage.was_made());
            }
        }
    }

    /// Waits for one thing to happen, and deals with it.
    async fn turn(&mut self) -> Result<(), Ended> {
        self.prepare();
        let heartbeat = self.peer.shared.settings.heartbeat();
        let silence = (heartbeat * SILENT_HEARTBEATS).max(SILENCE_MIN);
        let idle = self.next.is_none() && self.reading.is_none();
        let timers = &mut self.timers;
        let happened = tokio::select! {
            incoming = self.incoming.message() => Event::Heard(incoming?),
            permit = self.outgoing.reserve(), if self.next.is_some() => {
                if let Some(next) = self.next.take() {
                    permit.map_err(|_| Ended::Closed)?.send(next);
                }
                Event::News
            }
            read = ready(&mut self.reading) => Event::Read(read),
            changed = &mut self.watched.view_changes, if idle => {
                changed?;
                self.watched.view_changes = next_change(self.watched.view.clone());
                Event::News
            }
            changed = self.watched.ends.changed(), if idle => changed.map(|()| Event::News).map_err(|_| DriverEnded)?,
            _ = timers.heartbeat.tick() => Event::HeartbeatDue,
            () = timers.commit_news.wait(timers.commit_news_due), if idle => Event::HeartbeatDue,
            () = timers.silence.wait(Some(timers.heard + silence)) => return Err(Ended::Timeout(silence)),
        };
        match happened {
            Event::News => {}
            Event::HeartbeatDue => self.sender.heartbeat_due(),
            Event::Heard(message) => self.heard(message).await?,
            Event::Read(read) => {
                self.reading = None;
                self.read(read)?;
            }
        }
        Ok(())
    }

    /// Makes the next message ready, or begins to read it.
    fn prepare(&mut self) {
        if self.next.is_some() || self.reading.is_some() {
            return;
        }
        let (ends, view) = (*self.watched.ends.borrow_and_update(), self.watched.view.borrow_and_update());
        let cache = &self.peer.shared.cache;
        let next = self.sender.next(&news(&ends, &view), |prev, bytes_max| cache.after(prev, bytes_max));
        drop(view);
        self.next = match next {
            Next::Runs(runs) => {
                Some(message(leader_message::Message::Runs(v1::Runs { runs: zue_proto::runs_to_wire(&runs) })))
            }
            Next::Standby(standby) => Some(message(leader_message::Message::Standby(standby.to_wire()))),
            Next::Frames(found, with) => Some(self.frames(Batch::join(&found), with)),
            Next::Read { from, upto, bytes_max } => {
                self.reading = Some(self.read_from_disk(from, upto, bytes_max));
                None
            }
            Next::Heartbeat { commit_end, log_end, round, log_start } => {
                self.timers.commit_news_due = None;
                let agreed_ms = self.peer.handle.time.known().map_or(0, |known| known.agreed_ms);
                let (commit_end, log_end, log_start) = (commit_end.0, log_end.0, log_start.0);
                let heartbeat = v1::Heartbeat { commit_end, log_end, round, log_start, agreed_ms };
                Some(message(leader_message::Message::Heartbeat(heartbeat)))
            }
            Next::Later => {
                self.timers.commit_news_due.get_or_insert_with(|| Instant::now() + COMMIT_NEWS_WITHIN);
                None
            }
            Next::Nothing => None,
        };
    }

    fn frames(&mut self, frames: Bytes, With { prev, commit_end, round }: With) -> LeaderMessage {
        self.timers.commit_news_due = None;
        let frames = v1::Frames { prev: Some(prev.into()), frames, commit_end: commit_end.0, round };
        message(leader_message::Message::Frames(frames))
    }

    fn read_from_disk(&self, from: Tail, upto: Tail, bytes_max: usize) -> Reading {
        let reader = self.peer.shared.reader.clone();
        let read = move || {
            // What left the memory may still be on its way to the disk.
            if reader.tail() <= from { Ok(None) } else { reader.read_frames(from, upto, bytes_max) }
        };
        Box::pin(async move {
            match tokio::task::spawn_blocking(read).await {
                Ok(Ok(None)) | Err(_) => {
                    tokio::time::sleep(NOT_WRITTEN_YET).await;
                    Ok(None)
                }
                Ok(read) => read,
            }
        })
    }

    fn read(&mut self, read: Result<Option<Batch>, ReadError>) -> Result<(), Ended> {
        let metrics = &self.peer.shared.metrics;
        let batch = match read {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(()),
            Err(error) => {
                if let ReadError::Damaged(_) = error {
                    metrics.crc_errors.inc();
                }
                return Err(Ended::Read(zue_engine::room::full(&error)));
            }
        };
        metrics.repair_batches.inc();
        metrics.repair_records.inc_by(batch.record_count());
        let with = self.sender.read(&batch, &news(&self.watched.ends.borrow(), &self.watched.view.borrow()));
        self.next = Some(self.frames(batch.bytes().clone(), with));
        Ok(())
    }

    async fn heard(&mut self, incoming: Option<FollowerMessage>) -> Result<(), Ended> {
        self.timers.heard = Instant::now();
        let (durable, round, clock_ms) = match incoming.ok_or(Ended::Closed)?.message {
            Some(follower_message::Message::Ack(ack)) => (zue_proto::tail(ack.durable), ack.round, ack.clock_ms),
            Some(follower_message::Message::Trimmed(v1::Trimmed { log_start })) => {
                let fact = Fact::Trimmed { from: self.peer.member.id, log_start: Offset(log_start) };
                return self.tell(fact).await;
            }
            Some(follower_message::Message::Refused(refused)) => return Err(Ended::refused(refused)),
            Some(follower_message::Message::Started(_)) | None => return Err(Ended::OutOfTurn),
        };
        self.usage.has_moved |= durable > self.usage.had;
        self.tell_clock(clock_ms).await?;
        self.sender.acked(durable);
        self.tell(Fact::Acked { from: self.peer.member.id, session: self.id, durable, round, run: self.run }).await
    }
}

/// Waits for what is being read; for ever if nothing is.
async fn ready(reading: &mut Option<Reading>) -> Result<Option<Batch>, ReadError> {
    match reading {
        Some(reading) => reading.await,
        None => pending().await,
    }
}
