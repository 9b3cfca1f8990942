//! Demands of each side of a connection on the other's certificate, as rustls asks for them.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig,
    SignatureScheme,
};
use webpki::EndEntityCert;

use crate::certificate::{Facts, facts};
use crate::files::{Bundle, Leaf};
use crate::identity::{Cluster, Identity, Role};
use crate::trust::{Untrusted, Usage};
use crate::{ALPN_H2, VERSIONS, provider};

/// The number of names of a that server are told.
const NAMES_TOLD_MAX: usize = 16;
/// The most that a client may show of itself: its certificate and its chain, all of which is kept as long as the connection is.
const SHOWN_BYTES_MAX: usize = 16 << 10;

/// Somebody else than is served or looked for here.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is of {found}, and one of {expected} is expected")]
struct Stranger {
    found: String,
    expected: String,
}

/// A chain that would take too much.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate and its chain have {0} bytes, more than the limit of {SHOWN_BYTES_MAX}: send only the chain to the authority"
)]
struct TooLong(usize);

/// A server that is not believed, and by whom it would have to be signed.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of {found} is not trusted by the authorities in {}: {why}", path.display())]
struct Distrusted {
    found: String,
    path: PathBuf,
    why: Untrusted,
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

fn read(certificate: &CertificateDer<'_>) -> Result<Facts, Error> {
    facts(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Checks the size of what is shown: it is kept, and has a bound.
fn is_short(certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
    let bytes = chain.iter().fold(certificate.len(), |bytes, one| bytes + one.len());
    if bytes <= SHOWN_BYTES_MAX { Ok(()) } else { Err(refused(TooLong(bytes))) }
}

/// Both kinds of verifiers check the signatures of a handshake in the same way.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &algorithms())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}

/// Lets nobody in but nodes and controllers of this cluster.
#[derive(Debug)]
struct PeersOnly {
    bundle: Bundle,
    cluster: Cluster,
}

impl ClientCertVerifier for PeersOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        is_short(certificate, chain)?;
        self.bundle.check_at(certificate, chain, Usage::Client, now)?;
        match read(certificate)?.identity {
            Ok(Identity { cluster, role: Role::Node | Role::Controller }) if cluster == self.cluster => {
                Ok(ClientCertVerified::assertion())
            }
            found => {
                let found = found.map_or_else(|none| none.to_string(), |found| found.to_string());
                let expected = format!("a node or controller of {}", self.cluster);
                Err(refused(Stranger { found, expected }))
            }
        }
    }

    signatures!();
}

/// Takes note of who says that they are whom. Whether that is so, and what it allows, is decided for each call: so that the answer
/// can say in words what is missing.
#[derive(Debug)]
struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        is_short(certificate, chain)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

/// Whom one who opens connections wants to reach.
#[derive(Debug)]
pub(crate) enum ExpectedServer {
    /// A node of this cluster, whatever its name is.
    Node(Cluster),
    /// A node of this cluster if the certificate names one, and a server of the name that was looked for otherwise.
    NodeOrName(Cluster),
    /// A server of the name that was looked for.
    Name,
}

#[derive(Debug)]
struct Servers {
    bundle: Bundle,
    wanted: ExpectedServer,
}

/// The names that a server shows.
fn names(certificate: &EndEntityCert<'_>) -> String {
    let found: Vec<&str> = certificate.valid_dns_names().take(NAMES_TOLD_MAX).collect();
    if found.is_empty() { "nobody by name".to_owned() } else { found.join(", ") }
}

/// Whoever it says it is of; whether that is so is not known.
fn who(certificate: &CertificateDer<'_>) -> String {
    match facts(certificate) {
        Ok(Facts { identity: Ok(identity), .. }) => identity.to_string(),
        _ => EndEntityCert::try_from(certificate).map_or_else(|_| "nobody".to_owned(), |parsed| names(&parsed)),
    }
}

impl Servers {
    fn is_wanted(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
        let by_name = || {
            let parsed = EndEntityCert::try_from(certificate);
            let parsed = parsed.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
            parsed
                .verify_is_valid_for_subject_name(name)
                .map_err(|_| refused(Stranger { found: names(&parsed), expected: name.to_str().into_owned() }))
        };
        let (cluster, may_be_named) = match &self.wanted {
            ExpectedServer::Node(cluster) => (cluster, false),
            ExpectedServer::NodeOrName(cluster) => (cluster, true),
            ExpectedServer::Name => return by_name(),
        };
        match read(certificate)?.identity {
            Ok(Identity { cluster: found, role: Role::Node }) if found == *cluster => Ok(()),
            Err(_) if may_be_named => by_name(),
            found => {
                let found = found.map_or_else(|none| none.to_string(), |found| found.to_string());
                Err(refused(Stranger { found, expected: format!("a node of {cluster}") }))
            }
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.bundle.check_at(certificate, chain, Usage::Server, now).map_err(|why| {
            let path = self.bundle.path().to_owned();
            refused(Distrusted { found: who(certificate), path, why })
        })?;
        self.is_wanted(certificate, name)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// Nothing is resumed: what was believed of somebody once may not hold any more.
fn server(leaf: &Leaf, verifier: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, Error> {
    let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&leaf.key)));
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A port that only nodes and controllers of this cluster get into.
///
/// # Errors
/// When rustls cannot work with it.
pub fn server_for_peers(leaf: &Leaf, bundle: &Bundle) -> Result<Arc<ServerConfig>, Error> {
    let (bundle, cluster) = (bundle.clone(), leaf.identity.cluster.clone());
    server(leaf, Arc::new(PeersOnly { bundle, cluster }))
}

/// A port that everybody gets into; who shows a certificate is looked at afterwards.
///
/// # Errors
/// When rustls cannot work with it.
pub fn server_for_clients(leaf: &Leaf) -> Result<Arc<ServerConfig>, Error> {
    server(leaf, Arc::new(AnyClient))
}

/// Of one who opens connections, and shows who it is where it has something to show.
pub(crate) fn client(leaf: Option<&Leaf>, bundle: &Bundle, wanted: ExpectedServer) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(Servers { bundle: bundle.clone(), wanted });
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match leaf {
        Some(leaf) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&leaf.key)))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
