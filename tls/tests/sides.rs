//! Two sides of real connections: who gets to whom, and what is said where not.

#![allow(clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zue_tls::{
    Authority, Bundle, Cluster, Dial, FileError, Identity, Issued, Kind, Leaf, Names, NewToken, Role, TlsAcceptor,
    Untrusted, Usage, rustls, server_for_clients, server_for_peers,
};

const HOUR: Duration = Duration::from_hours(1);

/// The authorities of a cluster, and files for everybody.
struct Made {
    folder: TempDir,
    cluster: Cluster,
    peers: Authority,
    clients: Authority,
}

impl Made {
    fn new(name: &str) -> Self {
        let cluster = Cluster::new("test", name).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let peers = Authority::new(Kind::Peer, &cluster, HOUR * 24).unwrap();
        let clients = Authority::new(Kind::Client, &cluster, HOUR * 24).unwrap();
        std::fs::write(folder.path().join("peer-ca.crt"), peers.certificate()).unwrap();
        std::fs::write(folder.path().join("client-ca.crt"), clients.certificate()).unwrap();
        Self { folder, cluster, peers, clients }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, issued: &Issued) -> (PathBuf, PathBuf) {
        let paths = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        std::fs::write(&paths.0, &issued.certificate).unwrap();
        std::fs::write(&paths.1, &issued.key).unwrap();
        paths
    }

    fn peer(&self, role: Role, names: &[&str]) -> (PathBuf, PathBuf) {
        let name = role.to_string();
        let issued = self.peers.issue(&self.cluster.identity(role), &Names::parse(names), HOUR).unwrap();
        self.write(&name, &issued)
    }

    fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        let issued = self.clients.issue(&self.cluster.client(name).unwrap(), &Names::default(), HOUR).unwrap();
        self.write(name, &issued)
    }

    fn bundle(&self) -> Bundle {
        Bundle::read(&self.path("peer-ca.crt")).unwrap()
    }
}

fn leaf((certificate, key): &(PathBuf, PathBuf)) -> Leaf {
    Leaf::read(certificate, key).unwrap()
}

/// Serves one connection: says what came, or why none did.
async fn serve(
    config: Arc<rustls::ServerConfig>,
) -> (String, tokio::task::JoinHandle<Result<Option<Identity>, String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(config).accept(stream).await.map_err(|error| error.to_string())?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map_err(|error| error.to_string())?;
        stream.write_all(&byte).await.map_err(|error| error.to_string())?;
        Ok(shown.map(|shown| zue_tls::facts(&shown).unwrap().identity.unwrap()))
    });
    (format!("localhost:{port}"), served)
}

/// Returns whether a byte goes there and back.
async fn reach(dial: &Dial, name: &str, port_of: &str) -> Result<(), String> {
    let port = port_of.rsplit_once(':').unwrap().1;
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    let mut stream = dial.secure(stream, name).await.map_err(|error| error.to_string())?;
    let mut byte = [7];
    stream.write_all(&byte).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    stream.read_exact(&mut byte).await.map(drop).map_err(|error| error.to_string())
}

fn as_peer(made: &Made, own: &(PathBuf, PathBuf)) -> Dial {
    Dial::with(Dial::peer_config(&leaf(own), &made.bundle()).unwrap())
}

#[tokio::test]
async fn nodes_and_controllers_of_one_cluster_reach_its_nodes_and_nobody_else_does() {
    let (ours, theirs) = (Made::new("ours"), Made::new("theirs"));
    let node = ours.peer(Role::Node, &[]);
    let config = || server_for_peers(&leaf(&node), &ours.bundle()).unwrap();
    for own in [&node, &ours.peer(Role::Controller, &[])] {
        let (at, served) = serve(config()).await;
        reach(&as_peer(&ours, own), "zue-0.nodes:1", &at).await.unwrap();
        assert_eq!(served.await.unwrap().unwrap().as_ref(), Some(&leaf(own).identity));
    }
    // One of another cluster whose authority this one trusts by mistake, and one that it does not trust.
    let stranger = theirs.peer(Role::Node, &[]);
    let both = [ours.peers.certificate(), theirs.peers.certificate()].concat();
    std::fs::write(ours.path("both.crt"), both).unwrap();
    let both = Bundle::read(&ours.path("both.crt")).unwrap();
    for (bundle, why) in [(ours.bundle(), "UnknownIssuer"), (both.clone(), "a node or controller of test/ours")] {
        let (at, served) = serve(server_for_peers(&leaf(&node), &bundle).unwrap()).await;
        let dial = Dial::with(Dial::peer_config(&leaf(&stranger), &ours.bundle()).unwrap());
        // It is the stranger that looks for its own cluster's nodes, too.
        assert!(reach(&dial, "x:1", &at).await.unwrap_err().contains("a node of test/theirs is expected"));
        drop(served);
        let (at, served) = serve(server_for_peers(&leaf(&node), &bundle).unwrap()).await;
        let (certificate, key) = &stranger;
        let dial = Dial::client(&ours.path("both.crt"), Some((certificate, key))).unwrap();
        assert!(reach(&dial, "x:1", &at).await.is_err());
        drop(served);
        let config = careless(&stranger);
        let (at, served) = serve(server_for_peers(&leaf(&node), &bundle).unwrap()).await;
        assert!(reach(&Dial::with(config), "x:1", &at).await.is_err());
        let error = served.await.unwrap().unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    // A client of the cluster, and somebody without a certificate.
    let client = ours.client("shop");
    for own in [Some(&client), None] {
        let (at, served) = serve(config()).await;
        let own = own.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let dial = Dial::client(&ours.path("peer-ca.crt"), own).unwrap();
        assert!(reach(&dial, "localhost:1", &at).await.is_err());
        assert!(served.await.unwrap().is_err());
    }
}

/// One that believes everybody, as a stranger does.
fn careless(own: &(PathBuf, PathBuf)) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject as _;
    let roots = Arc::new(rustls::RootCertStore { roots: Vec::new() });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = rustls::pki_types::CertificateDer::pem_file_iter(&own.0).unwrap().collect::<Result<Vec<_>, _>>();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&own.1).unwrap();
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain.unwrap(), key).unwrap();
    config.dangerous().set_certificate_verifier(Arc::new(Careless));
    Arc::new(config)
}

#[derive(Debug)]
struct Careless;

impl rustls::client::danger::ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test]
async fn a_client_reaches_the_nodes_of_its_cluster_by_whatever_name_and_others_by_their_name_alone() {
    let (ours, theirs) = (Made::new("ours"), Made::new("theirs"));
    let node = leaf(&ours.peer(Role::Node, &["localhost", "127.0.0.1"]));
    let shop = ours.client("shop");
    let alien = theirs.client("shop");
    let ca = ours.path("peer-ca.crt");
    let dial = |own: Option<&(PathBuf, PathBuf)>| {
        Dial::client(&ca, own.map(|(certificate, key)| (certificate.as_path(), key.as_path()))).unwrap()
    };
    for (dial, name, why) in [
        (dial(Some(&shop)), "anything:1", None),
        (dial(None), "localhost:1", None),
        (dial(None), "127.0.0.1:1", None),
        (dial(None), "zue-0.other:1", Some("one of zue-0.other is expected")),
        (dial(None), "10.0.0.1:1", Some("one of 10.0.0.1 is expected")),
        (dial(None), "not_a name:1", Some("one of node.zue.invalid is expected")),
        (dial(Some(&alien)), "localhost:1", Some("one of a node of test/theirs is expected")),
    ] {
        let (at, served) = serve(server_for_clients(&node).unwrap()).await;
        let reached = reach(&dial, name, &at).await;
        match why {
            None => assert_eq!((name, reached), (name, Ok(()))),
            Some(why) => assert!(reached.as_ref().is_err_and(|error| error.contains(why)), "{name}: {reached:?}"),
        }
        drop(served);
    }
    // Whoever has another authority's bundle believes none of it.
    let (at, _served) = serve(server_for_clients(&node).unwrap()).await;
    let dial = Dial::client(&theirs.path("peer-ca.crt"), None).unwrap();
    let error = reach(&dial, "localhost:1", &at).await.unwrap_err();
    let told = "the certificate of spiffe://zue.io/test/ours/node is not trusted by the authorities in";
    for told in [told, "peer-ca.crt: none of the authorities that are trusted here has signed it", "zue --ca FILE"] {
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[tokio::test]
async fn what_speaks_no_tls_is_told_apart() {
    let made = Made::new("ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let dial = Dial::client(&made.path("peer-ca.crt"), None).unwrap();
    let error = reach(&dial, "localhost:1", &at).await.unwrap_err();
    assert_eq!(error, "no TLS: what answers there does not speak TLS");
    assert!(!dial.may_be_plain() && !dial.is_plain() && Dial::plain().may_be_plain());
}

#[tokio::test]
async fn files_are_read_again_for_each_connection_and_count_once_they_are_whole() {
    let made = Made::new("ours");
    let node = leaf(&made.peer(Role::Node, &["localhost"]));
    let (certificate, key) = made.client("one");
    let dial = Dial::client(&made.path("peer-ca.crt"), Some((&certificate, &key))).unwrap();
    let shown = async || {
        let (at, served) = serve(server_for_clients(&node).unwrap()).await;
        reach(&dial, "localhost:1", &at).await.unwrap();
        served.await.unwrap().unwrap().unwrap().role.to_string()
    };
    assert_eq!(shown().await, "client/one");
    let (other_certificate, other_key) = made.client("two");
    std::fs::copy(&other_certificate, &certificate).unwrap();
    assert_eq!(shown().await, "client/one", "the key is still the old one");
    std::fs::copy(&other_key, &key).unwrap();
    assert_eq!(shown().await, "client/two");
    std::fs::remove_file(&key).unwrap();
    assert_eq!(shown().await, "client/two");
}

#[test]
fn no_authority_signs_for_the_other() {
    let made = Made::new("ours");
    let client = made.cluster.client("shop").unwrap();
    for (authority, identity) in [
        (&made.peers, &client),
        (&made.clients, &made.cluster.identity(Role::Node)),
        (&made.clients, &made.cluster.identity(Role::Controller)),
    ] {
        let error = authority.issue(identity, &Names::default(), HOUR).unwrap_err().to_string();
        assert!(error.contains("does not sign") && error.contains(&identity.to_string()), "{error}");
    }
    let names = Names::parse(["näme"]);
    let error = made.peers.issue(&made.cluster.identity(Role::Node), &names, HOUR).unwrap_err().to_string();
    assert!(error.contains("näme"), "{error}");
}

#[test]
fn an_authority_is_the_same_after_it_was_put_away() {
    let made = Made::new("ours");
    let again = Authority::load(Kind::Peer, made.peers.certificate(), &made.peers.key()).unwrap();
    let issued = again.issue(&made.cluster.identity(Role::Node), &Names::default(), HOUR * 24 * 365).unwrap();
    let leaf = leaf(&made.write("again", &issued));
    leaf.check(&made.bundle(), &[Usage::Server, Usage::Client]).unwrap();
    // What lies in no file is the same.
    let unfiled = Leaf::from_pem(("the certificate", &issued.certificate), ("the key", &issued.key)).unwrap();
    assert_eq!((unfiled.sha256, unfiled.not_after), (leaf.sha256.clone(), leaf.not_after));
    let bundle = Bundle::from_pem("the authority", made.peers.certificate()).unwrap();
    assert_eq!(bundle.sha256, made.bundle().sha256);
    let error = Leaf::from_pem(("the certificate", ""), ("the key", &issued.key)).unwrap_err().to_string();
    assert!(error.starts_with("the certificate: it holds no certificate"), "{error}");
    assert!(leaf.not_after <= again.not_after(), "none outlives its authority");
    assert!(leaf.not_after > SystemTime::now() + HOUR * 23);
    let mixed = Authority::load(Kind::Peer, made.peers.certificate(), &made.clients.key()).unwrap_err().to_string();
    assert!(mixed.contains("its key is not the one of its certificate"), "{mixed}");
    assert!(
        Authority::load(Kind::Peer, &issued.certificate, &issued.key).unwrap_err().to_string().contains("not one of")
    );
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_name_and_no_key_is() {
    let (made, other) = (Made::new("ours"), Made::new("theirs"));
    let (certificate, key) = made.peer(Role::Node, &[]);
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let good = (text(&certificate), text(&key));
    let client = made.clients.issue(&made.cluster.client("x").unwrap(), &Names::default(), HOUR).unwrap();
    let read = |cert: &str, secret: &str| {
        std::fs::write(&certificate, cert).unwrap();
        std::fs::write(&key, secret).unwrap();
        let told = |error: FileError| {
            let text = format!("{:?} {error}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(!text.contains("PRIVATE KEY-----\nM"), "{text}");
            text
        };
        Leaf::read(&certificate, &key).and_then(|leaf| leaf.expect(|role| *role == Role::Node, "a node")).map_err(told)
    };
    for (cert, secret, why) in [
        ("", &*good.1, "node.crt: it holds no certificate"),
        (&good.0, "", "node.key: it holds no private key"),
        (&good.0, &client.key, "node.key: its private key is not the one of"),
        (&good.0, &good.0, "node.key: it holds no private key"),
        (&good.0[..300], &good.1, "node.crt: a certificate in PEM is expected"),
        (
            &client.certificate,
            &client.key,
            "the certificate is of spiffe://zue.io/test/ours/client/x, and one of a node",
        ),
        (made.peers.certificate(), &made.peers.key(), "names nobody of a cluster"),
    ] {
        let error = read(cert, secret).unwrap_err();
        assert!(error.contains(why), "{why}: {error}");
    }
    let leaf = read(&good.0, &good.1).unwrap();
    let theirs = Bundle::read(&other.path("peer-ca.crt")).unwrap();
    let error = leaf.check(&theirs, &[Usage::Server]).unwrap_err();
    assert!(matches!(&error, FileError::Untrusted { source: Untrusted::UnknownAuthority, .. }), "{error:?}");
    std::fs::write(&certificate, vec![b'x'; 2 << 20]).unwrap();
    let long = Bundle::read(&certificate).unwrap_err().to_string();
    assert!(long.contains("longer than the limit of 1048576 bytes"), "{long}");
    let leaf = made.peers.issue(&made.cluster.identity(Role::Node), &Names::default(), Duration::ZERO).unwrap();
    let paths = made.write("late", &leaf);
    std::thread::sleep(Duration::from_millis(1100));
    let late = self::leaf(&paths).check(&made.bundle(), &[Usage::Server]).unwrap_err();
    assert!(matches!(&late, FileError::Untrusted { source: Untrusted::Expired(_), .. }), "{late:?}");
}

#[test]
fn neither_a_key_nor_a_token_is_shown_by_mistake() {
    let made = Made::new("ours");
    let issued = made.peers.issue(&made.cluster.identity(Role::Node), &Names::default(), HOUR).unwrap();
    let token = NewToken::make().unwrap();
    let shown = format!("{issued:?} {token:?} {:?} {:?}", made.peers, leaf(&made.write("x", &issued)));
    assert!(!shown.contains("PRIVATE") && !shown.contains(&token.text), "{shown}");
    assert_eq!(token.text.len(), 64);
    assert_ne!(token.text, NewToken::make().unwrap().text);
    assert_eq!(token.sha256, zue_tls::hex(&zue_tls::sha256(token.text.as_bytes())));
}
