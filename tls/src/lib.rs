//! Identities in a Zue cluster, the certificates that show them, and the TLS of both sides. Knows no service and no right.
//!
//! Two authorities stand for a cluster. The peer authority signs nodes and controllers, the client authority signs clients, so that no
//! client's certificate is ever one of a node.

mod certificate;
mod dial;
mod files;
mod identity;
#[cfg(feature = "issue")]
mod issue;
mod stream;
mod trust;
mod verifiers;

pub use certificate::{Facts, facts};
pub use dial::{Dial, DialError, Insecure, Renewal, Without};
pub use files::{Bundle, FileError, Leaf, read_text};
pub use identity::{BadIdentity, Cluster, Identity, Role};
#[cfg(feature = "issue")]
pub use issue::{Authority, IssueError, Issued, Kind, Names, NewToken};
pub use rustls;
pub use rustls::ClientConfig;
pub use stream::{Stream, Wire, wire};
pub use tokio_rustls::TlsAcceptor;
pub use trust::{Untrusted, Usage};
pub use verifiers::{server_for_clients, server_for_peers};

/// The most memory that TLS holds of a connection. rustls: 64 KiB that are not sent; a record that is not read and one more; a message of a
/// handshake that is not complete, 64 KiB; and what was shown, which the node keeps beside it to look at again. Then what is read ahead.
/// The rest is keys, and what the allocator adds.
pub const CONNECTION_BYTES_MAX: u64 = (64 + 32 + 64 + 16 + 16 + 32 + 32) << 10;

/// The hash of something, as it is shown: of what a bundle or a file holds.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

/// As it is shown.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Of the primitives there is one provider in the tree, which kube brings.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::ring::default_provider())
}

/// The versions that both sides speak.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
const ALPN_H2: &[u8] = b"h2";
