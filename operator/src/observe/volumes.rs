//! Volumes that grow: every claim of the cluster's pods that asks for less than the spec. A StatefulSet's claim template can't be
//! changed: once the claims are patched, the StatefulSet is deleted without its pods and made anew around them.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::build::DATA_VOLUME;
use crate::cluster::Cluster;
use crate::kubernetes::{Error, FIELD_MANAGER, within};

/// How often to look whether the old StatefulSet is gone, and how many times.
const LOOK: (Duration, u32) = (Duration::from_millis(200), 50);

/// Grows the volumes of a cluster that are smaller than the spec asks for, and returns their new size if there were any. `found` is
/// the cluster's own StatefulSet as it is. When that fails `wanted` gets the size that there is, so that all else can be applied.
pub async fn grow(
    client: &Client,
    cluster: &Cluster,
    found: Option<&StatefulSet>,
    wanted: &mut StatefulSet,
) -> Result<Option<String>, Error> {
    let Some(mut to) = size(wanted) else { return Ok(None) };
    let from = found.and_then(size);
    let is_larger = from.as_ref().is_some_and(|from| bytes(&to) > bytes(from));
    // The API server refuses to shrink a resource's volumes; a smaller size is of one that was made anew over volumes that stayed.
    if let Some(from) = from.filter(|_| !is_larger) {
        set_size(wanted, from.clone());
        to = from;
    }
    // Also those that stayed when their pods went, and came back with them.
    let grown = grow_claims(client, cluster, &to).await;
    let Some(found) = found.filter(|_| is_larger) else { return Ok(grown?.then_some(to.0)) };
    let replaced = match grown {
        Ok(_) => delete_alone(client, cluster, found).await,
        Err(error) => Err(error),
    };
    if let (Err(_), Some(from)) = (&replaced, size(found)) {
        set_size(wanted, from);
    }
    replaced.map(|()| Some(to.0))
}

/// Whether there was anything to grow.
async fn grow_claims(client: &Client, cluster: &Cluster, to: &Quantity) -> Result<bool, Error> {
    let mut has_grown = false;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    for pod in cluster.pods() {
        let name = format!("{DATA_VOLUME}-{pod}");
        let Some(claim) = within(format!("read claim {name}"), claims.get_opt(&name)).await? else { continue };
        if requested(&claim).is_none_or(|has| bytes(has) < bytes(to)) {
            let patch = Patch::Merge(json!({ "spec": { "resources": { "requests": { "storage": to } } } }));
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            within(format!("grow claim {name}"), claims.patch(&name, &params, &patch)).await?;
            has_grown = true;
        }
    }
    Ok(has_grown)
}

/// Deletes this very StatefulSet, without its pods, and waits until it is gone.
async fn delete_alone(client: &Client, cluster: &Cluster, set: &StatefulSet) -> Result<(), Error> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    let uid = set.uid();
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    within("delete the StatefulSet without its pods", api.delete(&cluster.name, &orphan)).await?;
    for _ in 0..LOOK.1 {
        let found = within("read the StatefulSet", api.get_opt(&cluster.name)).await?;
        if found.is_none_or(|found| found.metadata.deletion_timestamp.is_none() && found.uid() != uid) {
            break;
        }
        tokio::time::sleep(LOOK.0).await;
    }
    Ok(())
}

fn size(set: &StatefulSet) -> Option<Quantity> {
    let claims = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    requested(claims.iter().find(|claim| claim.name_any() == DATA_VOLUME)?).cloned()
}

fn set_size(set: &mut StatefulSet, size: Quantity) {
    let claims = set.spec.iter_mut().flat_map(|spec| spec.volume_claim_templates.iter_mut().flatten());
    for claim in claims.filter(|claim| claim.metadata.name.as_deref() == Some(DATA_VOLUME)) {
        let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
        resources.requests.get_or_insert_default().insert("storage".to_owned(), size.clone());
    }
}

fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
}

/// How many bytes a quantity is; none if it is not a whole number with a unit, which the resource's schema doesn't allow.
fn bytes(quantity: &Quantity) -> Option<u128> {
    let units = [
        ("Ki", 1_u128 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("", 1),
    ];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((quantity.0.strip_suffix(name)?, unit)))?;
    number.parse::<u128>().ok()?.checked_mul(*unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<u128> {
        bytes(&Quantity(text.to_owned()))
    }

    #[test]
    fn the_same_size_is_the_same_in_any_unit() {
        assert_eq!(of("1024Mi"), of("1Gi"));
        assert_eq!(of("1Gi"), of("1073741824"));
        assert_eq!(of("1000M"), of("1G"));
        assert!(of("2Gi") > of("2G"));
        assert_eq!((of("x"), of("1.5Gi"), of("")), (None, None, None));
    }
}
