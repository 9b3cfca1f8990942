//! Takes care of one cluster: one task that looks at its nodes a few times a second, does what the control logic says, and hands
//! in what it sees to be told. It ends when the resource is gone.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, Preconditions};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tracing::error;
use zue_controller::{Controller, Event, Patience, Turn};
use zue_core::control::Blocked;

use crate::budget::Budget;
use crate::build::INSTANCE_LABEL;
use crate::cluster::Cluster;
use crate::crd::{ZueCluster, ZueClusterStatus};
use crate::events::Happening;
use crate::isr::IsrTracker;
use crate::kubernetes::within;
use crate::metrics::{Counts, Key, Metrics, unplanned};
use crate::reporter::{self, Desk, REFUSED_PAUSE, Report, manager};
use crate::rollout::{self, PodRevision};
use crate::status::Workload;
use crate::store::StatusStore;
use crate::switchover::{self, SWITCHOVER_ANNOTATION, Switchover};
use crate::view::{self, Seen, View};
use crate::watched::Clusters;

/// How long to wait after a fault of the program.
const BEGIN_ANEW_PAUSE: Duration = Duration::from_secs(1);

/// What every caretaker uses.
#[derive(Clone)]
pub struct Shared {
    /// The way to the API server.
    pub client: Client,
    /// The resources, as watched.
    pub clusters: Clusters,
    /// The nodes' pods, as watched.
    pub pods: Store<Pod>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// The image of clusters that name none.
    pub default_image: Arc<str>,
    /// The name of the operator's own pod.
    pub instance: Arc<str>,
    /// What follows the name of a Service in full, from a dot on.
    pub services_suffix: Arc<str>,
}

/// What reconciliations leave behind for the caretaker.
pub type SharedWorkload = Arc<Mutex<Workload>>;

/// Takes care of a cluster until its resource is gone. A fault of the program on the way must not leave the cluster without anybody who
/// replaces its leader: then it begins anew, from the status as it is.
pub async fn take_care_whatever_happens(
    shared: Shared,
    cluster: Cluster,
    mut before: ZueClusterStatus,
    workload: SharedWorkload,
) {
    let key = ObjectRef::new(&cluster.name).within(&cluster.namespace);
    loop {
        let caring = take_care(shared.clone(), cluster.clone(), before.clone(), Arc::clone(&workload));
        if AssertUnwindSafe(caring).catch_unwind().await.is_ok() {
            return;
        }
        error!("the care for this cluster panicked, a fault of this program: it begins anew");
        tokio::time::sleep(BEGIN_ANEW_PAUSE).await;
        let found = shared.clusters.get(&key);
        before = found.and_then(|found| found.0.as_ref().ok()?.status.clone()).unwrap_or(before);
    }
}

/// Takes care of a cluster until its resource is gone. `before` is the status as it was found.
async fn take_care(shared: Shared, cluster: Cluster, before: ZueClusterStatus, workload: SharedWorkload) {
    let (caretaker, reporting) = Caretaker::new(shared, cluster, before, workload);
    join(Box::pin(caretaker.run()), Box::pin(reporting)).await;
}

/// One cluster's caretaker.
struct Caretaker {
    shared: Shared,
    cluster: Cluster,
    controller: Controller<StatusStore>,
    workload: SharedWorkload,
    desk: Desk,
    isr: IsrTracker,
    counts: Counts,
    budget: Budget,
    rolling: bool,
    /// Who is to lead, by annotation; and the resource's version with it.
    asked: Option<String>,
    version: Option<String>,
    /// The pod that was deleted last, by uid: the watch may be behind.
    deleted: Option<String>,
    /// Nothing is written to the API server before this.
    quiet_until: Instant,
}

impl Caretaker {
    /// A caretaker that goes on from the status it finds, and who tells what it sees.
    fn new(
        shared: Shared,
        cluster: Cluster,
        before: ZueClusterStatus,
        workload: SharedWorkload,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let isr = IsrTracker::new(before.isr.clone());
        let told = Arc::clone(&workload);
        let (desk, reporting) = reporter::open(&shared.client, &cluster, &shared.instance, before, told);
        let store = StatusStore::new(shared.client.clone(), &cluster);
        let by = format!("operator {}", shared.instance);
        let caretaker = Self {
            controller: Controller::new(store, by, Patience::default()),
            desk,
            isr,
            counts: Counts::default(),
            budget: Budget::default(),
            rolling: false,
            asked: None,
            version: None,
            deleted: None,
            quiet_until: Instant::now(),
            shared,
            cluster,
            workload,
        };
        (caretaker, reporting)
    }

    /// Looks again and again until the resource is gone.
    async fn run(mut self) {
        let key = self.key();
        while self.refresh() {
            self.look().await;
            self.controller.rest().await;
        }
        self.shared.metrics.forget(&key);
    }

    fn key(&self) -> Key {
        (self.cluster.namespace.clone(), self.cluster.name.clone())
    }

    /// Takes over what the resource says now; false if it is gone.
    fn refresh(&mut self) -> bool {
        let key = ObjectRef::new(&self.cluster.name).within(&self.cluster.namespace);
        let Some(found) = self.shared.clusters.get(&key) else { return false };
        if found.uid().as_ref() != Some(&self.cluster.uid) {
            return false;
        }
        if let Ok(resource) = &found.0 {
            self.asked = resource.annotations().get(SWITCHOVER_ANNOTATION).cloned();
            self.version = resource.resource_version();
        }
        // A resource that makes no sense any more leaves the cluster as it was; the reconciliation says so.
        if let Ok(resource) = &found.0
            && resource.metadata.generation != self.cluster.generation
            && let Ok(cluster) = Cluster::new(resource, &self.shared.default_image)
        {
            self.cluster = cluster;
        }
        true
    }

    async fn look(&mut self) {
        let pods_known = self.workload.lock().unwrap_or_else(PoisonError::into_inner).pods;
        self.cluster = self.cluster.clone().around(pods_known);
        let addresses = self.cluster.addresses(&self.shared.services_suffix, |name| ip_of(&self.pods(), name));
        let asked = switchover::asked(&self.cluster, self.asked.as_deref());
        let mut wish = self.cluster.wish();
        wish.switch_to = if let Some(Switchover::To(ordinal)) = asked { Some(ordinal) } else { None };
        let turn = self.controller.turn(&addresses, &wish).await;
        let pods = self.pods();
        let seen =
            Seen { nodes: &turn.nodes, epoch: turn.recorded.epoch.0, step: &turn.step, isr_before: self.isr.isr() };
        let view = view::view(&self.cluster, seen, &pods);
        let may_evict = self.budget.look(&view, Instant::now());
        self.workload.lock().unwrap_or_else(PoisonError::into_inner).may_evict = may_evict;
        let happenings = self.take_note(&turn, &view);
        self.shared.metrics.saw(&self.key(), view.clone(), self.counts.clone());
        for happening in happenings {
            self.desk.tell(happening);
        }
        if let Some(asked) = asked {
            self.obeyed(&asked, &view).await;
        }
        self.shrink(pods_known, turn.needed).await;
        let workload = self.roll(&view, &pods).await;
        self.desk.report(Report { cluster: self.cluster.clone(), view, workload, recorded: turn.recorded });
    }

    /// Takes the annotation away once the replica leads, or if it never can.
    async fn obeyed(&mut self, asked: &Switchover, view: &View) {
        let refused = match asked {
            Switchover::To(ordinal)
                if view.leader.is_some() && view.leader == self.cluster.pods().get(*ordinal).cloned() =>
            {
                None
            }
            Switchover::To(_) => return,
            Switchover::Refused(why) => Some(why),
        };
        if !self.may_write() {
            return;
        }
        let api: Api<ZueCluster> = Api::namespaced(self.shared.client.clone(), &self.cluster.namespace);
        // This version and no later one: another pod may be named by now.
        let metadata = json!({ "resourceVersion": self.version, "annotations": { SWITCHOVER_ANNOTATION: null } });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let params = manager();
        let patched = api.patch(&self.cluster.name, &params, &patch);
        match within("take the annotation of the switchover away", patched).await {
            Ok(_) => {
                self.asked = None;
                if let Some(why) = refused {
                    self.desk.tell(Happening::warning("SwitchoverRefused", why.clone()));
                }
            }
            Err(error) if matches!(error.code(), Some(404 | 409)) => {}
            Err(error) => self.refused(&error),
        }
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        let is_ours = |pod: &Arc<Pod>| {
            let of_cluster = pod.labels().get(INSTANCE_LABEL) == Some(&self.cluster.name);
            of_cluster && pod.namespace().as_ref() == Some(&self.cluster.namespace)
        };
        self.shared.pods.state().into_iter().filter(is_ours).collect()
    }

    /// Counts what happened, and puts it into words.
    fn take_note(&mut self, turn: &Turn, view: &View) -> Vec<Happening> {
        let mut happenings: Vec<Happening> = Vec::new();
        for event in &turn.events {
            let of = if event.is_warning() { Happening::warning } else { Happening::normal };
            let reason = match event {
                Event::Blocked(Blocked::WaitingForReplicas { .. }) => "WaitingForReplicas",
                event => event.name(),
            };
            let happening = of(reason, event.to_string());
            happenings.push(match event {
                Event::LeaderElected { leader, reason, .. } => {
                    if let Some(reason) = unplanned(*reason) {
                        *self.counts.failovers.entry(reason).or_default() += 1;
                    }
                    happening.about(leader)
                }
                Event::HandedOver { to, .. } => {
                    self.counts.switchovers += 1;
                    happening.about(to)
                }
                _ => happening,
            });
        }
        let change = self.isr.see(view.isr());
        (self.counts.isr_shrinks, self.counts.isr_expands) = (self.isr.shrinks, self.isr.expands);
        let size = view.isr_size();
        happenings.extend(change.left.iter().map(|pod| {
            Happening::warning("ReplicaLeftISR", format!("{pod} fell out of sync; {size} replicas are in sync"))
                .about(pod)
        }));
        happenings.extend(change.joined.iter().map(|pod| {
            Happening::normal("ReplicaJoinedISR", format!("{pod} is in sync; {size} replicas are in sync")).about(pod)
        }));
        happenings
    }

    /// Lets the last pods go, once their replicas have no say any more. Their volumes stay.
    async fn shrink(&mut self, known: Option<i32>, needed: usize) {
        let (Some(pods), Ok(needed)) = (known, i32::try_from(needed)) else { return };
        if needed >= pods || !self.may_write() {
            return;
        }
        let api: Api<StatefulSet> = Api::namespaced(self.shared.client.clone(), &self.cluster.namespace);
        let patch = Patch::Merge(json!({ "spec": { "replicas": needed } }));
        match within("let the last pods go", api.patch(&self.cluster.name, &manager(), &patch)).await {
            Ok(_) => {
                self.workload.lock().unwrap_or_else(PoisonError::into_inner).pods = Some(needed);
                let note = format!("{pods} pods become {needed}; the volumes of the others stay");
                self.desk.tell(Happening::normal("ScaledDown", note));
            }
            Err(error) => self.refused(&error),
        }
    }

    /// Replaces the next pod, if it is time, and says how far that has come.
    async fn roll(&mut self, view: &View, pods: &[Arc<Pod>]) -> Workload {
        let mut workload = self.workload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(wanted) = workload.revision.clone() else { return workload };
        let revisions: Vec<PodRevision> = pods.iter().map(|pod| revision(pod, self.deleted.as_deref())).collect();
        workload.stale_pods = rollout::remaining(&wanted, &revisions);
        if workload.stale_pods > 0 && !self.rolling {
            let note = format!("{} pods are replaced one by one, the leader last", workload.stale_pods);
            self.desk.tell(Happening::normal("RolloutStarted", note));
            self.rolling = true;
        } else if self.rolling && workload.stale_pods == 0 && view.ready() == view.size() {
            self.desk.tell(Happening::normal("RolloutCompleted", "all pods are ready and up to date"));
            self.rolling = false;
        }
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &self.cluster.namespace);
        for name in rollout::next(view, &wanted, &revisions) {
            let uid = pods.iter().find(|pod| pod.name_any() == name).and_then(|pod| pod.uid());
            if !self.may_write() {
                break;
            }
            // This pod and no other of its name: what is known of it may be old.
            let preconditions = Some(Preconditions { uid: uid.clone(), resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match within(format!("replace pod {name}"), api.delete(&name, &params)).await {
                Ok(_) => {
                    self.deleted = uid;
                    let note = format!("{name} is replaced by one of the new revision");
                    self.desk.tell(Happening::normal("PodReplaced", note).about(&name));
                }
                Err(error) if matches!(error.code(), Some(404 | 409)) => {}
                Err(error) => self.refused(&error),
            }
        }
        workload
    }

    fn may_write(&self) -> bool {
        Instant::now() >= self.quiet_until
    }

    fn refused(&mut self, error: &crate::kubernetes::Error) {
        error!("{error}");
        self.quiet_until = Instant::now() + REFUSED_PAUSE;
    }
}

fn revision(pod: &Pod, deleted: Option<&str>) -> PodRevision {
    PodRevision {
        pod: pod.name_any(),
        revision: pod.labels().get("controller-revision-hash").cloned(),
        leaving: pod.metadata.deletion_timestamp.is_some()
            || (deleted.is_some() && pod.metadata.uid.as_deref() == deleted),
    }
}

/// The IP of a pod, also of one on its way out: if it leads, it is to hand over before it goes.
fn ip_of(pods: &[Arc<Pod>], name: &str) -> Option<IpAddr> {
    let pod = pods.iter().find(|pod| pod.name_any() == name)?;
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}
