//! The authority that signs, and what it has signed as a Secret holds it.

use zue_tls::Leaf;

use super::authority::{self, AuthorityKeys, Signer};
use super::plan::{IssuedCertificate, Trust};
use super::secret::{CERTIFICATE, KEY, NAMES, SIGNED_BY, StoredSecret};

/// The means by which an authority's certificates are issued.
pub(super) struct Signing {
    pub(super) known: AuthorityKeys,
    pub(super) trust: Trust,
}

impl Signing {
    /// The authority that signs; none where its key is not to be had any more.
    pub(super) fn signer(&self) -> Option<&Signer> {
        self.known.by_hash(&self.trust.signs)
    }

    /// True while the newest authority does not sign yet.
    pub(super) fn is_moving(&self) -> bool {
        self.trust.signs != self.known.newest.certificate.sha256
    }
}

/// The certificate in a Secret, with its key, if the two belong together.
pub(super) fn leaf(found: &StoredSecret) -> Option<Leaf> {
    let certificate = ("its certificate", found.text(CERTIFICATE));
    Leaf::from_pem(certificate, ("its key", found.text(KEY))).ok()
}

/// The same, as far as it matters for what is to be done with it.
pub(super) fn held(found: &StoredSecret) -> Option<IssuedCertificate> {
    leaf(found)?;
    let (begun, ends) = authority::time_of(found.text(CERTIFICATE))?;
    let (authority, names) = (found.note(SIGNED_BY).to_owned(), found.note(NAMES).to_owned());
    Some(IssuedCertificate { authority, names, begun, ends })
}
