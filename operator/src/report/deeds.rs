//! Does what a look at a cluster asks of the API server beside telling it: an annotation that is obeyed goes away, and pods of an old
//! revision are replaced. It does so beside the turns of the controller, which wait for none of it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, Patch, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::content::{Asked, Report, tell};
use crate::build::DATA_VOLUME;
use crate::cluster::Cluster;
use crate::crd::{ZueCluster, ZueClusterStatus};
use crate::kubernetes::{Error, WritePause, manager, within};
use crate::plan::event::ClusterEvent;
use crate::plan::recover::{RECOVER_ANNOTATION, Recover, Stage};
use crate::plan::replace::{self, REPLACE_ANNOTATION, Replace};
use crate::plan::rollout::{self, PodRevision};
use crate::plan::switchover::{SWITCHOVER_ANNOTATION, Switchover};
use crate::status::{RECOVERING, REPLACING};

pub(super) struct Deeds {
    client: Client,
    events: mpsc::Sender<ClusterEvent>,
    /// The pod that was deleted last, by uid: the watch may be behind.
    deleted: Option<String>,
    pause: WritePause,
}

impl Deeds {
    pub(super) fn new(client: Client, events: mpsc::Sender<ClusterEvent>) -> Self {
        Self { client, events, deleted: None, pause: WritePause::none() }
    }

    /// Does what the latest report asks for, each time the latest, until there are no more.
    pub(super) async fn run(mut self, mut latest: watch::Receiver<Option<Arc<Report>>>) {
        let newest = |latest: &mut watch::Receiver<Option<Arc<Report>>>| latest.borrow_and_update().clone();
        while latest.changed().await.is_ok() {
            if let Some(report) = newest(&mut latest) {
                self.obeyed(&report).await;
            }
            if let Some(report) = newest(&mut latest) {
                self.replace(&report).await;
            }
            if let Some(report) = newest(&mut latest) {
                self.recover(&report).await;
            }
            if let Some(report) = newest(&mut latest) {
                self.roll(&report).await;
            }
        }
    }

    /// Takes the annotation away once the replica leads, or if it never can.
    async fn obeyed(&mut self, Report { cluster, view, asked, .. }: &Report) {
        let Some((switchover, version)) = &asked.switchover else { return };
        let refused = match switchover {
            Switchover::To(ordinal)
                if view.leader.is_some() && view.leader == cluster.pods().get(*ordinal).cloned() =>
            {
                None
            }
            Switchover::To(_) => return,
            Switchover::Refused(why) => Some(why),
        };
        let is_taken = self.take_away(cluster, SWITCHOVER_ANNOTATION, version.as_deref()).await;
        if let (true, Some(why)) = (is_taken, refused) {
            tell(&self.events, ClusterEvent::warning("SwitchoverRefused", why.clone()));
        }
    }

    /// Takes an annotation away: of this version and no later one, since something else may be asked for by now.
    async fn take_away(&mut self, cluster: &Cluster, annotation: &str, version: Option<&str>) -> bool {
        if !self.pause.is_over() {
            return false;
        }
        let api: Api<ZueCluster> = Api::namespaced(self.client.clone(), &cluster.namespace);
        let metadata = json!({ "resourceVersion": version, "annotations": { annotation: null } });
        let (patch, params) = (Patch::Merge(json!({ "metadata": metadata })), manager());
        let patched = api.patch(&cluster.name, &params, &patch);
        match within(format!("take the annotation {annotation} away"), patched).await {
            Ok(_) => true,
            Err(error) if matches!(error.code(), Some(404 | 409)) => false,
            Err(error) => {
                self.pause.begin(&error);
                false
            }
        }
    }

    /// Deletes a replica with its volume, once the resource says what that means. The annotation goes first: it is not done twice.
    async fn replace(&mut self, Report { cluster, workload, found, asked, .. }: &Report) {
        let Some(replace) = &workload.given_up.replica else { return };
        let (version, shown) =
            found.as_ref().map_or((None, None), |(version, status)| (version.as_deref(), Some(status)));
        let pod = match replace {
            Replace::Refused(why) => {
                if self.take_away(cluster, REPLACE_ANNOTATION, version).await {
                    tell(&self.events, ClusterEvent::warning("ReplaceRefused", why.clone()));
                }
                return;
            }
            Replace::Pod(pod) => pod,
        };
        let meaning = replace::meaning(pod);
        if !shown.is_some_and(|status| says(status, REPLACING, &meaning)) || !asked.is_fresh() {
            return;
        }
        if !self.take_away(cluster, REPLACE_ANNOTATION, version).await {
            return;
        }
        let deleted = self.delete_with_volume(cluster, pod, asked).await;
        let event = match deleted {
            Ok(()) => ClusterEvent::warning("ReplicaReplaced", meaning),
            Err(error) => ClusterEvent::warning("ReplaceFailed", format!("{error}; ask again")),
        };
        tell(&self.events, event.about(pod));
    }

    /// The claim first: it stays until no pod uses it, and a new pod makes another.
    async fn delete_with_volume(&self, cluster: &Cluster, pod: &str, asked: &Asked) -> Result<(), Error> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &cluster.namespace);
        let claim = format!("{DATA_VOLUME}-{pod}");
        gone(within(format!("delete claim {claim}"), claims.delete(&claim, &DeleteParams::default())).await.map(drop))?;
        let Some(found) = asked.pods.iter().find(|found| found.name_any() == pod) else { return Ok(()) };
        let preconditions = Some(Preconditions { uid: found.uid(), resource_version: None });
        // One that was told to go and is still there may be on a machine that is not: nobody there confirms it.
        let now = found.metadata.deletion_timestamp.is_some().then_some(0);
        let params = DeleteParams { preconditions, grace_period_seconds: now, ..DeleteParams::default() };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &cluster.namespace);
        gone(within(format!("delete pod {pod}"), pods.delete(pod, &params)).await.map(drop))
    }

    /// Takes the next step for a log that goes on without the majority of its replicas. What was confirmed is written down once the
    /// resource says what it means; the annotation goes when that is so.
    async fn recover(&mut self, Report { cluster, workload, found, asked, .. }: &Report) {
        let Some((version, shown)) = found else { return };
        let version = version.as_deref();
        if let (Some(Recover::Refused(why)), None) = (&workload.given_up.majority, &cluster.recovery) {
            if self.take_away(cluster, RECOVER_ANNOTATION, version).await {
                tell(&self.events, ClusterEvent::warning("RecoverRefused", why.clone()));
            }
            return;
        }
        if cluster.recovery.is_some() && asked.recovers {
            self.take_away(cluster, RECOVER_ANNOTATION, version).await;
            return;
        }
        if !asked.is_fresh() {
            return;
        }
        if let Some(Recover::Confirmed(recovery, meaning)) = &workload.given_up.majority {
            if says(shown, RECOVERING, meaning)
                && self.write_down(cluster, version, json!({ "recovery": recovery })).await
            {
                let event = ClusterEvent::warning("MajorityGivenUp", meaning.clone()).about(&recovery.pod);
                tell(&self.events, event);
            }
            return;
        }
        let is_applied = cluster.recovery.is_some() && workload.given_up.applied == cluster.recovery;
        match (&workload.given_up.stage, &workload.pods.revision) {
            (Some(Stage::Detaching), Some(wanted)) if is_applied => self.detach(cluster, asked, wanted).await,
            (Some(Stage::Forgetting), _) => {
                self.write_down(cluster, version, json!({ "clusterId": null, "recordedLeader": null })).await;
            }
            _ => {}
        }
    }

    /// Has the survivor's pod made anew, if it is of before: its log leaves the cluster when it starts.
    async fn detach(&mut self, cluster: &Cluster, asked: &Asked, wanted: &str) {
        let is_before = |pod: &&Arc<Pod>| {
            let PodRevision { revision, leaving, .. } = PodRevision::of(pod, self.deleted.as_deref());
            !leaving && revision.as_deref() != Some(wanted) && cluster.pods().contains(&pod.name_any())
        };
        let Some(pod) = asked.pods.iter().find(is_before).filter(|_| self.pause.is_over()) else { return };
        let preconditions = Some(Preconditions { uid: pod.uid(), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &cluster.namespace);
        let name = pod.name_any();
        match gone(within(format!("restart pod {name}"), api.delete(&name, &params)).await.map(drop)) {
            Ok(()) => self.deleted = pod.uid(),
            Err(error) => self.pause.begin(&error),
        }
    }

    /// Writes into the status, of this version and no later one.
    async fn write_down(&mut self, cluster: &Cluster, version: Option<&str>, status: Value) -> bool {
        if !self.pause.is_over() {
            return false;
        }
        let api: Api<ZueCluster> = Api::namespaced(self.client.clone(), &cluster.namespace);
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": status }));
        match within("write down the recovery", api.patch_status(&cluster.name, &manager(), &patch)).await {
            Ok(_) => true,
            Err(error) if matches!(error.code(), Some(404 | 409)) => false,
            Err(error) => {
                self.pause.begin(&error);
                false
            }
        }
    }

    /// Replaces the next pod, if it is time.
    async fn roll(&mut self, Report { cluster, view, workload, asked, .. }: &Report) {
        let Some(wanted) = &workload.pods.revision else { return };
        let revisions: Vec<PodRevision> =
            asked.pods.iter().map(|pod| PodRevision::of(pod, self.deleted.as_deref())).collect();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &cluster.namespace);
        for name in rollout::next(view, wanted, &revisions, asked.may_go) {
            let uid = asked.pods.iter().find(|pod| pod.name_any() == name).and_then(|pod| pod.uid());
            if !asked.is_fresh() || !self.pause.is_over() {
                break;
            }
            // This pod and no other of its name: what is known of it may be old.
            let preconditions = Some(Preconditions { uid: uid.clone(), resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match within(format!("replace pod {name}"), api.delete(&name, &params)).await {
                Ok(_) => {
                    self.deleted = uid;
                    let note = format!("{name} is replaced by one of the new revision");
                    tell(&self.events, ClusterEvent::normal("PodReplaced", note).about(&name));
                }
                Err(error) if matches!(error.code(), Some(404 | 409)) => {}
                Err(error) => self.pause.begin(&error),
            }
        }
    }
}

/// Tells whether a condition of the resource says just that.
fn says(status: &ZueClusterStatus, type_: &str, message: &str) -> bool {
    let is_so = |one: &Condition| one.type_ == type_ && one.status != "Unknown" && one.message == message;
    status.conditions.iter().any(is_so)
}

/// Takes one that is gone already for deleted.
fn gone(deleted: Result<(), Error>) -> Result<(), Error> {
    deleted.or_else(|error| if matches!(error.code(), Some(404 | 409)) { Ok(()) } else { Err(error) })
}
