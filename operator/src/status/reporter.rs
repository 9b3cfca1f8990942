//! Tells what a task sees as role labels, disruption budget, status and Events. It does so beside the task's own work: a slow
//! API server must not keep a lost leader from being noticed.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures::future::join3;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};
use zue_core::control::Recorded;

use crate::apply;
use crate::budget::Told;
use crate::build::ROLE_LABEL;
use crate::cluster::Cluster;
use crate::crd::{ZueCluster, ZueClusterStatus};
use crate::deeds::{Asked, Deeds};
use crate::events::{ClusterEvent, EventRecorder};
use crate::kubernetes::{FIELD_MANAGER, WritePause, within};
use crate::labels::{self, Relabel};
use crate::shared::SharedWorkload;
use crate::status::{self, Fact, Known, Workload};
use crate::store::recorded;
use crate::view::View;

/// So many Events may wait to be told; further ones are only logged.
const EVENTS_MAX: usize = 64;
/// Offsets alone are not written more often than this.
const OFFSETS_INTERVAL: Duration = Duration::from_secs(5);

/// The report of one look.
#[derive(Clone, Debug)]
pub struct Report {
    /// The cluster as its resource says.
    pub cluster: Cluster,
    /// The look.
    pub view: View,
    /// The facts beside that.
    pub workload: Workload,
    /// The status that follows.
    pub facts: Vec<Fact>,
    /// The status that the resource shows, and its version.
    pub found: Option<(Option<String>, ZueClusterStatus)>,
    /// The parts that are written down.
    pub recorded: Recorded,
    /// The deeds to be done.
    pub asked: Asked,
}

/// The place where a task hands in its reports. Nothing waits here.
#[derive(Debug)]
pub struct ReportSender {
    reports: watch::Sender<Option<Report>>,
    events: mpsc::Sender<ClusterEvent>,
}

impl ReportSender {
    /// Of the reports that are still to be told, only the latest is.
    pub fn report(&self, report: Report) {
        self.reports.send_replace(Some(report));
    }

    /// Logs it and makes an Event of it, unless too many wait already.
    pub fn tell(&self, event: ClusterEvent) {
        tell(&self.events, event);
    }
}

pub(crate) fn tell(events: &mpsc::Sender<ClusterEvent>, event: ClusterEvent) {
    if let Err(lost) = events.try_send(event) {
        warn!("too many Events wait for the API server; dropped: {}", lost.into_inner().note);
    }
}

/// A reports, and what does its work until it is dropped. `before` is the status as it was found.
pub fn open(
    client: &Client,
    cluster: &Cluster,
    instance: &str,
    before: ZueClusterStatus,
    workload: SharedWorkload,
) -> (ReportSender, impl Future<Output = ()> + use<>) {
    let (reports, mut latest) = watch::channel(None::<Report>);
    let (events, mut told) = mpsc::channel(EVENTS_MAX);
    let mut recorder = EventRecorder::new(client.clone(), cluster, instance);
    let now = Instant::now();
    let doing = Deeds::new(client.clone(), events.clone()).run(latest.clone());
    let mut reporter = Reporter {
        client: client.clone(),
        workload,
        budget: Told::default(),
        rounds: 0,
        known: Known::new(before, now),
        pause: WritePause::none(),
    };
    let reporting = async move {
        while latest.changed().await.is_ok() {
            let report = latest.borrow_and_update().clone();
            if let Some(report) = report {
                reporter.tell(&report).await;
            }
        }
    };
    let telling = async move {
        while let Some(event) = told.recv().await {
            recorder.tell(&event).await;
        }
    };
    (ReportSender { reports, events }, async move {
        join3(Box::pin(reporting), telling, Box::pin(doing)).await;
    })
}

struct Reporter {
    client: Client,
    workload: SharedWorkload,
    budget: Told,
    /// The number of times that the objects had been applied when the budget was told last.
    rounds: u64,
    known: Known,
    pause: WritePause,
}

impl Reporter {
    async fn tell(&mut self, report: &Report) {
        // First, and whatever else is refused: a drain must not take more than can be spared.
        self.limit_evictions(report).await;
        self.label(report).await;
        self.write_status(report).await;
    }

    async fn label(&mut self, Report { cluster, view, .. }: &Report) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &cluster.namespace);
        for Relabel { pod, role } in labels::changes(view) {
            if !self.pause.is_over() {
                return;
            }
            let patch = Patch::Merge(json!({ "metadata": { "labels": { ROLE_LABEL: role } } }));
            match within(format!("label pod {pod}"), api.patch(&pod, &manager(), &patch)).await {
                Ok(_) => {}
                // It went away meanwhile.
                Err(error) if error.code() == Some(404) => {}
                Err(error) => self.pause.begin(&error),
            }
        }
    }

    /// Lets a pod be evicted only while the cluster can spare one: by the newest word, not by that of the report. Nobody else writes the
    /// budget, so that it is written again whenever the objects are applied: somebody may have changed it.
    async fn limit_evictions(&mut self, Report { cluster, workload, .. }: &Report) {
        let may_evict = self.workload.lock().unwrap_or_else(PoisonError::into_inner).word.may_evict;
        if workload.rounds != self.rounds {
            self.rounds = workload.rounds;
            self.budget = Told::default();
        }
        if !self.budget.is_due(may_evict, Instant::now()) {
            return;
        }
        let applied = apply::disruption_budget(&self.client, cluster, may_evict).await;
        self.budget.set(may_evict, applied.is_ok(), Instant::now());
        let problem = applied.err().map(|error| error.to_string());
        if let Some(problem) = &problem {
            error!("{problem}");
        }
        self.workload.lock().unwrap_or_else(PoisonError::into_inner).budget_problem = problem;
    }

    /// Writes the status if something has happened, if somebody else has written there, or if offsets have changed for a while.
    async fn write_status(&mut self, report: &Report) {
        let Report { cluster, view, workload, facts, found, recorded: known, .. } = report;
        let version = found.as_ref().and_then(|(version, _)| version.as_deref());
        if let Some((version, found)) = found {
            self.known.see(version.as_deref(), found, Instant::now());
        }
        let before = self.known.status();
        let status = status::report(cluster, view, (workload, facts), before, Timestamp::now());
        let is_due = status::differs(&status, before) || self.known.age(Instant::now()) >= OFFSETS_INTERVAL;
        if status == *before || !is_due || !self.pause.is_over() {
            return;
        }
        let api: Api<ZueCluster> = Api::namespaced(self.client.clone(), &cluster.namespace);
        let patch = Patch::Merge(status::patch(&status));
        match within("report the status", api.patch_status(&cluster.name, &manager(), &patch)).await {
            Ok(found) => {
                self.known.wrote(status, version, Instant::now());
                // It only grows. Whatever else was changed is noticed at the next swap.
                if recorded(found.status.as_ref()).is_ok_and(|found| found.epoch < known.epoch) {
                    warn!("status.epoch was set back by somebody else");
                }
            }
            Err(error) if error.code() == Some(404) => {}
            Err(error) => self.pause.begin(&error),
        }
    }
}

/// The writer.
pub(crate) fn manager() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
