//! Identities of a cluster: makes its authorities, certificates and tokens, and replaces them in time. What is to be done is planned in
//! [`plan`]; here it is read, issued and written.

mod authority;
mod clients;
mod error;
mod link;
pub mod names;
pub mod plan;
pub mod rotate;
mod secret;
pub mod secured;
mod signing;

use std::time::{Duration, SystemTime};

use kube::Client;
use zue_tls::{Bundle, Kind, Role};

pub use error::Error;
pub use link::Link;
pub use plan::Input;
use plan::{DesiredCertificate, LEAF_LIFETIME, NodeTls, TakenNews, issues};
use rotate::Rotate;
use secret::{CERTIFICATE, CLIENT_CA, KEY, NAMES, PEER_CA, SIGNED_BY, Secrets, StoredSecret, Texts, texts};
use signing::{Signing, held, leaf};

use crate::build::args::ACCESS_FILE;
use crate::cluster::Cluster;
use crate::crd::security::TlsMode;

/// The time until all is looked at again while an authority is being replaced, and until the former one is given up.
const AGAIN_WHILE_REPLACED: Duration = Duration::from_secs(5);
const AGAIN_UNTIL_SETTLED: Duration = Duration::from_mins(1);

/// The outcome.
#[derive(Debug)]
pub struct Settled {
    /// When to look again, if soon.
    pub again: Option<Duration>,
    /// The replacements that were made, in words.
    pub news: Vec<String>,
}

/// Makes all Secrets of a cluster be as they should now, and gives the operator its own certificate.
pub async fn settle(client: &Client, cluster: &Cluster, link: &Link, input: Input<'_>) -> Result<Settled, Error> {
    let secrets = Secrets::new(client, cluster);
    let who = zue_tls::Cluster::new(&cluster.namespace, &cluster.name)?;
    let found = secrets.own(&cluster.tls_secret()).await?;
    let mut news = Vec::new();
    let peers = signing(&secrets, &who, Kind::Peer, found.as_ref(), input, &mut news).await?;
    // What the operator needs itself hangs on nothing else.
    link.give(cluster.tls_mode, &who, &peers, input.rotate, input.now)?;
    let clients = signing(&secrets, &who, Kind::Client, found.as_ref(), input, &mut news).await?;
    distinct(&secrets, &peers, &clients)?;
    let clients::Access { file, failed } =
        clients::settle(&secrets, cluster, &who, (&peers, &clients), found.as_ref(), input).await;
    let (mut data, mut notes) = nodes(cluster, &who, &peers, found.as_ref(), input)?;
    data.extend(texts([(PEER_CA, &peers.trust.pem()), (CLIENT_CA, &clients.trust.pem()), (ACCESS_FILE, &file)]));
    notes.extend(authority::notes(Kind::Peer, &peers.trust));
    notes.extend(authority::notes(Kind::Client, &clients.trust));
    let is_new =
        found.as_ref().is_some_and(|found| found.text(CERTIFICATE) != data.get(CERTIFICATE).map_or("", |text| text));
    if is_new {
        news.push("the certificate of the nodes".to_owned());
    }
    secrets.write(&cluster.tls_secret(), found.as_ref(), data, notes).await?;
    if let Some(failed) = failed {
        return Err(failed);
    }
    let both = [&peers, &clients];
    let again = if both.iter().any(|one| one.is_moving()) {
        Some(AGAIN_WHILE_REPLACED)
    } else {
        both.iter().any(|one| one.trust.bundle.len() > 1).then_some(AGAIN_UNTIL_SETTLED)
    };
    Ok(Settled { again, news })
}

/// Gives an operator that only listens its own certificate, where there is what it takes already. Writes nothing.
pub async fn listen(client: &Client, cluster: &Cluster, link: &Link, now: SystemTime) -> Result<(), Error> {
    if cluster.tls_mode == TlsMode::Off {
        link.go_plain();
        return Ok(());
    }
    let secrets = Secrets::new(client, cluster);
    let who = zue_tls::Cluster::new(&cluster.namespace, &cluster.name)?;
    let found = secrets.own(&cluster.tls_secret()).await?;
    let (Some(found), Some(known)) = (found, authority::there_are(&secrets, Kind::Peer).await?) else { return Ok(()) };
    let peers = Signing { known, trust: authority::told(Kind::Peer, &found) };
    link.give(cluster.tls_mode, &who, &peers, Rotate::default(), now)
}

/// Tells whether there are identities of this very cluster.
pub async fn exist(client: &Client, cluster: &Cluster) -> Result<bool, crate::kubernetes::Error> {
    Ok(Secrets::new(client, cluster).own(&cluster.tls_secret()).await?.is_some())
}

async fn signing(
    secrets: &Secrets<'_>,
    who: &zue_tls::Cluster,
    kind: Kind,
    found: Option<&StoredSecret>,
    input: Input<'_>,
    news: &mut Vec<String>,
) -> Result<Signing, Error> {
    let told = found.map(|found| authority::told(kind, found)).unwrap_or_default();
    let known = authority::known(secrets, who, kind, &told, input, news).await?;
    let hash = Bundle::from_pem("the authorities", &told.pem()).map(|bundle| bundle.sha256).unwrap_or_default();
    let leaf = found.and_then(leaf).map(|leaf| leaf.sha256).unwrap_or_default();
    let all = |has: &dyn Fn(&NodeTls) -> bool| {
        !input.shown.is_empty() && input.shown.iter().all(|shown| shown.as_ref().is_some_and(has))
    };
    let taken = TakenNews {
        bundle: all(&|shown| *authority::hash_of(kind, shown) == hash),
        // Clients are given theirs by this authority; what nodes show is signed by that of the peers.
        certificate: kind == Kind::Client || all(&|shown| shown.certificate == leaf),
    };
    let is_spent = kind == Kind::Peer && found.and_then(held).is_some_and(|held| held.ends <= input.now);
    let trust = told.next(&known.newest.certificate, taken, is_spent, input.now);
    Ok(Signing { known, trust })
}

/// Refuses one authority for both: a certificate of a client would be that of a node.
fn distinct(secrets: &Secrets<'_>, peers: &Signing, clients: &Signing) -> Result<(), Error> {
    let (name, _) = secrets.authority(Kind::Client);
    let (of_peers, _) = secrets.authority(Kind::Peer);
    let apart = Bundle::from_pem(&name, &clients.trust.pem()).and_then(|clients| {
        let peers = Bundle::from_pem(&of_peers, &peers.trust.pem())?;
        clients.apart_from(&peers)
    });
    apart.map(drop).map_err(|error| Error::Unusable { name, why: error.to_string() })
}

/// The certificate that all nodes share, with its key, and what is written down of it.
fn nodes(
    cluster: &Cluster,
    who: &zue_tls::Cluster,
    peers: &Signing,
    found: Option<&StoredSecret>,
    input: Input<'_>,
) -> Result<(Texts, Texts), Error> {
    let names = names::names(cluster, input.services_suffix);
    let hash = names::hash(&names);
    let wanted = DesiredCertificate { authority: &peers.trust.signs, names: &hash, anew: input.rotate.certificates };
    let kept = found.filter(|found| !issues(held(found).as_ref(), &wanted, input.now));
    let Some(signer) = peers.signer().filter(|_| kept.is_none()) else {
        let kept = found.cloned().unwrap_or_default();
        let data = texts([(CERTIFICATE, kept.text(CERTIFICATE)), (KEY, kept.text(KEY))]);
        return Ok((data, texts([(SIGNED_BY, kept.note(SIGNED_BY)), (NAMES, kept.note(NAMES))])));
    };
    let issued = signer.issues(&who.identity(Role::Node), &names, LEAF_LIFETIME)?;
    let data = texts([(CERTIFICATE, &issued.certificate), (KEY, &issued.key)]);
    Ok((data, texts([(SIGNED_BY, &peers.trust.signs), (NAMES, &hash)])))
}
