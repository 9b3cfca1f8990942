//! The shell around the pure machine of control (`zue_core::control::machine`): carries its calls to the nodes and to the store, and
//! tells it what comes back. Serves the operator, `zue dev` and `zue control`. Nothing is decided here.

mod event;
mod file_store;
mod names;
mod node_reports;
pub mod notices;
mod peers;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use zue_core::control::machine::{Action, Answer, Input, Machine};
use zue_core::control::{Recorded, Sound, Step, Wish};
use zue_core::{Millis, ReplicaId};
use zue_proto::v1;
use zue_tls::Dial;

use crate::notices::Notice;

use names::Names;
use peers::Answer as Answered;

pub use event::Event;
pub use file_store::{FileStore, FileStoreError};
pub use peers::Peers;
pub use zue_core::control::machine::{Backoff, Patience, StandbyTimes};

/// A voter that hears nothing of a leader for so long has lost it, unless something else is asked for.
pub const DETECTION_TIME_DEFAULT: Duration = Duration::from_secs(1);
/// The bounds of that. Shorter, and one pause of a busy machine passes for a loss.
pub const DETECTION_TIME_MIN: Duration = Duration::from_millis(300);
/// The bounds of that.
pub const DETECTION_TIME_MAX: Duration = Duration::from_mins(1);

/// The time after the loss of a leader in which nobody has acted, before a node elects by itself; unless something else is asked for.
pub const STANDBY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// The bounds of that.
pub const STANDBY_AFTER_MIN: Duration = Duration::from_millis(200);
/// The bounds of that.
pub const STANDBY_AFTER_MAX: Duration = Duration::from_hours(1);

/// The time until the next look, whether something is to be done or all is as wished.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const REST_INTERVAL: Duration = Duration::from_millis(500);
/// The time for which news is gathered.
const GATHER_FOR: Duration = Duration::from_millis(5);

/// A replica and where it is reached. Its index in the slice is its ordinal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeAddress {
    /// Its name, for people.
    pub name: String,
    /// host:port of control and replication, as the replicas are told to reach each other.
    pub peer_address: String,
    /// host:port that this controller takes instead, if it knows one that changes sooner than a name does.
    pub dial_address: Option<String>,
    /// The address at which the peer port was reached last, by this controller or another: tried beside the name, and handed over.
    pub last_address: Option<SocketAddr>,
    /// The replica that has to answer there, where that is known.
    pub replica: Option<ReplicaId>,
    /// host:port for clients, as the replicas name it in redirects.
    pub client_address: String,
}

impl NodeAddress {
    fn dialled(&self) -> &String {
        self.dial_address.as_ref().unwrap_or(&self.peer_address)
    }
}

/// The store in which controllers write down what they are about to do. Shared by all controllers of a cluster.
pub trait Store: Send + Sync {
    /// Why it could not be read or written.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads the record; `Recorded::default()` where nothing was ever written.
    fn load(&self) -> impl Future<Output = Result<Recorded, Self::Error>> + Send;

    /// Replaces `from` by `to`, durably; false where somebody else wrote meanwhile, and then nothing is written.
    fn swap(&self, from: &Recorded, to: &Recorded) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// The view, plan and deeds of one turn.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The status of every node, by ordinal, or why there is none.
    pub nodes: Vec<Result<v1::StatusResponse, String>>,
    /// The record after the turn, as far as this controller knows.
    pub recorded: Recorded,
    /// The plan. An election or hand-over whose last try failed is planned again at once, and done after a pause.
    pub step: Step,
    /// The events, in order.
    pub events: Vec<Event>,
    /// The number of nodes that have to run, the first ones; those behind may be stopped for good.
    pub needed: usize,
}

/// Keeps one cluster as it is wished. Holds nothing that a fresh controller would miss.
pub struct Controller<S> {
    store: Arc<S>,
    machine: Machine<Sound>,
    begun: Instant,
    /// The name that it gives for itself when it appoints.
    by: Arc<str>,
    peers: Peers,
    /// True if nodes were called since they were looked at last.
    has_called: bool,
    /// Questions, calls and operations of the store that are under way.
    running: FuturesUnordered<BoxFuture<'static, Happened>>,
    /// The results of some of them that came while no turn was under way.
    done: Vec<Happened>,
    /// The answer of every node at the newest look.
    statuses: Vec<Answered>,
    noticed: Vec<Notice>,
}

impl<S> std::fmt::Debug for Controller<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl<S: Store + 'static> Controller<S> {
    /// A controller that knows nothing yet; `by` is what it is called where people ask who elected a leader. It reaches the
    /// nodes without TLS.
    pub fn new(store: S, by: impl Into<Arc<str>>, patience: Patience) -> Self {
        Self {
            store: Arc::new(store),
            machine: Machine::new(Sound, patience, rand::random()),
            begun: Instant::now(),
            by: by.into(),
            peers: Peers::new(Dial::plain()),
            has_called: false,
            running: FuturesUnordered::new(),
            done: Vec::new(),
            statuses: Vec::new(),
            noticed: Vec::new(),
        }
    }

    /// The same, which reaches the nodes in this way.
    #[must_use]
    pub fn dialling(mut self, dial: Dial) -> Self {
        self.peers = Peers::new(dial);
        self
    }

    /// Reaches the nodes in this way from now on; what is known of them is heard anew.
    pub fn redial(&mut self, dial: Dial) {
        self.peers.redial(dial);
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// One that acts where no other does, at the node of that ordinal, and asks no store: it elects and hands over, and nothing else.
    pub fn standing_by(store: S, own: usize, name: String, times: StandbyTimes, patience: Patience) -> Self {
        let machine = Machine::standing_by(Sound, patience, rand::random(), own, times);
        Self { machine, ..Self::new(store, name, patience) }
    }

    /// The same, with what was heard of the nodes before.
    #[must_use]
    pub fn having_heard(self, peers: Peers) -> Self {
        Self { peers, ..self }
    }

    /// Goes on listening, and acts no more: what is under way is given up.
    pub fn into_peers(self) -> Peers {
        self.peers
    }

    /// Looks at all nodes and takes the next step, if there is one. Rest before the next one. May be dropped at any point: the next
    /// turn, of this or another controller, goes on from there.
    pub async fn turn(&mut self, nodes: &[NodeAddress], wish: &Wish) -> Turn {
        let mut turn = Progress { nodes, events: Vec::new() };
        self.peers.keep(nodes, wish.detection_ms);
        self.machine.wish(wish.clone(), nodes.len());
        // What was written behind meanwhile.
        for happened in std::mem::take(&mut self.done) {
            self.step(happened, &mut turn);
        }
        while let Some(Some(happened)) = self.running.next().now_or_never() {
            self.step(happened, &mut turn);
        }
        let mut actions = Vec::new();
        self.machine.look(self.now(), &mut actions);
        self.perform(actions, &mut turn);
        while !self.machine.is_at_rest() {
            let happened = self.next().await;
            self.step(happened, &mut turn);
        }
        let noticed = node_reports::notices(nodes, &self.statuses, self.machine.recorded().cluster);
        let news = noticed.iter().filter(|notice| !self.noticed.contains(notice)).cloned().map(Event::Noticed);
        let events = turn.events.into_iter().chain(news).collect();
        self.noticed = noticed;
        Turn {
            nodes: self.statuses.clone(),
            recorded: self.machine.recorded().clone(),
            step: self.machine.planned().clone(),
            events,
            needed: self.machine.needed(),
        }
    }

    /// Waits until a node says something that may have to be acted on, or it is time to look all the same.
    pub async fn rest(&mut self) {
        let is_busy = *self.machine.planned() != Step::Nothing || !self.running.is_empty();
        let until = Instant::now() + if is_busy { LOOK_INTERVAL } else { REST_INTERVAL };
        // What several nodes say of one thing is looked at together.
        tokio::time::sleep(GATHER_FOR).await;
        loop {
            tokio::select! {
                Some(happened) = self.running.next() => self.done.push(happened),
                () = self.peers.news() => return,
                () = tokio::time::sleep_until(until.into()) => return,
            }
        }
    }

    /// Waits for the next result, or until it is time.
    async fn next(&mut self) -> Happened {
        let now = self.now();
        let wait = self.machine.deadline().map(|at| Duration::from_millis(at.since(now)));
        let woken = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(happened) = self.running.next() => happened,
            () = woken => Happened::Came(Input::Tick),
        }
    }

    fn step(&mut self, happened: Happened, turn: &mut Progress<'_>) {
        let input = match happened {
            Happened::Came(input) => input,
            Happened::Answered { look, ordinal, mut answer } => {
                let told = node_reports::one(&self.peers.located(turn.nodes), &self.statuses, ordinal, &mut answer);
                if let Some(status) = self.statuses.get_mut(ordinal) {
                    *status = *answer;
                }
                Input::Status { look, ordinal, told: told.map(Box::new) }
            }
        };
        let mut actions = Vec::new();
        self.machine.step(self.now(), input, &mut actions);
        self.perform(actions, turn);
    }

    fn perform(&mut self, actions: Vec<Action>, turn: &mut Progress<'_>) {
        for action in actions {
            match action {
                Action::Look { look, within_ms } => self.look(look, within_ms, turn.nodes),
                Action::Load { op } => {
                    let store = Arc::clone(&self.store);
                    let load = async move { store.load().await.map_err(|error| error.to_string()) };
                    self.run(load.map(move |result| Input::Loaded { op, result }));
                }
                Action::Swap { op, from, to } => {
                    let store = Arc::clone(&self.store);
                    let swap = async move { store.swap(&from, &to).await.map_err(|error| error.to_string()) };
                    self.run(swap.map(move |result| Input::Swapped { op, result }));
                }
                Action::Call { attempt, ordinal, target, call, within_ms } => {
                    self.has_called = true;
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
                    self.run(answer.map(move |answer| Input::Answer { attempt, ordinal, answer }));
                }
                Action::Tell(event) => {
                    turn.events.push(Names { nodes: turn.nodes, statuses: &self.statuses }.event(event));
                }
            }
        }
    }

    fn run(&self, input: impl Future<Output = Input> + Send + 'static) {
        self.running.push(input.map(Happened::Came).boxed());
    }

    /// Takes what each node has said last, or says next where it is new, or was called meanwhile.
    fn look(&mut self, look: u64, within_ms: u64, nodes: &[NodeAddress]) {
        if std::mem::take(&mut self.has_called) {
            self.peers.ask_anew();
        }
        let within = Duration::from_millis(within_ms);
        self.statuses = nodes.iter().map(|_| Err(peers::silent(within))).collect();
        for (ordinal, node) in nodes.iter().enumerate() {
            let status = self.peers.status(node, within);
            self.running
                .push(status.map(move |answer| Happened::Answered { look, ordinal, answer: Box::new(answer) }).boxed());
        }
    }
}

/// The result of something that was under way.
enum Happened {
    Came(Input),
    /// The answer of a node.
    Answered {
        look: u64,
        ordinal: usize,
        answer: Box<Answered>,
    },
}

/// The state of a turn so far.
struct Progress<'a> {
    nodes: &'a [NodeAddress],
    events: Vec<Event>,
}
