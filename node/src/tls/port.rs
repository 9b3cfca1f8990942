//! The two ports that may have TLS: whom each believes, and whom it serves.

use zue_tls::{Bundle, Role};

use super::credentials::Current;

/// The ports that may have TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Port {
    Client,
    Peer,
}

impl Port {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
        }
    }

    /// The authorities that it believes.
    pub(super) fn bundle(self, current: &Current) -> &Bundle {
        match self {
            Self::Client => &current.files.clients,
            Self::Peer => &current.files.peers,
        }
    }

    pub(super) fn serves(self, role: &Role) -> bool {
        match role {
            Role::Node | Role::Controller => self == Self::Peer,
            Role::Client(_) => self == Self::Client,
        }
    }
}
