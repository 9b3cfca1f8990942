//! Does what a look at a cluster asks of the API server beside telling it: an annotation that is obeyed goes away, pods that have no say
//! are let go, and those of an old revision are replaced. It does so beside the turns of the controller, which wait for none of it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::caretaker::SharedWorkload;
use crate::crd::ZueCluster;
use crate::events::Happening;
use crate::kubernetes::{WritePause, within};
use crate::reporter::{Report, manager, tell};
use crate::rollout::{self, PodRevision};
use crate::switchover::{SWITCHOVER_ANNOTATION, Switchover};

/// What was seen longer ago takes no pod away: a call to the API server, or a turn, may have lasted.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// What a look asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When the look ended.
    pub seen_at: Instant,
    /// Who is to lead, by annotation, and the resource's version with it.
    pub switchover: Option<(Switchover, Option<String>)>,
    /// How many pods there were when it began, as far as that is known.
    pub known: Option<i32>,
    /// How many of them have to run, the first ones.
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
        if !self.pause.is_over() {
            return;
        }
        let api: Api<ZueCluster> = Api::namespaced(self.client.clone(), &cluster.namespace);
        // This version and no later one: another pod may be named by now.
        let metadata = json!({ "resourceVersion": version, "annotations": { SWITCHOVER_ANNOTATION: null } });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let params = manager();
        let patched = api.patch(&cluster.name, &params, &patch);
        match within("take the annotation of the switchover away", patched).await {
            Ok(_) => {
                if let Some(why) = refused {
                    tell(&self.happenings, Happening::warning("SwitchoverRefused", why.clone()));
                }
            }
            Err(error) if matches!(error.code(), Some(404 | 409)) => {}
            Err(error) => self.pause.begin(&error),
        }
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
                let note = format!("{pods} pods become {needed}; the volumes of the others stay");
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
        for name in rollout::next(view, wanted, &revisions) {
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

/// Which revision a pod is of, where that one was deleted last.
pub(crate) fn revision(pod: &Pod, deleted: Option<&str>) -> PodRevision {
    PodRevision {
        pod: pod.name_any(),
        revision: pod.labels().get("controller-revision-hash").cloned(),
        leaving: pod.metadata.deletion_timestamp.is_some()
            || (deleted.is_some() && pod.metadata.uid.as_deref() == deleted),
    }
}
