//! The controller: from a changed ZueCluster to applied objects, and one caretaker for each cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller, Error as ControllerError};
use kube::runtime::{Predicate as _, PredicateConfig, WatchStreamExt as _, predicates, reflector, watcher};
use kube::{Client, Resource, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{Instrument as _, error, info, info_span, warn};

use super::backups::{self, GuardedBackup};
use crate::apply;
use crate::caretaker::{self, Shared, SharedWorkload};
use crate::cluster::{Cluster, Invalid, is_paused};
use crate::crd::ZueCluster;
use crate::events::{Happening, Teller};
use crate::identities::plan::Shown;
use crate::identities::{self, Link};
use crate::kubernetes::within;
use crate::metrics::{Key, Metrics};
use crate::pods::Sets;
use crate::secured::{self, Secured};
use crate::status::{self, Refused, Workload};
use crate::volumes::{self, Growth, Refusal};
use crate::watched::{self, Guarded};

/// All is looked at again after this, whether or not a change was seen.
const AGAIN: Duration = Duration::from_mins(5);
/// One that only listens looks again whether it has what the nodes ask for after this: it is not told of Secrets that change.
const LISTEN_AGAIN: Duration = Duration::from_mins(1);
/// The pause after a reconciliation that failed.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The parts that the operator is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of clusters that name none.
    pub default_image: String,
    /// The name of the operator's own pod.
    pub instance: String,
    /// The part that follows the name of a Service in full, from a dot on.
    pub services_suffix: String,
}

/// A reconciliation that failed, at least in part.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    /// The resource is not one that this version knows.
    #[error("the resource cannot be read: {0}")]
    Unreadable(String),
    /// The resource makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Objects could not be applied.
    #[error("{0}")]
    Apply(String),
}

struct Context {
    shared: Shared,
    caretakers: Mutex<HashMap<Key, Ward>>,
    /// The way to the nodes of each cluster, by the uid of its resource.
    links: Mutex<HashMap<String, Arc<Link>>>,
    /// The growths of volumes that were refused, by the uid of the resource.
    refusals: Mutex<HashMap<String, Refusal>>,
}

/// The outcome for the volumes of a cluster.
#[derive(Default)]
struct Grown {
    refused: Option<String>,
    again: Option<Duration>,
    happenings: Vec<Happening>,
}

/// A cluster that is taken care of.
struct Ward {
    uid: String,
    workload: SharedWorkload,
    task: AbortHandle,
}

impl Drop for Context {
    /// One that watches no more leaves all clusters alone.
    fn drop(&mut self) {
        let caretakers = self.caretakers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for ward in caretakers.values() {
            ward.task.abort();
        }
    }
}

/// Watches one namespace, or all, until it is dropped, and listens to the nodes of every cluster; while `acts` says so, runs the
/// controller. `ready` is called once everything is seen.
pub async fn run(
    client: Client,
    namespace: Option<String>,
    settings: Settings,
    metrics: Arc<Metrics>,
    acts: watch::Receiver<bool>,
    ready: impl FnOnce() + Send + 'static,
) {
    let (pods, watching_pods) = watched::pods(api(&client, namespace.as_deref()));
    let (clusters, writer) = reflector::store();
    // Changes of the status are its own; only a new generation is news, and what is asked for by annotation.
    let changed = watcher(api::<Guarded>(&client, namespace.as_deref()), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::annotations), PredicateConfig::default());
    let shared = Shared {
        client: client.clone(),
        clusters: clusters.clone(),
        pods: pods.clone(),
        acts: acts.clone(),
        metrics,
        default_image: settings.default_image.into(),
        instance: settings.instance.into(),
        services_suffix: settings.services_suffix.into(),
    };
    let context =
        Arc::new(Context { shared, caretakers: Mutex::default(), links: Mutex::default(), refusals: Mutex::default() });
    let known = Arc::clone(&context);
    let dials = Box::new(move |uid: &str| known.link(uid).dials().borrow().clone());
    let backups = backups::run(api::<GuardedBackup>(&client, namespace.as_deref()), context.shared.clone(), dials);
    let controller = Controller::for_stream(changed, clusters.clone())
        .owns(api::<StatefulSet>(&client, namespace.as_deref()), watched::managed())
        .owns(api::<Service>(&client, namespace.as_deref()), watched::managed())
        .owns(api::<ConfigMap>(&client, namespace.as_deref()), watched::managed())
        .owns(api::<ServiceAccount>(&client, namespace.as_deref()), watched::managed())
        .owns(api::<NetworkPolicy>(&client, namespace.as_deref()), watched::managed())
        .owns(api::<PodDisruptionBudget>(&client, namespace.as_deref()), watched::managed())
        .reconcile_all_on(beginnings(acts))
        .run(reconcile, |_, _, _| Action::requeue(AGAIN_AFTER_FAILURE), context)
        .for_each(|outcome| async move { log(outcome) });
    let all_seen = async move {
        if clusters.wait_until_ready().await.is_ok() && pods.wait_until_ready().await.is_ok() {
            info!("all ZueClusters and their pods are seen");
            ready();
        }
    };
    tokio::join!(watching_pods, controller, backups, all_seen);
}

/// Tells whenever this operator begins to act.
fn beginnings(acts: watch::Receiver<bool>) -> impl Stream<Item = ()> {
    stream::unfold(acts, |mut acts| async move {
        acts.changed().await.ok()?;
        acts.wait_for(|acts| *acts).await.ok()?;
        Some(((), acts))
    })
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn log<O>(outcome: Result<(O, Action), ControllerError<ReconcileError, watcher::Error>>) {
    match outcome {
        // An object outlives its owner by a moment.
        Ok(_) | Err(ControllerError::ObjectNotFound(_)) => {}
        Err(ControllerError::ReconcilerFailed(error, resource)) => {
            error!(namespace = resource.namespace, cluster = resource.name, "{error}");
        }
        Err(error) => warn!("{error}"),
    }
}

async fn reconcile(resource: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let mut acts = context.shared.acts.clone();
    if !*acts.borrow_and_update() {
        return Ok(tokio::select! {
            action = Box::pin(context.listen_to(&resource)) => action,
            // Whatever it was about is reconciled from the start.
            _ = acts.wait_for(|acts| *acts) => Action::await_change(),
        });
    }
    let begun = Instant::now();
    let outcome = tokio::select! {
        outcome = Box::pin(reconcile_one(&resource, &context)) => outcome,
        // Another operator acts from now on.
        _ = acts.wait_for(|acts| !acts) => return Ok(Action::await_change()),
    };
    context.shared.metrics.reconciled(begun.elapsed(), outcome.is_err());
    outcome
}

async fn reconcile_one(resource: &Guarded, context: &Context) -> Result<Action, ReconcileError> {
    let resource = resource.0.as_ref().map_err(|invalid| ReconcileError::Unreadable(invalid.error.clone()))?;
    if resource.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if is_paused(resource) {
        context.rest(resource);
        return Ok(Action::await_change());
    }
    let growth = context.grow(resource).await;
    let mut cluster = match Cluster::new(resource, &context.shared.default_image) {
        Ok(cluster) => cluster,
        Err(invalid) => {
            if !context.tell_invalid(resource, &invalid) {
                say_invalid(resource, &invalid, &context.shared.client).await;
            }
            return Err(invalid.into());
        }
    };
    let (link, shown) = (context.link(&cluster.uid), context.shown(&cluster));
    let Shared { client, services_suffix, instance, .. } = &context.shared;
    let secured = Box::pin(secured::settle(client, &mut cluster, &link, &shown, services_suffix)).await;
    let Secured { outcome, again, mut happenings, mode } =
        secured.map_err(|error| ReconcileError::Apply(error.to_string()))?;
    let are_grown = growth.refused.is_none();
    let applied = Box::pin(apply::objects(client, &cluster, outcome, are_grown)).await;
    let problems: Vec<String> = applied.errors.iter().map(ToString::to_string).collect();
    let problem = Some(problems.join("; ")).filter(|problems| !problems.is_empty());
    let workload = Workload {
        generation: cluster.generation,
        revision: applied.stateful_set.as_ref().and_then(revision),
        pods: applied.stateful_set.as_ref().and_then(|set| set.spec.as_ref()?.replicas),
        problem: problem.clone(),
        tls_mode: Some(mode),
        growth_refused: growth.refused,
        storage_size: applied.stateful_set.as_ref().and_then(volumes::size_of),
        sets: Sets {
            own: applied.stateful_set.as_ref().and_then(kube::ResourceExt::uid).into_iter().collect(),
            is_anothers: applied.is_anothers,
        },
        ..Workload::default()
    };
    happenings.extend(growth.happenings);
    let mut teller = Teller::new(client.clone(), &cluster, instance);
    for happening in &happenings {
        teller.tell(happening).await;
    }
    context.take_care(cluster, workload);
    let again = [again, growth.again].into_iter().flatten().min().unwrap_or(AGAIN);
    problem.map_or(Ok(Action::requeue(again)), |problem| Err(ReconcileError::Apply(problem)))
}

impl Context {
    /// The parts that the caretaker of this very resource shares, if there is one.
    fn shared_with(&self, key: &Key, uid: &str) -> Option<SharedWorkload> {
        let caretakers = self.caretakers.lock().unwrap_or_else(PoisonError::into_inner);
        let ward = caretakers.get(key).filter(|ward| ward.uid == uid && !ward.task.is_finished())?;
        Some(Arc::clone(&ward.workload))
    }

    /// The way to the nodes of a cluster.
    fn link(&self, uid: &str) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(links.entry(uid.to_owned()).or_default())
    }

    /// The TLS that its nodes show, as far as its caretaker knows.
    fn shown(&self, cluster: &Cluster) -> Vec<Option<Shown>> {
        let key = (cluster.namespace.clone(), cluster.name.clone());
        let workload = self.shared_with(&key, &cluster.uid);
        workload
            .map(|workload| workload.lock().unwrap_or_else(PoisonError::into_inner).shown.clone())
            .unwrap_or_default()
    }

    /// Sees to it that somebody says of a cluster that it is left alone.
    fn rest(&self, resource: &ZueCluster) {
        if let Ok(cluster) = Cluster::new(resource, &self.shared.default_image) {
            self.take_care(cluster, Workload::default());
        }
    }

    /// Grows the volumes, unless that was refused a moment ago.
    async fn grow(&self, resource: &ZueCluster) -> Grown {
        let Ok(cluster) = Cluster::unchecked(resource, &self.shared.default_image) else { return Grown::default() };
        let (to, now) = (&cluster.spec.storage.size, Instant::now());
        let before = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).get(&cluster.uid).cloned();
        if let Some((refusal, left)) = before.as_ref().and_then(|refusal| Some((refusal, refusal.pause(to, now)?))) {
            return Grown { refused: Some(refusal.why.clone()), again: Some(left), happenings: Vec::new() };
        }
        let Growth { grown_to, refused } = Box::pin(volumes::grow_claims(&self.shared.client, &cluster)).await;
        let mut grown = Grown { refused: refused.clone(), ..Grown::default() };
        if let Some(size) = grown_to {
            let note = format!("the volumes are grown to {size}");
            grown.happenings.push(Happening::normal("VolumeResized", note));
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
            grown.happenings.push(Happening::warning("VolumeGrowthRefused", note));
        }
        refusals.insert(cluster.uid, refusal);
        grown
    }

    /// Lets the caretaker say that the resource makes no sense; false if there is none.
    fn tell_invalid(&self, resource: &ZueCluster, invalid: &Invalid) -> bool {
        let (Some(namespace), Some(uid)) = (resource.namespace(), resource.uid()) else { return false };
        let Some(workload) = self.shared_with(&(namespace, resource.name_any()), &uid) else { return false };
        let refused = Refused { generation: resource.metadata.generation, message: invalid.to_string() };
        workload.lock().unwrap_or_else(PoisonError::into_inner).invalid = Some(refused);
        true
    }

    /// Sees to it that the nodes of a cluster that makes sense are listened to, with a certificate where that takes one.
    async fn listen_to(&self, resource: &Guarded) -> Action {
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

    /// Hands what was applied to the cluster's caretaker, who is appointed if there is none.
    fn take_care(&self, cluster: Cluster, workload: Workload) {
        let key = (cluster.namespace.clone(), cluster.name.clone());
        if let Some(shared) = self.shared_with(&key, &cluster.uid) {
            let mut known = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let (pods, may_evict, shown) = (workload.pods.or(known.pods), known.may_evict, known.shown.clone());
            let (sets, rounds) = (workload.sets.clone().since(&known.sets), known.rounds.wrapping_add(1));
            let storage_size = workload.storage_size.clone().or_else(|| known.storage_size.clone());
            let budget_problem = known.budget_problem.clone();
            *known = Workload { pods, storage_size, sets, budget_problem, rounds, may_evict, shown, ..workload };
            return;
        }
        let mut caretakers = self.caretakers.lock().unwrap_or_else(PoisonError::into_inner);
        caretakers.retain(|_, ward| !ward.task.is_finished());
        let uid = cluster.uid.clone();
        let dials = self.link(&uid).dials();
        // Those of clusters that are gone hold certificates that nobody needs.
        let is_needed = |known: &String, link: &mut Arc<Link>| {
            *known == uid || Arc::strong_count(link) > 1 || caretakers.values().any(|ward| ward.uid == *known)
        };
        self.links.lock().unwrap_or_else(PoisonError::into_inner).retain(is_needed);
        let workload = Arc::new(Mutex::new(workload));
        let span = info_span!(parent: None, "caretaker", namespace = key.0, cluster = key.1);
        let shared = self.shared.clone();
        let caretaker = caretaker::take_care_whatever_happens(shared, cluster, Arc::clone(&workload), dials);
        let task = tokio::spawn(caretaker.instrument(span)).abort_handle();
        if let Some(former) = caretakers.insert(key, Ward { uid, workload, task }) {
            // It was of a resource that bore the same name.
            former.task.abort();
        }
    }
}

/// The revision of new pods; none while the StatefulSet's controller has not taken note of the newest template.
fn revision(set: &StatefulSet) -> Option<String> {
    let status = set.status.as_ref()?;
    let is_current = status.observed_generation >= set.metadata.generation;
    status.update_revision.clone().filter(|revision| is_current && !revision.is_empty())
}

/// Says in the status that the resource makes no sense, where no caretaker does.
async fn say_invalid(resource: &ZueCluster, invalid: &Invalid, client: &Client) {
    let Some(namespace) = resource.namespace() else { return };
    let before = resource.status.clone().unwrap_or_default();
    let facts = [status::invalid(invalid.to_string())];
    let conditions = status::merge(&before.conditions, &facts, resource.metadata.generation, Timestamp::now());
    if conditions == before.conditions {
        return;
    }
    let api: Api<ZueCluster> = Api::namespaced(client.clone(), &namespace);
    let patch = Patch::Merge(serde_json::json!({ "status": { "conditions": conditions } }));
    let (name, params) = (resource.name_any(), PatchParams::default());
    let patched = api.patch_status(&name, &params, &patch);
    if let Err(error) = within("report that the resource is invalid", patched).await {
        warn!("{error}");
    }
}
