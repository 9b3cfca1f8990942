//! One replication stream, from the leader's side: from memory where the follower is near, from the disk where it is not, never
//! more under way than the window. Ends with the reason why.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use zue_core::{Offset, Run, Runs, Shown, Tail};
use zue_engine::standing::Telling;
use zue_log::ReadError;
use zue_proto::v1::replication_client::ReplicationClient;
use zue_proto::v1::{self, FollowerMessage, LeaderMessage, follower_message, leader_message};

use crate::ended::Ended;
use crate::first_words::first_words;
use crate::inbox::{Fact, Gone};
use crate::intake::longer;
use crate::net;
use crate::num::wide;
use crate::pace::in_step;
use crate::peer::Peer;
use crate::standby::Standby;
use crate::state::{Ends, View};

/// How long a follower has to answer a leader's first words: it may have to write its promise and to cut. They may take longer to get
/// there if they are long.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A follower answers each heartbeat; silent for this many of them, or for the least time, it is given up.
const SILENT_HEARTBEATS: u32 = 20;
const SILENCE_MIN: Duration = Duration::from_secs(3);
/// How long to wait for the disk's thread when frames that left the memory are not on the disk yet.
const NOT_WRITTEN_YET: Duration = Duration::from_millis(20);
/// How many messages wait for the connection.
const OUTGOING_MAX: usize = 2;
/// How long a follower may be left without word of what is committed: the next frames carry it, too.
const COMMIT_NEWS_WITHIN: Duration = Duration::from_millis(2);
/// A stream that was open for so long was of use, even if there was nothing to acknowledge.
const LIFE_MIN: Duration = Duration::from_secs(1);

type Reading = Pin<Box<dyn Future<Output = Result<Option<zue_log::Batch>, ReadError>> + Send + Sync>>;

/// An open stream to a follower that has answered.
pub(crate) struct Session<'a> {
    peer: &'a Peer,
    id: zue_core::Session,
    ends: watch::Receiver<Ends>,
    view: watch::Receiver<View>,
    /// The start of the follower's disk that it is of.
    run: Run,
    runs_sent: Arc<Runs>,
    standby: Telling<Standby>,
    outgoing: mpsc::Sender<LeaderMessage>,
    incoming: Streaming<FollowerMessage>,
    heartbeat: Interval,
    /// The tail of what has been sent.
    sent: Tail,
    commit_sent: Offset,
    log_start_sent: Offset,
    round_sent: u64,
    heartbeat_due: bool,
    /// When it is to hear of a commit, if frames do not tell it before.
    commit_news_due: Option<Instant>,
    /// What is under way: the tail after each message, and its bytes.
    window: VecDeque<(Tail, usize)>,
    window_bytes: usize,
    /// Not near the end: fed from the disk.
    repairing: bool,
    next: Option<LeaderMessage>,
    reading: Option<Reading>,
    heard: Instant,
    begun: Instant,
    /// When the follower's clock is told of again.
    clock_due: Instant,
    /// What the follower had when it was asked, and whether it has acknowledged more.
    had: Tail,
    has_moved: bool,
}

/// What happens next on a stream.
enum Event {
    Heard(Option<FollowerMessage>),
    Read(Result<Option<zue_log::Batch>, ReadError>),
    HeartbeatDue,
    /// There may be something to send.
    News,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let fact = Fact::Disconnected { from: self.peer.member.id, session: self.id };
        if let Err(mpsc::error::TrySendError::Full(fact)) = self.peer.handle.facts.try_send(fact) {
            let facts = self.peer.handle.facts.clone();
            tokio::spawn(async move { facts.send(fact).await });
        }
    }
}

fn message(message: leader_message::Message) -> LeaderMessage {
    LeaderMessage { message: Some(message) }
}

impl<'a> Session<'a> {
    /// Opens a stream and agrees on where the follower's log ends.
    pub(crate) async fn open(peer: &'a Peer, with_origin: bool) -> Result<Self, Ended> {
        let first_words = first_words(peer, with_origin).await?;
        let place = peer.shared.whereabouts.of(&peer.member);
        let (channel, at) = net::connect(&place).await.map_err(Ended::Connect)?;
        let opened = Self::agree(peer, channel, first_words).await;
        match opened.as_ref().map_or_else(Ended::is_of_the_follower, |_| Some(true)) {
            Some(true) => place.worked(at),
            Some(false) => _ = place.is_wrong(at),
            None => {}
        }
        opened
    }

    async fn agree(peer: &'a Peer, channel: Channel, first_words: v1::Start) -> Result<Self, Ended> {
        let mut client = ReplicationClient::new(channel)
            .max_encoding_message_size(net::PEER_MESSAGE_BYTES_MAX)
            .max_decoding_message_size(net::ANSWER_BYTES_MAX);
        let table_bytes = first_words.origin.as_ref().map_or(0, |origin| origin.producers.len());
        let within = START_TIMEOUT + longer(wide(table_bytes));
        let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
        // There is room for the first message.
        let _ = outgoing.try_send(message(leader_message::Message::Start(first_words)));
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
        let mut session = Self {
            peer,
            id: peer.handle.session(),
            ends: peer.handle.ends.clone(),
            view: peer.handle.view.clone(),
            run: lineage.run(),
            runs_sent: Arc::default(),
            standby: Telling::to(started.can_stand_by),
            outgoing,
            incoming,
            heartbeat: in_step(peer.shared.settings.heartbeat_interval.0),
            sent: log,
            commit_sent: Offset::default(),
            log_start_sent: Offset::default(),
            round_sent: 0,
            heartbeat_due: true,
            commit_news_due: None,
            window: VecDeque::new(),
            window_bytes: 0,
            repairing: false,
            next: None,
            reading: None,
            heard: Instant::now(),
            begun: Instant::now(),
            clock_due: Instant::now(),
            had: durable,
            has_moved: false,
        };
        session.tell_clock(started.clock_ms).await?;
        session.tell(Fact::Started { from: peer.member.id, session: session.id, log, durable, lineage, runs }).await?;
        Ok(session.choose_source())
    }

    /// Near the end it is fed from memory, further away from the disk.
    fn choose_source(mut self) -> Self {
        let shared = &self.peer.shared;
        let lag = self.ends.borrow().log.end.since(self.sent.end);
        let is_near = lag <= shared.settings.inline_catchup_records && shared.cache.after(self.sent, 0).is_some();
        self.repairing = lag > 0 && !is_near;
        if lag > 0 && is_near {
            shared.metrics.inline_catchups.inc();
        }
        self
    }

    async fn tell(&self, fact: Fact) -> Result<(), Ended> {
        Ok(self.peer.handle.fact(fact).await?)
    }

    /// Tells what the follower's clock shows, if it says so; a heartbeat's time later again, however often it does.
    async fn tell_clock(&mut self, clock_ms: u64) -> Result<(), Ended> {
        if clock_ms == 0 || Instant::now() < self.clock_due {
            return Ok(());
        }
        self.clock_due = Instant::now() + self.peer.shared.settings.heartbeat_interval.0;
        self.tell(Fact::Clock(Shown::Follower { from: self.peer.member.id, clock_ms })).await
    }

    /// Feeds the follower until something ends that; and whether it was of use. If not, the next stream may fare no better: what is
    /// wrong, damage perhaps, shows only once a stream is open.
    pub(crate) async fn feed(mut self) -> (Ended, bool) {
        loop {
            if let Err(ended) = self.turn().await {
                return (ended, self.has_moved || self.begun.elapsed() >= LIFE_MIN);
            }
        }
    }

    /// Waits for one thing to happen, and deals with it.
    async fn turn(&mut self) -> Result<(), Ended> {
        self.prepare();
        let heartbeat = self.peer.shared.settings.heartbeat_interval.0;
        let silence = (heartbeat * SILENT_HEARTBEATS).max(SILENCE_MIN);
        let idle = self.next.is_none() && self.reading.is_none();
        let happened = tokio::select! {
            incoming = self.incoming.message() => Event::Heard(incoming?),
            permit = self.outgoing.reserve(), if self.next.is_some() => {
                if let Some(next) = self.next.take() {
                    permit.map_err(|_| Ended::Closed)?.send(next);
                }
                Event::News
            }
            read = ready(&mut self.reading) => Event::Read(read),
            changed = self.view.changed(), if idle => changed.map(|()| Event::News).map_err(|_| Gone)?,
            changed = self.ends.changed(), if idle => changed.map(|()| Event::News).map_err(|_| Gone)?,
            _ = self.heartbeat.tick() => Event::HeartbeatDue,
            () = at(self.commit_news_due), if idle => Event::HeartbeatDue,
            () = tokio::time::sleep_until(self.heard + silence) => return Err(Ended::Timeout(silence)),
        };
        match happened {
            Event::News => {}
            Event::HeartbeatDue => self.heartbeat_due = true,
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
        self.next = self.new_runs().map(|runs| message(leader_message::Message::Runs(runs)));
        if self.next.is_none() {
            let news = self.standby.news(self.view.borrow().standby.as_ref());
            self.next = news.map(|standby| message(leader_message::Message::Standby(standby.to_wire())));
        }
        if self.next.is_some() {
            return;
        }
        let ends = *self.ends.borrow_and_update();
        let Ends { log, commit_end, round, log_start, .. } = ends;
        let settings = &self.peer.shared.settings;
        let has_room = self.window_bytes < settings.inflight_bytes_max.length();
        if self.sent < log && has_room {
            let found = if self.repairing { None } else { self.peer.shared.cache.after(self.sent, self.batch_bytes()) };
            if let Some((frames, tail)) = found {
                self.send_frames(frames, tail, ends);
            } else {
                self.repairing = true;
                self.reading = Some(self.read_from_disk(log));
            }
        } else if self.heartbeat_due || self.is_news(ends) {
            (self.heartbeat_due, self.commit_news_due) = (false, None);
            (self.commit_sent, self.round_sent, self.log_start_sent) = (commit_end, round, log_start);
            let (log_end, log_start) = (log.end.0, log_start.0);
            let agreed_ms = self.peer.handle.time.known().map_or(0, |known| known.agreed_ms);
            let heartbeat = v1::Heartbeat { commit_end: commit_end.0, log_end, round, log_start, agreed_ms };
            self.next = Some(message(leader_message::Message::Heartbeat(heartbeat)));
        } else if commit_end > self.commit_sent && self.commit_news_due.is_none() {
            self.commit_news_due = Some(Instant::now() + COMMIT_NEWS_WITHIN);
        }
    }

    /// What it has not been told of yet.
    fn new_runs(&mut self) -> Option<v1::Runs> {
        let runs = Arc::clone(&self.view.borrow_and_update().runs);
        if std::mem::replace(&mut self.runs_sent, Arc::clone(&runs)) == runs {
            return None;
        }
        Some(v1::Runs { runs: zue_proto::runs_to_wire(&runs) })
    }

    /// Whether a follower that needs no frames is to hear of it at once.
    fn is_news(&self, ends: Ends) -> bool {
        ends.round > self.round_sent || ends.log_start > self.log_start_sent
    }

    fn batch_bytes(&self) -> usize {
        self.peer.shared.settings.repair_batch_bytes.length()
    }

    fn send_frames(&mut self, frames: Bytes, tail: Tail, ends: Ends) {
        let Ends { commit_end, round, .. } = ends;
        self.window.push_back((tail, frames.len()));
        self.window_bytes += frames.len();
        (self.commit_sent, self.round_sent, self.commit_news_due) = (commit_end, round, None);
        let prev = std::mem::replace(&mut self.sent, tail);
        let frames = v1::Frames { prev: Some(prev.into()), frames, commit_end: commit_end.0, round };
        self.next = Some(message(leader_message::Message::Frames(frames)));
    }

    fn read_from_disk(&self, upto: Tail) -> Reading {
        let (reader, from, bytes_max) = (self.peer.shared.reader.clone(), self.sent, self.batch_bytes());
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

    fn read(&mut self, read: Result<Option<zue_log::Batch>, ReadError>) -> Result<(), Ended> {
        let metrics = &self.peer.shared.metrics;
        let batch = match read {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(()),
            Err(error) => {
                if let ReadError::Damaged(_) = error {
                    metrics.crc_errors.inc();
                }
                return Err(Ended::Read(crate::storage::full(&error)));
            }
        };
        metrics.repair_batches.inc();
        metrics.repair_records.inc_by(batch.record_count());
        let ends = *self.ends.borrow();
        self.send_frames(batch.bytes().clone(), batch.tail(), ends);
        let near = ends.log.end.since(self.sent.end) <= self.peer.shared.settings.inline_catchup_records;
        self.repairing = !near;
        Ok(())
    }

    async fn heard(&mut self, incoming: Option<FollowerMessage>) -> Result<(), Ended> {
        self.heard = Instant::now();
        let (durable, round, clock_ms) = match incoming.ok_or(Ended::Closed)?.message {
            Some(follower_message::Message::Ack(ack)) => (zue_proto::tail(ack.durable), ack.round, ack.clock_ms),
            Some(follower_message::Message::Trimmed(v1::Trimmed { log_start })) => {
                let fact = Fact::Trimmed { from: self.peer.member.id, log_start: Offset(log_start) };
                return self.tell(fact).await;
            }
            Some(follower_message::Message::Refused(refused)) => return Err(Ended::refused(refused)),
            Some(follower_message::Message::Started(_)) | None => return Err(Ended::OutOfTurn),
        };
        self.has_moved |= durable > self.had;
        self.tell_clock(clock_ms).await?;
        while let Some((_, bytes)) = self.window.pop_front_if(|(tail, _)| *tail <= durable) {
            self.window_bytes = self.window_bytes.saturating_sub(bytes);
        }
        self.tell(Fact::Acked { from: self.peer.member.id, session: self.id, durable, round, run: self.run }).await
    }
}

/// Waits until then; for ever if there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}

/// Waits for what is being read; for ever if nothing is.
async fn ready(reading: &mut Option<Reading>) -> Result<Option<zue_log::Batch>, ReadError> {
    match reading {
        Some(reading) => reading.await,
        None => pending().await,
    }
}
