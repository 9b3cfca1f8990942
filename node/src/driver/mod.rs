//! The driver: the one task that owns the replica. Takes what has happened, lets the replica decide, and hands the work that
//! follows to the disk, the followers and whoever waits. Waits for none of them.

pub(crate) mod answers;
pub(crate) mod clock;
pub(crate) mod ending;
pub(crate) mod handle;
pub(crate) mod leaderless;
pub(crate) mod measure;
pub(crate) mod member;
pub(crate) mod outputs;
pub(crate) mod pace;
pub(crate) mod replica_thread;
pub(crate) mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use zue_core::{ClockReading, Epoch, Input, Millis, Offset, Refusal, Replica, ReplicaId, Reply, RequestId, Session};
use zue_engine::driver::Now;
use zue_engine::standby::are_voters;

use crate::driver::answers::{Answer, AnswerSender};
use crate::driver::clock::{Clocks, unix_ms};
use crate::driver::handle::{Append, Control, Fact, Follow, Handle, Heard, Outbox, Request, Waiter};
use crate::driver::leaderless::{DriverStandby, OTHER_VOTERS};
use crate::driver::measure::Change;
use crate::driver::member::Member;
use crate::driver::pace::in_step;
use crate::driver::state::{Ends, ReplicaView};
use crate::metrics::Metrics;
use crate::replication::cache::TailCache;
use crate::replication::peer::{PeerNote, Peers};
use crate::storage::{DiskFact, Share, Stalled, Storage, Task};

/// The number of inputs that are taken before the outputs of all are published.
const TAKEN_MAX: usize = 512;
/// No requests are taken while more work than this waits for the disk. Each makes at most three pieces.
const DISK_TASKS_MAX: usize = 4096;

/// The engine's next action.
pub(crate) type Action = zue_engine::driver::Action<Append>;

/// The followers that are fed while this replica leads.
pub(crate) struct Leading {
    pub(crate) stop: CancellationToken,
    pub(crate) members: Arc<[Member]>,
    pub(crate) feeds: BTreeMap<ReplicaId, SenderTask>,
}

/// The task that feeds one follower.
pub(crate) struct SenderTask {
    pub(crate) note: Arc<PeerNote>,
    pub(crate) stop: CancellationToken,
}

/// The parts of a driver.
pub(crate) struct Parts {
    pub(crate) storage: Storage,
    pub(crate) handle: Handle,
    pub(crate) inbox: Inbox,
    pub(crate) published: Published,
    pub(crate) answers: AnswerSender,
    pub(crate) cache: Arc<TailCache>,
    pub(crate) peers: Peers,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tick: Duration,
    /// The time for which no leader may feed it before those who wait for news are to look elsewhere.
    pub(crate) unfed_max: Duration,
    pub(crate) standing: DriverStandby,
}

/// The queues of what the driver is told and asked.
pub(crate) struct Inbox {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) facts: mpsc::Receiver<Fact>,
    pub(crate) disk: mpsc::Receiver<DiskFact>,
}

/// The driver's state, as everyone else sees it.
pub(crate) struct Published {
    pub(crate) ends: watch::Sender<Ends>,
    pub(crate) readable: watch::Sender<Offset>,
    pub(crate) view: watch::Sender<ReplicaView>,
}

/// The outcome of a turn, handed over at its end.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) tasks: Vec<Task>,
    /// Answers, sent after the new view is published: a client that has its answer can read what it appended.
    pub(crate) answers: Vec<Answer>,
    /// True if what is published is to be made anew.
    pub(crate) view_is_stale: bool,
}

/// The orders of controllers and people, as far as the rules know nothing of them.
#[derive(Default)]
pub(crate) struct Orders {
    /// The members that were named with the last appointment.
    pub(crate) appointed: Option<(Epoch, Vec<Member>)>,
    /// The learners that this leader feeds beside the voters.
    pub(crate) learners: Vec<Member>,
    /// The replica that is wanted to lead in place of this one in that epoch, and until when.
    pub(crate) switch_to: Option<(Epoch, ReplicaId, Instant)>,
    /// True once this replica is about to stop.
    pub(crate) leaving: bool,
}

/// The leader that is followed.
#[derive(Default)]
pub(crate) struct Following {
    /// The leader, and its members.
    pub(crate) leader: Option<(Member, Arc<[Member]>)>,
    /// The time for which it has been silent.
    pub(crate) heard: Option<Arc<Heard>>,
}

/// Troubles of a person's concern.
#[derive(Default)]
pub(crate) struct Troubles {
    /// Why this replica has failed.
    pub(crate) failure: Option<Arc<str>>,
    /// A leader was refused whose history parts from what is committed here, and no other was followed since.
    pub(crate) parted: Option<Arc<str>>,
    /// Why work waits for the disk.
    pub(crate) full: Option<Stalled>,
    /// The damage of the log, in words.
    pub(crate) damage: Option<Arc<str>>,
    /// Why nobody looks after the log any more.
    pub(crate) neglected: Option<Arc<str>>,
}

/// The driver.
pub(crate) struct Driver {
    pub(crate) parts: Parts,
    pub(crate) engine: zue_engine::driver::Driver<Append>,
    pub(crate) born: Instant,
    pub(crate) actions: Vec<Action>,
    pub(crate) turn: Turn,
    pub(crate) outboxes: BTreeMap<Session, watch::Sender<Outbox>>,
    pub(crate) leading: Option<Leading>,
    pub(crate) orders: Orders,
    pub(crate) following: Following,
    pub(crate) troubles: Troubles,
    pub(crate) clocks: Clocks,
    pub(crate) change: Change,
}

impl Driver {
    pub(crate) fn new(parts: Parts, replica: Replica, last_timestamp_ms: u64) -> Self {
        let mut driver = Self {
            parts,
            engine: zue_engine::driver::Driver::new(replica, last_timestamp_ms),
            born: Instant::now(),
            actions: Vec::new(),
            turn: Turn { view_is_stale: true, ..Turn::default() },
            outboxes: BTreeMap::new(),
            leading: None,
            orders: Orders::default(),
            following: Following::default(),
            troubles: Troubles::default(),
            clocks: Clocks::default(),
            change: Change::default(),
        };
        // Clients may be there before this runs: what the log holds is not to look like an empty one.
        driver.publish();
        driver
    }

    /// Runs until it is stopped, then lets the disk finish.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (mut requests, mut facts, mut disk) = (Vec::new(), Vec::new(), Vec::new());
        let mut tick = in_step(self.parts.tick);
        let mut disk_lives = true;
        loop {
            let disk_is_free = self.parts.storage.len() < DISK_TASKS_MAX;
            tokio::select! {
                () = stop.cancelled() => break,
                taken = self.parts.inbox.disk.recv_many(&mut disk, TAKEN_MAX), if disk_lives => {
                    if taken == 0 {
                        disk_lives = false;
                        self.fail("the thread of the disk has ended".into());
                    }
                }
                _ = self.parts.inbox.facts.recv_many(&mut facts, TAKEN_MAX) => {}
                _ = self.parts.inbox.requests.recv_many(&mut requests, TAKEN_MAX), if disk_is_free => {}
                _ = tick.tick() => self.tick(),
            }
            disk.drain(..).for_each(|fact| self.disk_fact(fact));
            facts.drain(..).for_each(|fact| self.fact(fact));
            requests.drain(..).for_each(|request| self.request(request));
            self.publish();
        }
        self.finish().await;
    }

    pub(crate) fn now(&self) -> Millis {
        Millis(u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn clocks(&self) -> Now {
        Now { at: self.now(), wall_ms: unix_ms() }
    }

    /// Lets the replica take one input, and carries out what follows.
    pub(crate) fn step(&mut self, input: Input) {
        let (now, mut actions) = (self.clocks(), std::mem::take(&mut self.actions));
        self.engine.step(now, input, &mut actions);
        self.carry_out(actions);
    }

    fn disk_fact(&mut self, fact: DiskFact) {
        match fact {
            DiskFact::Persisted(ticket) => self.persisted(ticket),
            DiskFact::Promised(ticket) => {
                self.step(Input::Promised(ticket));
                self.turn.view_is_stale = true;
            }
            DiskFact::Full(problem) => {
                let is_full = problem.is_some();
                self.troubles.full = problem;
                self.turn.view_is_stale = true;
                self.step(Input::DiskFull(is_full));
            }
            DiskFact::Damaged(damage) => {
                self.troubles.damage = damage;
                self.turn.view_is_stale = true;
                self.step(Input::Damaged(self.troubles.damage.is_some()));
            }
            DiskFact::Expired(before) => self.expired(before),
            DiskFact::Neglected(problem) => {
                (self.troubles.neglected, self.turn.view_is_stale) = (Some(problem), true);
                self.parts.metrics.maintenance_ended.set(1);
            }
            DiskFact::Failed(problem) => self.fail(problem),
        }
    }

    /// Nobody waits for the answer.
    fn expired(&mut self, before: Offset) {
        if self.engine.may_trim(self.now(), before) {
            tracing::info!(%before, "trimming what is beyond the retention");
            let request = self.engine.request();
            self.step(Input::Trim { request, before });
        }
    }

    /// Nothing that was written is to be trusted from here on.
    pub(crate) fn fail(&mut self, problem: Arc<str>) {
        self.troubles.failure = Some(problem);
        self.turn.view_is_stale = true;
        self.step(Input::DiskFailed);
    }

    fn fact(&mut self, fact: Fact) {
        self.turn.view_is_stale |= matches!(fact, Fact::Started { .. } | Fact::Disconnected { .. });
        let input = match fact {
            Fact::Started { from, session, log, durable, lineage, runs } => {
                Input::Started { from, session, log, durable, lineage, runs }
            }
            Fact::Acked { from, session, durable, round, run } => Input::Acked { from, session, durable, round, run },
            Fact::Clock(shown) => Input::Clock(shown),
            Fact::Trimmed { from, log_start } => Input::Trimmed { from, log_start },
            Fact::Disconnected { from, session } => Input::Disconnected { from, session },
            Fact::ConfirmRead(reply) => Input::ConfirmRead { request: self.wait(reply) },
            Fact::Leaving => {
                self.orders.leaving = true;
                return;
            }
            Fact::SwitchOver { to, within, reply } => {
                let _ = reply.send(self.switch_over(&to, within));
                return;
            }
            Fact::Status(reply) => {
                let _ = reply.send(self.status());
                return;
            }
        };
        self.step(input);
    }

    fn tick(&mut self) {
        self.step(Input::Tick);
        self.turn.view_is_stale = true;
        self.measure();
        self.look_for_leader();
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Append(append) => {
                let (now, mut actions) = (self.clocks(), std::mem::take(&mut self.actions));
                self.engine.append(now, append, &mut actions);
                self.carry_out(actions);
            }
            Request::Trim { before, reply } => {
                let request = self.wait(reply);
                self.step(Input::Trim { request, before });
            }
            Request::Control(control, reply) => self.control(control, reply),
            Request::Follow(session, message) => self.follow(session, message),
        }
    }

    fn wait(&mut self, reply: oneshot::Sender<Reply>) -> RequestId {
        self.engine.ask(Waiter { reply, since: None })
    }

    fn control(&mut self, control: Control, reply: oneshot::Sender<Reply>) {
        match control {
            Control::Seal { cluster, epoch } => {
                let request = self.wait(reply);
                self.step(Input::Seal { request, cluster, epoch });
            }
            Control::Appoint { cluster, terms, members, by, reason } => {
                let (request, epoch) = (self.wait(reply), terms.epoch);
                self.step(Input::Appoint { request, cluster, terms });
                if self.engine.replica().history().last_epoch() == epoch {
                    // Accepted, now or before. It leads once its epoch start is durable, which takes another step.
                    self.orders.appointed = Some((epoch, members));
                    self.parts.standing.elected_by = by.into();
                    self.parts.standing.elected_for = reason;
                }
            }
            Control::Learners { epoch, learners, moved, standby } => {
                if standby.as_ref().is_some_and(|standby| !are_voters(self.engine.replica(), epoch, standby)) {
                    let _ = reply.send(Reply::Refused(Refusal::Impossible(OTHER_VOTERS)));
                    return;
                }
                let (request, ids) = (self.wait(reply), learners.iter().map(|learner| learner.id).collect());
                let (now, mut actions) = (self.clocks(), std::mem::take(&mut self.actions));
                self.engine.step(now, Input::Learners { request, epoch, learners: ids }, &mut actions);
                if actions.iter().any(|action| matches!(action, Action::Lead(..))) {
                    // The replica has taken them.
                    self.orders.learners = learners;
                    self.move_voters(epoch, moved);
                    if let Some(standby) = standby {
                        self.parts.standing.rule.tell(self.engine.replica(), epoch, standby);
                        self.publish_standing();
                    }
                }
                self.carry_out(actions);
            }
            Control::HandOver { epoch, to, deadline_ms } => {
                let request = self.wait(reply);
                self.step(Input::HandOver { request, epoch, to, deadline_ms });
            }
        }
    }

    fn follow(&mut self, session: Session, message: Follow) {
        match message {
            Follow::Start { start, leader, members, outbox, heard } => {
                self.outboxes.insert(session, outbox);
                match self.joint_ms(&start) {
                    Ok(joint_ms) => self.send(session, |outbox| outbox.joint_ms = joint_ms),
                    Err(refusal) => return self.refuse(session, refusal),
                }
                self.step(Input::Start { session, start: *start });
                if self.outboxes.contains_key(&session) {
                    // Not refused. What another stream was for is over.
                    self.outboxes.retain(|other, _| *other == session);
                    (self.following.leader, self.troubles.parted) = (Some((leader, members.into())), None);
                    self.following.heard = Some(heard);
                    self.turn.view_is_stale = true;
                }
            }
            Follow::Frames { batch, commit_end, round, permit } => {
                let (now, mut actions) = (self.clocks(), std::mem::take(&mut self.actions));
                let (told, share): (_, Share) = ((batch.prev(), commit_end, round), Box::new(permit));
                self.engine.frames(now, session, (batch, share), told, &mut actions);
                self.carry_out(actions);
            }
            Follow::Heartbeat { commit_end, log_end, round, log_start, agreed_ms } => {
                self.step(Input::Clock(ClockReading::Agreed { session, agreed_ms }));
                self.step(Input::Heartbeat { session, commit_end, log_end, round });
                self.step(Input::LogStart { session, log_start });
            }
            Follow::Runs(runs) => self.step(Input::Runs { session, runs }),
            // Of a stream that was refused it is nobody's word.
            Follow::Standby(standby) if self.outboxes.contains_key(&session) => {
                self.parts.standing.rule.hear(session, standby);
            }
            Follow::Standby(_) => {}
            Follow::Ended => {
                self.outboxes.remove(&session);
                self.step(Input::StreamEnded { session });
                self.turn.view_is_stale = true;
            }
        }
    }
}
