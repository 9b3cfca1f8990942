//! Takes care of one cluster: one task that looks at its nodes a few times a second, does what the control logic says, and hands
//! in what it sees to be told. While another operator acts it only listens to them. It ends when the resource is gone.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;
use tracing::error;
use zue_controller::{Controller, Event, NodeAddress, Patience, Peers, Turn};
use zue_core::control::Blocked;
use zue_tls::Dial;

use crate::budget::Budget;
use crate::build::INSTANCE_LABEL;
use crate::cluster::Cluster;
use crate::crd::ZueClusterStatus;
use crate::deeds::{self, Asked};
use crate::events::Happening;
use crate::identities::plan::Shown;
use crate::isr::IsrTracker;
use crate::metrics::{Key, Metrics, Sample};
use crate::reporter::{self, Desk, Report};
use crate::rollout::{self, PodRevision};
use crate::status::{self, Workload};
use crate::store::{StatusStore, recorded};
use crate::switchover::{self, SWITCHOVER_ANNOTATION, Switchover};
use crate::view::{self, Seen, View};
use crate::watched::{Clusters, Guarded};

/// How long to wait after a fault of the program.
const BEGIN_ANEW_PAUSE: Duration = Duration::from_secs(1);

/// How often one that only listens looks whether there are other nodes to listen to.
const LISTEN_INTERVAL: Duration = Duration::from_millis(500);

/// What every caretaker uses.
#[derive(Clone)]
pub struct Shared {
    /// The way to the API server.
    pub client: Client,
    /// The resources, as watched.
    pub clusters: Clusters,
    /// The nodes' pods, as watched.
    pub pods: Store<Pod>,
    /// Whether this operator is the one that acts.
    pub acts: watch::Receiver<bool>,
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

impl Shared {
    /// The resource as it is now; none once it is gone, though another may bear its name.
    fn resource_of(&self, cluster: &Cluster) -> Option<Arc<Guarded>> {
        let found = self.clusters.get(&ObjectRef::new(&cluster.name).within(&cluster.namespace))?;
        Some(found).filter(|found| found.uid().as_ref() == Some(&cluster.uid))
    }

    fn pods_of(&self, cluster: &Cluster) -> Vec<Arc<Pod>> {
        let is_its = |pod: &Arc<Pod>| {
            let of_cluster = pod.labels().get(INSTANCE_LABEL) == Some(&cluster.name);
            of_cluster && pod.namespace().as_ref() == Some(&cluster.namespace)
        };
        self.pods.state().into_iter().filter(is_its).collect()
    }

    fn addresses_of(&self, cluster: &Cluster) -> Vec<NodeAddress> {
        let pods = self.pods_of(cluster);
        cluster.addresses(&self.services_suffix, |name| ip_of(&pods, name))
    }

    /// The cluster as its resource says now. One that makes no sense any more leaves the cluster as it was; the reconciliation says so.
    fn renewed(&self, cluster: Cluster, found: &Guarded) -> Cluster {
        let Ok(resource) = &found.0 else { return cluster };
        let is_known = resource.metadata.generation == cluster.generation;
        let newer = (!is_known).then(|| Cluster::new(resource, &self.default_image).ok()).flatten();
        newer.unwrap_or(cluster)
    }
}

/// How the nodes are reached: by what is told last.
pub type Dials = watch::Receiver<Dial>;

/// Takes care of a cluster until its resource is gone. A fault of the program on the way must not leave the cluster without anybody who
/// replaces its leader: then it begins anew, from the status as it is.
pub async fn take_care_whatever_happens(shared: Shared, cluster: Cluster, workload: SharedWorkload, dials: Dials) {
    loop {
        let caring = take_care(shared.clone(), cluster.clone(), Arc::clone(&workload), dials.clone());
        if AssertUnwindSafe(caring).catch_unwind().await.is_ok() {
            return;
        }
        error!("the care for this cluster panicked, a fault of this program: it begins anew");
        tokio::time::sleep(BEGIN_ANEW_PAUSE).await;
    }
}

/// Takes care of a cluster until its resource is gone: whenever this operator acts, with what it has heard of the nodes before.
async fn take_care(shared: Shared, mut cluster: Cluster, workload: SharedWorkload, mut dials: Dials) {
    let mut peers = Peers::new(dials.borrow_and_update().clone());
    let key = (cluster.namespace.clone(), cluster.name.clone());
    while let Some((found, before)) = Box::pin(listen(&shared, (&mut peers, &mut dials), cluster)).await {
        cluster = found;
        if let Ok(mut known) = workload.lock() {
            known.pods = known.pods.or_else(|| before.replicas.and_then(|pods| i32::try_from(pods).ok()));
        }
        let store = StatusStore::knowing(shared.client.clone(), &cluster, recorded(Some(&before)).ok());
        let by = format!("operator {}", shared.instance);
        let mut controller = Controller::new(store, by, Patience::default()).having_heard(peers);
        let (caretaker, reporting) = Caretaker::new(
            shared.clone(),
            cluster.clone(),
            before,
            (Arc::clone(&workload), &mut dials),
            &mut controller,
        );
        let mut acts = shared.acts.clone();
        let is_gone = tokio::select! {
            _ = join(Box::pin(caretaker.run()), Box::pin(reporting)) => true,
            ended = acts.wait_for(|acts| !acts) => ended.is_err(),
        };
        shared.metrics.forget(&key);
        if is_gone {
            return;
        }
        // Another operator applies the objects from now on.
        *workload.lock().unwrap_or_else(PoisonError::into_inner) = Workload::default();
        peers = controller.into_peers();
    }
}

/// Listens to the nodes until this operator acts, and does nothing else. The cluster and its status as they are then; none if it is gone.
async fn listen(
    shared: &Shared,
    (peers, dials): (&mut Peers, &mut Dials),
    mut cluster: Cluster,
) -> Option<(Cluster, ZueClusterStatus)> {
    let mut acts = shared.acts.clone();
    loop {
        if let Some(dial) = newest(dials) {
            peers.redial(dial);
        }
        let found = shared.resource_of(&cluster)?;
        cluster = shared.renewed(cluster, &found);
        let status = found.0.as_ref().ok().and_then(|found| found.status.clone()).unwrap_or_default();
        if *acts.borrow_and_update() {
            return Some((cluster, status));
        }
        cluster = cluster.around(status.replicas.and_then(|pods| i32::try_from(pods).ok()));
        peers.keep(&shared.addresses_of(&cluster), cluster.wish().detection_ms);
        if let Ok(Err(_)) = tokio::time::timeout(LISTEN_INTERVAL, acts.changed()).await {
            return None;
        }
    }
}

/// One cluster's caretaker, while this operator acts.
struct Caretaker<'a> {
    shared: Shared,
    cluster: Cluster,
    controller: &'a mut Controller<StatusStore>,
    workload: SharedWorkload,
    dials: &'a mut Dials,
    desk: Desk,
    isr: IsrTracker,
    budget: Budget,
    rolling: bool,
    /// Who is to lead, by annotation; and the resource's version with it.
    asked: Option<String>,
    version: Option<String>,
}

impl<'a> Caretaker<'a> {
    /// A caretaker that goes on from the status it finds, and who tells what it sees.
    fn new(
        shared: Shared,
        cluster: Cluster,
        before: ZueClusterStatus,
        (workload, dials): (SharedWorkload, &'a mut Dials),
        controller: &'a mut Controller<StatusStore>,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let isr = IsrTracker::new(before.isr.clone());
        let told = Arc::clone(&workload);
        let (desk, reporting) = reporter::open(&shared.client, &cluster, &shared.instance, before, told);
        let caretaker = Self {
            shared,
            cluster,
            controller,
            workload,
            dials,
            desk,
            isr,
            budget: Budget::default(),
            rolling: false,
            asked: None,
            version: None,
        };
        (caretaker, reporting)
    }

    /// Looks again and again until the resource is gone.
    async fn run(mut self) {
        while self.refresh() {
            self.look().await;
            self.controller.rest().await;
        }
    }

    fn key(&self) -> Key {
        (self.cluster.namespace.clone(), self.cluster.name.clone())
    }

    /// Takes over what the resource says now; false if it is gone.
    fn refresh(&mut self) -> bool {
        let Some(found) = self.shared.resource_of(&self.cluster) else { return false };
        if let Ok(resource) = &found.0 {
            self.asked = resource.annotations().get(SWITCHOVER_ANNOTATION).cloned();
            self.version = resource.resource_version();
        }
        self.cluster = self.shared.renewed(self.cluster.clone(), &found);
        true
    }

    async fn look(&mut self) {
        let known = self.workload.lock().unwrap_or_else(PoisonError::into_inner).pods;
        self.cluster = self.cluster.clone().around(known);
        if let Some(dial) = newest(self.dials) {
            self.controller.redial(dial);
        }
        let addresses = self.shared.addresses_of(&self.cluster);
        let asked = switchover::asked(&self.cluster, self.asked.as_deref());
        let mut wish = self.cluster.wish();
        wish.switch_to = if let Some(Switchover::To(ordinal)) = asked { Some(ordinal) } else { None };
        let turn = self.controller.turn(&addresses, &wish).await;
        let pods = self.shared.pods_of(&self.cluster);
        let seen =
            Seen { nodes: &turn.nodes, epoch: turn.recorded.epoch.0, step: &turn.step, isr_before: self.isr.isr() };
        let view = view::view(&self.cluster, seen, &pods);
        let may_evict = self.budget.look(&view, Instant::now());
        {
            let mut workload = self.workload.lock().unwrap_or_else(PoisonError::into_inner);
            workload.may_evict = may_evict;
            workload.shown = turn.nodes.iter().map(|node| node.as_ref().ok().map(Shown::of)).collect();
        }
        let happenings = self.take_note(&turn, &view);
        for happening in happenings {
            self.desk.tell(happening);
        }
        let workload = self.progress(&view, &pods);
        let Workload { stale_pods, is_growth_refused, .. } = workload;
        let facts = status::facts(&self.cluster, &view, &workload);
        self.shared.metrics.saw(&self.key(), Sample { view: view.clone(), facts, stale_pods, is_growth_refused });
        // Until the objects are applied, what is known of them is another operator's.
        if workload.generation.is_some() {
            let switchover = asked.map(|asked| (asked, self.version.clone()));
            let asked = Asked { seen_at: Instant::now(), switchover, known, needed: turn.needed, pods };
            self.desk.report(Report { cluster: self.cluster.clone(), view, workload, recorded: turn.recorded, asked });
        }
    }

    /// Puts what happened into words.
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
                Event::LeaderElected { leader, .. } => happening.about(leader),
                Event::HandedOver { to, .. } => happening.about(to),
                _ => happening,
            });
        }
        let change = self.isr.see(view.isr());
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

    /// How far the replacement of pods has come, beside what reconciliations have left.
    fn progress(&mut self, view: &View, pods: &[Arc<Pod>]) -> Workload {
        let mut workload = self.workload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(wanted) = &workload.revision else { return workload };
        let revisions: Vec<PodRevision> = pods.iter().map(|pod| deeds::revision(pod, None)).collect();
        workload.stale_pods = rollout::remaining(wanted, &revisions);
        if workload.stale_pods > 0 && !self.rolling {
            let note = format!("{} pods are replaced one by one, the leader last", workload.stale_pods);
            self.desk.tell(Happening::normal("RolloutStarted", note));
            self.rolling = true;
        } else if self.rolling && workload.stale_pods == 0 && view.ready() == view.size() {
            self.desk.tell(Happening::normal("RolloutCompleted", "all pods are ready and up to date"));
            self.rolling = false;
        }
        workload
    }
}

/// How the nodes are reached, where that is told anew.
fn newest(dials: &mut Dials) -> Option<Dial> {
    dials.has_changed().unwrap_or_default().then(|| dials.borrow_and_update().clone())
}

/// The IP of a pod, also of one on its way out: if it leads, it is to hand over before it goes.
fn ip_of(pods: &[Arc<Pod>], name: &str) -> Option<IpAddr> {
    let pod = pods.iter().find(|pod| pod.name_any() == name)?;
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}
