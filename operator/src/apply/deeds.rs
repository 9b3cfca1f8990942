//! Does what a look at a cluster asks of the API server beside telling it: an annotation that is obeyed goes away, pods that have no say
//! are let go, and those of an old revision are replaced. It does so beside the turns of the controller, which wait for none of it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, Patch, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::build::DATA_VOLUME;
use crate::caretaker::SharedWorkload;
use crate::cluster::Cluster;
use crate::crd::{ZueCluster, ZueClusterStatus};
use crate::events::Happening;
use crate::kubernetes::{Error, WritePause, within};
use crate::replace::{self, REPLACE_ANNOTATION, Replace};
use crate::reporter::{Report, manager, tell};
use crate::rollout::{self, PodRevision};
use crate::status::REPLACING;
use crate::switchover::{SWITCHOVER_ANNOTATION, Switchover};

/// The age beyond which a look takes no pod away: a call to the API server, or a turn, may have lasted.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// The deeds that a look asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When the look ended.
    pub seen_at: Instant,
    /// The replica that is to lead, by annotation, and the resource's version with it.
    pub switchover: Option<(Switchover, Option<String>)>,
    /// True if the leader's pod may be deleted while it leads: it cannot hand over, or was waited for in vain.
    pub may_go: bool,
    /// The number of pods when it began, as far as that is known.
    pub known: Option<i32>,
    /// The number of them that have to run, the first ones.
    pub needed: usize,
    /// The cluster's pods.
    pub pods: Vec<Arc<Pod>>,
}

impl Asked {
    fn is_fresh(&self) -> bool {
        self.seen_at.elapsed() < FRESH_FOR
    }
}

pub(crate) struct Deeds {
    client: Client,
    workload: SharedWorkload,
    happenings: mpsc::Sender<Happening>,
    /// The pod that was deleted last, by uid: the watch may be behind.
    deleted: Option<String>,
    pause: WritePause,
}

impl Deeds {
    pub(crate) fn new(client: Client, workload: SharedWorkload, happenings: mpsc::Sender<Happening>) -> Self {
        Self { client, workload, happenings, deleted: None, pause: WritePause::none() }
    }

    /// Does what the latest report asks for, each time the latest, until there are no more.
    pub(crate) async fn run(mut self, mut latest: watch::Receiver<Option<Report>>) {
        let newest = |latest: &mut watch::Receiver<Option<Report>>| latest.borrow_and_update().clone();
        while latest.changed().await.is_ok() {
            if let Some(report) = newest(&mut latest) {
                self.obeyed(&report).await;
            }
            if let Some(report) = newest(&mut latest) {
                self.replace(&report).await;
            }
            if let Some(report) = newest(&mut latest) {
                self.shrink(&report).await;
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
            tell(&self.happenings, Happening::warning("SwitchoverRefused", why.clone()));
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
        let Some(replace) = &workload.replace else { return };
        let (version, shown) =
            found.as_ref().map_or((None, None), |(version, status)| (version.as_deref(), Some(status)));
        let pod = match replace {
            Replace::Refused(why) => {
                if self.take_away(cluster, REPLACE_ANNOTATION, version).await {
                    tell(&self.happenings, Happening::warning("ReplaceRefused", why.clone()));
                }
                return;
            }
            Replace::Pod(pod) => pod,
        };
        let meaning = replace::meaning(pod);
        let is_said = |status: &ZueClusterStatus| {
            let said = |one: &Condition| one.type_ == REPLACING && one.status == "True" && one.message == meaning;
            status.conditions.iter().any(said)
        };
        if !shown.is_some_and(is_said) || !asked.is_fresh() {
            return;
        }
        if !self.take_away(cluster, REPLACE_ANNOTATION, version).await {
            return;
        }
        let deleted = self.delete_with_volume(cluster, pod, asked).await;
        let happening = match deleted {
            Ok(()) => Happening::warning("ReplicaReplaced", meaning),
            Err(error) => Happening::warning("ReplaceFailed", format!("{error}; ask again")),
        };
        tell(&self.happenings, happening.about(pod));
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

    /// Lets the last pods go, once their replicas have no say any more. Their volumes stay.
    async fn shrink(&mut self, Report { cluster, asked, .. }: &Report) {
        let (Some(pods), Ok(needed)) = (asked.known, i32::try_from(asked.needed)) else { return };
        // A reconciliation, or this task, may have changed it since.
        let is_so = self.workload.lock().unwrap_or_else(PoisonError::into_inner).pods == asked.known;
        if needed >= pods || !is_so || !asked.is_fresh() || !self.pause.is_over() {
            return;
        }
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &cluster.namespace);
        let patch = Patch::Merge(json!({ "spec": { "replicas": needed } }));
        match within("let the last pods go", api.patch(&cluster.name, &manager(), &patch)).await {
            Ok(_) => {
                self.workload.lock().unwrap_or_else(PoisonError::into_inner).pods = Some(needed);
                let note = format!("scaling from {pods} to {needed} pods; the volumes of the others stay");
                tell(&self.happenings, Happening::normal("ScaledDown", note));
            }
            Err(error) => self.pause.begin(&error),
        }
    }

    /// Replaces the next pod, if it is time.
    async fn roll(&mut self, Report { cluster, view, workload, asked, .. }: &Report) {
        let Some(wanted) = &workload.revision else { return };
        let revisions: Vec<PodRevision> = asked.pods.iter().map(|pod| revision(pod, self.deleted.as_deref())).collect();
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
                    tell(&self.happenings, Happening::normal("PodReplaced", note).about(&name));
                }
                Err(error) if matches!(error.code(), Some(404 | 409)) => {}
                Err(error) => self.pause.begin(&error),
            }
        }
    }
}

/// Takes one that is gone already for deleted.
fn gone(deleted: Result<(), Error>) -> Result<(), Error> {
    deleted.or_else(|error| if matches!(error.code(), Some(404 | 409)) { Ok(()) } else { Err(error) })
}

/// The revision of a pod, where that one was deleted last.
pub(crate) fn revision(pod: &Pod, deleted: Option<&str>) -> PodRevision {
    PodRevision {
        pod: pod.name_any(),
        revision: pod.labels().get("controller-revision-hash").cloned(),
        leaving: pod.metadata.deletion_timestamp.is_some()
            || (deleted.is_some() && pod.metadata.uid.as_deref() == deleted),
    }
}
