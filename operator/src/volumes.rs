//! Volumes that grow. A StatefulSet's claim template can't be changed: the claims are patched, then the StatefulSet is deleted without
//! its pods and made anew around them.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::build::DATA_VOLUME;
use crate::cluster::Cluster;
use crate::kubernetes::{Error, FIELD_MANAGER, within};

/// How often to look whether the old StatefulSet is gone, and how many times.
const LOOK: (Duration, u32) = (Duration::from_millis(200), 50);

/// Grows the volumes of a cluster if the spec asks for larger ones, and returns their new size if so. When that fails `wanted` gets
/// the size that there is, so that all else can be applied.
pub async fn grow(client: &Client, cluster: &Cluster, wanted: &mut StatefulSet) -> Result<Option<String>, Error> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    let Some(found) = within("read the StatefulSet", api.get_opt(&cluster.name)).await? else { return Ok(None) };
    let (Some(from), Some(to)) = (size(&found), size(wanted)) else { return Ok(None) };
    // The API server refuses to shrink a resource's volumes; a smaller size is of one that was made anew over volumes that stayed.
    if bytes(&to) <= bytes(&from) {
        set_size(wanted, from);
        return Ok(None);
    }
    if let Err(error) = replace(client, cluster, &api, &to).await {
        set_size(wanted, from);
        return Err(error);
    }
    Ok(Some(to.0))
}

async fn replace(client: &Client, cluster: &Cluster, api: &Api<StatefulSet>, to: &Quantity) -> Result<(), Error> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    for pod in cluster.pods() {
        let name = format!("{DATA_VOLUME}-{pod}");
        let Some(claim) = within(format!("read claim {name}"), claims.get_opt(&name)).await? else { continue };
        if requested(&claim).is_none_or(|has| bytes(has) < bytes(to)) {
            let patch = Patch::Merge(json!({ "spec": { "resources": { "requests": { "storage": to } } } }));
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            within(format!("grow claim {name}"), claims.patch(&name, &params, &patch)).await?;
        }
    }
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    let deleted = within("delete the StatefulSet without its pods", api.delete(&cluster.name, &orphan)).await?;
    let uid = deleted.left().and_then(|deleted| deleted.uid());
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
