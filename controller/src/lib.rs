//! The shell around the pure machine of control (`zue_core::control::machine`): carries its calls to the nodes and to the store, and
//! tells it what comes back. Serves the operator, `zue dev` and `zue control`. Nothing is decided here.

mod event;
mod file_store;
mod names;
pub mod notices;
mod peers;
mod seen;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use zue_core::control::machine::{Action, Answer, Input, Machine};
use zue_core::control::{Recorded, Sound, Step, Wish};
use zue_core::{Millis, ReplicaId};
use zue_proto::v1;

use crate::notices::Notice;

use names::Names;
use peers::Peers;

pub use event::Event;
pub use file_store::{FileStore, FileStoreError};
pub use zue_core::control::machine::{Backoff, Patience, StandbyTimes};

/// A voter that hears nothing of a leader for so long has lost it, unless something else is asked for.
pub const DETECTION_TIME_DEFAULT: Duration = Duration::from_secs(1);
/// The bounds of that. Shorter, and one pause of a busy machine passes for a loss.
pub const DETECTION_TIME_MIN: Duration = Duration::from_millis(300);
/// The bounds of that.
pub const DETECTION_TIME_MAX: Duration = Duration::from_mins(1);

/// How long after a leader is lost nobody has to have acted before a node elects by itself, unless something else is asked for.
pub const STANDBY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// The bounds of that.
pub const STANDBY_AFTER_MIN: Duration = Duration::from_millis(200);
/// The bounds of that.
pub const STANDBY_AFTER_MAX: Duration = Duration::from_hours(1);

/// A replica and where it is reached. Its index in the slice is its ordinal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeAddress {
    /// Its name, for people.
    pub name: String,
    /// host:port of control and replication, as the replicas are told to reach each other.
    pub peer_address: String,
    /// host:port that this controller takes instead, if it knows one that changes sooner than a name does.
    pub dial_address: Option<String>,
    /// Where the peer address was reached last, by this controller or another: tried beside the name, and handed over.
    pub last_address: Option<SocketAddr>,
    /// Who has to answer there, where that is known.
    pub replica: Option<ReplicaId>,
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
pub struct Controller<S> {
    store: Arc<S>,
    machine: Machine<Sound>,
    begun: Instant,
    /// Who it says that it is when it appoints.
    by: Arc<str>,
    peers: Peers,
    /// Calls and operations of the store that are under way.
    running: FuturesUnordered<BoxFuture<'static, Input>>,
    noticed: Vec<Notice>,
}

impl<S> std::fmt::Debug for Controller<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl<S: Store + 'static> Controller<S> {
    /// A controller that knows nothing yet.
    pub fn new(store: S, patience: Patience) -> Self {
        Self {
            store: Arc::new(store),
            machine: Machine::new(Sound, patience, rand::random()),
            begun: Instant::now(),
            by: "a controller".into(),
            peers: Peers::default(),
            running: FuturesUnordered::new(),
            noticed: Vec::new(),
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// One that acts where no other does, at the node of that ordinal, and asks no store: it elects and hands over, and nothing else.
    pub fn standing_by(store: S, own: usize, name: String, times: StandbyTimes, patience: Patience) -> Self {
        let machine = Machine::standing_by(Sound, patience, rand::random(), own, times);
        Self { machine, by: name.into(), ..Self::new(store, patience) }
    }

    /// Looks at all nodes and takes the next step, if there is one. Call it again after a few hundred milliseconds. May be
    /// dropped at any point: the next turn, of this or another controller, goes on from there.
    pub async fn turn(&mut self, nodes: &[NodeAddress], wish: &Wish) -> Turn {
        let mut turn = Progress { nodes, events: Vec::new(), statuses: Vec::new() };
        self.machine.wish(wish.clone(), nodes.len());
        // What was written behind meanwhile.
        while let Some(Some(input)) = self.running.next().now_or_never() {
            self.step(input, &mut turn).await;
        }
        let mut actions = Vec::new();
        self.machine.look(self.now(), &mut actions);
        self.perform(actions, &mut turn).await;
        while !self.machine.is_at_rest() {
            let input = self.next().await;
            self.step(input, &mut turn).await;
        }
        let noticed = seen::notices(nodes, &turn.statuses, self.machine.recorded().cluster);
        let Progress { events, statuses, .. } = turn;
        let news = noticed.iter().filter(|notice| !self.noticed.contains(notice)).cloned().map(Event::Noticed);
        let events = events.into_iter().chain(news).collect();
        self.noticed = noticed;
        Turn {
            nodes: statuses,
            recorded: self.machine.recorded().clone(),
            step: self.machine.planned().clone(),
            events,
            needed: self.machine.needed(),
        }
    }

    /// What comes next, or that it is time.
    async fn next(&mut self) -> Input {
        let now = self.now();
        let wait = self.machine.deadline().map(|at| Duration::from_millis(at.since(now)));
        let woken = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(input) = self.running.next() => input,
            () = woken => Input::Tick,
        }
    }

    async fn step(&mut self, input: Input, turn: &mut Progress<'_>) {
        let mut actions = Vec::new();
        self.machine.step(self.now(), input, &mut actions);
        self.perform(actions, turn).await;
    }

    async fn perform(&mut self, actions: Vec<Action>, turn: &mut Progress<'_>) {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Look { look, within_ms } => actions.extend(self.look(look, within_ms, turn).await),
                Action::Load { op } => {
                    let store = Arc::clone(&self.store);
                    let load = async move { store.load().await.map_err(|error| error.to_string()) };
                    self.running.push(load.map(move |result| Input::Loaded { op, result }).boxed());
                }
                Action::Swap { op, from, to } => {
                    let store = Arc::clone(&self.store);
                    let swap = async move { store.swap(&from, &to).await.map_err(|error| error.to_string()) };
                    self.running.push(swap.map(move |result| Input::Swapped { op, result }).boxed());
                }
                Action::Call { attempt, ordinal, target, call, within_ms } => {
                    let client = turn.nodes.get(ordinal).ok_or_else(|| "there is no such node".to_owned());
                    let client = client.and_then(|node| self.peers.client(node));
                    let (within, nodes, by) =
                        (Duration::from_millis(within_ms), self.peers.located(turn.nodes), Arc::clone(&self.by));
                    let answer = async move {
                        match client {
                            Ok(client) => wire::call(client, target, call, (&nodes, &by), within).await,
                            Err(why) => Answer::Failed(why),
                        }
                    };
                    self.running.push(answer.map(move |answer| Input::Answer { attempt, ordinal, answer }).boxed());
                }
                Action::Tell(event) => {
                    turn.events.push(Names { nodes: turn.nodes, statuses: &turn.statuses }.event(event));
                }
            }
        }
    }

    /// Asks all nodes, and takes what the store says meanwhile.
    async fn look(&mut self, look: u64, within_ms: u64, turn: &mut Progress<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        let begun = self.begun;
        let now = || Millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        turn.statuses = {
            let mut polled = pin!(self.peers.poll(turn.nodes, Duration::from_millis(within_ms)));
            loop {
                tokio::select! {
                    statuses = &mut polled => break statuses,
                    Some(input) = self.running.next() => self.machine.step(now(), input, &mut actions),
                }
            }
        };
        let located = self.peers.located(turn.nodes);
        for (ordinal, told) in seen::all(&located, &mut turn.statuses).into_iter().enumerate() {
            self.machine.step(now(), Input::Status { look, ordinal, told: told.map(Box::new) }, &mut actions);
        }
        actions
    }
}

/// What a turn has come to so far.
struct Progress<'a> {
    nodes: &'a [NodeAddress],
    events: Vec<Event>,
    statuses: Vec<Result<v1::StatusResponse, String>>,
}
