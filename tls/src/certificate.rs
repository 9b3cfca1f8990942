//! The facts in a certificate about its holder. Whether they are true, `trust` says.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

use crate::identity::{BadIdentity, Identity};

/// The facts in a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Whose it is, or why nobody's.
    pub identity: Result<Identity, NoIdentity>,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

/// Why a certificate names nobody.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoIdentity {
    /// There is none in it.
    #[error("it has no URI among its subject alternative names: spiffe://zue.io/NAMESPACE/CLUSTER/… is expected")]
    None,
    /// More than one is there, and none counts more than another.
    #[error("it has several URIs among its subject alternative names: one is expected")]
    Several,
    /// It is another's scheme of names.
    #[error(transparent)]
    Bad(#[from] BadIdentity),
}

/// Its value.
///
/// # Errors
/// In words, when it is no certificate.
pub fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, String> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let identity = match (uris.next(), uris.next()) {
        (None, _) => Err(NoIdentity::None),
        (Some(_), Some(_)) => Err(NoIdentity::Several),
        (Some(uri), None) => uri.parse().map_err(NoIdentity::Bad),
    };
    let validity = parsed.validity();
    Ok(Facts { identity, not_before: at(validity.not_before), not_after: at(validity.not_after) })
}

fn at(time: ASN1Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

/// The public key of a certificate, as it stands there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key(Vec<u8>);

/// Its key, and until when it is valid.
///
/// # Errors
/// In words, when it is no certificate.
pub(crate) fn key_of(certificate: &CertificateDer<'_>) -> Result<(Key, SystemTime), String> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    Ok((Key(parsed.public_key().raw.to_vec()), at(parsed.validity().not_after)))
}

/// Returns whether the key of the one has signed the other.
pub(crate) fn has_signed(authority: &CertificateDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    let (Ok((_, authority)), Ok((_, certificate))) =
        (parse_x509_certificate(authority), parse_x509_certificate(certificate))
    else {
        return false;
    };
    certificate.verify_signature(Some(authority.public_key())).is_ok()
}
