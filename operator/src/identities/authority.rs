//! The authorities of a cluster, and what their Secrets and the nodes' say of them.

use std::time::{Duration, SystemTime};

use zue_tls::rustls::pki_types::CertificateDer;
use zue_tls::rustls::pki_types::pem::PemObject as _;
use zue_tls::{Authority, Cluster, Identity, IssueError, Issued, Kind, Names, facts, hex, sha256};

use super::plan::{AUTHORITY_LIFETIME, Certificate, Shown, Trust, is_due};
use super::secret::{Found, Secrets, Texts, texts};
use super::{CERTIFICATE, CLIENT_CA, Error, Input, KEY, PEER_CA, seconds};

/// What ends a certificate in PEM.
const END: &str = "-----END CERTIFICATE-----";

/// The newest authority of a kind.
pub(super) struct Newest {
    authority: Authority,
    pub(super) certificate: Certificate,
}

impl Newest {
    pub(super) fn issues(&self, of: &Identity, names: &Names, lifetime: Duration) -> Result<Issued, IssueError> {
        self.authority.issue(of, names, lifetime)
    }
}

/// What is different for the two kinds: which bundle of the nodes' Secret, and what is written down beside it.
fn places(kind: Kind) -> (&'static str, &'static str, &'static str) {
    match kind {
        Kind::Peer => (PEER_CA, "zue.io/peer-authority", "zue.io/peer-authority-since"),
        Kind::Client => (CLIENT_CA, "zue.io/client-authority", "zue.io/client-authority-since"),
    }
}

/// The bundle of that kind that a node shows, by hash.
pub(super) fn hash_of(kind: Kind, shown: &Shown) -> &String {
    match kind {
        Kind::Peer => &shown.peers,
        Kind::Client => &shown.clients,
    }
}

/// The newest authority: the one that there is, unless it is the operator's to replace, and time.
pub(super) async fn newest(
    secrets: &Secrets<'_>,
    who: &Cluster,
    kind: Kind,
    input: Input<'_>,
    news: &mut Vec<String>,
) -> Result<Newest, Error> {
    let (name, others) = secrets.authority(kind);
    let unusable = |why: String| Error::Unusable { name: name.clone(), why };
    let found = there(secrets, kind).await?;
    if let Some(field) = others {
        let found = found.ok_or_else(|| Error::Missing { name: name.clone(), field })?;
        return load(kind, &found).map_err(unusable);
    }
    let is_asked = match kind {
        Kind::Peer => input.rotate.peer_ca,
        Kind::Client => input.rotate.client_ca,
    };
    let is_spent =
        |found: &Found| time_of(found.text(CERTIFICATE)).is_none_or(|(begun, ends)| is_due(begun, ends, input.now));
    if let Some(found) = found.as_ref().filter(|found| !is_asked && !is_spent(found)) {
        return load(kind, found).map_err(unusable);
    }
    let made = Authority::new(kind, who, AUTHORITY_LIFETIME)?;
    let data = texts([(CERTIFICATE, made.certificate()), (KEY, &made.key())]);
    secrets.write(&name, found.as_ref(), data, Texts::new()).await?;
    if found.is_some() {
        news.push(match kind {
            Kind::Peer => "the authority of the peers".to_owned(),
            Kind::Client => "the authority of the clients".to_owned(),
        });
    }
    let certificate = certificate(made.certificate()).ok_or_else(|| unusable("it holds no certificate".to_owned()))?;
    Ok(Newest { authority: made, certificate })
}

/// The one that there is, if any.
pub(super) async fn known(secrets: &Secrets<'_>, kind: Kind) -> Result<Option<Newest>, Error> {
    let unusable = |why: String| Error::Unusable { name: secrets.authority(kind).0, why };
    there(secrets, kind).await?.map(|found| load(kind, &found).map_err(unusable)).transpose()
}

async fn there(secrets: &Secrets<'_>, kind: Kind) -> Result<Option<Found>, crate::kubernetes::Error> {
    let (name, others) = secrets.authority(kind);
    if others.is_some() { secrets.others(&name).await } else { secrets.own(&name).await }
}

fn load(kind: Kind, found: &Found) -> Result<Newest, String> {
    let first = split(found.text(CERTIFICATE)).into_iter().next();
    // What stands behind the first has signed the authority, perhaps, and others; it is not to be believed here.
    let certificate = first.and_then(|pem| certificate(&pem)).ok_or("tls.crt holds no certificate in PEM")?;
    let authority = Authority::load(kind, &certificate.pem, found.text(KEY)).map_err(|error| error.to_string())?;
    Ok(Newest { authority, certificate })
}

/// Whom the nodes were told to believe, as it is written in their Secret.
pub(super) fn told(kind: Kind, found: &Found) -> Trust {
    let (file, signs, since) = places(kind);
    let since = found.note(since).parse().ok().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let bundle: Vec<Certificate> = split(found.text(file)).iter().filter_map(|pem| certificate(pem)).collect();
    let signs = if bundle.is_empty() { String::new() } else { found.note(signs).to_owned() };
    Trust { bundle, signs, since }
}

/// What is written down of that.
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
