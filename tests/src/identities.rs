//! The authorities of a cluster, and a folder with what everybody has from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use zue_tls::rustls::pki_types::pem::PemObject as _;
use zue_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zue_tls::rustls::{self, RootCertStore};
use zue_tls::{Authority, Cluster, Dial, Identity, Issued, Kind, Names, Role};

/// The lifetime of certificates, unless a test is about that.
pub const LIFE: Duration = Duration::from_hours(1);
/// No certificate outlives its authority.
const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 365);

/// The authorities of a cluster, each of both kinds, and what they gave out.
#[derive(Debug)]
pub struct Identities {
    folder: TempDir,
    /// Whose.
    pub cluster: Cluster,
    /// Signs nodes and controllers.
    pub peers: Authority,
    /// Signs clients.
    pub clients: Authority,
}

/// Writes what a program is to find in files.
///
/// # Panics
/// When it cannot be written.
pub fn write(path: &Path, text: &str) {
    // As Kubernetes replaces what it mounts: at once.
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("the file can be written");
    std::fs::rename(&new, path).expect("the file can be replaced");
}

fn authority(kind: Kind, cluster: &Cluster) -> Authority {
    Authority::new(kind, cluster, AUTHORITY_LIFE).expect("an authority can be made")
}

impl Identities {
    /// Of a cluster of that name, with a folder for its nodes.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn of(name: &str) -> Self {
        let cluster = Cluster::new("test", name).expect("it is a name");
        let folder = tempfile::tempdir().expect("a folder for the test");
        std::fs::create_dir(folder.path().join("node")).expect("a folder for the nodes");
        let (peers, clients) = (authority(Kind::Peer, &cluster), authority(Kind::Client, &cluster));
        let made = Self { folder, cluster, peers, clients };
        made.trust(&[&made.peers], &[&made.clients]);
        made.give_nodes(LIFE);
        made.allow("clients: []\n");
        made
    }

    /// Makes other authorities; nobody believes them yet. Gives the ones before.
    pub fn renew(&mut self) -> (Authority, Authority) {
        let peers = std::mem::replace(&mut self.peers, authority(Kind::Peer, &self.cluster));
        let clients = std::mem::replace(&mut self.clients, authority(Kind::Client, &self.cluster));
        (peers, clients)
    }

    /// Whom the nodes believe.
    pub fn trust(&self, peers: &[&Authority], clients: &[&Authority]) {
        let bundle =
            |authorities: &[&Authority]| -> String { authorities.iter().map(|one| one.certificate()).collect() };
        write(&self.node().join("peer-ca.crt"), &bundle(peers));
        write(&self.node().join("client-ca.crt"), &bundle(clients));
    }

    /// Gives the nodes a certificate.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn give_nodes(&self, life: Duration) {
        let issued = self.peer(&self.cluster.identity(Role::Node), life);
        write(&self.node().join("tls.key"), &issued.key);
        write(&self.node().join("tls.crt"), &issued.certificate);
    }

    /// A certificate of the peer authority.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn peer(&self, identity: &Identity, life: Duration) -> Issued {
        let names = Names::parse(["localhost", "127.0.0.1"]);
        self.peers.issue(identity, &names, life).expect("it can be issued")
    }

    /// A certificate of the client authority.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn client(&self, name: &str, life: Duration) -> Issued {
        let identity = self.cluster.client(name).expect("it is a name");
        self.clients.issue(&identity, &Names::default(), life).expect("it can be issued")
    }

    /// The directory in which the nodes find theirs.
    pub fn node(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    /// The file of clients that have access.
    pub fn access(&self) -> PathBuf {
        self.folder.path().join("access.yaml")
    }

    /// Says who has access.
    pub fn allow(&self, yaml: &str) {
        write(&self.access(), yaml);
    }

    /// Writes a certificate and its key into a folder of their own, beside what signs the nodes; gives the folder.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn folder_of(&self, name: &str, issued: &Issued) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        write(&folder.join("tls.key"), &issued.key);
        write(&folder.join("tls.crt"), &issued.certificate);
        for bundle in ["ca.crt", "peer-ca.crt"] {
            std::fs::copy(self.node().join("peer-ca.crt"), folder.join(bundle)).expect("the bundle is there");
        }
        folder
    }

    /// A way to the nodes by their names, whoever they say they are themselves.
    ///
    /// # Panics
    /// When the files cannot be used.
    pub fn dial(&self, own: Option<&Issued>) -> Dial {
        dial_as(&self.node().join("peer-ca.crt"), own)
    }
}

/// A way to nodes by their names for somebody who believes the authorities in a file, whoever they say they are themselves.
///
/// # Panics
/// When the files cannot be used.
pub fn dial_as(bundle: &Path, own: Option<&Issued>) -> Dial {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(bundle).expect("the bundle is there") {
        roots.add(certificate.expect("it is one")).expect("it is one of an authority");
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("they are known");
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let certificates = CertificateDer::pem_slice_iter(issued.certificate.as_bytes());
            let certificates = certificates.collect::<Result<Vec<_>, _>>().expect("they are PEM");
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("it is PEM");
            builder.with_client_auth_cert(certificates, key).expect("they belong together")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Dial::with(Arc::new(config))
}
