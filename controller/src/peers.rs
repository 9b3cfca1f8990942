//! The replicas' control ports: what each node says, as it says it, and connections for calls. A task an address listens to the node's
//! status; what it has heard last is at hand without asking.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use zue_core::ReplicaId;
use zue_proto::place::Place;
use zue_proto::status::{HEARTBEAT_MS, is_news};
use zue_proto::v1::control_client::ControlClient;
use zue_proto::{net, v1};
use zue_tls::{Dial, Renewal};

use crate::NodeAddress;

/// A node that says nothing for so long is silent: it misses two of its heartbeats.
const SILENT_AFTER: Duration = Duration::from_millis(HEARTBEAT_MS * 3);
/// The interval at which a node of an earlier version, which can't be listened to, is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The time that a node may take to begin to answer, the connection included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two tries to listen to a node, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// The status of a node, or why there is none.
pub(crate) type Answer = Result<v1::StatusResponse, String>;

/// The last status of a node, since which request of all nodes, and the connection that it came on, or that is tried.
#[derive(Clone, Debug, Default)]
struct Heard {
    since: u64,
    answer: Option<Answer>,
    channel: Option<Channel>,
}

/// A node that is listened to.
#[derive(Debug)]
struct Listener {
    place: Place,
    heard: watch::Receiver<Heard>,
    begun: Instant,
    detection_ms: u64,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nodes that are listened to: one listener an address. Listening does nothing else, so that whoever may have to act later can listen
/// before.
#[derive(Debug)]
pub struct Peers {
    listeners: HashMap<String, Listener>,
    news: Arc<Notify>,
    dial: Dial,
    /// Counts the requests to all nodes, and when the last one was made.
    asked: watch::Sender<u64>,
    asked_at: Instant,
}

impl Default for Peers {
    fn default() -> Self {
        Self::new(Dial::plain())
    }
}

impl Peers {
    /// None yet; they are reached this way.
    pub fn new(dial: Dial) -> Self {
        let (listeners, news) = (HashMap::new(), Arc::new(Notify::new()));
        Self { listeners, news, dial, asked: watch::Sender::new(0), asked_at: Instant::now() }
    }

    /// Reaches the nodes in this way from now on; what is known of them is heard anew.
    pub fn redial(&mut self, dial: Dial) {
        *self = Self::new(dial);
    }

    /// Listens to these nodes and no others. A leader that is silent for `detection_ms` is to be told of at once.
    pub fn keep(&mut self, nodes: &[NodeAddress], detection_ms: u64) {
        let is_node = |address: &String| nodes.iter().any(|node| node.dialled() == address);
        self.listeners.retain(|address, listener| is_node(address) && listener.detection_ms == detection_ms);
        for node in nodes {
            let (address, news, asked, dial) = (node.dialled(), &self.news, &self.asked, &self.dial);
            let listener = self.listeners.entry(address.clone()).or_insert_with(|| {
                let (told, heard) = watch::channel(Heard::default());
                let (place, expected) = (Place::new(address, dial), (node.name.clone(), node.replica));
                let (news, asked) = (Arc::clone(news), asked.subscribe());
                let ear = Ear { told, news, asked, since: 0, detection_ms, place: place.clone(), expected };
                let task = tokio::spawn(ear.listen());
                Listener { place, heard, begun: Instant::now(), detection_ms, task }
            });
            if let Some(at) = node.last_address.filter(|_| node.dial_address.is_none()) {
                listener.place.told(at);
            }
        }
    }

    /// The nodes, each with the address where it was reached last. Where the address is known instead of a name, that is all to know.
    pub(crate) fn located(&self, nodes: &[NodeAddress]) -> Vec<NodeAddress> {
        let located = |node: &NodeAddress| {
            let place = self.listeners.get(node.dialled()).map(|listener| &listener.place);
            let place = place.filter(|place| node.dial_address.is_none() && !place.is_literal());
            let last_address = place.and_then(Place::known).or(node.last_address);
            NodeAddress { last_address, ..node.clone() }
        };
        nodes.iter().map(located).collect()
    }

    /// Asks all nodes anew: what they said before may be from before a call that has changed them since.
    pub(crate) fn ask_anew(&mut self) {
        self.asked.send_modify(|asked| *asked += 1);
        self.asked_at = Instant::now();
    }

    /// The status of the node: the last that was heard, or the first that is, if it comes in time from when it was asked.
    pub(crate) fn status(&self, node: &NodeAddress, within: Duration) -> impl Future<Output = Answer> + Send + use<> {
        let until = |begun: Instant| begun.max(self.asked_at) + within;
        let known = self.listeners.get(node.dialled());
        let known = known.map(|listener| (listener.heard.clone(), until(listener.begun)));
        let asked = *self.asked.borrow();
        async move {
            let Some((mut heard, until)) = known else { return Err("nobody listens to it".to_owned()) };
            let has_answered = |heard: &Heard| heard.since >= asked && heard.answer.is_some();
            _ = timeout_at(until, heard.wait_for(has_answered)).await;
            let heard = heard.borrow();
            let known = heard.answer.clone().filter(|_| heard.since >= asked);
            known.unwrap_or_else(|| Err(silent(within)))
        }
    }

    /// A connection for calls: the one on which it is listened to.
    pub(crate) fn client(&self, node: &NodeAddress) -> Result<ControlClient<Channel>, String> {
        let known = self.listeners.get(node.dialled()).and_then(|listener| listener.heard.borrow().channel.clone());
        let channel =
            known.map_or_else(|| net::channel(node.dialled(), &self.dial).map_err(|bad| bad.to_string()), Ok)?;
        Ok(ControlClient::new(channel))
    }

    /// Waits until a node has said something that may have to be acted on, or is silent, since this was waited for last.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }
}

/// Listens to a node.
struct Ear {
    told: watch::Sender<Heard>,
    news: Arc<Notify>,
    asked: watch::Receiver<u64>,
    /// The request of all nodes that what it says now answers.
    since: u64,
    detection_ms: u64,
    /// The address to look at, and who has to answer there: by name, unless the replica is known.
    place: Place,
    expected: (String, Option<ReplicaId>),
}

/// Why what a node says ended.
enum Ended {
    /// All nodes are asked anew.
    Asked,
    /// There is something newer to show to it.
    Renewed,
    /// It says no more, and why.
    Silent(String),
}

impl Ear {
    async fn listen(mut self) {
        let mut pause = RETRY_MIN;
        loop {
            let mut renewal = self.place.renewal();
            // Each time a new one: the pod may have moved, and its name says where.
            let channel = match net::channel_to(&self.place) {
                Ok(channel) => channel,
                Err(bad) => return self.tell(Err(bad.to_string())),
            };
            self.told.send_modify(|heard| heard.channel = Some(channel.clone()));
            let begun = Instant::now();
            let why = loop {
                match self.follow(ControlClient::new(channel.clone()), &mut renewal).await {
                    Ended::Asked => {}
                    Ended::Renewed => break None,
                    Ended::Silent(why) => break Some(why),
                }
            };
            // What it has said holds until it says something on the new connection, or is silent there.
            let Some(why) = why else { continue };
            self.tell(Err(why));
            pause = if begun.elapsed() > RETRY_MAX { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
            sleep(pause).await;
        }
    }

    /// Tells what it says, or why it says nothing. What it says holds from when it was asked for it; that it says nothing, from now on.
    fn tell(&self, answer: Answer) {
        let since = if answer.is_ok() { self.since } else { *self.asked.borrow() };
        let is_news = match (&self.told.borrow().answer, &answer) {
            (Some(Ok(before)), Ok(now)) => is_news(before, now, self.detection_ms),
            (Some(Err(_)), Err(_)) => false,
            _ => true,
        };
        self.told.send_modify(|heard| (heard.since, heard.answer) = (since, Some(answer)));
        if is_news {
            self.news.notify_one();
        }
    }

    /// Tells what a node says as long as it says something.
    async fn follow(&mut self, mut client: ControlClient<Channel>, renewal: &mut Renewal) -> Ended {
        self.since = *self.asked.borrow_and_update();
        let request = v1::WatchRequest { detection_ms: u32::try_from(self.detection_ms).unwrap_or(u32::MAX) };
        let mut told = match timeout(OPEN_TIMEOUT, client.watch(request)).await {
            Ok(Ok(told)) => told.into_inner(),
            Ok(Err(status)) if status.code() == Code::Unimplemented => return self.poll(client).await,
            Ok(Err(status)) => return self.lost(&status),
            Err(_) => return self.doubted(silent(OPEN_TIMEOUT)),
        };
        loop {
            let said = tokio::select! {
                biased;
                _ = self.asked.changed() => return Ended::Asked,
                () = renewal.due() => return Ended::Renewed,
                said = timeout(SILENT_AFTER, told.message()) => said,
            };
            match said {
                Ok(Ok(Some(status))) if self.is_another(&status) => {
                    return Ended::Silent(format!("{} answers there", status.name));
                }
                Ok(Ok(Some(status))) => self.tell(Ok(status)),
                Ok(Ok(None)) => return Ended::Silent("it says no more".to_owned()),
                Ok(Err(status)) => return self.lost(&status),
                Err(_) => return self.doubted(silent(SILENT_AFTER)),
            }
        }
    }

    /// Takes note of whether the one that was meant answers. If not, it is looked for elsewhere, once: where there is nowhere else, it is
    /// told who answers.
    fn is_another(&self, status: &v1::StatusResponse) -> bool {
        let Some(at) = self.place.last().filter(|_| !self.place.is_literal()) else { return false };
        let (name, replica) = &self.expected;
        if replica.map_or(status.name == *name, |id| status.replica_id == zue_proto::id_bytes(id.0)) {
            self.place.worked(at);
            return false;
        }
        self.place.is_wrong(at)
    }

    /// Notes that what was reached is no node: it is looked for elsewhere first, if that is possible.
    fn lost(&self, status: &Status) -> Ended {
        let why = net::why(status);
        if net::is_unconnected(status) { Ended::Silent(why) } else { self.doubted(why) }
    }

    fn doubted(&self, why: String) -> Ended {
        if let Some(at) = self.place.last() {
            self.place.is_wrong(at);
        }
        Ended::Silent(why)
    }

    /// Asks a node of an earlier version again and again.
    async fn poll(&mut self, mut client: ControlClient<Channel>) -> Ended {
        loop {
            match call(SILENT_AFTER, client.status(v1::StatusRequest {})).await {
                Ok(status) if self.is_another(&status) => {
                    return Ended::Silent(format!("{} answers there", status.name));
                }
                Ok(status) => self.tell(Ok(status)),
                Err(why) => return self.doubted(why),
            }
            tokio::select! {
                _ = self.asked.changed() => return Ended::Asked,
                () = sleep(POLL_INTERVAL) => {}
            }
        }
    }
}

pub(crate) fn silent(within: Duration) -> String {
    format!("no answer within {} ms", within.as_millis())
}

/// The answer, or in words why there is none.
pub(crate) async fn call<T>(
    within: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, String> {
    match timeout(within, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(net::why(&status)),
        Err(_) => Err(silent(within)),
    }
}
