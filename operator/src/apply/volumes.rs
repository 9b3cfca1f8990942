//! Volumes that grow: every claim of the cluster's pods that asks for less than the spec. A StatefulSet's claim template can't be
//! changed: once the claims are patched, the StatefulSet is deleted without its pods and made anew around them.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::build::DATA_VOLUME;
use crate::cluster::Cluster;
use crate::kubernetes::{Error, FIELD_MANAGER, owned, within};
use crate::plan::scale;

/// The interval of looks at whether the old StatefulSet is gone, and their number.
const LOOK: (Duration, u32) = (Duration::from_millis(200), 50);
/// The pause after a growth that was refused, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// The outcome for the volumes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    /// Their new size, if any was smaller.
    pub grown_to: Option<String>,
    /// Why they are not as large as they are to be, if they are not.
    pub refused: Option<String>,
}

/// A growth that was refused. It is tried again, less and less often, and at once with another size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The size that was asked for.
    pub to: String,
    /// The words of the API server.
    pub why: String,
    tries: u32,
    again: Instant,
}

impl Refusal {
    /// The next one, after the one before.
    pub fn next(before: Option<&Self>, to: &str, why: String, now: Instant) -> Self {
        let tries = before.filter(|before| before.to == to).map_or(0, |before| before.tries.saturating_add(1));
        let pause = AGAIN.0.saturating_mul(2_u32.saturating_pow(tries)).min(AGAIN.1);
        Self { to: to.to_owned(), why, tries, again: now + pause }
    }

    /// True for the first of its size, which is told.
    pub fn is_first(&self) -> bool {
        self.tries == 0
    }

    /// The time for which this size is not to be tried again.
    pub fn pause(&self, to: &str, now: Instant) -> Option<Duration> {
        let left = self.again.saturating_duration_since(now);
        (self.to == to && !left.is_zero()).then_some(left)
    }
}

/// Grows the claims of a cluster's pods that are smaller than the spec asks for: also those that stayed when their pods went, and came
/// back with them. Before all else, and whatever else is wrong: a full disk is to be cured by it.
pub async fn grow_claims(client: &Client, cluster: &Cluster) -> Growth {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    let found = match within("read the StatefulSet", sets.get_opt(&cluster.name)).await {
        // Claims of other pods, or of a deleted ZueCluster of this name, are left alone.
        Ok(Some(found)) if owned::check(&found, cluster).is_err() => return Growth::default(),
        Ok(found) => found,
        Err(error) => return Growth { refused: Some(error.to_string()), ..Growth::default() },
    };
    let cluster = cluster.clone().around(found.as_ref().and_then(scale::pods_of));
    let mut to = Quantity(cluster.spec.storage.size.clone());
    // A smaller size is of one that was made anew over volumes that stayed.
    if let Some(has) = found.as_ref().and_then(size).filter(|has| bytes(has) > bytes(&to)) {
        to = has;
    }
    let mut growth = Growth::default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    for pod in cluster.pods() {
        match grow_claim(&claims, &format!("{DATA_VOLUME}-{pod}"), &to).await {
            Ok(true) => growth.grown_to = Some(to.0.clone()),
            Ok(false) => {}
            Err(error) => {
                growth.refused.get_or_insert_with(|| error.to_string());
            }
        }
    }
    growth
}

/// True if it was smaller.
async fn grow_claim(claims: &Api<PersistentVolumeClaim>, name: &str, to: &Quantity) -> Result<bool, Error> {
    let Some(claim) = within(format!("read claim {name}"), claims.get_opt(name)).await? else { return Ok(false) };
    if requested(&claim).is_some_and(|has| bytes(has) >= bytes(to)) {
        return Ok(false);
    }
    let patch = Patch::Merge(json!({ "spec": { "resources": { "requests": { "storage": to } } } }));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    within(format!("grow claim {name}"), claims.patch(name, &params, &patch)).await?;
    Ok(true)
}

/// Makes room for a StatefulSet with larger claims in its template: the present one goes without its pods. Where the claims could not be
/// grown, or the set cannot go, `wanted` gets the size that there is, so that all else can be applied.
pub async fn make_room(
    client: &Client,
    cluster: &Cluster,
    found: Option<&StatefulSet>,
    wanted: &mut StatefulSet,
    are_grown: bool,
) -> Result<(), Error> {
    let Some((found, from)) = found.and_then(|found| Some((found, size(found)?))) else { return Ok(()) };
    let is_larger = size(wanted).is_some_and(|to| bytes(&to) > bytes(&from));
    let outcome = if is_larger && are_grown { let_go(client, cluster, found).await } else { Ok(()) };
    if !is_larger || !are_grown || outcome.is_err() {
        set_size(wanted, from);
    }
    outcome
}

/// Claims that are to go with their StatefulSet refer to it. Before it goes alone, they are told to stay.
async fn let_go(client: &Client, cluster: &Cluster, set: &StatefulSet) -> Result<(), Error> {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    if policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete") {
        let api: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
        let stay =
            json!({ "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Retain" } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": stay }));
        within("let the volumes stay while they grow", api.patch(&cluster.name, &params, &patch)).await?;
        stay_alone(client, cluster, set).await?;
    }
    delete_alone(client, cluster, set).await
}

/// Waits until no claim refers to the StatefulSet any more.
async fn stay_alone(client: &Client, cluster: &Cluster, set: &StatefulSet) -> Result<(), Error> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &cluster.namespace);
    let uid = set.uid().unwrap_or_default();
    for pod in cluster.pods() {
        let name = format!("{DATA_VOLUME}-{pod}");
        let mut looks = LOOK.1;
        loop {
            let found = within(format!("read claim {name}"), claims.get_opt(&name)).await?;
            if found.is_none_or(|claim| claim.owner_references().iter().all(|owner| owner.uid != uid)) {
                break;
            }
            looks = looks.checked_sub(1).ok_or_else(|| Error::Bound { name: name.clone() })?;
            tokio::time::sleep(LOOK.0).await;
        }
    }
    Ok(())
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

/// The size of the volumes that it makes.
pub fn size_of(set: &StatefulSet) -> Option<String> {
    size(set).map(|size| size.0)
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

/// The bytes of a quantity; none if it is not a whole number with a unit, which the resource's schema doesn't allow.
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
    fn a_refused_growth_is_told_once_and_tried_less_and_less_often_and_another_size_at_once() {
        let begun = Instant::now();
        let mut refusal = Refusal::next(None, "2Gi", "no".to_owned(), begun);
        assert!(refusal.is_first());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pauses.push(refusal.pause("2Gi", begun).unwrap().as_secs());
            assert_eq!(refusal.pause("1Gi", begun), None);
            refusal = Refusal::next(Some(&refusal), "2Gi", "no".to_owned(), begun);
            assert!(!refusal.is_first());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(refusal.pause("2Gi", begun + Duration::from_secs(301)), None);
        assert!(Refusal::next(Some(&refusal), "3Gi", "no".to_owned(), begun).is_first());
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
