//! Replicas inside this process. The one place that knows how the node crate is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use zue_node::{Node, RunningNode};
use zue_settings::{AccessSettings, LimitSettings, ListenSettings, NodeConfig, ReplicationSettings, Time, TlsSettings};

/// The time to wait for a process that still holds the directory or a port: a person waits as well.
pub(crate) const START_WAIT_MAX: Time = Time::from_millis(5000);

/// The news of `zue dev` about one replica.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) metrics: SocketAddr,
    /// The time that a leader must be silent to be lost.
    pub(crate) detection_time: Duration,
    pub(crate) tls: (TlsSettings, AccessSettings),
}

impl Replica {
    pub(crate) async fn start(&self) -> anyhow::Result<RunningNode> {
        let Self { name, data_dir, client, peer, metrics, detection_time, tls: (tls, access) } = self;
        let config = NodeConfig {
            name: name.clone(),
            data_dir: data_dir.clone(),
            listen: ListenSettings { client: *client, peer: *peer, metrics: *metrics },
            limits: LimitSettings { start_wait_max: START_WAIT_MAX, ..LimitSettings::default() },
            replication: ReplicationSettings::default().with_detection_time(*detection_time),
            tls: tls.clone(),
            access: access.clone(),
            ..NodeConfig::default()
        };
        Node::start(config).await.with_context(|| format!("{name} does not start"))
    }
}
