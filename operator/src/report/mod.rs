//! Tells and does what a look at a cluster asks for, beside the turns of its controller: a slow API server must not keep a lost leader from
//! being noticed.

pub mod content;
mod deeds;
pub mod events;
pub mod farewell;
pub mod paused;
mod reporter;

use std::future::Future;
use std::sync::Arc;

use futures::future::join3;
use kube::Client;
use tokio::sync::{mpsc, watch};

use crate::cluster::Cluster;
use crate::crd::ZueClusterStatus;
use crate::plan::event::ClusterEvent;
use crate::status::SharedWorkload;
use content::{Report, tell};
use deeds::Deeds;
use events::EventRecorder;
use reporter::Reporter;

/// So many Events may wait to be told; further ones are only logged.
const EVENTS_MAX: usize = 64;

/// The place where a task hands in its reports. Nothing waits here.
#[derive(Debug)]
pub struct ReportSender {
    reports: watch::Sender<Option<Arc<Report>>>,
    events: mpsc::Sender<ClusterEvent>,
}

impl ReportSender {
    /// Of the reports that are still to be told, only the latest is.
    pub fn report(&self, report: Report) {
        self.reports.send_replace(Some(Arc::new(report)));
    }

    /// Logs it and makes an Event of it, unless too many wait already.
    pub fn tell(&self, event: ClusterEvent) {
        tell(&self.events, event);
    }
}

/// A place for reports, and what does its work until it is dropped. `before` is the status as it was found.
pub fn open(
    client: &Client,
    cluster: &Cluster,
    instance: &str,
    before: ZueClusterStatus,
    workload: SharedWorkload,
) -> (ReportSender, impl Future<Output = ()> + use<>) {
    let (reports, mut latest) = watch::channel(None::<Arc<Report>>);
    let (events, mut told) = mpsc::channel(EVENTS_MAX);
    let mut recorder = EventRecorder::new(client.clone(), cluster, instance);
    let doing = Deeds::new(client.clone(), events.clone()).run(latest.clone());
    let mut reporter = Reporter::new(client.clone(), workload, before);
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
