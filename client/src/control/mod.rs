//! The shell around the pure rules of control: polls the replicas, asks `zue_core::control::plan` what to do, and does it. Serves
//! the operator, `zue dev` and `zue control`. What to do is not decided here.

mod election;
mod event;
mod file_store;
mod homes;
mod members;
mod peers;
mod seen;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::{Duration, Instant};

use zue_core::control::{Blocked, Reason, Recorded, Seen, Step, Wish, nodes_needed, plan};
use zue_core::{ClusterId, Epoch, ReplicaId};
use zue_proto::v1;

use crate::backoff::{Backoff, Retry};
use crate::notices::Notice;

use election::Attempt;
use homes::Homes;
use members::Feed;
use peers::Peers;

pub use event::Event;
pub use file_store::{FileStore, FileStoreError};

/// A voter that hears nothing of a leader for so long has lost it, unless something else is asked for.
pub const DETECTION_TIME_DEFAULT: Duration = Duration::from_secs(1);
/// The bounds of that. Shorter, and one pause of a busy machine passes for a loss.
pub const DETECTION_TIME_MIN: Duration = Duration::from_millis(300);
/// The bounds of that.
pub const DETECTION_TIME_MAX: Duration = Duration::from_mins(1);

/// A replica and where it is reached. Its index in the slice is its ordinal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeAddress {
    /// Its name, for people.
    pub name: String,
    /// host:port of control and replication, as the replicas are told to reach each other.
    pub peer_address: String,
    /// host:port that this controller takes instead, if it knows one that changes sooner than a name does.
    pub dial_address: Option<String>,
    /// host:port for clients, as the replicas name it in redirects.
    pub client_address: String,
}

impl NodeAddress {
    fn dialled(&self) -> &String {
        self.dial_address.as_ref().unwrap_or(&self.peer_address)
    }
}

/// Where controllers write down what they are about to do. Shared by all controllers of a cluster.
pub trait Store: Send + Sync {
    /// Why it could not be read or written.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What is written down; `Recorded::default()` where nothing ever was.
    fn load(&self) -> impl Future<Output = Result<Recorded, Self::Error>> + Send;

    /// Replaces `from` by `to`, durably; false where somebody else wrote meanwhile, and then nothing is written.
    fn swap(&self, from: &Recorded, to: &Recorded) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// How patient a controller is.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// How long a replica may take to tell its status before it counts as unreachable.
    pub rpc_timeout: Duration,
    /// How long a sealing waits for answers that are enough to choose.
    pub seal_timeout: Duration,
    /// How long a replica may take to write down the start of its leadership, at first and after failures in a row: one whose disk
    /// hangs gives way to another soon, and one whose disk is slow gets its time in the end.
    pub appoint_timeout: Backoff,
    /// How long a sealing waits for the others once the answers are enough to choose.
    pub seal_grace: Duration,
    /// How long a leader holds new appends for a hand-over before it goes on by itself.
    pub handover_deadline: Duration,
    /// The pause after a failed election, so that two controllers don't outbid each other for ever.
    pub election_retry: Backoff,
    /// The pause after an epoch that was to change the voters and did not, and between the steps towards a promise that is far ahead.
    pub members_retry: Backoff,
    /// The pause after a failed hand-over, and after an election for want of a quorum: the next leader may miss one as well.
    pub handover_retry: Backoff,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            rpc_timeout: Duration::from_millis(800),
            seal_timeout: Duration::from_secs(5),
            appoint_timeout: Backoff { min: Duration::from_secs(1), max: Duration::from_secs(10) },
            seal_grace: Duration::from_millis(200),
            handover_deadline: Duration::from_secs(2),
            election_retry: Backoff { min: Duration::from_millis(100), max: Duration::from_secs(5) },
            members_retry: Backoff { min: Duration::from_secs(1), max: Duration::from_mins(1) },
            handover_retry: Backoff { min: Duration::from_secs(5), max: Duration::from_secs(30) },
        }
    }
}

/// What one turn saw, planned and did.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The status of every node, by ordinal, or why there is none.
    pub nodes: Vec<Result<v1::StatusResponse, String>>,
    /// What is written down after the turn, as far as this controller knows.
    pub recorded: Recorded,
    /// What was planned. An election or hand-over whose last try failed is planned again at once, and done after a pause.
    pub step: Step,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// How many of the nodes have to run, the first ones; those behind may be stopped for good.
    pub needed: usize,
}

/// Keeps one cluster as it is wished. Holds nothing that a fresh controller would miss.
#[derive(Debug)]
pub struct Controller<S> {
    store: S,
    config: ControllerConfig,
    peers: Peers,
    homes: Homes,
    recorded: Recorded,
    election: Retry,
    hand_over: Retry,
    /// Changes of the voters that came to nothing.
    members: Retry,
    /// Telling a leader whom to feed.
    feeding: Retry,
    /// Elections of one who may reach a quorum that the leader misses.
    quorum: Retry,
    /// Steps towards a promise that is far ahead.
    far: Retry,
    blocked: Option<Blocked>,
    noticed: Vec<Notice>,
    store_problem: Option<String>,
}

impl<S: Store> Controller<S> {
    /// A controller that knows nothing yet.
    pub fn new(store: S, config: ControllerConfig) -> Self {
        Self {
            store,
            config,
            peers: Peers::default(),
            homes: Homes::default(),
            recorded: Recorded::default(),
            election: Retry::default(),
            hand_over: Retry::default(),
            members: Retry::default(),
            feeding: Retry::default(),
            quorum: Retry::default(),
            far: Retry::default(),
            blocked: None,
            noticed: Vec::new(),
            store_problem: None,
        }
    }

    /// Looks at all nodes and takes the next step, if there is one. Call it again after a few hundred milliseconds. May be
    /// dropped at any point: the next turn, of this or another controller, goes on from there.
    pub async fn turn(&mut self, nodes: &[NodeAddress], wish: &Wish) -> Turn {
        let mut events = Vec::new();
        let (mut statuses, loaded) = tokio::join!(self.peers.poll(nodes, self.config.rpc_timeout), self.store.load());
        let noticed = seen::notices(nodes, &statuses, self.recorded.cluster);
        let seen = seen::all(&mut statuses);
        self.homes.learn(nodes, &statuses, &seen);
        let step = match loaded {
            Ok(recorded) => {
                self.recorded = recorded;
                self.step(nodes, wish, (&statuses, &seen), &mut events).await
            }
            Err(error) => Err(error),
        };
        let step = match step {
            Ok(step) => {
                match self.record_leader(&seen).await {
                    Ok(()) => self.store_problem = None,
                    Err(error) => self.store_failed(&error, &mut events),
                }
                step
            }
            Err(error) => {
                self.store_failed(&error, &mut events);
                Step::Nothing
            }
        };
        events.extend(noticed.iter().filter(|notice| !self.noticed.contains(notice)).cloned().map(Event::Noticed));
        self.noticed = noticed;
        let needed = nodes_needed(wish, &seen);
        Turn { nodes: statuses, recorded: self.recorded.clone(), step, events, needed }
    }

    fn store_failed(&mut self, error: &S::Error, events: &mut Vec<Event>) {
        let why = error.to_string();
        if self.store_problem.replace(why.clone()) != Some(why.clone()) {
            events.push(Event::StoreFailed { why });
        }
    }

    async fn step(
        &mut self,
        nodes: &[NodeAddress],
        wish: &Wish,
        (statuses, seen): (&[Result<v1::StatusResponse, String>], &[Option<Seen>]),
        events: &mut Vec<Event>,
    ) -> Result<Step, S::Error> {
        let step = plan(wish, &self.recorded, seen);
        if !matches!(step, Step::Blocked(Blocked::ForeignReplica { .. })) {
            self.record_cluster(seen).await?;
        }
        let blocked = if let Step::Blocked(blocked) = &step { Some(blocked.clone()) } else { None };
        if let Some(blocked) = blocked.as_ref().filter(|now| self.blocked.as_ref() != Some(*now)) {
            events.push(Event::Blocked(blocked.clone()));
        }
        self.blocked = blocked;
        match step {
            Step::Nothing => {
                self.election = Retry::default();
                for vain in [&mut self.quorum, &mut self.far].into_iter().filter(|vain| vain.is_due()) {
                    *vain = Retry::default();
                }
                if let Some(feed) = Feed::of_misled(nodes, statuses, seen).filter(|_| self.feeding.is_due()) {
                    self.feed(feed, events).await;
                }
            }
            Step::Elect { epoch, prefer, without, change, reason } if self.election.is_due() && self.is_due(reason) => {
                match reason {
                    // The next one may be no better off.
                    Reason::QuorumLost => self.quorum.failed(self.config.handover_retry),
                    // Nor is this the last: a leader that is well is not to be deposed turn after turn.
                    Reason::FarPromise => self.far.failed(self.config.members_retry),
                    _ => {}
                }
                self.elect(Attempt { nodes, seen, epoch, prefer, without, change, wish, reason }, events).await;
            }
            Step::Feed { epoch, leader, ref learners } if self.feeding.is_due() => {
                let feed = Feed { nodes, seen, epoch, leader, learners: learners.clone(), moved: Vec::new() };
                self.feed(feed, events).await;
            }
            Step::HandOver { epoch, from, to, next } if self.hand_over.is_due() => {
                let attempt = Attempt {
                    nodes,
                    seen,
                    epoch: next,
                    prefer: Some(to),
                    without: None,
                    change: None,
                    wish,
                    reason: Reason::HandOver,
                };
                self.hand_over(attempt, epoch, from, to, events).await;
            }
            Step::Blocked(_) | Step::Elect { .. } | Step::HandOver { .. } | Step::Feed { .. } => {}
        }
        Ok(step)
    }

    /// Whether an epoch may begin for that, as far as one that did and came to nothing is long enough ago.
    fn is_due(&self, reason: Reason) -> bool {
        let vain = match reason {
            Reason::QuorumLost => self.quorum,
            Reason::FarPromise => self.far,
            reason if members::is_change(reason) => self.members,
            _ => Retry::default(),
        };
        vain.is_due()
    }

    /// A cluster that a replica is part of is written down: it forbids another bootstrap from now on. Not before it was seen,
    /// since a bootstrap that did not come to pass must be free to begin again.
    async fn record_cluster(&mut self, seen: &[Option<Seen>]) -> Result<(), S::Error> {
        let found = seen.iter().flatten().find_map(|seen| seen.cluster);
        let (None, Some(cluster)) = (self.recorded.cluster, found) else { return Ok(()) };
        let to = Recorded { cluster: Some(cluster), ..self.recorded.clone() };
        if self.store.swap(&self.recorded, &to).await? {
            self.recorded = to;
        }
        Ok(())
    }

    /// Who leads is written down once it is seen to lead, for people: no decision reads it, so no appointment waits for it.
    async fn record_leader(&mut self, seen: &[Option<Seen>]) -> Result<(), S::Error> {
        let Some(leader) = seen::newest_leader(seen, self.recorded.epoch) else { return Ok(()) };
        let to = Recorded { leader: Some(leader), ..self.recorded.clone() };
        if to != self.recorded && self.store.swap(&self.recorded, &to).await? {
            self.recorded = to;
        }
        Ok(())
    }

    /// Whether the one that was preferred leads now.
    async fn elect(&mut self, attempt: Attempt<'_>, events: &mut Vec<Event>) -> bool {
        match self.attempt(&attempt).await {
            Ok(elected) => {
                self.election = Retry::default();
                let (epoch, leader) = (attempt.epoch, elected.leader_name);
                if let Some(cluster) = elected.bootstrapped {
                    events.push(Event::Bootstrapped { cluster, epoch });
                }
                let is_preferred = Some(elected.leader) == attempt.prefer;
                if members::is_change(attempt.reason) {
                    self.voters_changed(&attempt, &elected.choice, events);
                }
                if !members::is_change(attempt.reason) || !is_preferred {
                    events.push(Event::LeaderElected { epoch, leader, reason: attempt.reason });
                }
                is_preferred
            }
            Err(error) => {
                self.election.failed(self.config.election_retry);
                events.push(Event::ElectionFailed { epoch: attempt.epoch, why: error.to_string() });
                false
            }
        }
    }

    async fn hand_over(
        &mut self,
        attempt: Attempt<'_>,
        leads: Epoch,
        from: ReplicaId,
        to: ReplicaId,
        events: &mut Vec<Event>,
    ) {
        let name = |id| seen::ordinal_of(attempt.seen, id).and_then(|ordinal| attempt.nodes.get(ordinal));
        let (Some(from_node), Some(to_node)) = (name(from), name(to)) else { return };
        let (nodes, epoch) = ((from_node.name.clone(), to_node.name.clone()), attempt.epoch);
        let cluster = attempt.cluster(&self.recorded);
        let begun = Instant::now();
        let asked = self.ask_to_hand_over(from_node, cluster, leads, from, to).await;
        let why = match asked {
            Err(why) => why,
            Ok(()) if self.elect(attempt, events).await => {
                self.hand_over = Retry::default();
                events.push(Event::HandedOver { from: nodes.0, to: nodes.1, epoch, took: begun.elapsed() });
                return;
            }
            Ok(()) => "it was not elected".to_owned(),
        };
        self.hand_over.failed(self.config.handover_retry);
        events.push(Event::HandOverFailed { from: nodes.0, to: nodes.1, why });
    }

    async fn ask_to_hand_over(
        &mut self,
        from_node: &NodeAddress,
        cluster: Option<ClusterId>,
        leads: Epoch,
        from: ReplicaId,
        to: ReplicaId,
    ) -> Result<(), String> {
        let deadline = self.config.handover_deadline;
        let request = v1::HandoverRequest {
            protocol_version: zue_proto::PROTOCOL_VERSION,
            cluster_id: seen::cluster_bytes(cluster),
            target: zue_proto::id_bytes(from.0),
            epoch: leads.0,
            to: zue_proto::id_bytes(to.0),
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
        };
        let mut node = self.peers.client(from_node)?;
        let within = deadline.saturating_add(self.config.rpc_timeout);
        peers::call(within, node.handover(request)).await.map(drop)
    }
}
