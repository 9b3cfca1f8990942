//! The controller: from a changed ZueCluster to applied objects, and one task for each cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

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
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::backups::{self, GuardedBackup};
use super::entries::{AGAIN_AFTER_FAILURE, Context};
use crate::apply;
use crate::apply::recovered;
use crate::apply::volumes;
use crate::cluster::{Cluster, Invalid, is_paused};
use crate::crd::ZueCluster;
use crate::identities::secured::{self, Secured};
use crate::kubernetes::within;
use crate::metrics::Metrics;
use crate::observe::pods::Sets;
use crate::observe::watched::{self, Guarded};
use crate::plan::event::ClusterEvent;
use crate::plan::scale;
use crate::report::events::EventRecorder;
use crate::run::shared::Shared;
use crate::status::{self, GivenUp, PodFacts, VolumeFacts, Workload};

/// All is looked at again after this, whether or not a change was seen.
const AGAIN: Duration = Duration::from_mins(5);
/// So many reconciliations may be asked for at a time.
const AGAIN_MAX: usize = 1024;

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
    /// A value in the resource is not allowed.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Objects could not be applied.
    #[error("{0}")]
    Apply(String),
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
    let (again, mut asked_again) = mpsc::channel(AGAIN_MAX);
    let shared = Shared {
        client: client.clone(),
        clusters: clusters.clone(),
        pods: pods.clone(),
        acts: acts.clone(),
        again,
        metrics,
        default_image: settings.default_image.into(),
        instance: settings.instance.into(),
        services_suffix: settings.services_suffix.into(),
    };
    let context = Arc::new(Context::new(shared));
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
        .reconcile_on(stream::poll_fn(move |context| asked_again.poll_recv(context)))
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
    let Secured { outcome, again, mut events, mode } =
        secured.map_err(|error| ReconcileError::Apply(error.to_string()))?;
    let are_grown = growth.refused.is_none();
    let spare = context.spare(&cluster);
    let applied = Box::pin(apply::objects(client, &cluster, outcome, are_grown, spare)).await;
    let problems: Vec<String> = applied.errors.iter().map(ToString::to_string).collect();
    let problem = Some(problems.join("; ")).filter(|problems| !problems.is_empty());
    let given_up = GivenUp { applied: cluster.recovery.clone(), ..GivenUp::default() };
    let set = applied.stateful_set.as_ref();
    let pods = PodFacts {
        count: set.and_then(scale::pods_of),
        revision: set.and_then(revision),
        sets: Sets {
            own: set.and_then(kube::ResourceExt::uid).into_iter().collect(),
            is_anothers: applied.is_anothers,
        },
        pod_zones: context.pod_zones(&cluster).await,
        ..PodFacts::default()
    };
    let workload = Workload {
        generation: cluster.generation,
        pods,
        volumes: VolumeFacts { size: set.and_then(volumes::size_of), growth_refused: growth.refused },
        problem: problem.clone(),
        given_up,
        tls_mode: Some(mode),
        ..Workload::default()
    };
    events.extend(growth.events);
    events.extend(applied.scaled_down.map(|(had, has)| {
        let note = format!("scaling from {had} to {has} pods; the volumes of the others stay");
        ClusterEvent::normal("ScaledDown", note)
    }));
    let mut recorder = EventRecorder::new(client.clone(), &cluster, instance);
    for event in &events {
        recorder.tell(event).await;
    }
    let recovering = recovered::settle(client, &cluster, resource).await;
    context.take_care(cluster, workload);
    let recovering = recovering.map_err(|error| ReconcileError::Apply(error.to_string()))?;
    let again = [again, growth.again, recovering].into_iter().flatten().min().unwrap_or(AGAIN);
    problem.map_or(Ok(Action::requeue(again)), |problem| Err(ReconcileError::Apply(problem)))
}

/// The revision of new pods; none while the StatefulSet's controller has not taken note of the newest template.
fn revision(set: &StatefulSet) -> Option<String> {
    let status = set.status.as_ref()?;
    let is_current = status.observed_generation >= set.metadata.generation;
    status.update_revision.clone().filter(|revision| is_current && !revision.is_empty())
}

/// Says in the status that the resource is invalid, where no task does.
async fn say_invalid(resource: &ZueCluster, invalid: &Invalid, client: &Client) {
    let Some(namespace) = resource.namespace() else { return };
    let before = resource.status.clone().unwrap_or_default();
    let facts = [status::invalid(&invalid.to_string())];
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
