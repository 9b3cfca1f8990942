//! The most memory of a connection, as a stranger can bring it about: no more than the node's bound says.

#![allow(clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme};
use zue_tls::{Authority, CONNECTION_BYTES_MAX, Cluster, Kind, Leaf, Names, Role, server_for_clients};

const HOUR: Duration = Duration::from_hours(1);
/// The bytes that the node keeps of what is shown.
const SHOWN_AGAIN: usize = 16 << 10;

/// Believes everybody, as a stranger does.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A server, and a client that shows a chain of about so many bytes.
fn sides(chain_bytes: usize) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let cluster = Cluster::new("test", "ours").unwrap();
    let peers = Authority::new(Kind::Peer, &cluster, HOUR).unwrap();
    let clients = Authority::new(Kind::Client, &cluster, HOUR).unwrap();
    let node = peers.issue(&cluster.identity(Role::Node), &Names::default(), HOUR).unwrap();
    let leaf = Leaf::from_pem(("certificate", &node.certificate), ("key", &node.key)).unwrap();
    let client = clients.issue(&cluster.client("shop").unwrap(), &Names::default(), HOUR).unwrap();
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (mut chain, padding) = (vec![der(&client.certificate)], der(clients.certificate()));
    while chain.iter().map(|one| one.len()).sum::<usize>() + padding.len() <= chain_bytes {
        chain.push(padding.clone());
    }
    let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Careless));
    (server_for_clients(&leaf).unwrap(), Arc::new(builder.with_client_auth_cert(chain, key).unwrap()))
}

/// Shakes hands; what comes of it.
fn connect(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Result<(ServerConnection, ClientConnection), String> {
    let mut client = ClientConnection::new(Arc::clone(client), "localhost".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while server.is_handshaking() || client.is_handshaking() {
        pass(&mut client, &mut server)?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &*bytes;
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
    }
    Ok((server, client))
}

/// Gives the server all that the client has to say.
fn pass(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), String> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = &*bytes;
    while !bytes.is_empty() {
        server.read_tls(&mut bytes).map_err(|error| error.to_string())?;
        server.process_new_packets().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Counts what is allocated.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator has no safe interface")]
// SAFETY: all of it is done by the system's allocator; what is counted beside touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the rules of `GlobalAlloc`, which are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The memory that a thing takes, beside what it is made with.
fn taken<T>(make: impl Fn() -> T) -> usize {
    drop(make());
    let before = HELD.load(Ordering::Relaxed);
    let thing = make();
    let taken = HELD.load(Ordering::Relaxed) - before;
    drop(thing);
    taken
}

#[test]
fn a_connection_takes_no_more_than_its_bound_whatever_is_left_unread_and_unsent() {
    // More than may be kept is told.
    let (server, client) = sides(17 << 10);
    let why = connect(&server, &client).map(drop).unwrap_err();
    assert!(why.contains("TooLong"), "{why}");
    let (server, client) = sides(16 << 10);
    let full = taken(|| {
        let (mut server, mut client) = connect(&server, &client).unwrap();
        // Nobody reads what it says; nobody here reads what comes, of which a record is not complete.
        while server.writer().write(&[7; 4096]).unwrap() > 0 {}
        client.writer().write_all(&vec![7; 16_000]).unwrap();
        pass(&mut client, &mut server).unwrap();
        client.writer().write_all(&vec![7; 16_000]).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        let mut torn = &bytes[..bytes.len() - 1];
        while !torn.is_empty() && server.read_tls(&mut torn).is_ok_and(|read| read > 0) {
            server.process_new_packets().unwrap();
        }
        server
    });
    // A greeting that never ends.
    let greeting = taken(|| {
        let mut server = ServerConnection::new(Arc::clone(&server)).unwrap();
        let mut begun = vec![1, 0, 0xff, 0xf0];
        begun.resize(15_000, 0);
        for part in [begun, vec![0; 16_000], vec![0; 16_000], vec![0; 16_000]] {
            let head = [&[22, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes()].concat();
            let record = [head, part].concat();
            let mut record = &*record;
            while !record.is_empty() && server.read_tls(&mut record).is_ok_and(|read| read > 0) {
                server.process_new_packets().unwrap();
            }
        }
        server
    });
    println!(
        "unread and unsent {} KiB, greeting {} KiB, bound {} KiB",
        full >> 10,
        greeting >> 10,
        CONNECTION_BYTES_MAX >> 10
    );
    assert!(full > 96 << 10 && greeting > 48 << 10, "{full} and {greeting}: that is not the worst");
    // The two together: rustls puts parts of a message of a handshake together later, too.
    let bound = usize::try_from(CONNECTION_BYTES_MAX).unwrap();
    assert!(full + greeting + SHOWN_AGAIN < bound, "{full} and {greeting}, of {bound}");
}
