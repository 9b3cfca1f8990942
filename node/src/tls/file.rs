//! Names of the files that say who gets in.

/// One of the files; the certificate and its key are one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum File {
    Leaf,
    Peers,
    Clients,
    Access,
}

impl File {
    pub(crate) const ALL: [Self; 4] = [Self::Leaf, Self::Peers, Self::Clients, Self::Access];

    /// As the metrics name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Leaf => "tls.crt",
            Self::Peers => "peer-ca.crt",
            Self::Clients => "client-ca.crt",
            Self::Access => "access.file",
        }
    }
}
