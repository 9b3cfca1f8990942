//! What the node shows and believes, as the files say, and as they said when they were whole last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zue_proto::v1;
use zue_tls::rustls::ServerConfig;
use zue_tls::{
    Bundle, ClientConfig, Dial, DialError, FileError, Insecure, Leaf, Role, Usage, Without, rustls, server_for_clients,
    server_for_peers,
};

use super::access::{Access, AccessError};
use super::settings::{AccessSettings, TlsMode, TlsSettings};
use crate::metrics::Metrics;
use crate::num::gauge;
use crate::storage::full;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Why a node has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates.
    #[error(transparent)]
    File(#[from] FileError),
    /// Who has access.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Who signs clients would be believed of nodes.
    #[error(
        "{} and {} hold the same authority: whoever it signs as a client could become a node; have two",
        peers.display(), clients.display()
    )]
    SameAuthority {
        /// The one.
        peers: PathBuf,
        /// The other.
        clients: PathBuf,
    },
    /// rustls cannot work with them.
    #[error("the certificates cannot be used")]
    Rustls(#[from] rustls::Error),
    /// The same, for connections that this node opens.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// What counts now.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) leaf: Leaf,
    pub(super) peers: Bundle,
    pub(super) clients: Bundle,
    pub(super) access: Access,
    pub(super) for_clients: Arc<ServerConfig>,
    pub(super) for_peers: Arc<ServerConfig>,
    dialling: Arc<ClientConfig>,
    /// Counts what was replaced before.
    pub(super) generation: u64,
}

impl Current {
    fn read(folder: &Path, access: Option<&Path>) -> Result<Self, TlsError> {
        let (peer_ca, client_ca) = (folder.join("peer-ca.crt"), folder.join("client-ca.crt"));
        let leaf = Leaf::read(&folder.join("tls.crt"), &folder.join("tls.key"))?;
        let leaf = leaf.expect(|role| *role == Role::Node, "a node")?;
        let (peers, clients) = (Bundle::read(&peer_ca)?, Bundle::read(&client_ca)?);
        leaf.check(&peers, &[Usage::Server, Usage::Client])?;
        if peers.shares_one_with(&clients) {
            return Err(TlsError::SameAuthority { peers: peer_ca, clients: client_ca });
        }
        let access = access.map(|path| Access::read(path, leaf.cluster())).transpose()?.unwrap_or_default();
        let (for_clients, for_peers) = (server_for_clients(&leaf)?, server_for_peers(&leaf, &peers)?);
        let dialling = Dial::peer_config(&leaf, &peers)?;
        Ok(Self { leaf, peers, clients, access, for_clients, for_peers, dialling, generation: 0 })
    }

    fn hashes(&self) -> [&str; 4] {
        [&self.leaf.sha256, &self.peers.sha256, &self.clients.sha256, &self.access.sha256]
    }
}

/// Keeps it.
#[derive(Debug)]
pub(super) struct Kept {
    settings: (TlsSettings, AccessSettings),
    folder: PathBuf,
    pub(super) current: ArcSwap<Current>,
    /// Counts what was replaced.
    pub(super) changes: watch::Sender<u64>,
    dialling: watch::Sender<Arc<ClientConfig>>,
    /// Why what is in the files now does not count.
    problem: watch::Sender<Option<Arc<str>>>,
    dial: Dial,
    /// Where hands are shaken: what strangers have computed there holds up no replica.
    pub(super) handshakes: Handle,
}

impl Kept {
    pub(super) async fn read(tls: &TlsSettings, access: &AccessSettings, folder: &Path) -> Result<Self, TlsError> {
        let current = Self::look(folder.to_owned(), access.file.clone()).await?;
        let insecure = if tls.mode == TlsMode::Permissive { Insecure::IfNeeded } else { Insecure::Never };
        let dialling = watch::Sender::new(Arc::clone(&current.dialling));
        let dial = Dial::following(dialling.subscribe(), insecure);
        Ok(Self {
            settings: (tls.clone(), access.clone()),
            folder: folder.to_owned(),
            current: ArcSwap::from_pointee(current),
            changes: watch::Sender::new(0),
            dialling,
            problem: watch::Sender::new(None),
            dial,
            handshakes: Handle::current(),
        })
    }

    /// Reading may wait for a disk, or for a network.
    async fn look(folder: PathBuf, access: Option<PathBuf>) -> Result<Current, TlsError> {
        let read = tokio::task::spawn_blocking(move || Current::read(&folder, access.as_deref()));
        read.await.unwrap_or_else(|failed| Err(DialError::Config(failed.to_string()).into()))
    }

    pub(super) fn mode(&self) -> TlsMode {
        self.settings.0.mode
    }

    pub(super) fn dial(&self) -> &Dial {
        &self.dial
    }

    /// What a person should know.
    pub(super) fn problem(&self) -> Option<String> {
        let problem =
            self.problem.borrow().as_ref().map(|why| format!("what is in the files for TLS is not used: {why}"));
        problem.or_else(|| {
            let left = self.current.load().leaf.not_after.duration_since(SystemTime::now());
            left.is_err().then(|| "the certificate of this node has expired: nobody believes it any more".to_owned())
        })
    }

    pub(super) fn status(&self) -> v1::TlsStatus {
        let current = self.current.load();
        let [certificate, peers, clients, access] = current.hashes().map(ToOwned::to_owned);
        let mode = if self.mode() == TlsMode::Permissive { "Permissive" } else { "Required" };
        v1::TlsStatus {
            mode: mode.to_owned(),
            certificate_sha256: certificate,
            expires_s: unix_s(current.leaf.not_after),
            peer_bundle_sha256: peers,
            client_bundle_sha256: clients,
            access_sha256: access,
            problem: self.problem().unwrap_or_default(),
        }
    }

    /// Looks at the files again and again, and takes what is whole.
    pub(super) async fn keep(&self, metrics: &Metrics, stop: &CancellationToken) {
        let mut failed: Option<String> = None;
        let mut without = Without::default();
        loop {
            metrics.tls.expires.set(gauge(unix_s(self.current.load().leaf.not_after)));
            if stop.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_none() {
                return;
            }
            self.tell_plain(&mut without, metrics);
            match Self::look(self.folder.clone(), self.settings.1.file.clone()).await {
                Ok(found) => {
                    failed = None;
                    self.problem.send_if_modified(|problem| problem.take().is_some());
                    metrics.tls.problem.set(0);
                    self.take(found);
                }
                Err(error) => {
                    let why = full(&error);
                    // Files that are being replaced are whole a moment later.
                    if failed.as_ref() == Some(&why) && self.problem.borrow().as_deref() != Some(&why) {
                        tracing::error!(why, "the files for TLS cannot be used: what they said before still counts");
                        metrics.tls.problem.set(1);
                        self.problem.send_replace(Some(why.as_str().into()));
                    }
                    failed = Some(why);
                }
            }
        }
    }

    fn take(&self, found: Current) {
        let before = self.current.load_full();
        if found.hashes() == before.hashes() {
            return;
        }
        let dialling = Arc::clone(&found.dialling);
        let [certificate, peers, clients, access] = found.hashes();
        tracing::info!(
            certificate,
            peers,
            clients,
            access,
            "the files for TLS have changed: what they say counts from now on"
        );
        let is_for_peers = [certificate, peers] != [&before.leaf.sha256, &before.peers.sha256];
        self.current.store(Arc::new(Current { generation: before.generation + 1, ..found }));
        if is_for_peers {
            self.dialling.send_replace(dialling);
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Tells of connections to peers that had to do without.
    fn tell_plain(&self, told: &mut Without, metrics: &Metrics) {
        let without = self.dial.without();
        if without.count > told.count {
            metrics.tls.plain_dials.inc_by(without.count - told.count);
            tracing::warn!(why = without.why, "peers are reached without TLS, as tls.mode is Permissive");
            *told = without;
        }
    }
}

fn unix_s(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
