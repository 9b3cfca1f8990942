//! Settles how a cluster is secured before its objects are made: in which mode it is, who is who in it, and what was asked to be
//! replaced.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{Api, ListParams, Patch};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tracing::error;

use crate::build::{self, args::MODE_ARGUMENT};
use crate::cluster::Cluster;
use crate::crd::ZueCluster;
use crate::crd::security::TlsMode;
use crate::identities::plan::{self, NodeTls};
use crate::identities::rotate::{self, ROTATE_ANNOTATION, Rotate};
use crate::identities::{self, Input, Link};
use crate::kubernetes::manager;
use crate::kubernetes::{Error, owned, within};
use crate::plan::event::ClusterEvent;

/// The time until the mode is looked at again while it is being changed.
const AGAIN: Duration = Duration::from_secs(5);

/// The security of a cluster.
#[derive(Debug)]
pub struct Secured {
    /// In which mode.
    pub mode: TlsMode,
    /// Checks that everybody has what the mode takes; else says why not.
    pub outcome: Result<(), String>,
    /// When to look again, if soon.
    pub again: Option<Duration>,
    /// News to tell.
    pub events: Vec<ClusterEvent>,
}

/// Settles it; `shown` is what the nodes show.
pub async fn settle(
    client: &Client,
    cluster: &mut Cluster,
    link: &Arc<Link>,
    shown: &[Option<NodeTls>],
    services_suffix: &str,
) -> Result<Secured, Error> {
    let api: Api<ZueCluster> = Api::namespaced(client.clone(), &cluster.namespace);
    // As it is there now: what was watched may be of before the mode was written down.
    let found = within("read the ZueCluster", api.get(&cluster.name)).await?;
    if found.uid().as_ref() != Some(&cluster.uid) {
        return Err(Error::Unsecured("the ZueCluster was deleted".to_owned()));
    }
    // Pods of a cluster that is given up must not be made by what was so before.
    if found.recovery() != cluster.recovery {
        return Err(Error::Unsecured("status.recovery was changed meanwhile".to_owned()));
    }
    let mut events = Vec::new();
    let (mode, changed) = mode(client, &api, cluster, &found, shown).await?;
    cluster.tls_mode = mode;
    events.extend(changed);
    let is_moving = cluster.spec.tls.mode.is_some_and(|wished| wished != mode);
    let mut secured = Secured { mode, outcome: Ok(()), again: is_moving.then_some(AGAIN), events };
    let asked = found.annotations().get(ROTATE_ANNOTATION);
    if asked.is_some() {
        take_away(&api, &found).await?;
    }
    let rotate = asked.map(|text| rotate::allowed(rotate::parse(text)?, &cluster.spec.tls, mode));
    let rotate = rotate.transpose().unwrap_or_else(|why| {
        secured.events.push(ClusterEvent::warning("RotationRefused", why));
        None
    });
    let rotate = rotate.unwrap_or_default();
    if mode == TlsMode::Off {
        link.go_plain();
    } else {
        let input = Input { shown, rotate, services_suffix, now: SystemTime::now() };
        match identities::settle(client, cluster, link, input).await {
            Ok(settled) => {
                secured.again = secured.again.or(settled.again);
                let news = settled.news.into_iter();
                let note = |what| ClusterEvent::normal("CertificatesReplaced", format!("{what} was replaced"));
                secured.events.extend(news.map(note));
            }
            Err(failed) => {
                if rotate != Rotate::default() {
                    let note = format!("{ROTATE_ANNOTATION}: {failed}; ask again once that is fixed");
                    secured.events.push(ClusterEvent::warning("RotationRefused", note));
                }
                secured.outcome = Err(failed.to_string());
                // Whatever else is wrong, nodes that run are to be reached.
                if let Err(failed) = identities::listen(client, cluster, link, SystemTime::now()).await {
                    error!("{failed}");
                }
            }
        }
    }
    Ok(secured)
}

/// Removes the annotation before its request is carried out, so that a request made meanwhile is not lost. If it cannot be removed, or
/// has changed, nothing is carried out: a request that stays there would be repeated for ever.
async fn take_away(api: &Api<ZueCluster>, found: &ZueCluster) -> Result<(), Error> {
    let metadata = json!({ "resourceVersion": found.resource_version(), "annotations": { ROTATE_ANNOTATION: null } });
    let (patch, params) = (Patch::Merge(json!({ "metadata": metadata })), manager());
    within("take the annotation of the rotation away", api.patch(&found.name_any(), &params, &patch)).await.map(drop)
}

/// The mode that the cluster is in from now on; it is written down before anything is made by it.
async fn mode(
    client: &Client,
    api: &Api<ZueCluster>,
    cluster: &Cluster,
    found: &ZueCluster,
    shown: &[Option<NodeTls>],
) -> Result<(TlsMode, Option<ClusterEvent>), Error> {
    let written = found.status.as_ref().and_then(|status| status.tls_mode);
    let current = match written {
        Some(mode) => Some(mode),
        None => adopted(client, cluster, found).await?,
    };
    // One that refuses what came last cannot follow.
    let sound = |node: &Option<NodeTls>| node.as_ref().filter(|node| !node.has_problem).map(|node| node.mode);
    let nodes: Vec<Option<TlsMode>> = shown.iter().map(sound).collect();
    let next = plan::mode(cluster.spec.tls.mode, current, &nodes);
    if written == Some(next) {
        return Ok((next, None));
    }
    let patch = Patch::Merge(json!({ "status": { "tlsMode": next } }));
    within("write down the mode of TLS", api.patch_status(&cluster.name, &manager(), &patch)).await?;
    let changed = written.map(|before| {
        let note = format!("tls.mode goes from {} to {}", before.name(), next.name());
        ClusterEvent::normal("TlsModeChanged", note)
    });
    Ok((next, changed))
}

/// The mode of a cluster that was there before it was written down, by what runs of it; none of one that is being made.
async fn adopted(client: &Client, cluster: &Cluster, found: &ZueCluster) -> Result<Option<TlsMode>, Error> {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &cluster.namespace);
    let set = within("read the StatefulSet", sets.get_opt(&cluster.name)).await?;
    if let Some(set) = set {
        // What is another's, or of a ZueCluster that was deleted, says nothing of this one.
        owned::check(&set, cluster)?;
        if let Some(pod) = set.spec.and_then(|spec| spec.template.spec) {
            return Ok(Some(mode_of(&pod)));
        }
    }
    // Pods outlive a StatefulSet that was deleted without them.
    let pods: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
    let selector: Vec<String> = build::selector(cluster).iter().map(|(key, value)| format!("{key}={value}")).collect();
    let of_cluster = ListParams::default().labels(&selector.join(","));
    let is_left = |pod: &Pod| pod.owner_references().is_empty() && pod.metadata.deletion_timestamp.is_none();
    let mut left = within("list the pods", pods.list(&of_cluster)).await?.items.into_iter().filter(is_left);
    if let Some(pod) = left.find_map(|pod| pod.spec) {
        return Ok(Some(mode_of(&pod)));
    }
    // A closed cluster that has lost all else does not fall open.
    let ran_before = found.status.as_ref().is_some_and(|status| status.epoch.is_some());
    Ok((ran_before && !identities::exist(client, cluster).await?).then_some(TlsMode::Off))
}

/// In which mode a pod runs.
fn mode_of(pod: &PodSpec) -> TlsMode {
    let mut args = pod.containers.iter().flat_map(|container| container.args.iter().flatten());
    args.find_map(|arg| TlsMode::named(arg.strip_prefix(MODE_ARGUMENT)?)).unwrap_or(TlsMode::Off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::cluster;

    #[test]
    fn the_mode_of_pods_that_run_is_read_off_them() {
        let mut cluster = cluster("{}");
        for mode in [TlsMode::Off, TlsMode::Permissive, TlsMode::Required] {
            cluster.tls_mode = mode;
            let set = build::objects(&cluster).stateful_set;
            assert_eq!(mode_of(&set.spec.unwrap().template.spec.unwrap()), mode);
        }
    }
}
