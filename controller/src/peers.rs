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

/// How long a node that hangs is listened to before it is asked anew.
const HANGING_MAX: Duration = Duration::from_secs(5);

type Answer = Result<v1::StatusResponse, String>;

/// One connection an address.
#[derive(Debug, Default)]
pub(super) struct Peers {
    channels: HashMap<String, Channel>,
    /// Questions that were not answered in time. A turn takes what has come meanwhile, and waits for none of them: a node that hangs
    /// must not slow down the replacement of another, or of itself.
    hanging: HashMap<String, JoinHandle<Answer>>,
}

impl Peers {
    pub(super) fn client(&mut self, node: &NodeAddress) -> Result<ControlClient<Channel>, String> {
        if let Some(channel) = self.channels.get(node.dialled()) {
            return Ok(ControlClient::new(channel.clone()));
        }
        let channel = net::channel(node.dialled()).map_err(|bad| bad.to_string())?;
        self.channels.insert(node.dialled().clone(), channel.clone());
        Ok(ControlClient::new(channel))
    }

    /// The status of every node, asked at the same time.
    pub(super) async fn poll(&mut self, nodes: &[NodeAddress], timeout: Duration) -> Vec<Answer> {
        let is_node = |address: &String| nodes.iter().any(|node| node.dialled() == address);
        self.channels.retain(|address, _| is_node(address));
        self.hanging.retain(|address, _| is_node(address));
        let questions: Vec<_> = nodes.iter().map(|node| self.question(node)).collect();
        let asked = join_all(questions.into_iter().map(|question| question.answered_within(timeout))).await;
        let mut statuses = Vec::new();
        for (node, answered) in nodes.iter().zip(asked) {
            statuses.push(match answered {
                Answered::Now(answer) => *answer,
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
        let mut client = self.client(node)?;
        Ok(tokio::spawn(async move { call(HANGING_MAX, client.status(v1::StatusRequest {})).await }))
    }
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
