//! Says of a cluster that the operator was told to touch nothing of it, and that it does not look meanwhile.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tracing::warn;

use crate::cluster::PAUSED_ANNOTATION;
use crate::crd::ZueCluster;
use crate::kubernetes::{manager, within};
use crate::status::{self, Fact};

/// The last words, and of which version of the resource: the watch may be behind.
#[derive(Debug, Default)]
pub struct Paused {
    said: Option<String>,
}

impl Paused {
    /// Says it, where the resource does not show it.
    pub async fn say(&mut self, client: &Client, resource: &ZueCluster) {
        let Some(namespace) = resource.namespace() else { return };
        let before = resource.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
        let conditions = conditions(before, resource.metadata.generation, Timestamp::now());
        if conditions == before || self.said == resource.resource_version() {
            return;
        }
        let api: Api<ZueCluster> = Api::namespaced(client.clone(), &namespace);
        let patch = Patch::Merge(json!({ "status": { "conditions": conditions, "attention": "Paused" } }));
        let (name, params) = (resource.name_any(), manager());
        match within("say that the cluster is paused", api.patch_status(&name, &params, &patch)).await {
            Ok(_) => self.said = resource.resource_version(),
            Err(error) => warn!("{error}"),
        }
    }
}

/// The conditions of a cluster that is paused.
fn conditions(before: &[Condition], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let message = format!(
        "the annotation {PAUSED_ANNOTATION} is \"true\": the operator changes nothing and does not look; the nodes elect by themselves"
    );
    let paused = Fact { type_: "Paused", holds: true, reason: "Asked", message };
    let unwatched = status::unwatched(before, "Paused", "the operator is paused", now);
    status::merge(&unwatched, &[paused], generation, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::cluster;
    use crate::observe::view::tests::healthy;
    use crate::status::{Workload, facts, merge};

    #[test]
    fn a_paused_cluster_says_so_once_and_what_is_not_looked_at_is_unknown() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let before = merge(&[], &facts(&cluster("{}"), &healthy(), &Workload::default()), Some(4), at(10));
        let paused = conditions(&before, Some(4), at(20));
        let status = |type_: &str| paused.iter().find(|condition| condition.type_ == type_).unwrap().status.clone();
        assert_eq!((status("Paused"), status("Ready")), ("True".to_owned(), "Unknown".to_owned()));
        assert_eq!(conditions(&paused, Some(4), at(30)), paused);
        // Who looks again says so.
        let again = merge(&paused, &facts(&cluster("{}"), &healthy(), &Workload::default()), Some(4), at(40));
        assert!(again.iter().all(|condition| condition.status != "Unknown"));
    }
}
