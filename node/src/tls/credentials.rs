//! The certificates that the node shows and believes, by the files as they are, or as they were when they were whole last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zue_engine::room::full;
use zue_proto::v1;
use zue_settings::{AccessSettings, TlsMode, TlsSettings};
use zue_tls::rustls::ServerConfig;
use zue_tls::{
    ClientConfig, Dial, DialError, FileError, Insecure, Without, rustls, server_for_clients, server_for_peers,
};

use super::access::AccessError;
use super::file::File;
use super::files::{FileContents, Places, Problems};
use crate::metrics::Metrics;
use crate::num::gauge;

/// The interval at which the files are looked at, and after how many looks they are read though they look as before.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const LOOKS_A_READ: u64 = 4;

/// Why a node has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates.
    #[error(transparent)]
    File(#[from] FileError),
    /// The clients that have access.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A node changes sides only by being started anew.
    #[error(
        "{}: the certificate is of a node of {found}, and this node is of {ours}: give it one of that cluster, or stop it and start it again",
        path.display()
    )]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Of which cluster the certificate is.
        found: String,
        /// Of which cluster the node is.
        ours: String,
    },
    /// It is to have TLS, and has nothing for it.
    #[error("there is no folder with certificates: set tls.folder (--tls-folder)")]
    NoFolder,
    /// rustls cannot work with them.
    #[error("the certificates cannot be used")]
    Rustls(#[from] rustls::Error),
    /// The same, for connections that this node opens.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// The files in force.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) files: FileContents,
    pub(super) for_clients: Arc<ServerConfig>,
    pub(super) for_peers: Arc<ServerConfig>,
    dialling: Arc<ClientConfig>,
    /// Counts what was replaced before.
    pub(super) generation: u64,
}

impl Current {
    fn of(files: FileContents, generation: u64) -> Result<Self, TlsError> {
        let (for_clients, for_peers) = (server_for_clients(&files.leaf)?, server_for_peers(&files.leaf, &files.peers)?);
        let dialling = Dial::peer_config(&files.leaf, &files.peers)?;
        Ok(Self { files, for_clients, for_peers, dialling, generation })
    }

    fn hashes(&self) -> [&str; 4] {
        self.files.hashes()
    }
}

/// The credentials of this node: reads the files again when they change, and replaces what is in force.
#[derive(Debug)]
pub(super) struct Credentials {
    mode: TlsMode,
    places: Places,
    pub(super) current: ArcSwap<Current>,
    /// The generation that counts.
    pub(super) changes: watch::Sender<u64>,
    dialling: watch::Sender<Arc<ClientConfig>>,
    /// Why what is in some files now does not count.
    problem: watch::Sender<Option<Arc<str>>>,
    dial: Dial,
    /// The runtime of the handshakes: what strangers have computed there holds up no replica.
    pub(super) handshakes: Handle,
}

impl Credentials {
    pub(super) async fn read(tls: &TlsSettings, access: &AccessSettings, folder: &Path) -> Result<Self, TlsError> {
        let places = Places { folder: folder.to_owned(), access: access.file.clone() };
        let files = places.aside(Places::read_all).await??;
        Ok(Self::of(tls.mode, places, Current::of(files, 0)?))
    }

    fn of(mode: TlsMode, places: Places, current: Current) -> Self {
        let insecure = if mode == TlsMode::Permissive { Insecure::IfNeeded } else { Insecure::Never };
        let dialling = watch::Sender::new(Arc::clone(&current.dialling));
        let dial = Dial::following(dialling.subscribe(), insecure);
        Self {
            mode,
            places,
            current: ArcSwap::from_pointee(current),
            changes: watch::Sender::new(0),
            dialling,
            problem: watch::Sender::new(None),
            dial,
            handshakes: Handle::current(),
        }
    }

    /// A decision by the files in force while it is made: nobody gets in by what was replaced meanwhile. With the generation of that.
    pub(super) fn settled<T>(&self, decide: impl Fn(&Current) -> T) -> (T, u64) {
        loop {
            let current = self.current.load();
            let decided = decide(&current);
            if self.current.load().generation == current.generation {
                return (decided, current.generation);
            }
        }
    }

    pub(super) fn mode(&self) -> TlsMode {
        self.mode
    }

    pub(super) fn dial(&self) -> &Dial {
        &self.dial
    }

    /// The problem, for people.
    pub(super) fn problem(&self) -> Option<String> {
        let problem = self
            .problem
            .borrow()
            .as_ref()
            .map(|why| format!("the files for TLS are unusable, and their former content stays in force: {why}"));
        problem.or_else(|| {
            let left = self.current.load().files.leaf.not_after.duration_since(SystemTime::now());
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
            expires_s: unix_s(current.files.leaf.not_after),
            peer_bundle_sha256: peers,
            client_bundle_sha256: clients,
            access_sha256: access,
            problem: self.problem().unwrap_or_default(),
        }
    }

    /// Looks at the files again and again, and takes what is whole.
    pub(super) async fn keep(&self, metrics: &Metrics, stop: &CancellationToken) {
        let (mut found, mut seen, mut without) = (Problems::new(), None, Without::default());
        for look in 0_u64.. {
            metrics.tls_expires.set(gauge(unix_s(self.current.load().files.leaf.not_after)));
            if stop.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_none() {
                return;
            }
            self.tell_plain(&mut without, metrics);
            // What looks as before is as before, but for what was written in the same moment.
            let Ok(now) = self.places.aside(Places::look).await else { continue };
            if seen.as_ref() == Some(&now) && found.is_empty() && look % LOOKS_A_READ != 0 {
                continue;
            }
            let before = self.current.load_full();
            let read = self.places.aside(move |places| places.read_again(&before.files)).await;
            let Ok((files, mut problems)) = read else { continue };
            if let Err(error) = self.take(files) {
                problems.insert(File::Leaf, full(&error));
            }
            self.tell(&problems, &found, metrics);
            (found, seen) = (problems, Some(now));
        }
    }

    /// Tells what is wrong with the files, each for itself. Those that are being replaced are whole a moment later.
    fn tell(&self, now: &Problems, before: &Problems, metrics: &Metrics) {
        let lasting: Vec<_> = now.iter().filter(|(file, why)| before.get(file) == Some(why)).collect();
        for file in File::ALL {
            let is_lasting = lasting.iter().any(|(one, _)| **one == file);
            metrics.tls_problem.with_label_values(&[file.name()]).set(is_lasting.into());
        }
        let told: Vec<&str> = lasting.iter().map(|(_, why)| why.as_str()).collect();
        let told = Some(told.join("; ")).filter(|told| !told.is_empty());
        self.problem.send_if_modified(|problem| {
            if problem.as_deref() == told.as_deref() {
                return false;
            }
            if let Some(why) = &told {
                tracing::error!(why, "the files for TLS are unusable: their former content stays in force");
            }
            *problem = told.as_deref().map(Into::into);
            true
        });
    }

    /// From now on this counts.
    pub(super) fn take(&self, files: FileContents) -> Result<(), TlsError> {
        let before = self.current.load_full();
        if files.hashes() == before.hashes() {
            return Ok(());
        }
        let now = Current::of(files, before.generation + 1)?;
        let [certificate, peers, clients, access] = now.hashes();
        tracing::info!(
            certificate,
            peers,
            clients,
            access,
            "the files for TLS have changed: what they say counts from now on"
        );
        let is_for_peers = [certificate, peers] != [&before.files.leaf.sha256, &before.files.peers.sha256];
        let (dialling, generation) = (Arc::clone(&now.dialling), now.generation);
        self.current.store(Arc::new(now));
        if is_for_peers {
            self.dialling.send_replace(dialling);
        }
        self.changes.send_replace(generation);
        Ok(())
    }

    /// Tells of connections to peers that had to do without.
    fn tell_plain(&self, told: &mut Without, metrics: &Metrics) {
        let without = self.dial.without();
        if without.count > told.count {
            metrics.tls_plain_dials.inc_by(without.count - told.count);
            tracing::warn!(why = without.why, "peers are reached without TLS, as tls.mode is Permissive");
            *told = without;
        }
    }
}

fn unix_s(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
