//! Checks whether a chain of certificates leads to an authority that is trusted, now and for this use.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::{Key, facts, key_of};

/// The use of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Usage {
    /// By who accepts connections.
    Server,
    /// By who opens them.
    Client,
}

/// Why a certificate is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Untrusted {
    /// Its time is over.
    #[error("it expired {} s ago", .0.as_secs())]
    Expired(Duration),
    /// Its time has not come: a clock may be wrong.
    #[error("it is valid only in {} s, by the clock here", .0.as_secs())]
    Early(Duration),
    /// Somebody else signed it.
    #[error("none of the authorities that are trusted here has signed it")]
    UnknownAuthority,
    /// Somebody signed it who is trusted for others alone.
    #[error("an authority has signed it that is trusted here for others alone: its chain leads through that one")]
    OtherAuthority,
    /// It is for another use.
    #[error("it may not be used by {}", match .0 { Usage::Server => "servers", Usage::Client => "clients" })]
    Use(Usage),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<Untrusted> for rustls::Error {
    fn from(untrusted: Untrusted) -> Self {
        use rustls::CertificateError as Of;
        rustls::Error::InvalidCertificate(match untrusted {
            Untrusted::Expired(_) => Of::Expired,
            Untrusted::Early(_) => Of::NotValidYet,
            Untrusted::UnknownAuthority => Of::UnknownIssuer,
            Untrusted::Use(_) => Of::InvalidPurpose,
            other @ (Untrusted::OtherAuthority | Untrusted::Other(_)) => {
                Of::Other(rustls::OtherError(std::sync::Arc::new(other)))
            }
        })
    }
}

/// Until when all of a chain is valid by which one of `anchors` has signed it, directly or through others that it shows, for that use and for
/// now. It may lead through none of the keys `never`.
pub(crate) fn check(
    certificate: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    (anchors, never): (&[TrustAnchor<'_>], &[Key]),
    usage: Usage,
    now: UnixTime,
) -> Result<SystemTime, Untrusted> {
    let other = |error: webpki::Error| Untrusted::Other(format!("it is no sound certificate: {error}"));
    let parsed = EndEntityCert::try_from(certificate).map_err(other)?;
    let asked = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let path = parsed.verify_for_usage(algorithms, anchors, chain, now, asked, None, None);
    let path = path.map_err(|error| match error {
        webpki::Error::CertExpired { time, not_after } => Untrusted::Expired(between(not_after, time)),
        webpki::Error::CertNotValidYet { time, not_before } => Untrusted::Early(between(time, not_before)),
        // One of the same name has not signed it either.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => Untrusted::UnknownAuthority,
        webpki::Error::RequiredEkuNotFoundContext(_) => Untrusted::Use(usage),
        error => other(error),
    })?;
    let mut until = facts(certificate).map_err(Untrusted::Other)?.not_after;
    for between in path.intermediate_certificates() {
        let (key, not_after) = key_of(&between.der()).map_err(Untrusted::Other)?;
        if never.contains(&key) {
            return Err(Untrusted::OtherAuthority);
        }
        until = until.min(not_after);
    }
    Ok(until)
}

fn between(earlier: UnixTime, later: UnixTime) -> Duration {
    Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs()))
}

/// The time of a certificate.
pub(crate) fn unix(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
