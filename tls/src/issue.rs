//! Authorities, and the certificates and tokens that they give out. P-256 throughout.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use ring::rand::SecureRandom as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::certificate::facts;
use crate::identity::{Cluster, Identity, Role};
use crate::{hex, sha256};

/// A certificate counts from a little before it is made: clocks differ.
const SKEW: Duration = Duration::from_mins(5);
/// The greatest length of a common name.
const COMMON_NAME_CHARS_MAX: usize = 64;

/// Whom an authority signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nodes and controllers.
    Peer,
    /// Clients.
    Client,
}

impl Kind {
    fn signs(self, role: &Role) -> bool {
        match role {
            Role::Node | Role::Controller => self == Self::Peer,
            Role::Client(_) => self == Self::Client,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Peer => "peers",
            Self::Client => "clients",
        }
    }
}

/// Why nothing is issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The authority would give a client what a node has, or the other way round.
    #[error("the authority of the {} does not sign {identity}", authority.name())]
    WrongAuthority {
        /// Whose authority.
        authority: Kind,
        /// For whom.
        identity: Box<Identity>,
    },
    /// A name that can be none.
    #[error("{0:?} is no name of a server: a DNS name or an IP address is expected")]
    Name(String),
    /// The certificate or key of an authority cannot be used.
    #[error("the authority cannot be used: {0}")]
    Authority(String),
    /// It cannot be made.
    #[error("no certificate can be made")]
    Make(#[from] rcgen::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The names of a server beside its identity.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// As they are looked up; the first label may be `*`.
    pub dns: Vec<String>,
    /// The place where there is no name.
    pub ips: Vec<IpAddr>,
}

impl Names {
    /// Of texts, each a name or an address.
    pub fn parse(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut names = Self::default();
        for text in texts {
            match text.as_ref().parse() {
                Ok(ip) => names.ips.push(ip),
                Err(_) => names.dns.push(text.as_ref().to_owned()),
            }
        }
        names
    }
}

/// A certificate and its key, both in PEM. Its key is not shown by `Debug`.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// An authority of a cluster.
pub struct Authority {
    kind: Kind,
    certificate: String,
    not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Sets the time in which a certificate is valid.
fn valid(params: &mut CertificateParams, until: SystemTime) -> Result<(), IssueError> {
    let too_early = |_| IssueError::Authority("the clock shows a time before 1970".to_owned());
    let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_err(too_early);
    let begun = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (begun + since(SystemTime::now() - SKEW)?, begun + since(until)?);
    Ok(())
}

fn common_name(text: &str) -> String {
    text.chars().take(COMMON_NAME_CHARS_MAX).collect()
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(kind: Kind, cluster: &Cluster, lifetime: Duration) -> Result<Self, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_after = SystemTime::now() + lifetime;
        valid(&mut params, not_after)?;
        params.distinguished_name.push(DnType::CommonName, common_name(&format!("{} of {cluster}", kind.name())));
        params.distinguished_name.push(DnType::OrganizationName, "zue.io");
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { kind, certificate, not_after, issuer: Issuer::new(params, key) })
    }

    /// One that was made before, from PEM.
    ///
    /// # Errors
    /// When the two are no authority, or do not belong together.
    pub fn load(kind: Kind, certificate: &str, key: &str) -> Result<Self, IssueError> {
        let wrong = |why: &str| IssueError::Authority(why.to_owned());
        let der = CertificateDer::from_pem_slice(certificate.as_bytes());
        let der = der.map_err(|_| wrong("its certificate is no PEM"))?;
        let not_after = facts(&der).map_err(IssueError::Authority)?.not_after;
        let key = KeyPair::from_pem(key).map_err(|_| wrong("its key is no private key in PEM of a supported kind"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| wrong("its certificate is none"))?;
        let public = parsed.public_key().subject_public_key.data.as_ref();
        if public != rcgen::PublicKeyData::der_bytes(&key) {
            return Err(wrong("its key is not the one of its certificate"));
        }
        if !parsed.is_ca() {
            return Err(wrong("its certificate is not one of an authority"));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { kind, certificate: certificate.to_owned(), not_after, issuer })
    }

    /// Its certificate, in PEM: what others trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, in PEM: who has it is the authority.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// A certificate for somebody, valid for so long, and no longer than the authority is.
    ///
    /// # Errors
    /// When the authority is not for such, or a name can be none.
    pub fn issue(&self, identity: &Identity, names: &Names, lifetime: Duration) -> Result<Issued, IssueError> {
        if !self.kind.signs(&identity.role) {
            let identity = Box::new(identity.clone());
            return Err(IssueError::WrongAuthority { authority: self.kind, identity });
        }
        let key = KeyPair::generate()?;
        let mut params =
            CertificateParams::new(names.dns.clone()).map_err(|_| IssueError::Name(names.dns.join(", ")))?;
        params.subject_alt_names.extend(names.ips.iter().copied().map(SanType::IpAddress));
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into()?));
        params.distinguished_name.push(DnType::CommonName, common_name(&identity.role.to_string()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.role {
            Role::Node => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Controller | Role::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, (SystemTime::now() + lifetime).min(self.not_after))?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

/// A token for who shows no certificate. Its text is not shown by `Debug`.
#[derive(Clone)]
pub struct NewToken {
    /// The text that the client sends.
    pub text: String,
    /// All that the nodes know of it.
    pub sha256: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

impl NewToken {
    /// Of 32 random bytes.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn make() -> Result<Self, IssueError> {
        let mut bytes = [0; 32];
        ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| IssueError::Random)?;
        let text = hex(&bytes);
        let sha256 = hex(&sha256(text.as_bytes()));
        Ok(Self { text, sha256 })
    }
}
