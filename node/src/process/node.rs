//! A running node: three ports, the driver and the disk's thread, from start to stop.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zue_core::ReplicaId;
use zue_settings::fixed::PEER_CONNECTIONS_MAX;
use zue_settings::{ConfigError, NodeConfig};

use crate::driver::handle::{self, Fact};
use crate::driver::replica_thread::ReplicaThread;
use crate::driver::state::Role;
use crate::metrics::Metrics;
use crate::num::length;
use crate::process::built::Built;
use crate::process::open::{OpenNodeError, Opened, open};
use crate::process::open_files::connections_max;
use crate::process::patience::Patience;
use crate::process::vital::Vitals;
use crate::server::http::{PortFacts, Readiness, router};
use crate::server::listener::{Greeting, Listener};
use crate::server::serve::{Gate, serve_http};
use crate::server::slots::Slots;
use crate::server::{report_health, serve_clients, serve_peers};
use crate::tls::{Port, Security, TlsError};

/// The time that open calls may take to end when the node stops, and the disk to finish.
const CALLS_END_WITHIN: Duration = Duration::from_secs(2);
/// The time that a leader that stops waits for a hand-over.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);
const DISK_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A node that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS or the file of clients cannot be used.
    #[error("cannot set up TLS as tls.mode requires")]
    Tls(#[from] TlsError),
    /// It cannot listen.
    #[error("cannot listen on {address} for {port}")]
    Listen {
        /// The purpose of the port.
        port: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Its log does not open.
    #[error("the data directory cannot be used")]
    Open(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something that cannot happen in a node that was built right.
    #[error("the node cannot be set up")]
    SetUp(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The addresses at which a node listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// For clients.
    pub client: SocketAddr,
    /// For peers and controllers.
    pub peer: SocketAddr,
    /// For metrics and health.
    pub metrics: SocketAddr,
}

/// A storage node.
#[derive(Debug)]
pub struct Node;

/// A node that runs. Dropping it stops it less gracefully than [`RunningNode::stop`].
#[derive(Debug)]
pub struct RunningNode {
    addresses: Addresses,
    handle: handle::Handle,
    metrics: Arc<Metrics>,
    readiness: watch::Sender<Readiness>,
    /// Ends the calls, then the driver.
    stop_calls: CancellationToken,
    stop_driver: CancellationToken,
    servers: JoinSet<()>,
    driver: JoinHandle<()>,
    vitals: Vitals,
    _replica: ReplicaThread,
}

/// Makes the ports of a node, each once it is free.
struct Binder<'a> {
    patience: Patience<'a>,
    connections_max: u32,
    metrics: &'a Metrics,
}

impl Binder<'_> {
    async fn bind(
        &self,
        port: &'static str,
        address: SocketAddr,
        greeting: Greeting,
        runtime: &Handle,
    ) -> Result<(SocketAddr, Listener), StartError> {
        let configured =
            if port == "peer" { self.connections_max.min(PEER_CONNECTIONS_MAX) } else { self.connections_max };
        let max = length(connections_max(port, configured));
        let strangers_max = if port == "peer" { max.div_ceil(2) } else { max };
        let bind = || {
            let _entered = runtime.enter();
            let slots = Slots::reserved(max, strangers_max);
            let listener = Listener::bind(address, port, greeting, slots, self.metrics)?;
            Ok((listener.address()?, listener))
        };
        let attempt = || async { bind().map_err(|source| StartError::Listen { port, address, source }) };
        self.patience.until_free(attempt).await
    }
}

pub(crate) fn set_up(error: impl std::error::Error + Send + Sync + 'static) -> StartError {
    StartError::SetUp(Box::new(error))
}

impl Node {
    /// Starts a node: listens, opens the log, then serves. Until the log is open only the metrics port answers. Waits, as long as
    /// the configuration allows, for a process that still holds a port or the directory.
    ///
    /// # Errors
    /// When the configuration cannot be used, a port is taken, or the log does not open.
    pub async fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
        config.validate()?;
        let metrics = Arc::new(Metrics::new().map_err(set_up)?);
        let security = Security::read(&config).await?;
        let (readiness, readiness_seen) = watch::channel(Readiness::default());
        let (clients, replica) = (Handle::current(), ReplicaThread::start(&config.name).map_err(set_up)?);
        let patience = Patience::new(config.limits.start_wait_max.0, &readiness);
        let binder = Binder { patience, connections_max: config.limits.connections_max, metrics: &metrics };
        // First: it tells that the node is alive.
        let (metrics_at, metrics_port) =
            binder.bind("metrics", config.listen.metrics, Greeting::Request, &clients).await?;
        let stop_calls = CancellationToken::new();
        let vitals = Vitals::new();
        let mut servers = JoinSet::new();
        // Should this start fail, what runs already is to stop.
        let stop_guard = stop_calls.clone().drop_guard();
        let data_dir: Arc<Path> = config.data_dir.as_path().into();
        let turn = Arc::new(Semaphore::new(1));
        let shown = PortFacts { metrics: Arc::clone(&metrics), readiness: readiness_seen, data_dir, turn };
        let served = serve_http(metrics_port, router(shown), stop_calls.clone());
        servers.spawn(vitals.task("the metrics port", &stop_calls).run(served));
        let (client_at, client_port) = binder.bind("client", config.listen.client, Greeting::Http2, &clients).await?;
        let (peer_at, peer_port) = binder.bind("peer", config.listen.peer, Greeting::Http2, replica.runtime()).await?;
        let addresses = Addresses { client: client_at, peer: peer_at, metrics: metrics_at };
        let opened = binder.patience.until_free(|| open_aside(config.clone())).await;
        let opened = opened.map_err(|error| StartError::Open(Box::new(error)))?;
        let stop_driver = CancellationToken::new();
        let built = {
            let _entered = replica.runtime().enter();
            Built::new(&config, addresses, opened, &metrics, &security, (&stop_calls, &vitals))?
        };
        readiness.send_replace(Readiness::Open { view: built.handle.view.clone(), reader: built.log.reader.clone() });
        let (health, health_service) = tonic_health::server::health_reporter();
        let gate = |port| Gate { port, security: security.clone(), metrics: Arc::clone(&metrics) };
        let (health_of_clients, stop) = (health_service.clone(), stop_calls.clone());
        let client =
            serve_clients(client_port, gate(Port::Client), built.log, health_of_clients, stop).map_err(set_up)?;
        let vital = |name| vitals.task(name, &stop_calls);
        security.spawn(vital("who looks after the files for TLS"), Arc::clone(&metrics), stop_calls.clone());
        servers.spawn(vital("the client port").run(client));
        let Built { replication, control, backups, .. } = built;
        if let Some(backups) = backups {
            servers.spawn(vital("who makes backups").run(backups.run(stop_calls.clone())));
        }
        let (gate, stop) = (gate(Port::Peer), stop_calls.clone());
        let peer = serve_peers((peer_port, gate), replication, control, health_service, config.limits, stop);
        servers.spawn_on(vital("the peer port").run(peer), replica.runtime());
        let reporting = report_health(health, built.handle.view.clone(), stop_calls.clone());
        servers.spawn(vital("the health service").run(reporting));
        // Should it end, the driver gives them itself.
        clients.spawn(built.answers.run());
        let driver = vitals.task("the driver", &stop_driver).run(built.driver.run(stop_driver.clone()));
        let driver = replica.runtime().spawn(driver);
        tracing::info!(name = config.name, client = %addresses.client, peer = %addresses.peer,
            metrics = %addresses.metrics, "serving");
        let handle = built.handle;
        stop_guard.disarm();
        Ok(RunningNode {
            addresses,
            handle,
            metrics,
            readiness,
            stop_calls,
            stop_driver,
            servers,
            driver,
            vitals,
            _replica: replica,
        })
    }
}

/// Opens the log, which may take long, on a thread of its own.
async fn open_aside(config: NodeConfig) -> Result<Opened, OpenNodeError> {
    tokio::task::spawn_blocking(move || open(&config)).await?
}

impl RunningNode {
    /// The addresses at which it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its id.
    pub fn replica_id(&self) -> ReplicaId {
        self.handle.identity.id
    }

    /// Tells whether it leads.
    pub fn leads(&self) -> bool {
        self.handle.view.borrow().role == Role::Leader
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until its storage has failed, and says why. It goes on serving what it can.
    pub async fn failed(&self) -> String {
        let mut view = self.handle.view.clone();
        match view.wait_for(|view| view.role == Role::Failed).await {
            Ok(view) => view.problem.as_deref().unwrap_or("the storage failed").to_owned(),
            Err(_) => "the driver has ended".to_owned(),
        }
    }

    /// Waits until a task has ended that it is nothing without, for a fault of the program, and says which: the process should end.
    pub fn ended(&self) -> impl Future<Output = Arc<str>> + use<> {
        self.vitals.ended()
    }

    /// Before a stop: a leader with others in sync lets the controller hand over to one of them, so that no append has to wait for a
    /// failover. Ends once this replica follows another, or after a while.
    pub async fn leave(&self) {
        let mut view = self.handle.view.clone();
        let has_successor = {
            let view = view.borrow();
            view.role == Role::Leader && view.as_leader.isr.len() > 1
        };
        if !has_successor || self.handle.fact(Fact::Leaving).await.is_err() {
            return;
        }
        tracing::info!("waiting for another replica to take over");
        let followed = view.wait_for(|view| matches!(view.role, Role::Follower | Role::Failed));
        if timeout(LEAVES_WITHIN, followed).await.is_err() {
            tracing::warn!("no controller appointed another leader: stopping anyway");
        }
    }

    /// Stops: no new calls, waiting ones are answered, the disk finishes, the log is closed cleanly.
    pub async fn stop(mut self) {
        self.readiness.send_replace(Readiness::Stopping);
        self.stop_calls.cancel();
        self.stop_driver.cancel();
        if timeout(DISK_ENDS_WITHIN, &mut self.driver).await.is_err() {
            tracing::error!("the disk does not finish: stopping without it");
        }
        let ended = async { while self.servers.join_next().await.is_some() {} };
        if timeout(CALLS_END_WITHIN, ended).await.is_err() {
            tracing::info!("open calls are cut off");
        }
        self.servers.shutdown().await;
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.stop_calls.cancel();
        self.stop_driver.cancel();
    }
}
