//! The identity that a connection shows, and what follows from it. Serves nobody.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tonic::codegen::http;
use zue_proto::v1::{Error, Reason};
use zue_tls::rustls::pki_types::CertificateDer;
use zue_tls::{Facts, Identity, Role, Untrusted, Usage, facts, sha256};

use super::access::{Client, Rights};
use super::credentials::Current;
use super::port::Port;
use crate::server::rights::Party;
use crate::services::errors::error;

/// The identity that a connection has shown.
#[derive(Clone, Debug)]
pub(crate) enum PresentedIdentity {
    /// It came without TLS.
    Plain,
    /// It came with TLS, and shows no certificate.
    Nobody,
    /// A certificate that is not believed, and why not.
    Doubtful(Arc<str>),
    /// A certificate.
    Known(Arc<VerifiedPeer>),
}

/// A certificate that was believed when it was shown.
#[derive(Debug)]
pub(crate) struct VerifiedPeer {
    pub(crate) identity: Identity,
    certificates: Vec<CertificateDer<'static>>,
    port: Port,
    /// The generation of the files that it was judged by, and the result: the time until when it is believed, or why it is not.
    held: Mutex<(u64, Result<SystemTime, Untrusted>)>,
}

impl VerifiedPeer {
    /// The time until when all of its chain is believed. Computed once for each generation of the files.
    pub(super) fn holds(&self, current: &Current) -> Result<SystemTime, Untrusted> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != current.generation {
            let (first, rest) = self.certificates.split_first().ok_or(Untrusted::UnknownAuthority)?;
            *held = (current.generation, self.port.bundle(current).check(first, rest, Usage::Client));
        }
        held.1.clone()
    }
}

impl PresentedIdentity {
    /// The identity that these certificates show to a port.
    pub(super) fn of(certificates: Option<&[CertificateDer<'static>]>, port: Port, of: &Current) -> Self {
        let Some((first, rest)) = certificates.and_then(<[_]>::split_first) else { return Self::Nobody };
        let believed = facts(first).and_then(|Facts { identity, .. }| {
            let identity = identity.map_err(|none| format!("it names nobody of a cluster: {none}"))?;
            let until = port.bundle(of).check(first, rest, Usage::Client);
            let until = until.map_err(|why| format!("it is of {identity}, and {why}"))?;
            let ours = of.files.leaf.cluster();
            if identity.cluster != *ours {
                return Err(format!("it is of {identity}, and this is cluster {ours}"));
            }
            if !port.serves(&identity.role) {
                return Err(format!("it is of {identity}, which is not served on this port"));
            }
            let certificates = [std::slice::from_ref(first), rest].concat();
            Ok(VerifiedPeer { identity, certificates, port, held: Mutex::new((of.generation, Ok(until))) })
        });
        believed.map_or_else(|why| Self::Doubtful(why.into()), |known| Self::Known(Arc::new(known)))
    }

    /// The party, and so what it may do.
    pub(super) fn party(&self, current: &Current) -> Result<Party, Error> {
        let known = match self {
            Self::Plain => return Err(unauthenticated("this port requires TLS: connect with it (zue --ca FILE)")),
            Self::Nobody => {
                let missing = "the call shows no certificate and no token: show one (zue --cert FILE --key FILE, or --token-file FILE)";
                return Err(unauthenticated(missing));
            }
            Self::Doubtful(why) => {
                return Err(unauthenticated(format!(
                    "the certificate is not believed: {why}; show one of this cluster (zue --cert FILE --key FILE)"
                )));
            }
            Self::Known(known) => known,
        };
        let identity = &known.identity;
        let no_more = |why: &dyn Display| {
            unauthenticated(format!(
                "the certificate of {identity} is not believed any more: {why}; connect with a newer one"
            ))
        };
        let until = known.holds(current).map_err(|why| no_more(&why))?;
        if let Ok(ago) = SystemTime::now().duration_since(until) {
            return Err(no_more(&Untrusted::Expired(ago)));
        }
        match &known.identity.role {
            Role::Node => Ok(Party::Node),
            Role::Controller => Ok(Party::Controller),
            Role::Client(name) => match current.files.access.by_name(name) {
                Some(client) => Ok(Party::Client(Arc::clone(client))),
                None => Err(error(
                    Reason::PermissionDenied,
                    format!(
                        "{} has no access: this node's list of clients (access.file) does not name it",
                        known.identity
                    ),
                )),
            },
        }
    }

    /// The name of the client that it shows, if it does.
    pub(super) fn client(&self) -> Option<&str> {
        match self {
            Self::Known(known) => match &known.identity.role {
                Role::Client(name) => Some(name),
                Role::Node | Role::Controller => None,
            },
            Self::Plain | Self::Nobody | Self::Doubtful(_) => None,
        }
    }

    /// The rights that it has as a client, by its certificate; none if it has none or is no client.
    pub(super) fn rights(&self, current: &Current) -> Option<Rights> {
        Some(current.files.access.by_name(self.client()?)?.rights)
    }
}

pub(super) fn unauthenticated(message: impl Into<String>) -> Error {
    error(Reason::Unauthenticated, message)
}

/// The token that a call shows, as its hash: nothing else of it is kept.
pub(super) fn token(headers: &http::HeaderMap) -> Option<Result<[u8; 32], Error>> {
    let shown = headers.get(http::header::AUTHORIZATION)?;
    let token = shown.as_bytes().split_at_checked(b"bearer ".len());
    let token =
        token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")).map(|(_, token)| token.trim_ascii());
    Some(token.map(sha256).ok_or_else(|| {
        unauthenticated("the authorization header of the call holds no token: Bearer TOKEN is expected")
    }))
}

/// A token that was believed when it was shown first.
#[derive(Clone)]
pub(crate) struct Token {
    pub(super) hash: [u8; 32],
    pub(super) client: Arc<Client>,
    /// The generation of the files that it was looked up in last.
    pub(super) generation: u64,
}

impl Token {
    /// Tells whether it stands for the same now.
    pub(super) fn holds(&self, current: &Current) -> bool {
        current.files.access.by_token(&self.hash) == Some(&self.client)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("client", &self.client).finish_non_exhaustive()
    }
}
