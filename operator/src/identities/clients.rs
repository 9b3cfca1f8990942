//! Identities of a cluster's clients: a Secret for each, and the file by which the nodes know them.

use std::collections::BTreeSet;

use zue_settings::{AccessClient, AccessFile};
use zue_tls::{Cluster as Who, Names, NewToken, hex, sha256};

use super::error::Error;
use super::plan::{DesiredCertificate, Input, LEAF_LIFETIME, issues};
use super::secret::{CA, CERTIFICATE, KEY, NAMES, SIGNED_BY, Secrets, StoredSecret, TOKEN, Texts, texts};
use super::signing::{Signing, held};
use crate::build::args::ACCESS_FILE;
use crate::cluster::{Cluster, PODS_CLIENT};
use crate::crd::security::{self as crd, Right};

/// No client's name: its Secret would be that of the authority.
const RESERVED: &str = "ca";

/// The access of the clients.
pub(super) struct Access {
    /// The file by which the nodes know them.
    pub(super) file: String,
    /// The first error. The file is complete even so: a Secret that belongs to someone else keeps no client's access alive.
    pub(super) failed: Option<Error>,
}

/// Makes their Secrets be as they should, and takes those away that are wanted no more.
pub(super) async fn settle(
    secrets: &Secrets<'_>,
    cluster: &Cluster,
    who: &Who,
    signing: (&Signing, &Signing),
    nodes: Option<&StoredSecret>,
    input: Input<'_>,
) -> Access {
    // What the pods themselves show: so that commands work in them.
    let (name, rights) = (PODS_CLIENT.to_owned(), vec![Right::Append, Right::Read]);
    let pods = crd::Access { name, rights, token: false, from: Vec::new() };
    let all: Vec<&crd::Access> = cluster.spec.access.iter().chain([&pods]).collect();
    let known = nodes.and_then(|found| serde_yaml::from_str::<AccessFile>(found.text(ACCESS_FILE)).ok());
    let known = known.unwrap_or_default().clients;
    let (mut file, mut failed) = (AccessFile::default(), None);
    for client in &all {
        let settled = one(secrets, cluster, who, signing, client, input).await;
        let token_sha256 = settled.unwrap_or_else(|error| {
            failed.get_or_insert(error);
            let before = known.iter().find(|one| one.name == client.name);
            before.map(|one| one.token_sha256.clone()).unwrap_or_default()
        });
        let rights = client.rights.iter().copied().map(Into::into).collect();
        file.clients.push(AccessClient { name: client.name.clone(), rights, token_sha256 });
    }
    let wanted: BTreeSet<&str> = all.iter().map(|one| one.name.as_str()).collect();
    for gone in known.iter().filter(|one| !wanted.contains(one.name.as_str()) && one.name != RESERVED) {
        use crate::kubernetes::Error::{NotOurs, NotYetGone};
        match secrets.delete(&cluster.client_secret(&gone.name)).await {
            // It was another's to delete, too.
            Ok(()) | Err(NotOurs { .. } | NotYetGone { .. }) => {}
            Err(error) => {
                failed.get_or_insert(error.into());
                // Without a right, until its Secret is gone as well.
                file.clients.push(AccessClient {
                    name: gone.name.clone(),
                    rights: Vec::new(),
                    token_sha256: Vec::new(),
                });
            }
        }
    }
    // Names and hashes: nothing in them can fail to be written.
    Access { file: serde_yaml::to_string(&file).unwrap_or_default(), failed }
}

/// Makes the Secret of one client be as it should; gives the hash of its token, if it has one.
async fn one(
    secrets: &Secrets<'_>,
    cluster: &Cluster,
    who: &Who,
    (peers, clients): (&Signing, &Signing),
    client: &crd::Access,
    input: Input<'_>,
) -> Result<Vec<String>, Error> {
    let name = cluster.client_secret(&client.name);
    // The schema refuses it; what was stored before that rule does not take the authority's place either.
    if client.name == RESERVED {
        let why =
            format!("spec.access names a client {:?}, whose Secret would be this one: call it otherwise", client.name);
        return Err(Error::Unusable { name, why });
    }
    let found = secrets.own(&name).await?;
    let ca = peers.trust.pem();
    if client.token {
        let known = found.as_ref().map(|found| found.text(TOKEN).trim()).filter(|token| !token.is_empty());
        let token = known.map_or_else(|| NewToken::make().map(|made| made.text), |known| Ok(known.to_owned()))?;
        secrets.write(&name, found.as_ref(), texts([(TOKEN, &token), (CA, &ca)]), Texts::new()).await?;
        return Ok(vec![hex(&sha256(token.as_bytes()))]);
    }
    let held = found.as_ref().and_then(held);
    let wanted = DesiredCertificate { authority: &clients.trust.signs, names: "", anew: input.rotate.certificates };
    let signer = clients.signer();
    let is_due = signer.is_some() && issues(held.as_ref(), &wanted, input.now);
    let kept = found.as_ref().filter(|_| held.is_some() && !is_due);
    let (certificate, key, signed_by) = if let Some(kept) = kept {
        (kept.text(CERTIFICATE).to_owned(), kept.text(KEY).to_owned(), kept.note(SIGNED_BY).to_owned())
    } else {
        // Else it comes once the newest authority signs.
        let Some(signer) = signer else { return Ok(Vec::new()) };
        let issued = signer.issues(&who.client(&client.name)?, &Names::default(), LEAF_LIFETIME)?;
        (issued.certificate, issued.key, clients.trust.signs.clone())
    };
    let data = texts([(CERTIFICATE, &certificate), (KEY, &key), (CA, &ca)]);
    secrets.write(&name, found.as_ref(), data, texts([(SIGNED_BY, &signed_by), (NAMES, "")])).await?;
    Ok(Vec::new())
}
