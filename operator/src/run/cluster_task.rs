//! Takes care of one cluster: one task that looks at its nodes a few times a second, does what the control logic says, and hands
//! in what it sees to be told. While another operator acts it only listens to them. It ends when the resource is gone.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::watch;
use tracing::error;
use zue_controller::{Controller, Event, Patience, Peers, Turn};
use zue_core::control::{Blocked, Policy};
use zue_tls::Dial;

use crate::cluster::{self, Cluster};
use crate::crd::status::Recovery;
use crate::crd::{ZueCluster, ZueClusterStatus};
use crate::identities::plan::NodeTls;
use crate::kubernetes::store::{StatusStore, recorded};
use crate::metrics::Sample;
use crate::observe::isr::IsrTracker;
use crate::observe::view::{self, ClusterView, Observed};
use crate::observe::watched::Guarded;
use crate::plan::budget::Budget;
use crate::plan::event::ClusterEvent;
use crate::plan::homing::{self, Homing};
use crate::plan::recover::{self, MajorityOutage, RECOVER_ANNOTATION, RecoveryFacts};
use crate::plan::replace::{self, REPLACE_ANNOTATION};
use crate::plan::rolling::Rolling;
use crate::plan::rollout::PodRevision;
use crate::plan::scale::{Asking, Spare};
use crate::plan::stuck::Stuck;
use crate::plan::switchover::{self, SWITCHOVER_ANNOTATION, Switchover};
use crate::report::content::{Asked, Report};
use crate::report::paused::Paused;
use crate::report::{self, ReportSender};
use crate::run::shared::Shared;
use crate::status::{self, SharedWorkload, Workload};

/// The pause after a fault of the program.
const BEGIN_ANEW_PAUSE: Duration = Duration::from_secs(1);

/// The interval at which one that only listens looks whether there are other nodes to listen to.
const LISTEN_INTERVAL: Duration = Duration::from_millis(500);

/// The way to the nodes: by what is told last.
pub type Dials = watch::Receiver<Dial>;

/// Takes care of a cluster until its resource is gone. A fault of the program on the way must not leave the cluster without anybody who
/// replaces its leader: then it begins anew, from the status as it is.
pub async fn take_care_whatever_happens(shared: Shared, cluster: Cluster, workload: SharedWorkload, dials: Dials) {
    loop {
        let caring = take_care(shared.clone(), cluster.clone(), Arc::clone(&workload), dials.clone());
        if AssertUnwindSafe(caring).catch_unwind().await.is_ok() {
            return;
        }
        error!("the task for this cluster panicked, a bug of the operator: restarting it");
        tokio::time::sleep(BEGIN_ANEW_PAUSE).await;
    }
}

/// Takes care of a cluster until its resource is gone: whenever this operator acts, with what it has heard of the nodes before.
async fn take_care(shared: Shared, mut cluster: Cluster, workload: SharedWorkload, mut dials: Dials) {
    let mut peers = Peers::new(dials.borrow_and_update().clone());
    let key = cluster.key();
    while let Some((found, before)) = Box::pin(listen(&shared, (&mut peers, &mut dials), cluster)).await {
        cluster = found;
        if let Ok(mut known) = workload.lock() {
            known.pods.count = known.pods.count.or_else(|| before.replicas.and_then(|pods| i32::try_from(pods).ok()));
        }
        let store = StatusStore::knowing(shared.client.clone(), &cluster, recorded(Some(&before)).ok());
        let by = format!("operator {}", shared.instance);
        let mut controller = Controller::new(store, by, Patience::default()).having_heard(peers);
        let (task, reporting) = ClusterTask::new(
            shared.clone(),
            cluster.clone(),
            before,
            (Arc::clone(&workload), &mut dials),
            &mut controller,
        );
        let mut acts = shared.acts.clone();
        let is_gone = tokio::select! {
            (is_gone, ()) = join(Box::pin(task.run()), Box::pin(reporting)) => is_gone,
            ended = acts.wait_for(|acts| !acts) => ended.is_err(),
        };
        shared.metrics.forget(&key);
        if is_gone {
            return;
        }
        // Another operator applies the objects from now on, or nobody does.
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
    let mut pause = Paused::default();
    loop {
        if let Some(dial) = newest(dials) {
            peers.redial(dial);
        }
        let found = shared.resource_of(&cluster)?;
        cluster = shared.renewed(cluster, &found);
        let status = found.0.as_ref().ok().and_then(|found| found.status.clone()).unwrap_or_default();
        if *acts.borrow_and_update() {
            match &found.0 {
                Ok(resource) if cluster::is_paused(resource) => pause.say(&shared.client, resource).await,
                _ => return Some((cluster, status)),
            }
        }
        cluster = cluster.around(status.replicas.and_then(|pods| i32::try_from(pods).ok()));
        peers.keep(&shared.addresses_of(&cluster), cluster.wish().detection_ms);
        if let Ok(Err(_)) = tokio::time::timeout(LISTEN_INTERVAL, acts.changed()).await {
            return None;
        }
    }
}

/// One cluster's task, while this operator acts.
struct ClusterTask<'a> {
    shared: Shared,
    cluster: Cluster,
    controller: &'a mut Controller<StatusStore>,
    workload: SharedWorkload,
    dials: &'a mut Dials,
    reports: ReportSender,
    memory: Memory,
    /// The facts of the recovery that the controller started from.
    footing: Option<(Option<Recovery>, bool)>,
    /// The resource as it is: what is asked for by annotation, and the status that it shows.
    found: Option<Arc<Guarded>>,
}

/// Its memory from look to look.
struct Memory {
    isr: IsrTracker,
    budget: Budget,
    rolling: Rolling,
    stuck: Stuck,
    asking: Asking,
    gone: MajorityOutage,
    homing: Homing,
}

impl<'a> ClusterTask<'a> {
    /// A task that goes on from the status it finds, and who tells what it sees.
    fn new(
        shared: Shared,
        cluster: Cluster,
        before: ZueClusterStatus,
        (workload, dials): (SharedWorkload, &'a mut Dials),
        controller: &'a mut Controller<StatusStore>,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let memory = Memory {
            isr: IsrTracker::new(before.isr.clone()),
            budget: Budget::default(),
            rolling: Rolling::default(),
            stuck: Stuck::default(),
            asking: Asking::default(),
            gone: MajorityOutage::default(),
            homing: Homing::default(),
        };
        let told = Arc::clone(&workload);
        let (reports, reporting) = report::open(&shared.client, &cluster, &shared.instance, before, told);
        let task = Self { shared, cluster, controller, workload, dials, reports, memory, footing: None, found: None };
        (task, reporting)
    }

    /// Looks again and again until the resource is gone, or says that nothing is to be touched; whether it is gone.
    async fn run(mut self) -> bool {
        loop {
            match self.refresh() {
                Some(false) => {}
                other => return other.is_none(),
            }
            self.look().await;
            self.controller.rest().await;
        }
    }

    /// Takes over what the resource says now: whether nothing is to be touched, or the controller is to begin anew; none if it is gone.
    fn refresh(&mut self) -> Option<bool> {
        let found = self.shared.resource_of(&self.cluster)?;
        let is_paused = found.0.as_ref().is_ok_and(cluster::is_paused);
        self.cluster = self.shared.renewed(self.cluster.clone(), &found);
        self.found = Some(found);
        let footing = recover::footing(self.resource());
        Some(is_paused || *self.footing.get_or_insert_with(|| footing.clone()) != footing)
    }

    /// The resource as it was found, if it can be read.
    fn resource(&self) -> Option<&ZueCluster> {
        self.found.as_ref().and_then(|found| found.0.as_ref().ok())
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.resource().and_then(|resource| resource.annotations().get(name)).map(String::as_str)
    }

    async fn look(&mut self) {
        let known = self.workload.lock().unwrap_or_else(PoisonError::into_inner).pods.count;
        self.cluster = self.cluster.clone().around(known);
        if let Some(dial) = newest(self.dials) {
            self.controller.redial(dial);
        }
        let addresses = self.shared.addresses_of(&self.cluster);
        let asked = switchover::asked(&self.cluster, self.annotation(SWITCHOVER_ANNOTATION));
        let mut wish = self.cluster.wish();
        let asked_to = if let Some(Switchover::To(ordinal)) = asked { Some(ordinal) } else { self.memory.rolling.to() };
        wish.switch_to = asked_to.or(self.memory.homing.to());
        let zones = self.workload.lock().unwrap_or_else(PoisonError::into_inner).pods.pod_zones.zones.clone();
        let zone = self.cluster.spec.leader.preferred_zone.clone();
        wish.ordinal = homing::winner(&self.cluster.pods(), &zones, zone.as_deref(), wish.ordinal);
        let turn = self.controller.turn(&addresses, &wish).await;
        let sets = self.workload.lock().unwrap_or_else(PoisonError::into_inner).pods.sets.clone();
        let (pods, foreign): (Vec<_>, Vec<_>) =
            self.shared.pods_of(&self.cluster).into_iter().partition(|pod| sets.has(pod));
        let seen = Observed {
            nodes: &turn.nodes,
            epoch: turn.recorded.epoch.0,
            step: &turn.step,
            isr_before: self.memory.isr.isr(),
        };
        let view = view::view(&self.cluster, seen, &pods);
        let may_evict = self.memory.budget.look(&view, Instant::now());
        self.memory.homing.look(&view, &zones, zone.as_deref(), asked_to.is_some(), Instant::now());
        {
            let mut workload = self.workload.lock().unwrap_or_else(PoisonError::into_inner);
            workload.news.may_evict = may_evict;
            // A reconciliation may have changed it since.
            let counted = known.filter(|_| workload.pods.count == known && self.cluster.recovery.is_none());
            workload.news.spare = Spare::seen(counted, turn.needed, Instant::now());
            let is_behind = workload.given_up.applied != self.cluster.recovery;
            if self.memory.asking.is_due(workload.news.spare.is_some() || is_behind, Instant::now()) {
                // Where many are asked for, this one is asked for again.
                let resource = ObjectRef::new(&self.cluster.name).within(&self.cluster.namespace);
                drop(self.shared.again.try_send(resource));
            }
            workload.news.shown = turn.nodes.iter().map(|node| node.as_ref().ok().map(NodeTls::of)).collect();
        }
        let events = self.take_note(&turn, &view);
        for event in events {
            self.reports.tell(event);
        }
        let mut workload = self.progress(&view, &pods);
        workload.pods.foreign = foreign.iter().map(|pod| pod.name_any()).collect();
        workload.given_up.replica = replace::asked(&view, self.annotation(REPLACE_ANNOTATION));
        self.recover(&turn, &view, pods.iter().chain(&foreign).map(|pod| pod.name_any()), &mut workload);
        let facts = status::facts(&self.cluster, &view, &workload);
        let sample = Sample {
            view: view.clone(),
            facts: facts.clone(),
            stale_pods: workload.pods.stale,
            is_growth_refused: workload.volumes.growth_refused.is_some(),
        };
        self.shared.metrics.saw(&self.cluster.key(), sample);
        // Until the objects are applied, what is known of them is another operator's.
        if workload.generation.is_some() {
            let version = self.resource().and_then(ZueCluster::resource_version);
            let switchover = asked.map(|asked| (asked, version.clone()));
            let may_go = self.may_go(&view);
            let recovers = self.annotation(RECOVER_ANNOTATION).is_some();
            let asked = Asked { seen_at: Instant::now(), switchover, recovers, may_go, pods };
            let found = self.resource().map(|resource| (version, resource.status.clone().unwrap_or_default()));
            let (cluster, recorded) = (self.cluster.clone(), turn.recorded);
            self.reports.report(Report { cluster, view, workload, facts, found, recorded, asked });
        }
    }

    /// The next step about a majority that is gone.
    fn recover(
        &mut self,
        turn: &Turn,
        view: &ClusterView,
        pods: impl Iterator<Item = String>,
        workload: &mut Workload,
    ) {
        let gone_for = self.memory.gone.look(&turn.nodes, Instant::now());
        let commit_end = self.resource().and_then(|resource| resource.status.as_ref()?.commit_end);
        let known = RecoveryFacts { cluster: &self.cluster, view, nodes: &turn.nodes, gone_for, commit_end };
        workload.given_up.majority = recover::asked(known, self.annotation(RECOVER_ANNOTATION));
        workload.given_up.stage =
            recover::seen(self.resource(), pods, turn.nodes.first().and_then(|node| node.as_ref().ok()));
    }

    /// Puts what happened into words.
    fn take_note(&mut self, turn: &Turn, view: &ClusterView) -> Vec<ClusterEvent> {
        let mut events: Vec<ClusterEvent> = Vec::new();
        for event in &turn.events {
            let of = if event.is_warning() { ClusterEvent::warning } else { ClusterEvent::normal };
            let reason = match event {
                Event::Blocked(Blocked::WaitingForReplicas { .. }) => "WaitingForReplicas",
                event => event.name(),
            };
            let told = of(reason, event.to_string());
            events.push(match event {
                Event::LeaderElected { leader, .. } => told.about(leader),
                Event::HandedOver { to, .. } => told.about(to),
                _ => told,
            });
        }
        events.extend(self.memory.stuck.see(view, Instant::now()));
        let change = self.memory.isr.see(view.isr(), Instant::now());
        let size = view.isr_size();
        events.extend(change.left.iter().map(|pod| {
            ClusterEvent::warning("ReplicaLeftISR", format!("{pod} fell out of sync; {size} replicas are in sync"))
                .about(pod)
        }));
        events.extend(change.joined.iter().map(|pod| {
            ClusterEvent::normal("ReplicaJoinedISR", format!("{pod} is in sync; {size} replicas are in sync"))
                .about(pod)
        }));
        events
    }

    /// Tells whether the leader's pod may be deleted while it leads: there is nobody to hand over to, or it has been asked for long.
    fn may_go(&self, view: &ClusterView) -> bool {
        let is_overdue = self.memory.rolling.is_overdue(Instant::now());
        view.size() == 1 || self.cluster.wish().policy == Policy::Static || is_overdue
    }

    /// The progress of the replacement of pods, beside what reconciliations have left.
    fn progress(&mut self, view: &ClusterView, pods: &[Arc<Pod>]) -> Workload {
        let mut workload = self.workload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(wanted) = &workload.pods.revision else {
            self.memory.rolling.see_nothing();
            return workload;
        };
        let revisions: Vec<PodRevision> = pods.iter().map(|pod| PodRevision::of(pod, None)).collect();
        let (stale, told) = self.memory.rolling.see(view, wanted, &revisions, Instant::now());
        workload.pods.stale = stale;
        if let Some(event) = told {
            self.reports.tell(event);
        }
        workload
    }
}

/// The way to the nodes, where that is told anew.
fn newest(dials: &mut Dials) -> Option<Dial> {
    dials.has_changed().unwrap_or_default().then(|| dials.borrow_and_update().clone())
}
