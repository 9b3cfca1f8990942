//! Tells what a task sees as role labels, disruption budget and status.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch};
use serde_json::json;
use tracing::{error, warn};

use super::content::Report;
use crate::apply;
use crate::build::ROLE_LABEL;
use crate::crd::{ZueCluster, ZueClusterStatus};
use crate::kubernetes::store::recorded;
use crate::kubernetes::{WritePause, manager, within};
use crate::plan::budget::BudgetWritten;
use crate::plan::labels::{self, Relabel};
use crate::status::{self, KnownStatus, SharedWorkload};

/// Offsets alone are not written more often than this.
const OFFSETS_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Reporter {
    client: Client,
    workload: SharedWorkload,
    budget: BudgetWritten,
    /// The number of times that the objects had been applied when the budget was told last.
    rounds: u64,
    known: KnownStatus,
    pause: WritePause,
}

impl Reporter {
    /// `before` is the status as it was found.
    pub(super) fn new(client: Client, workload: SharedWorkload, before: ZueClusterStatus) -> Self {
        let (known, pause) = (KnownStatus::new(before, Instant::now()), WritePause::none());
        Self { client, workload, budget: BudgetWritten::default(), rounds: 0, known, pause }
    }

    pub(super) async fn tell(&mut self, report: &Report) {
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
        let may_evict = self.workload.lock().unwrap_or_else(PoisonError::into_inner).news.may_evict;
        if workload.rounds != self.rounds {
            self.rounds = workload.rounds;
            self.budget = BudgetWritten::default();
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
