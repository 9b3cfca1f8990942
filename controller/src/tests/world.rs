//! Replicas that answer Control in memory, a store, and one fault at a chosen call. No log, no replication: what the leader has,
//! the others have at their next status.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use zue_core::control::Recorded;
use zue_core::{Epoch, EpochStart, Offset, ReplicaId, Tail};
use zue_proto::v1::control_server::{Control, ControlServer};
use zue_proto::{PROTOCOL_VERSION, id_bytes, v1};

use crate::{NodeAddress, Store};

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The call answers with an error.
    Error,
    /// A store says that somebody else wrote; any other call answers with an error.
    Conflict,
    /// The call never answers, since the caller is dead.
    Death,
}

/// One fault at one call that changes something, with the change made or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) call: usize,
    pub(super) fault: Fault,
    pub(super) applied: bool,
}

#[derive(Debug, Default)]
struct Replica {
    cluster: Vec<u8>,
    promised: u64,
    last: Option<EpochStart>,
    leads: bool,
    handing_over: bool,
    hangs: Option<Hang>,
}

/// The calls that are not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hang {
    Status,
    Seal,
    /// And no seal after it.
    Appoint,
}

#[derive(Debug, Default)]
struct State {
    replicas: Vec<Replica>,
    addresses: Vec<NodeAddress>,
    recorded: Recorded,
    fault: Option<At>,
    /// The number of swaps that the store still takes, if not all.
    swaps_left: Option<u32>,
    calls: usize,
    failed: bool,
    appointments: Vec<(u64, usize)>,
    /// Whom no leader reaches, though the controller does.
    cut_off: Vec<usize>,
    /// The nodes are of an earlier version, which cannot be watched.
    is_old: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    died: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
#[error("the store is out of reach")]
pub(super) struct OutOfReach;

fn id(ordinal: usize) -> ReplicaId {
    ReplicaId(100 + u128::try_from(ordinal).unwrap())
}

impl State {
    /// The leader of the newest epoch that is led. A leader that was not sealed may lead an older one still.
    fn leader(&self) -> Option<usize> {
        let epoch = |ordinal: &usize| self.replicas[*ordinal].last.as_ref().map(|last| last.epoch);
        (0..self.replicas.len()).filter(|ordinal| self.replicas[*ordinal].leads).max_by_key(epoch)
    }

    /// The newest leader's epoch start reaches whoever has not promised a higher epoch.
    fn replicate(&mut self) {
        let Some(leader) = self.leader() else { return };
        let (start, cluster) = (self.replicas[leader].last.clone(), self.replicas[leader].cluster.clone());
        let epoch = start.as_ref().unwrap().epoch.0;
        for (ordinal, follower) in self.replicas.iter_mut().enumerate().filter(|(ordinal, _)| *ordinal != leader) {
            if follower.promised <= epoch && !self.cut_off.contains(&ordinal) {
                (follower.promised, follower.last, follower.cluster) = (epoch, start.clone(), cluster.clone());
                follower.leads = false;
            }
        }
    }
}

impl World {
    pub(super) async fn start(replicas: usize) -> Self {
        let world = Self::default();
        for ordinal in 0..replicas {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let node = NodeAddress {
                name: format!("zue-{ordinal}"),
                peer_address: address.clone(),
                client_address: address,
                dial_address: None,
                last_address: None,
                replica: None,
            };
            let mut state = world.lock();
            state.addresses.push(node);
            state.replicas.push(Replica::default());
            drop(state);
            let service = ControlServer::new(Node { ordinal, world: world.clone() });
            let server = tonic::transport::Server::builder().add_service(service);
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        }
        world
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn addresses(&self) -> Vec<NodeAddress> {
        self.lock().addresses.clone()
    }

    pub(super) fn appointments(&self) -> Vec<(u64, usize)> {
        self.lock().appointments.clone()
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.lock().leader()
    }

    /// Makes a cluster that has got this leader.
    pub(super) fn lead(&self, leader: usize, epoch: u64) {
        let mut state = self.lock();
        let voters: Vec<_> = (0..state.replicas.len()).map(id).collect();
        let start = EpochStart {
            epoch: Epoch(epoch),
            start: Offset(0),
            leader: id(leader),
            voters,
            quorum: 2,
            old_voters: None,
        };
        let replica = &mut state.replicas[leader];
        (replica.promised, replica.last, replica.leads) = (epoch, Some(start), true);
        replica.cluster = id_bytes(9).to_vec();
        state.replicate();
    }

    pub(super) fn cut_off(&self, ordinal: usize) {
        self.lock().cut_off.push(ordinal);
    }

    pub(super) fn restart(&self, ordinal: usize) {
        self.lock().replicas[ordinal].leads = false;
    }

    pub(super) fn promise(&self, ordinal: usize, epoch: u64) {
        self.lock().replicas[ordinal].promised = epoch;
    }

    pub(super) fn cannot_be_watched(&self, is_old: bool) {
        self.lock().is_old = is_old;
    }

    pub(super) fn hang(&self, ordinal: usize, hang: Option<Hang>) {
        self.lock().replicas[ordinal].hangs = hang;
    }

    pub(super) fn fail(&self, at: At) {
        self.lock().fault = Some(at);
    }

    /// The store is out of reach after so many more swaps; `None` ends that.
    pub(super) fn limit_swaps(&self, left: Option<u32>) {
        self.lock().swaps_left = left;
    }

    /// The leader that is written down.
    pub(super) fn recorded_leader(&self) -> Option<usize> {
        let leader = self.lock().recorded.leader?;
        (0..self.addresses().len()).find(|ordinal| id(*ordinal) == leader)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed
    }

    pub(super) async fn died(&self) {
        self.died.notified().await;
    }

    /// Checks what must hold at any time.
    pub(super) fn check(&self) {
        let state = self.lock();
        let mut epochs: Vec<_> = state.appointments.iter().map(|(epoch, _)| *epoch).collect();
        epochs.dedup();
        assert_eq!(epochs.len(), state.appointments.len(), "an epoch was led twice: {:?}", state.appointments);
        assert!(epochs.is_sorted(), "epochs fell: {epochs:?}");
        let clusters: std::collections::BTreeSet<_> =
            state.replicas.iter().map(|replica| &replica.cluster).filter(|cluster| !cluster.is_empty()).collect();
        assert!(clusters.len() <= 1, "two clusters began: {clusters:?}");
    }

    /// Makes a change, with the fault if this is its call.
    async fn call<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, Fault> {
        let (at, outcome) = {
            let mut state = self.lock();
            let call = state.calls;
            state.calls += 1;
            let at = state.fault.filter(|at| at.call == call);
            state.failed |= at.is_some();
            let outcome = at.is_none_or(|at| at.applied).then(|| change(&mut state));
            (at, outcome)
        };
        match at {
            Some(At { fault: Fault::Death, .. }) => {
                self.died.notify_one();
                std::future::pending().await
            }
            Some(at) => Err(at.fault),
            None => Ok(outcome.unwrap()),
        }
    }
}

impl Store for World {
    type Error = OutOfReach;

    async fn load(&self) -> Result<Recorded, OutOfReach> {
        Ok(self.lock().recorded.clone())
    }

    async fn swap(&self, from: &Recorded, to: &Recorded) -> Result<bool, OutOfReach> {
        if let Some(left) = &mut self.lock().swaps_left {
            *left = left.checked_sub(1).ok_or(OutOfReach)?;
        }
        let swapped = self
            .call(|state| {
                let is_same = state.recorded == *from;
                if is_same {
                    state.recorded = to.clone();
                }
                is_same
            })
            .await;
        match swapped {
            Err(Fault::Conflict) => Ok(false),
            swapped => swapped.map_err(|_| OutOfReach),
        }
    }
}

struct Node {
    ordinal: usize,
    world: World,
}

impl Node {
    async fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Status>) -> Result<Response<T>, Status> {
        match self.world.call(change).await {
            Ok(answer) => answer.map(Response::new),
            Err(_) => Err(Status::unavailable("the line broke")),
        }
    }
}

#[tonic::async_trait]
impl Control for Node {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        while self.world.lock().replicas[self.ordinal].hangs == Some(Hang::Status) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut state = self.world.lock();
        state.replicate();
        let me = &state.replicas[self.ordinal];
        let epoch = me.last.as_ref().map_or(0, |last| last.epoch.0);
        let led = state.leader().is_some_and(|leader| state.replicas[leader].last == me.last);
        let is_cut_off = |ordinal| state.cut_off.contains(&ordinal);
        let role = match () {
            () if me.leads => v1::Role::Leader,
            () if led => v1::Role::Follower,
            () => v1::Role::Idle,
        };
        let tail = v1::Tail { epoch, end: 0 };
        let follower = |ordinal: usize| v1::FollowerStatus {
            replica_id: id_bytes(id(ordinal).0),
            connected: true,
            in_sync: state.replicas[ordinal].last == me.last && !is_cut_off(ordinal),
            durable: Some(tail),
            ..Default::default()
        };
        Ok(Response::new(v1::StatusResponse {
            replica_id: id_bytes(id(self.ordinal).0),
            cluster_id: me.cluster.clone().into(),
            role: role.into(),
            promised: me.promised,
            last_epoch_start: me.last.as_ref().map(Into::into),
            durable: Some(tail),
            leader_silence_ms: (role == v1::Role::Follower).then_some(if is_cut_off(self.ordinal) { 9000 } else { 3 }),
            leader_connected: role == v1::Role::Follower,
            followers: (0..state.replicas.len()).filter(|n| me.leads && *n != self.ordinal).map(follower).collect(),
            handing_over: me.handing_over,
            ..Default::default()
        }))
    }

    type WatchStream = futures::stream::BoxStream<'static, Result<v1::StatusResponse, Status>>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if self.world.lock().is_old {
            return Err(Status::unimplemented("an earlier version"));
        }
        let node = Self { ordinal: self.ordinal, world: self.world.clone() };
        let told = futures::stream::unfold((node, false), |(node, has_told)| async move {
            if has_told {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            let status = node.status(Request::new(v1::StatusRequest {})).await;
            Some((status.map(Response::into_inner), (node, true)))
        });
        Ok(Response::new(told.boxed()))
    }

    async fn seal(&self, request: Request<v1::SealRequest>) -> Result<Response<v1::SealResponse>, Status> {
        let request = request.into_inner();
        assert_eq!((request.protocol_version, &request.target), (PROTOCOL_VERSION, &id_bytes(id(self.ordinal).0)));
        if self.world.lock().replicas[self.ordinal].hangs == Some(Hang::Seal) {
            return std::future::pending().await;
        }
        self.change(|state| {
            let me = &mut state.replicas[self.ordinal];
            if request.epoch <= me.promised {
                return Err(Status::failed_precondition(format!("epoch {} is promised", me.promised)));
            }
            if !me.cluster.is_empty() && me.cluster != request.cluster_id {
                return Err(Status::failed_precondition("another cluster"));
            }
            (me.promised, me.leads, me.handing_over) = (request.epoch, false, false);
            let epoch = me.last.as_ref().map_or(Epoch(0), |last| last.epoch);
            Ok(v1::SealResponse {
                replica_id: request.target,
                cluster_id: me.cluster.clone().into(),
                promised: me.promised,
                last_epoch_start: me.last.as_ref().map(Into::into),
                durable: Some(Tail { epoch, end: Offset(0) }.into()),
                commit_end: 0,
                suspect: None,
                damaged: false,
                lineage: None,
                runs: Vec::new(),
            })
        })
        .await
    }

    async fn appoint(&self, request: Request<v1::AppointRequest>) -> Result<Response<v1::AppointResponse>, Status> {
        if self.world.lock().replicas[self.ordinal].hangs == Some(Hang::Appoint) {
            self.world.hang(self.ordinal, Some(Hang::Seal));
            return std::future::pending().await;
        }
        let request = request.into_inner();
        self.change(|state| {
            // But for a store that fails: then nobody waits for it.
            let is_away = state.failed || state.swaps_left == Some(0);
            let is_reserved = state.recorded.epoch.0 >= request.epoch || is_away;
            let me = &mut state.replicas[self.ordinal];
            if me.promised != request.epoch || me.last.as_ref().is_some_and(|last| last.epoch.0 >= request.epoch) {
                return Err(Status::failed_precondition(format!("epoch {} is promised", me.promised)));
            }
            assert!(is_reserved, "told before it was written down");
            assert_eq!(request.voters.len(), 3);
            let start = v1::EpochStart {
                epoch: request.epoch,
                start: 0,
                leader: request.target,
                voters: request.voters.into_iter().map(|member| member.replica_id).collect(),
                quorum: request.quorum,
                old_voters: request.old_voters.into_iter().map(|member| member.replica_id).collect(),
            };
            me.last = Some(zue_proto::epoch_start(start.clone()).unwrap());
            (me.cluster, me.leads) = (request.cluster_id.to_vec(), true);
            state.appointments.push((request.epoch, self.ordinal));
            Ok(v1::AppointResponse { epoch_start: Some(start) })
        })
        .await
    }

    async fn learners(&self, _: Request<v1::LearnersRequest>) -> Result<Response<v1::LearnersResponse>, Status> {
        self.change(|_| Ok(v1::LearnersResponse {})).await
    }

    async fn handover(&self, request: Request<v1::HandoverRequest>) -> Result<Response<v1::HandoverResponse>, Status> {
        let request = request.into_inner();
        self.change(|state| {
            let me = &mut state.replicas[self.ordinal];
            if !me.leads || me.last.as_ref().unwrap().epoch.0 != request.epoch {
                return Err(Status::failed_precondition("it leads nothing"));
            }
            // The deadline of a hand-over that nobody goes on with passes at once here.
            me.handing_over = false;
            Ok(v1::HandoverResponse { log: Some(v1::Tail { epoch: request.epoch, end: 0 }) })
        })
        .await
    }

    async fn back_up(&self, _: Request<v1::BackUpRequest>) -> Result<Response<v1::AskedBackup>, Status> {
        Err(Status::unimplemented("there is no store"))
    }
}
