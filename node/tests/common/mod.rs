//! Nodes in this process, on loopback, and a controller that does what a test tells it to.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(
    clippy::indexing_slicing,
    clippy::struct_field_names,
    clippy::unwrap_used,
    reason = "this is a test: what is not there fails it"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use zue_core::election::{Change, Choice, First, Sealed, choose};
use zue_core::{ClusterId, Epoch, Offset, ReplicaId};
use zue_node::{Node, RunningNode};
use zue_proto::v1::control_client::ControlClient;
use zue_proto::v1::log_client::LogClient;
use zue_proto::v1::{self, Error, Reason};
use zue_proto::{PROTOCOL_VERSION, id_bytes};
use zue_settings::{LimitSettings, ListenSettings, NodeConfig, ReplicationSettings, Time};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Settings that make a test fast: small segments, quick heartbeats.
pub fn quick(config: &mut NodeConfig) {
    config.replication = ReplicationSettings {
        heartbeat_interval: Time::from_millis(50),
        lag_time_max: Time::from_millis(1000),
        ..ReplicationSettings::default()
    };
    config.limits = LimitSettings { append_deadline: Time::from_millis(5000), ..LimitSettings::default() };
}

pub struct Cluster {
    pub dirs: Vec<TempDir>,
    pub configs: Vec<NodeConfig>,
    pub nodes: Vec<Option<RunningNode>>,
    pub ids: Vec<ReplicaId>,
    /// Replicas whose disk was lost, and where they were.
    pub lost: Vec<(ReplicaId, usize)>,
    pub cluster: Option<ClusterId>,
    pub epoch: u64,
}

impl Cluster {
    /// Nodes without a leader.
    pub async fn start(count: usize, change: impl Fn(&mut NodeConfig)) -> Self {
        let mut cluster = Self {
            dirs: Vec::new(),
            configs: Vec::new(),
            nodes: Vec::new(),
            ids: Vec::new(),
            lost: Vec::new(),
            cluster: None,
            epoch: 0,
        };
        for ordinal in 0..count {
            let dir = tempfile::tempdir().unwrap();
            let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let mut config = NodeConfig {
                name: format!("zue-{ordinal}"),
                data_dir: dir.path().join("data"),
                listen: ListenSettings { client: any, peer: any, metrics: any },
                ..NodeConfig::default()
            };
            quick(&mut config);
            change(&mut config);
            let node = Node::start(config.clone()).await.unwrap();
            let addresses = node.addresses();
            config.listen =
                ListenSettings { client: addresses.client, peer: addresses.peer, metrics: addresses.metrics };
            cluster.ids.push(node.replica_id());
            cluster.dirs.push(dir);
            cluster.configs.push(config);
            cluster.nodes.push(Some(node));
        }
        cluster
    }

    /// Three nodes, of which the first leads.
    pub async fn led() -> Self {
        let mut cluster = Self::start(3, |_| {}).await;
        assert_eq!(cluster.elect(Some(0)).await, 0);
        cluster.settle(0).await;
        cluster
    }

    pub async fn stop(&mut self, ordinal: usize) {
        if let Some(node) = self.nodes[ordinal].take() {
            node.stop().await;
        }
    }

    pub async fn stop_all(&mut self) {
        for ordinal in 0..self.nodes.len() {
            self.stop(ordinal).await;
        }
    }

    /// On the same ports, with the same data.
    pub async fn restart(&mut self, ordinal: usize) {
        let node = Node::start(self.configs[ordinal].clone()).await.unwrap();
        assert_eq!(node.replica_id(), self.ids[ordinal], "a directory that is opened again is the same replica");
        self.nodes[ordinal] = Some(node);
    }

    /// On the same ports, with an empty disk: another replica.
    pub async fn wipe(&mut self, ordinal: usize) {
        self.stop(ordinal).await;
        std::fs::remove_dir_all(&self.configs[ordinal].data_dir).unwrap();
        let node = Node::start(self.configs[ordinal].clone()).await.unwrap();
        self.lost.push((self.ids[ordinal], ordinal));
        assert!(self.lost.iter().all(|(id, _)| *id != node.replica_id()));
        self.ids[ordinal] = node.replica_id();
        self.nodes[ordinal] = Some(node);
    }

    pub async fn control(&self, ordinal: usize) -> ControlClient<Channel> {
        ControlClient::connect(format!("http://{}", self.configs[ordinal].listen.peer)).await.unwrap()
    }

    pub async fn client(&self, ordinal: usize) -> LogClient<Channel> {
        let client = LogClient::connect(format!("http://{}", self.configs[ordinal].listen.client)).await.unwrap();
        client.max_decoding_message_size(64 << 20)
    }

    pub fn member(&self, id: ReplicaId) -> v1::Member {
        let at = self.ids.iter().position(|known| *known == id);
        let lost = || self.lost.iter().find(|(lost, _)| *lost == id).unwrap().1;
        let config = &self.configs[at.unwrap_or_else(lost)];
        v1::Member {
            replica_id: id_bytes(id.0),
            name: config.name.clone(),
            peer_address: config.listen.peer.to_string(),
            client_address: config.listen.client.to_string(),
            ..v1::Member::default()
        }
    }

    pub fn cluster_bytes(&self) -> Bytes {
        self.cluster.map(|id| id_bytes(id.0)).unwrap_or_default()
    }

    pub fn seal_request(&self, ordinal: usize, epoch: u64) -> v1::SealRequest {
        v1::SealRequest {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: self.cluster_bytes(),
            target: id_bytes(self.ids[ordinal].0),
            epoch,
        }
    }

    pub fn appoint_request(&self, ordinal: usize, epoch: u64, choice: &Choice) -> v1::AppointRequest {
        let member = |id: &ReplicaId| self.member(*id);
        v1::AppointRequest {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: self.cluster_bytes(),
            target: id_bytes(self.ids[ordinal].0),
            epoch,
            voters: choice.voters.iter().map(member).collect(),
            quorum: choice.quorum,
            old_voters: choice.old_voters.iter().flatten().map(member).collect(),
            by: String::new(),
            reason: v1::ElectionReason::Unspecified.into(),
        }
    }

    pub async fn seal_all(&mut self) -> Vec<Sealed> {
        self.epoch += 1;
        let mut answers = Vec::new();
        for ordinal in 0..self.nodes.len() {
            if self.nodes[ordinal].is_none() {
                continue;
            }
            let answer = self.control(ordinal).await.seal(self.seal_request(ordinal, self.epoch)).await.unwrap();
            answers.push(sealed(answer.into_inner()));
        }
        answers
    }

    /// Seals all that run, chooses by the rule and appoints; who leads.
    pub async fn elect(&mut self, prefer: Option<usize>) -> usize {
        self.change(prefer, None).await.0
    }

    /// The same, with a change of the voters: who leads, and what was chosen.
    pub async fn change(&mut self, prefer: Option<usize>, change: Option<Change>) -> (usize, Choice) {
        let answers = self.seal_all().await;
        let prefer = prefer.map(|ordinal| self.ids[ordinal]);
        let choice =
            choose(&answers, prefer, Some(First { voters: &self.ids, listed: &self.ids }), None, change).unwrap();
        if choice.bootstrap {
            self.cluster = Some(ClusterId(77));
        }
        let leader = self.ids.iter().position(|id| *id == choice.leader).unwrap();
        let request = self.appoint_request(leader, self.epoch, &choice);
        self.control(leader).await.appoint(request).await.unwrap();
        (leader, choice)
    }

    /// Lets the leader feed these beside the voters.
    pub async fn teach(&self, leader: usize, learners: &[usize]) {
        self.tell(leader, learners, &[]).await;
    }

    /// The same, and where these voters are.
    pub async fn tell(&self, leader: usize, learners: &[usize], moved: &[usize]) {
        let members = |at: &[usize]| at.iter().map(|ordinal| self.member(self.ids[*ordinal])).collect();
        let request = v1::LearnersRequest {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: self.cluster_bytes(),
            target: id_bytes(self.ids[leader].0),
            epoch: self.epoch,
            learners: members(learners),
            moved_voters: members(moved),
            standby: None,
        };
        self.control(leader).await.learners(request).await.unwrap();
    }

    pub async fn status(&self, ordinal: usize) -> v1::StatusResponse {
        self.control(ordinal).await.status(v1::StatusRequest {}).await.unwrap().into_inner()
    }

    /// Waits until the status of a node is as wished.
    pub async fn until(&self, ordinal: usize, what: &str, wished: impl Fn(&v1::StatusResponse) -> bool) {
        let begun = Instant::now();
        let mut status = self.status(ordinal).await;
        while !wished(&status) {
            assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            status = self.status(ordinal).await;
        }
    }

    /// Waits until the leader has all the running followers connected and caught up, and they know what is committed.
    pub async fn settle(&self, leader: usize) {
        let running = self.nodes.iter().flatten().count() - 1;
        self.until(leader, "followers caught up", |status| {
            let caught_up = |f: &&v1::FollowerStatus| f.connected && f.lag_records == 0;
            status.settled && status.followers.iter().filter(caught_up).count() >= running
        })
        .await;
        let commit_end = self.status(leader).await.commit_end;
        for (ordinal, _) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_some()) {
            self.until(ordinal, "what is committed is known", |status| status.commit_end >= commit_end).await;
        }
    }

    pub fn metric(&self, ordinal: usize, name: &str) -> u64 {
        let text = self.nodes[ordinal].as_ref().unwrap().metrics().render().unwrap();
        let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        let value = line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap();
        value.parse().unwrap()
    }
}

pub fn sealed(answer: v1::SealResponse) -> Sealed {
    Sealed {
        replica: zue_proto::replica_id("replica_id", &answer.replica_id).unwrap(),
        cluster: zue_proto::cluster_id(&answer.cluster_id).unwrap(),
        last: answer.last_epoch_start.map(|start| zue_proto::epoch_start(start).unwrap()),
        durable: zue_proto::tail(answer.durable),
        commit_end: Offset(answer.commit_end),
        suspect: answer.suspect.map(|suspect| zue_proto::tail(Some(suspect))),
        damaged: answer.damaged,
        lineage: zue_proto::lineage(answer.lineage),
        runs: zue_proto::runs(&answer.runs).unwrap(),
    }
}

pub fn epoch_of(status: &v1::StatusResponse) -> Epoch {
    Epoch(status.last_epoch_start.as_ref().map_or(0, |start| start.epoch))
}

pub fn value(text: impl AsRef<[u8]>) -> v1::NewRecord {
    v1::NewRecord { value: Bytes::copy_from_slice(text.as_ref()), ..v1::NewRecord::default() }
}

pub fn request(records: Vec<v1::NewRecord>) -> v1::AppendRequest {
    v1::AppendRequest { records, ..v1::AppendRequest::default() }
}

/// Appends one record after the other in one stream; their offsets.
pub async fn append_all(client: &mut LogClient<Channel>, values: Vec<Vec<u8>>) -> Vec<u64> {
    let count = values.len();
    let requests = tokio_stream::iter(values.into_iter().map(|text| request(vec![value(text)])));
    let mut answers = client.append_stream(requests).await.unwrap().into_inner();
    let mut offsets = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.outcome.unwrap() {
            v1::append_stream_response::Outcome::Appended(appended) => offsets.push(appended.base_offset),
            v1::append_stream_response::Outcome::Error(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(offsets.len(), count);
    offsets
}

/// All committed records from an offset on.
pub async fn read_all(client: &mut LogClient<Channel>, from: u64) -> Vec<v1::Record> {
    let request = v1::ReadRequest { from, ..v1::ReadRequest::default() };
    let mut responses = client.read(request).await.unwrap().into_inner();
    let mut records = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        records.extend(response.records);
    }
    records
}

/// The error of a call, with its code.
pub fn error_of(status: &Status) -> (Reason, Error, Code) {
    let error = zue_proto::error_of(status).unwrap_or_else(|| panic!("no zue error in {status:?}"));
    (error.reason(), error, status.code())
}
