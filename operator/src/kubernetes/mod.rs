//! The API server: calls to it, never longer than a few seconds and with errors that say what was tried; and what the operator keeps
//! there, the Lease and the record of controllers.

pub mod lease;
pub mod owned;
pub mod store;

use std::future::Future;
use std::time::{Duration, Instant};

use kube::api::PatchParams;
use tracing::error;

/// The owner of the fields that the operator applies.
pub const FIELD_MANAGER: &str = "zue-operator";

/// A call that takes longer has failed: the control of a cluster must not wait for it.
pub const CALL_MAX: Duration = Duration::from_secs(5);

/// The pause after the API server did not take something.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The operator as the writer of a patch.
pub(crate) fn manager() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// The right to write something to the API server: not for a while after it refused something.
#[derive(Debug)]
pub(crate) struct WritePause {
    until: Instant,
}

impl WritePause {
    pub(crate) fn none() -> Self {
        Self { until: Instant::now() }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Says what was refused, and begins.
    pub(crate) fn begin(&mut self, refusal: &Error) {
        error!("{refusal}");
        self.until = Instant::now() + REFUSED_PAUSE;
    }
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was refused, or the API server was not reached.
    #[error("cannot {what}: {}", in_words(.source))]
    Failed {
        /// The call.
        what: String,
        /// The words of the API server or the network.
        source: Box<kube::Error>,
    },
    /// An object of that name belongs to someone else.
    #[error(
        "{kind} {name} does not belong to this ZueCluster: remove it if unused, or give the ZueCluster another name"
    )]
    NotOurs {
        /// The object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// An object of a resource that bore the same name.
    #[error(
        "{kind} {name} belongs to a deleted ZueCluster of that name; the operator does not touch it until Kubernetes has deleted it"
    )]
    NotYetGone {
        /// The object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A volume that is to stay would go with its StatefulSet.
    #[error("claim {name} still refers to the StatefulSet, and would be deleted with it: it is resized later")]
    Bound {
        /// The claim.
        name: String,
    },
    /// Identities are not settled.
    #[error("{0}")]
    Unsecured(String),
    /// No answer came.
    #[error("cannot {what}: no answer from the API server within {} s", CALL_MAX.as_secs())]
    TimedOut {
        /// The call.
        what: String,
    },
}

impl Error {
    /// The HTTP status of the answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Failed { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::NotOurs { .. }
            | Self::NotYetGone { .. }
            | Self::Bound { .. }
            | Self::Unsecured(_)
            | Self::TimedOut { .. } => None,
        }
    }
}

/// kube's own words repeat the whole answer.
fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The answer to a call, or what was tried and why it failed.
pub async fn within<T>(
    what: impl Into<String>,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(CALL_MAX, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Failed { what: what.into(), source: Box::new(source) }),
        Err(_) => Err(Error::TimedOut { what: what.into() }),
    }
}
