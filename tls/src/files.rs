//! Certificates, keys and bundles as they lie in files. Whatever is wrong with one is told with its name; a key is never told.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use rustls::sign::CertifiedKey;

use crate::certificate::{Key, NoIdentity, facts, has_signed, key_of};
use crate::identity::{Cluster, Identity, Role};
use crate::trust::{self, Untrusted, Usage};
use crate::{hex, provider, sha256};

/// The greatest length of a file, and number of certificates in it.
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
        /// The fault, and what is expected.
        why: String,
    },
    /// The certificate names nobody.
    #[error("{}: the certificate names nobody of a cluster", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// The fault in the name.
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
    #[error("{} is not trusted by the authorities in {}", path.display(), bundle.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// The bundle.
        bundle: PathBuf,
        /// Why not.
        source: Untrusted,
    },
    /// An authority that is trusted for some would be believed of others.
    #[error(
        "{} and {} {why}: whoever it signs as a client could become a node; have two authorities, neither signed by the other",
        path.display(), other.display()
    )]
    Mixed {
        /// The one.
        path: PathBuf,
        /// The other.
        other: PathBuf,
        /// How.
        why: &'static str,
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
    Err(content(path, format!("it is longer than the limit of {FILE_BYTES_MAX} bytes")))
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
    /// The identity that it names.
    pub identity: Identity,
    /// Until when it is valid, and all of its chain.
    pub not_after: SystemTime,
    /// The hash of what the file holds: the certificate and its chain, in their order.
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

    fn of((path, chain): (&Path, &[u8]), (key, secret): (&Path, &[u8])) -> Result<Self, FileError> {
        let chain = certificates(path, chain)?;
        let secret = PrivateKeyDer::from_pem_slice(secret);
        // What is said of a wrong key does not repeat any of it.
        let secret = secret.map_err(|_| content(key, "it holds no private key: one in PEM is expected"))?;
        let signing = provider().key_provider.load_private_key(secret);
        let signing = signing.map_err(|_| content(key, "its private key is of no kind that is supported: P-256 is"))?;
        let first = chain.first().ok_or_else(|| content(path, "it holds no certificate"))?;
        let facts = facts(first).map_err(|why| content(path, why))?;
        let identity = facts.identity.map_err(|source| FileError::Identity { path: path.to_owned(), source })?;
        let sha256 = hex_of(&chain);
        let mut not_after = facts.not_after;
        for certificate in &chain {
            let (_, ends) = key_of(certificate).map_err(|why| content(path, why))?;
            not_after = not_after.min(ends);
        }
        let certified = CertifiedKey::new(chain, signing);
        if certified.keys_match().is_err() {
            let why = format!("its private key is not the one of {}", path.display());
            return Err(content(key, why));
        }
        Ok(Self { key: Arc::new(certified), identity, not_after, sha256, path: path.to_owned() })
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
        self.check_at(bundle, usages, SystemTime::now())
    }

    /// The same, were it still its time: whether one of them has signed it.
    ///
    /// # Errors
    /// When none has.
    pub fn check_in_its_time(&self, bundle: &Bundle, usages: &[Usage]) -> Result<(), FileError> {
        self.check_at(bundle, usages, SystemTime::now().min(self.not_after))
    }

    fn check_at(&self, bundle: &Bundle, usages: &[Usage], now: SystemTime) -> Result<(), FileError> {
        let Some((first, chain)) = self.key.cert.split_first() else { return Ok(()) };
        for usage in usages {
            bundle.check_at(first, chain, *usage, trust::unix(now)).map_err(|source| FileError::Untrusted {
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

fn hex_of(certificates: &[CertificateDer<'_>]) -> String {
    let all: Vec<u8> = certificates.iter().flat_map(|certificate| certificate.to_vec()).collect();
    hex(&sha256(&all))
}

/// Authorities that are trusted.
#[derive(Clone, Debug)]
pub struct Bundle {
    anchors: Arc<[TrustAnchor<'static>]>,
    authorities: Arc<[(CertificateDer<'static>, Key)]>,
    /// No chain may lead through these.
    never: Arc<[Key]>,
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
        let wrong = |why: String| content(path, format!("a certificate of an authority is expected: {why}"));
        let sha256 = hex_of(&certificates);
        let (mut anchors, mut authorities) = (Vec::new(), Vec::new());
        for certificate in certificates {
            let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|error| wrong(error.to_string()))?;
            anchors.push(anchor.to_owned());
            let (key, _) = key_of(&certificate).map_err(wrong)?;
            authorities.push((certificate, key));
        }
        Ok(Self {
            anchors: anchors.into(),
            authorities: authorities.into(),
            never: Arc::default(),
            sha256,
            path: path.to_owned(),
        })
    }

    /// The same, which believes nobody by way of an authority of the other one.
    ///
    /// # Errors
    /// When an authority is in both, or one of the one has signed one of the other: what the two are trusted for could not be told apart.
    pub fn apart_from(&self, other: &Self) -> Result<Self, FileError> {
        let mixed = |why| FileError::Mixed { path: self.path.clone(), other: other.path.clone(), why };
        for (own, own_key) in &*self.authorities {
            for (others, others_key) in &*other.authorities {
                if own_key == others_key {
                    return Err(mixed("hold the same authority"));
                }
                if has_signed(own, others) || has_signed(others, own) {
                    return Err(mixed("hold authorities of which one has signed the other"));
                }
            }
        }
        let never = other.authorities.iter().map(|(_, key)| key.clone()).collect();
        Ok(Self { never, ..self.clone() })
    }

    /// Until when it holds that one of them has signed it, for that use, and its time is now. All of its chain counts.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn check(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Result<SystemTime, Untrusted> {
        self.check_at(certificate, chain, usage, trust::unix(SystemTime::now()))
    }

    pub(crate) fn check_at(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<SystemTime, Untrusted> {
        trust::check(certificate, chain, (&self.anchors, &self.never), usage, now)
    }

    /// The place where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
