//! What the clients of a cluster show: a Secret for each, and the file by which the nodes know them.

use std::collections::BTreeSet;

use zue_node::{AccessClient, AccessFile};
use zue_tls::{Cluster as Who, Names, NewToken, hex, sha256};

use super::plan::{LEAF_LIFETIME, Wanted, issues};
use super::secret::{Found, Secrets, Texts, texts};
use super::{ACCESS_FILE, CA, CERTIFICATE, Error, Input, KEY, NAMES, SIGNED_BY, Signing, TOKEN, held};
use crate::cluster::{Cluster, PODS_CLIENT};
use crate::crd::security::{Access, Right};

/// Makes their Secrets be as they should, and takes those away that are wanted no more; gives the file that says who has access.
pub(super) async fn settle(
    secrets: &Secrets<'_>,
    cluster: &Cluster,
    who: &Who,
    signing: (&Signing, &Signing),
    nodes: Option<&Found>,
    input: Input<'_>,
) -> Result<String, Error> {
    // What the pods themselves show: so that commands work in them.
    let (name, rights) = (PODS_CLIENT.to_owned(), vec![Right::Append, Right::Read]);
    let pods = Access { name, rights, token: false, from: Vec::new() };
    let all: Vec<&Access> = cluster.spec.access.iter().chain([&pods]).collect();
    let known = nodes.and_then(|found| serde_yaml::from_str::<AccessFile>(found.text(ACCESS_FILE)).ok());
    let wanted: BTreeSet<&str> = all.iter().map(|one| one.name.as_str()).collect();
    for gone in known.unwrap_or_default().clients.iter().filter(|one| !wanted.contains(one.name.as_str())) {
        secrets.delete(&cluster.client_secret(&gone.name)).await?;
    }
    let mut file = AccessFile::default();
    for client in all {
        let token_sha256 = one(secrets, cluster, who, signing, client, input).await?;
        let rights = client.rights.iter().copied().map(Into::into).collect();
        file.clients.push(AccessClient { name: client.name.clone(), rights, token_sha256 });
    }
    // Names and hashes: nothing in them can fail to be written.
    Ok(serde_yaml::to_string(&file).unwrap_or_default())
}

/// Makes the Secret of one client be as it should; gives the hash of its token, if it has one.
async fn one(
    secrets: &Secrets<'_>,
    cluster: &Cluster,
    who: &Who,
    (peers, clients): (&Signing, &Signing),
    client: &Access,
    input: Input<'_>,
) -> Result<Vec<String>, Error> {
    let name = cluster.client_secret(&client.name);
    let found = secrets.own(&name).await?;
    let ca = peers.trust.pem();
    if client.token {
        let known = found.as_ref().map(|found| found.text(TOKEN).trim()).filter(|token| !token.is_empty());
        let token = known.map_or_else(|| NewToken::make().map(|made| made.text), |known| Ok(known.to_owned()))?;
        secrets.write(&name, found.as_ref(), texts([(TOKEN, &token), (CA, &ca)]), Texts::new()).await?;
        return Ok(vec![hex(&sha256(token.as_bytes()))]);
    }
    let held = found.as_ref().and_then(held);
    let wanted = Wanted { authority: &clients.trust.signs, names: "", anew: input.rotate.certificates };
    let is_due = clients.can_issue() && issues(held.as_ref(), &wanted, input.now);
    let (certificate, key, signed_by) = match found.as_ref().filter(|_| held.is_some() && !is_due) {
        Some(kept) => (kept.text(CERTIFICATE).to_owned(), kept.text(KEY).to_owned(), kept.note(SIGNED_BY).to_owned()),
        // It comes once the authority that is believed by all signs again.
        None if !clients.can_issue() => return Ok(Vec::new()),
        None => {
            let issued = clients.authority.issues(&who.client(&client.name)?, &Names::default(), LEAF_LIFETIME)?;
            (issued.certificate, issued.key, clients.trust.signs.clone())
        }
    };
    let data = texts([(CERTIFICATE, &certificate), (KEY, &key), (CA, &ca)]);
    secrets.write(&name, found.as_ref(), data, texts([(SIGNED_BY, &signed_by), (NAMES, "")])).await?;
    Ok(Vec::new())
}
