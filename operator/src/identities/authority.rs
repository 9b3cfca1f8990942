//! The authorities of a cluster, and what their Secrets and the nodes' say of them.

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use zue_tls::rustls::pki_types::CertificateDer;
use zue_tls::rustls::pki_types::pem::PemObject as _;
use zue_tls::{Authority, Cluster, Identity, IssueError, Issued, Kind, Names, facts, hex, sha256};

use super::error::Error;
use super::plan::{AUTHORITY_LIFETIME, Certificate, Input, NodeTls, Trust, is_due};
use super::secret::{CERTIFICATE, CLIENT_CA, KEY, PEER_CA, Secrets, StoredSecret, Texts, texts};

/// The authority before, in the Secret of one that does not sign yet.
const FORMER_CERTIFICATE: &str = "former.crt";
const FORMER_KEY: &str = "former.key";

/// The end of a certificate in PEM.
const END: &str = "-----END CERTIFICATE-----";

/// An authority that can sign.
pub(super) struct Signer {
    authority: Authority,
    pub(super) certificate: Certificate,
}

impl Signer {
    pub(super) fn issues(&self, of: &Identity, names: &Names, lifetime: Duration) -> Result<Issued, IssueError> {
        self.authority.issue(of, names, lifetime)
    }
}

/// The authorities of one kind whose keys the operator has: the newest, and the one before while that still signs.
pub(super) struct AuthorityKeys {
    pub(super) newest: Signer,
    former: Option<Signer>,
}

impl AuthorityKeys {
    /// The content of their Secret.
    fn data(&self) -> Texts {
        let newest = [(CERTIFICATE, self.newest.authority.certificate()), (KEY, &self.newest.authority.key())];
        let mut data = texts(newest);
        if let Some(former) = &self.former {
            let kept = [(FORMER_CERTIFICATE, former.authority.certificate()), (FORMER_KEY, &former.authority.key())];
            data.extend(texts(kept));
        }
        data
    }

    fn into_signer(self, sha256: &str) -> Option<Signer> {
        [Some(self.newest), self.former].into_iter().flatten().find(|one| one.certificate.sha256 == sha256)
    }

    /// The one of this hash.
    pub(super) fn by_hash(&self, sha256: &str) -> Option<&Signer> {
        [Some(&self.newest), self.former.as_ref()].into_iter().flatten().find(|one| one.certificate.sha256 == sha256)
    }
}

/// The differences of the two kinds: which bundle of the nodes' Secret, and what is written down beside it.
fn places(kind: Kind) -> (&'static str, &'static str, &'static str) {
    match kind {
        Kind::Peer => (PEER_CA, "zue.io/peer-authority", "zue.io/peer-authority-since"),
        Kind::Client => (CLIENT_CA, "zue.io/client-authority", "zue.io/client-authority-since"),
    }
}

/// The bundle of that kind that a node shows, by hash.
pub(super) fn hash_of(kind: Kind, shown: &NodeTls) -> &String {
    match kind {
        Kind::Peer => &shown.peers,
        Kind::Client => &shown.clients,
    }
}

/// The authorities that there are; a new one is made where there is none, and when it is time or was asked for. One that was made and
/// does not sign yet is waited for first.
pub(super) async fn known(
    secrets: &Secrets<'_>,
    who: &Cluster,
    kind: Kind,
    told: &Trust,
    input: Input<'_>,
    news: &mut Vec<String>,
) -> Result<AuthorityKeys, Error> {
    let (name, others) = secrets.authority(kind);
    let unusable = |why: String| Error::Unusable { name: name.clone(), why };
    let found = there(secrets, kind).await?;
    let kept = found.as_ref().map(|found| load(kind, found).map_err(unusable)).transpose()?;
    if let Some(field) = others {
        let kept = kept.ok_or_else(|| Error::Missing { name: name.clone(), field })?;
        if kept.newest.certificate.ends <= input.now {
            return Err(unusable("its certificate has expired: put another authority into it".to_owned()));
        }
        return Ok(kept);
    }
    let is_asked = match kind {
        Kind::Peer => input.rotate.peer_ca,
        Kind::Client => input.rotate.client_ca,
    };
    let times = found.as_ref().and_then(|found| time_of(found.text(CERTIFICATE)));
    let is_spent = times.is_none_or(|(begun, ends)| is_due(begun, ends, input.now));
    let signs = |kept: &AuthorityKeys| told.signs.is_empty() || told.signs == kept.newest.certificate.sha256;
    match kept {
        Some(kept) if is_spent || is_asked && signs(&kept) => {
            news.push(match kind {
                Kind::Peer => "the authority of the peers".to_owned(),
                Kind::Client => "the authority of the clients".to_owned(),
            });
            make(secrets, who, kind, found.as_ref(), kept.into_signer(&told.signs)).await
        }
        Some(kept) if kept.former.is_some() && signs(&kept) => {
            // Nobody needs the key of one that signs no more.
            let known = AuthorityKeys { newest: kept.newest, former: None };
            secrets.write(&name, found.as_ref(), known.data(), Texts::new()).await?;
            Ok(known)
        }
        Some(kept) => Ok(kept),
        None => make(secrets, who, kind, found.as_ref(), None).await,
    }
}

/// Makes a new authority and writes it down, beside the one that signs until all believe the new one.
async fn make(
    secrets: &Secrets<'_>,
    who: &Cluster,
    kind: Kind,
    found: Option<&StoredSecret>,
    former: Option<Signer>,
) -> Result<AuthorityKeys, Error> {
    let (name, _) = secrets.authority(kind);
    let authority = Authority::new(kind, who, AUTHORITY_LIFETIME)?;
    let certificate = certificate(authority.certificate())
        .ok_or_else(|| Error::Unusable { name: name.clone(), why: "the issued certificate is malformed".to_owned() })?;
    let known = AuthorityKeys { newest: Signer { authority, certificate }, former };
    secrets.write(&name, found, known.data(), Texts::new()).await?;
    Ok(known)
}

/// Those that there are, if any; makes none.
pub(super) async fn there_are(secrets: &Secrets<'_>, kind: Kind) -> Result<Option<AuthorityKeys>, Error> {
    let unusable = |why: String| Error::Unusable { name: secrets.authority(kind).0, why };
    there(secrets, kind).await?.map(|found| load(kind, &found).map_err(unusable)).transpose()
}

async fn there(secrets: &Secrets<'_>, kind: Kind) -> Result<Option<StoredSecret>, crate::kubernetes::Error> {
    let (name, others) = secrets.authority(kind);
    if others.is_some() { secrets.others(&name).await } else { secrets.own(&name).await }
}

fn load(kind: Kind, found: &StoredSecret) -> Result<AuthorityKeys, String> {
    let newest = signer(kind, found.text(CERTIFICATE), found.text(KEY))?;
    Ok(AuthorityKeys { newest, former: signer(kind, found.text(FORMER_CERTIFICATE), found.text(FORMER_KEY)).ok() })
}

fn signer(kind: Kind, certificates: &str, key: &str) -> Result<Signer, String> {
    let first = split(certificates).into_iter().next();
    // What stands behind the first has signed the authority, perhaps, and others; it is not to be believed here.
    let certificate = first.and_then(|pem| certificate(&pem)).ok_or("tls.crt holds no certificate in PEM")?;
    let authority = Authority::load(kind, &certificate.pem, key).map_err(|error| error.to_string())?;
    Ok(Signer { authority, certificate })
}

/// The authorities that the nodes were told to believe, from their Secret.
pub(super) fn told(kind: Kind, found: &StoredSecret) -> Trust {
    let (file, signs, since) = places(kind);
    let since = found.note(since).parse().ok().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let bundle: Vec<Certificate> = split(found.text(file)).iter().filter_map(|pem| certificate(pem)).collect();
    let signs = if bundle.is_empty() { String::new() } else { found.note(signs).to_owned() };
    Trust { bundle, signs, since }
}

/// The notes about that.
pub(super) fn notes(kind: Kind, trust: &Trust) -> Texts {
    let (_, signs, since) = places(kind);
    let began = trust.since.map(seconds).unwrap_or_default();
    texts([(signs, &trust.signs), (since, &began)])
}

fn split(pem: &str) -> Vec<String> {
    let whole = pem.split_inclusive(END).filter(|one| one.ends_with(END));
    whole.map(|one| format!("{}\n", one.trim_start())).collect()
}

fn certificate(pem: &str) -> Option<Certificate> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let ends = facts(&der).ok()?.not_after;
    Some(Certificate { pem: format!("{}\n", pem.trim()), sha256: hex(&sha256(&der)), ends })
}

/// From when to when the first certificate of a text is valid.
pub(super) fn time_of(pem: &str) -> Option<(SystemTime, SystemTime)> {
    let facts = facts(&CertificateDer::from_pem_slice(pem.as_bytes()).ok()?).ok()?;
    Some((facts.not_before, facts.not_after))
}

/// Seconds since 1970, as they are written down.
fn seconds(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or(0, Timestamp::as_second).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_taken_apart_and_put_together_again() {
        let who = Cluster::new("shop", "orders").unwrap();
        let made = [0, 1].map(|_| Authority::new(Kind::Peer, &who, AUTHORITY_LIFETIME).unwrap());
        let text: String = made.iter().map(Authority::certificate).collect();
        let apart: Vec<Certificate> = split(&text).iter().filter_map(|pem| certificate(pem)).collect();
        let trust = Trust { bundle: apart, ..Trust::default() };
        assert_eq!(trust.bundle.len(), 2);
        let again: Vec<Certificate> = split(&trust.pem()).iter().filter_map(|pem| certificate(pem)).collect();
        assert_eq!(again, trust.bundle);
        assert_eq!(split("").len() + split("-----BEGIN").len(), 0);
    }
}
