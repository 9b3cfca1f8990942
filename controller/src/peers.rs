//! Connections to the replicas' control port, kept from turn to turn.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Response, Status};
use zue_proto::v1;
use zue_proto::v1::control_client::ControlClient;

use crate::NodeAddress;
use zue_proto::net;
use zue_proto::place::Place;

/// How long a node that hangs is listened to before it is asked anew.
const HANGING_MAX: Duration = Duration::from_secs(5);

type Answer = Result<v1::StatusResponse, String>;

/// One connection an address.
#[derive(Debug, Default)]
pub(super) struct Peers {
    channels: HashMap<String, Channel>,
    /// Where each was reached last.
    places: HashMap<String, Place>,
    /// Questions that were not answered in time. A turn takes what has come meanwhile, and waits for none of them: a node that hangs
    /// must not slow down the replacement of another, or of itself.
    hanging: HashMap<String, JoinHandle<Answer>>,
}

impl Peers {
    pub(super) fn client(&mut self, node: &NodeAddress) -> Result<ControlClient<Channel>, String> {
        if let Some(channel) = self.channels.get(node.dialled()) {
            return Ok(ControlClient::new(channel.clone()));
        }
        let channel = net::channel_to(&self.place(node)).map_err(|bad| bad.to_string())?;
        self.channels.insert(node.dialled().clone(), channel.clone());
        Ok(ControlClient::new(channel))
    }

    fn place(&mut self, node: &NodeAddress) -> Place {
        let place = self.places.entry(node.dialled().clone()).or_insert_with(|| Place::new(node.dialled()));
        if let Some(at) = node.last_address.filter(|_| node.dial_address.is_none()) {
            place.told(at);
        }
        place.clone()
    }

    /// The nodes, each with the address where it was reached last. Where the address is known instead of a name, that is all to know.
    pub(super) fn located(&self, nodes: &[NodeAddress]) -> Vec<NodeAddress> {
        let located = |node: &NodeAddress| {
            let place =
                self.places.get(node.dialled()).filter(|place| node.dial_address.is_none() && !place.is_literal());
            let last_address = place.and_then(Place::known).or(node.last_address);
            NodeAddress { last_address, ..node.clone() }
        };
        nodes.iter().map(located).collect()
    }

    /// Takes note of whether the one that was meant has answered. If not, the next turn looks for it elsewhere.
    fn judge(&mut self, node: &NodeAddress, status: &v1::StatusResponse) {
        let place = self.place(node);
        let Some(at) = place.last() else { return };
        if node.replica.map_or(status.name == node.name, |id| status.replica_id == zue_proto::id_bytes(id.0)) {
            place.worked(at);
        } else if place.is_wrong(at) {
            self.channels.remove(node.dialled());
        }
    }

    /// The status of every node, asked at the same time.
    pub(super) async fn poll(&mut self, nodes: &[NodeAddress], timeout: Duration) -> Vec<Answer> {
        let is_node = |address: &String| nodes.iter().any(|node| node.dialled() == address);
        self.channels.retain(|address, _| is_node(address));
        self.places.retain(|address, _| is_node(address));
        self.hanging.retain(|address, _| is_node(address));
        let questions: Vec<_> = nodes.iter().map(|node| self.question(node)).collect();
        let asked = join_all(questions.into_iter().map(|question| question.answered_within(timeout))).await;
        let mut statuses = Vec::new();
        for (node, answered) in nodes.iter().zip(asked) {
            statuses.push(match answered {
                Answered::Now(answer) => {
                    if let Ok(status) = answer.as_ref() {
                        self.judge(node, status);
                    }
                    *answer
                }
                Answered::Late(question) => {
                    self.hanging.insert(node.dialled().clone(), question);
                    Err(format!("no answer within {} ms", timeout.as_millis()))
                }
                Answered::Failed(why, hung) => {
                    // The pod may have moved: the next turn looks its name up again instead of waiting for a dead connection.
                    self.channels.remove(node.dialled());
                    if hung && let Ok(question) = self.ask(node) {
                        self.hanging.insert(node.dialled().clone(), question);
                    }
                    Err(why)
                }
            });
        }
        statuses
    }

    fn question(&mut self, node: &NodeAddress) -> Question {
        match self.hanging.remove(node.dialled()) {
            Some(asked) => Question::Hangs(asked),
            None => self.ask(node).map_or_else(Question::Impossible, Question::Asked),
        }
    }

    fn ask(&mut self, node: &NodeAddress) -> Result<JoinHandle<Answer>, String> {
        let (client, place) = (self.client(node)?, self.place(node));
        Ok(tokio::spawn(ask(client, place)))
    }
}

/// Asks one node. What answers with no status, or not at all, is none perhaps: the next connection leads elsewhere, if that is possible.
async fn ask(mut client: ControlClient<Channel>, place: Place) -> Answer {
    let mut is_reached = true;
    let answer = call(HANGING_MAX, async {
        let answered = client.status(v1::StatusRequest {}).await;
        is_reached = answered.as_ref().err().is_none_or(|failed| !net::is_unconnected(failed));
        answered
    });
    let answer = answer.await;
    if let Some(at) = place.last().filter(|_| answer.is_err() && is_reached) {
        place.is_wrong(at);
    }
    answer
}

enum Question {
    Impossible(String),
    Asked(JoinHandle<Answer>),
    /// Asked in a turn before.
    Hangs(JoinHandle<Answer>),
}

enum Answered {
    Now(Box<Answer>),
    /// Why, and whether it was asked in a turn before.
    Failed(String, bool),
    Late(JoinHandle<Answer>),
}

impl Question {
    async fn answered_within(self, timeout: Duration) -> Answered {
        let (mut asked, hung) = match self {
            Self::Impossible(why) => return Answered::Now(Box::new(Err(why))),
            Self::Hangs(asked) if !asked.is_finished() => return Answered::Late(asked),
            Self::Hangs(asked) => (asked, true),
            Self::Asked(asked) => (asked, false),
        };
        match tokio::time::timeout(timeout, &mut asked).await {
            Ok(Ok(Ok(status))) => Answered::Now(Box::new(Ok(status))),
            Ok(Ok(Err(why))) => Answered::Failed(why, hung),
            Ok(Err(ended)) => Answered::Failed(ended.to_string(), hung),
            Err(_) => Answered::Late(asked),
        }
    }
}

/// The answer, or in words why there is none.
pub(super) async fn call<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(net::why(&status)),
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}
