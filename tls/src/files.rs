//! Certificates, keys and bundles as they lie in files. Whatever is wrong with one is told with its name; a key is never told.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;

use crate::certificate::{NoIdentity, facts};
use crate::identity::{Cluster, Identity, Role};
use crate::trust::{self, Untrusted, Usage};
use crate::{hex, provider, sha256};

/// How long a file may be, and how many certificates it may hold.
const FILE_BYTES_MAX: u64 = 1 << 20;
const CERTIFICATES_MAX: usize = 64;

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        why: String,
    },
    /// The certificate names nobody.
    #[error("{}: the certificate names nobody of a cluster", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What it says instead.
        source: NoIdentity,
    },
    /// The certificate is another's.
    #[error("{}: the certificate is of {found}, and one of {expected} is expected", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Box<Identity>,
        /// Whose it should be.
        expected: &'static str,
    },
    /// The certificate is not believed by those who have this bundle.
    #[error("{} is not to be believed by who has {}", path.display(), bundle.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// The bundle.
        bundle: PathBuf,
        /// Why not.
        source: Untrusted,
    },
}

/// The text of a file that is not too long.
///
/// # Errors
/// When it cannot be read, or is.
pub fn read_text(path: &Path) -> Result<Vec<u8>, FileError> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = read().map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        return Ok(bytes);
    }
    Err(content(path, format!("it is longer than {FILE_BYTES_MAX} bytes, the most that is read")))
}

fn content(path: &Path, why: impl Into<String>) -> FileError {
    FileError::Content { path: path.to_owned(), why: why.into() }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(|error| content(path, format!("a certificate in PEM is expected: {error}")))?;
    match found.len() {
        0 => Err(content(path, "it holds no certificate: -----BEGIN CERTIFICATE----- is expected")),
        1..=CERTIFICATES_MAX => Ok(found),
        _ => Err(content(path, format!("it holds more than {CERTIFICATES_MAX} certificates"))),
    }
}

/// A certificate, its chain and its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub(crate) key: Arc<CertifiedKey>,
    /// Who is named in it.
    pub identity: Identity,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// The hash of the certificate.
    pub sha256: String,
    path: PathBuf,
}

impl Leaf {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// When they cannot be read, do not belong together, or name nobody.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, FileError> {
        Self::of((certificate, &read_text(certificate)?), (key, &read_text(key)?))
    }

    /// The same, of PEM that lies in no file; what is said of it calls it by these names.
    ///
    /// # Errors
    /// When they do not belong together, or name nobody.
    pub fn from_pem(certificate: (&str, &str), key: (&str, &str)) -> Result<Self, FileError> {
        Self::of((Path::new(certificate.0), certificate.1.as_bytes()), (Path::new(key.0), key.1.as_bytes()))
    }

    fn of((certificate, chain): (&Path, &[u8]), (key, secret): (&Path, &[u8])) -> Result<Self, FileError> {
        let chain = certificates(certificate, chain)?;
        let secret = PrivateKeyDer::from_pem_slice(secret);
        // What is said of a wrong key does not repeat any of it.
        let secret = secret.map_err(|_| content(key, "it holds no private key: one in PEM is expected"))?;
        let signing = provider().key_provider.load_private_key(secret);
        let signing = signing.map_err(|_| content(key, "its private key is of no kind that is supported: P-256 is"))?;
        let first = chain.first().ok_or_else(|| content(certificate, "it holds no certificate"))?;
        let facts = facts(first).map_err(|why| content(certificate, why))?;
        let identity = facts.identity.map_err(|source| FileError::Identity { path: certificate.to_owned(), source })?;
        let sha256 = hex(&sha256(first));
        let certified = CertifiedKey::new(chain, signing);
        if certified.keys_match().is_err() {
            let why = format!("its private key is not the one of {}", certificate.display());
            return Err(content(key, why));
        }
        let (key, not_after, path) = (Arc::new(certified), facts.not_after, certificate.to_owned());
        Ok(Self { key, identity, not_after, sha256, path })
    }

    /// Checks that it has one of these roles.
    ///
    /// # Errors
    /// When it is another's.
    pub fn expect(self, is_expected: impl Fn(&Role) -> bool, expected: &'static str) -> Result<Self, FileError> {
        if is_expected(&self.identity.role) {
            return Ok(self);
        }
        Err(FileError::Other { path: self.path, found: Box::new(self.identity), expected })
    }

    /// Checks that those who have this bundle believe it.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self, bundle: &Bundle, usages: &[Usage]) -> Result<(), FileError> {
        let Some((first, chain)) = self.key.cert.split_first() else { return Ok(()) };
        for usage in usages {
            bundle.check(first, chain, *usage).map_err(|source| FileError::Untrusted {
                path: self.path.clone(),
                bundle: bundle.path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Of which cluster it is.
    pub fn cluster(&self) -> &Cluster {
        &self.identity.cluster
    }
}

/// Authorities that are trusted.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub(crate) anchors: Arc<[TrustAnchor<'static>]>,
    /// The hash of what it holds: the certificates, in their order.
    pub sha256: String,
    path: PathBuf,
}

impl Bundle {
    /// Reads one or more certificates of authorities.
    ///
    /// # Errors
    /// When it cannot be read, or holds none or anything else.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Self::of(path, &read_text(path)?)
    }

    /// The same, of PEM that lies in no file; what is said of it calls it by that name.
    ///
    /// # Errors
    /// When it holds none or anything else.
    pub fn from_pem(name: &str, pem: &str) -> Result<Self, FileError> {
        Self::of(Path::new(name), pem.as_bytes())
    }

    fn of(path: &Path, pem: &[u8]) -> Result<Self, FileError> {
        let certificates = certificates(path, pem)?;
        let anchor = |certificate: &CertificateDer<'static>| {
            let anchor = webpki::anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned());
            anchor.map_err(|error| content(path, format!("a certificate of an authority is expected: {error}")))
        };
        let anchors = certificates.iter().map(anchor).collect::<Result<Vec<_>, _>>()?;
        let all: Vec<u8> = certificates.iter().flat_map(|certificate| certificate.to_vec()).collect();
        Ok(Self { anchors: anchors.into(), sha256: hex(&sha256(&all)), path: path.to_owned() })
    }

    /// Whether an authority is in both.
    pub fn shares_one_with(&self, other: &Self) -> bool {
        let is_known = |anchor: &TrustAnchor<'_>| {
            let key = &anchor.subject_public_key_info;
            other.anchors.iter().any(|other| other.subject_public_key_info == *key)
        };
        self.anchors.iter().any(is_known)
    }

    /// Whether one of them has signed it, for that use, and its time is now.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn check(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Result<(), Untrusted> {
        trust::check(certificate, chain, &self.anchors, usage, trust::unix(SystemTime::now()))
    }
}
