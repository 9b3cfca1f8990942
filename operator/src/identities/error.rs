//! The errors of identities.

use zue_tls::{BadIdentity, IssueError};

/// Why somebody has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Kubernetes(#[from] crate::kubernetes::Error),
    /// A name that is no identity.
    #[error(transparent)]
    Name(#[from] BadIdentity),
    /// It cannot be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A Secret that somebody else is to make.
    #[error("Secret {name} is missing: {field} names it")]
    Missing {
        /// The Secret.
        name: String,
        /// The annotation.
        field: &'static str,
    },
    /// A Secret that is not what it should be.
    #[error("Secret {name}: {why}")]
    Unusable {
        /// The Secret.
        name: String,
        /// The fault.
        why: String,
    },
}
