//! The clusters that are taken care of, each with its task, and what one reconciliation leaves behind for the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use tokio::task::AbortHandle;
use tracing::{Instrument as _, info_span, warn};

use crate::apply::volumes::{self, Growth, Refusal};
use crate::cluster::{Cluster, Invalid};
use crate::crd::ZueCluster;
use crate::identities::plan::NodeTls;
use crate::identities::{self, Link};
use crate::metrics::Key;
use crate::observe::watched::Guarded;
use crate::observe::zones::NodeZones;
use crate::plan::event::ClusterEvent;
use crate::plan::scale::Spare;
use crate::run::cluster_task;
use crate::run::shared::Shared;
use crate::status::{InvalidResource, PodFacts, PodZones, SharedWorkload, TaskNews, VolumeFacts, Workload};

/// The pause after a reconciliation that failed.
pub(super) const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The pause after which an operator that only listens checks its certificate again: it does not watch Secrets.
const LISTEN_AGAIN: Duration = Duration::from_mins(1);

/// News that reconciliations leave behind for each other.
pub(super) struct Context {
    pub(super) shared: Shared,
    tasks: Mutex<HashMap<Key, ClusterEntry>>,
    /// The way to the nodes of each cluster, by the uid of its resource.
    links: Mutex<HashMap<String, Arc<Link>>>,
    /// The growths of volumes that were refused, by the uid of the resource.
    refusals: Mutex<HashMap<String, Refusal>>,
    zones: NodeZones,
}

/// The outcome for the volumes of a cluster.
#[derive(Default)]
pub(super) struct Grown {
    pub(super) refused: Option<String>,
    pub(super) again: Option<Duration>,
    pub(super) events: Vec<ClusterEvent>,
}

/// A cluster that is taken care of.
struct ClusterEntry {
    uid: String,
    workload: SharedWorkload,
    task: AbortHandle,
}

impl Drop for Context {
    /// Ends the tasks of all clusters once nothing is watched any more.
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for entry in tasks.values() {
            entry.task.abort();
        }
    }
}

impl Context {
    pub(super) fn new(shared: Shared) -> Self {
        let (tasks, links, refusals) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { shared, tasks, links, refusals, zones: NodeZones::default() }
    }

    /// The parts that the task of this very resource shares, if there is one.
    fn shared_with(&self, key: &Key, uid: &str) -> Option<SharedWorkload> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = tasks.get(key).filter(|entry| entry.uid == uid && !entry.task.is_finished())?;
        Some(Arc::clone(&entry.workload))
    }

    /// The way to the nodes of a cluster.
    pub(super) fn link(&self, uid: &str) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(links.entry(uid.to_owned()).or_default())
    }

    /// The TLS that its nodes show, as far as its task knows.
    pub(super) fn shown(&self, cluster: &Cluster) -> Vec<Option<NodeTls>> {
        let workload = self.shared_with(&cluster.key(), &cluster.uid);
        workload
            .map(|workload| workload.lock().unwrap_or_else(PoisonError::into_inner).news.shown.clone())
            .unwrap_or_default()
    }

    /// The pods of it that nothing depends on, as far as its task knows.
    pub(super) fn spare(&self, cluster: &Cluster) -> Option<Spare> {
        let workload = self.shared_with(&cluster.key(), &cluster.uid)?;
        let known = workload.lock().unwrap_or_else(PoisonError::into_inner);
        known.news.spare
    }

    /// In which zone each of its pods is, where that matters.
    pub(super) async fn pod_zones(&self, cluster: &Cluster) -> PodZones {
        if cluster.spec.leader.preferred_zone.is_none() {
            return PodZones::default();
        }
        let (zones, problem) = self.zones.of(&self.shared.client, &self.shared.pods_of(cluster)).await;
        PodZones { zones, problem: problem.map(|problem| format!("spec.leader.preferredZone: {problem}")) }
    }

    /// Starts the task of a paused cluster, which reports that nothing is changed.
    pub(super) fn rest(&self, resource: &ZueCluster) {
        if let Ok(cluster) = Cluster::new(resource, &self.shared.default_image) {
            self.take_care(cluster, Workload::default());
        }
    }

    /// Grows the volumes, unless that was refused a moment ago.
    pub(super) async fn grow(&self, resource: &ZueCluster) -> Grown {
        let Ok(cluster) = Cluster::unchecked(resource, &self.shared.default_image) else { return Grown::default() };
        let (to, now) = (&cluster.spec.storage.size, Instant::now());
        let before = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).get(&cluster.uid).cloned();
        if let Some((refusal, left)) = before.as_ref().and_then(|refusal| Some((refusal, refusal.pause(to, now)?))) {
            return Grown { refused: Some(refusal.why.clone()), again: Some(left), events: Vec::new() };
        }
        let Growth { grown_to, refused } = Box::pin(volumes::grow_claims(&self.shared.client, &cluster)).await;
        let mut grown = Grown { refused: refused.clone(), ..Grown::default() };
        if let Some(size) = grown_to {
            let note = format!("the volumes are grown to {size}");
            grown.events.push(ClusterEvent::normal("VolumeResized", note));
        }
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(why) = refused else {
            refusals.remove(&cluster.uid);
            return grown;
        };
        let refusal = Refusal::next(before.as_ref(), to, why, Instant::now());
        grown.again = refusal.pause(to, Instant::now());
        if refusal.is_first() {
            let note = format!("the volumes cannot be grown to {to}: {}", refusal.why);
            grown.events.push(ClusterEvent::warning("VolumeGrowthRefused", note));
        }
        refusals.insert(cluster.uid, refusal);
        grown
    }

    /// Lets the task say that the resource is invalid; false if there is none.
    pub(super) fn tell_invalid(&self, resource: &ZueCluster, invalid: &Invalid) -> bool {
        let (Some(namespace), Some(uid)) = (resource.namespace(), resource.uid()) else { return false };
        let Some(workload) = self.shared_with(&(namespace, resource.name_any()), &uid) else { return false };
        let refused = InvalidResource { generation: resource.metadata.generation, message: invalid.to_string() };
        workload.lock().unwrap_or_else(PoisonError::into_inner).invalid = Some(refused);
        true
    }

    /// Sees to it that the nodes of a valid cluster are listened to, with a certificate where that takes one.
    pub(super) async fn listen_to(&self, resource: &Guarded) -> Action {
        let Ok(resource) = &resource.0 else { return Action::await_change() };
        let cluster = Cluster::new(resource, &self.shared.default_image);
        let (None, Ok(cluster)) = (resource.metadata.deletion_timestamp.as_ref(), cluster) else {
            return Action::await_change();
        };
        let link = self.link(&cluster.uid);
        self.take_care(cluster.clone(), Workload::default());
        match identities::listen(&self.shared.client, &cluster, &link, SystemTime::now()).await {
            Ok(()) => Action::requeue(LISTEN_AGAIN),
            Err(error) => {
                warn!("the nodes of {} in {} cannot be listened to: {error}", cluster.name, cluster.namespace);
                Action::requeue(AGAIN_AFTER_FAILURE)
            }
        }
    }

    /// Hands what was applied to the cluster's task, which is started if there is none.
    pub(super) fn take_care(&self, cluster: Cluster, workload: Workload) {
        let key = cluster.key();
        if let Some(shared) = self.shared_with(&key, &cluster.uid) {
            let mut known = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let news = TaskNews { spare: None, ..known.news.clone() };
            let pods = PodFacts {
                count: workload.pods.count.or(known.pods.count),
                sets: workload.pods.sets.clone().since(&known.pods.sets),
                ..workload.pods
            };
            let size = workload.volumes.size.or_else(|| known.volumes.size.clone());
            let volumes = VolumeFacts { size, ..workload.volumes };
            let (budget_problem, rounds) = (known.budget_problem.clone(), known.rounds.wrapping_add(1));
            *known = Workload { pods, volumes, budget_problem, rounds, news, ..workload };
            return;
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|_, entry| !entry.task.is_finished());
        let uid = cluster.uid.clone();
        let dials = self.link(&uid).dials();
        // Those of clusters that are gone hold certificates that nobody needs.
        let is_needed = |known: &String, link: &mut Arc<Link>| {
            *known == uid || Arc::strong_count(link) > 1 || tasks.values().any(|entry| entry.uid == *known)
        };
        self.links.lock().unwrap_or_else(PoisonError::into_inner).retain(is_needed);
        let workload = Arc::new(Mutex::new(workload));
        let span = info_span!(parent: None, "cluster", namespace = key.0, cluster = key.1);
        let shared = self.shared.clone();
        let running = cluster_task::take_care_whatever_happens(shared, cluster, Arc::clone(&workload), dials);
        let task = tokio::spawn(running.instrument(span)).abort_handle();
        if let Some(former) = tasks.insert(key, ClusterEntry { uid, workload, task }) {
            // It was of a resource that bore the same name.
            former.task.abort();
        }
    }
}
