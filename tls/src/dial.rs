//! Opening connections: plain, with TLS, or with TLS where the other side can. What is shown and demanded may be replaced at any
//! time; each connection takes what there is when it is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::files::{Bundle, FileError, Leaf};
use crate::identity::{Cluster, Role};
use crate::stream::{Stream, wire};
use crate::trust::Usage;
use crate::verifiers::{ExpectedServer, client};

/// The name to ask for where the one that is looked for can be none in TLS. Whoever checks names refuses it.
const NO_NAME: &str = "node.zue.invalid";
/// The interval at which files are looked at for newer ones.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// True if a connection may be without TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insecure {
    /// It may not.
    Never,
    /// It may, where one with TLS was not to be had: while a cluster is moved to TLS.
    IfNeeded,
}

/// Why no connection with TLS was opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The files of one's own certificate cannot be used.
    #[error("no TLS for want of a certificate: {}", with_sources(.0))]
    Files(FileError),
    /// rustls cannot work with it.
    #[error("no TLS: {0}")]
    Config(String),
    /// The two sides do not come to terms.
    #[error("no TLS: {0}")]
    Handshake(String),
    /// Whoever answers there is not who was looked for. It will not be another the next time, unless something is set otherwise.
    #[error("no TLS: {0}; look for a server of this cluster, and give the authority of its peers (zue --ca FILE)")]
    Distrusted(String),
}

impl DialError {
    /// Returns whether whoever answers is not believed.
    pub fn is_distrusted(&self) -> bool {
        matches!(self, Self::Distrusted(_))
    }
}

fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

/// An error and all that it comes from. What is told of a connection is one text.
fn with_sources(error: &FileError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A way to open connections. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Dial {
    way: Way,
    without: Arc<Mutex<Without>>,
}

/// The number of connections that were opened without TLS for want of something, and of what the last time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Without {
    /// Their number.
    pub count: u64,
    /// Their destination, and why.
    pub why: String,
}

#[derive(Clone, Debug)]
enum Way {
    Plain,
    Tls(watch::Receiver<Arc<ClientConfig>>, Insecure),
    Files(Arc<Files>, Insecure),
}

impl Dial {
    fn by(way: Way) -> Self {
        Self { way, without: Arc::default() }
    }

    /// Without TLS.
    pub fn plain() -> Self {
        Self::by(Way::Plain)
    }

    /// With this configuration of rustls, which should offer `h2` by ALPN.
    pub fn with(config: Arc<ClientConfig>) -> Self {
        Self::by(Way::Tls(watch::Sender::new(config).subscribe(), Insecure::Never))
    }

    /// With the newest of these.
    pub fn following(configs: watch::Receiver<Arc<ClientConfig>>, insecure: Insecure) -> Self {
        Self::by(Way::Tls(configs, insecure))
    }

    /// As a client, with the authorities in `ca` and, if there is one, a certificate and its key. The files are read again whenever a
    /// connection is opened, and the last that were whole count.
    ///
    /// # Errors
    /// When they cannot be used now.
    pub fn client(ca: &Path, own: Option<(&Path, &Path)>) -> Result<Self, DialError> {
        let own = own.map(|(certificate, key)| (certificate.to_owned(), key.to_owned()));
        Files::first(Files { ca: ca.to_owned(), own, is_peer: false, known: Mutex::default() }, Insecure::Never)
    }

    /// As a controller, with `tls.crt`, `tls.key` and `peer-ca.crt` in this folder, read again in the same way.
    ///
    /// # Errors
    /// When they cannot be used now.
    pub fn controller(folder: &Path, insecure: Insecure) -> Result<Self, DialError> {
        let own = Some((folder.join("tls.crt"), folder.join("tls.key")));
        let ca = folder.join("peer-ca.crt");
        Files::first(Files { ca, own, is_peer: true, known: Mutex::default() }, insecure)
    }

    /// The TLS of a node or controller that dials: what it shows to others, and demands of them.
    ///
    /// # Errors
    /// When rustls cannot work with it.
    pub fn peer_config(leaf: &Leaf, bundle: &Bundle) -> Result<Arc<ClientConfig>, DialError> {
        let wanted = ExpectedServer::Node(leaf.cluster().clone());
        client(Some(leaf), bundle, wanted).map_err(|error| DialError::Config(error.to_string()))
    }

    /// Returns whether it never has TLS.
    pub fn is_plain(&self) -> bool {
        matches!(self.way, Way::Plain)
    }

    /// Returns whether it may do without.
    pub fn may_be_plain(&self) -> bool {
        matches!(self.way, Way::Plain | Way::Tls(_, Insecure::IfNeeded) | Way::Files(_, Insecure::IfNeeded))
    }

    /// Takes note of a connection that was opened without TLS, as it may be, and why.
    pub fn does_without(&self, why: String) {
        let mut without = self.without.lock().unwrap_or_else(PoisonError::into_inner);
        *without = Without { count: without.count + 1, why };
    }

    /// The connections that were opened without TLS for want of something.
    pub fn without(&self) -> Without {
        self.without.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells when there is something newer to open connections with than there is now.
    pub fn renewal(&self) -> Renewal {
        Renewal(match &self.way {
            Way::Plain => Newer::Never,
            Way::Tls(configs, _) => {
                let mut configs = configs.clone();
                configs.mark_unchanged();
                Newer::Watched(configs)
            }
            Way::Files(files, _) => Newer::Read(Arc::clone(files), files.known()),
        })
    }

    /// Opens a connection to the server of that `host:port` over one that is open.
    ///
    /// # Errors
    /// When the two sides do not come to terms. What `may_be_plain` allows is the caller's to do.
    pub async fn secure(&self, stream: TcpStream, name: &str) -> Result<Stream, DialError> {
        let config = match &self.way {
            Way::Plain => return Ok(Stream::Plain(stream)),
            Way::Tls(configs, _) => Arc::clone(&configs.borrow()),
            Way::Files(files, _) => {
                let files = Arc::clone(files);
                let read = tokio::task::spawn_blocking(move || files.now()).await;
                read.map_err(|failed| DialError::Config(failed.to_string()))??
            }
        };
        let opened = TlsConnector::from(config).connect(server_name(name), wire(stream)).await;
        let opened = opened.map_err(|error| match of_rustls(&error) {
            Some(rustls::Error::InvalidCertificate(_)) => DialError::Distrusted(why(&error)),
            _ => DialError::Handshake(why(&error)),
        })?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(opened))))
    }
}

/// True if there is something newer to open connections with.
#[derive(Debug)]
pub struct Renewal(Newer);

#[derive(Debug)]
enum Newer {
    Never,
    Watched(watch::Receiver<Arc<ClientConfig>>),
    Read(Arc<Files>, Option<Arc<ClientConfig>>),
}

impl Renewal {
    /// Ends when there is, each time once.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Newer::Never => std::future::pending().await,
            Newer::Watched(configs) => {
                if configs.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Newer::Read(files, known) => loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let looking = Arc::clone(files);
                let Ok(Ok(now)) = tokio::task::spawn_blocking(move || looking.now()).await else { continue };
                if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &now)) {
                    *known = Some(now);
                    return;
                }
            },
        }
    }
}

/// The host of a `host:port`, as TLS names it.
fn server_name(name: &str) -> ServerName<'static> {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let named = ServerName::try_from(host.to_owned()).or_else(|_| ServerName::try_from(NO_NAME));
    named.unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// In words that help.
fn why(error: &io::Error) -> String {
    match of_rustls(error) {
        Some(rustls::Error::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => other.to_string(),
        Some(error) => error.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other side ended the connection instead of answering: perhaps it does not speak TLS".to_owned()
        }
        None => error.to_string(),
    }
}

/// Files, and what was whole of them last.
#[derive(Debug)]
struct Files {
    ca: PathBuf,
    own: Option<(PathBuf, PathBuf)>,
    is_peer: bool,
    known: Mutex<Option<LoadedConfig>>,
}

#[derive(Debug)]
struct LoadedConfig {
    hashes: (String, Option<String>),
    config: Arc<ClientConfig>,
}

impl Files {
    fn first(files: Self, insecure: Insecure) -> Result<Dial, DialError> {
        files.now()?;
        Ok(Dial::by(Way::Files(Arc::new(files), insecure)))
    }

    /// Their content when they were read last.
    fn known(&self) -> Option<Arc<ClientConfig>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|known| Arc::clone(&known.config))
    }

    /// The content of the files now; or when they were whole.
    fn now(&self) -> Result<Arc<ClientConfig>, DialError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.read();
        let (bundle, leaf) = match (read, &*known) {
            (Err(_), Some(known)) => return Ok(Arc::clone(&known.config)),
            (Err(error), None) => return Err(DialError::Files(error)),
            (Ok(read), _) => read,
        };
        let hashes = (bundle.sha256.clone(), leaf.as_ref().map(|leaf| leaf.sha256.clone()));
        if let Some(known) = known.as_ref().filter(|known| known.hashes == hashes) {
            return Ok(Arc::clone(&known.config));
        }
        let of = leaf.as_ref().map(|leaf| leaf.cluster().clone());
        let config = client(leaf.as_ref(), &bundle, self.wanted(of));
        let config = config.map_err(|error| DialError::Config(error.to_string()))?;
        *known = Some(LoadedConfig { hashes, config: Arc::clone(&config) });
        Ok(config)
    }

    fn wanted(&self, own: Option<Cluster>) -> ExpectedServer {
        match own {
            Some(cluster) if self.is_peer => ExpectedServer::Node(cluster),
            Some(cluster) => ExpectedServer::NodeOrName(cluster),
            None => ExpectedServer::Name,
        }
    }

    fn read(&self) -> Result<(Bundle, Option<Leaf>), FileError> {
        let bundle = Bundle::read(&self.ca)?;
        let leaf = self.own.as_ref().map(|(certificate, key)| Leaf::read(certificate, key)).transpose()?;
        let Some(leaf) = leaf else { return Ok((bundle, None)) };
        if !self.is_peer {
            return Ok((bundle, Some(leaf)));
        }
        let leaf = leaf.expect(|role| matches!(role, Role::Controller), "a controller")?;
        leaf.check(&bundle, &[Usage::Client])?;
        Ok((bundle, Some(leaf)))
    }
}
