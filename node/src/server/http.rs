//! The metrics port: `/metrics`, `/livez` and `/readyz`. Neither of the last two depends on a quorum.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{Semaphore, watch};
use zue_log::{OsDisk, Reader};

use crate::driver::state::{ReplicaView, Role};
use crate::metrics::Metrics;
use crate::num::{gauge, wide};
use crate::services::aside::aside;
use crate::storage::disk_bytes;

/// The readiness of the node.
#[derive(Clone, Debug, Default)]
pub(crate) enum Readiness {
    /// The log is being opened, which may take a while.
    #[default]
    Opening,
    /// Another process has what the node needs; it says what, and who.
    Waiting(String),
    /// The log is open.
    Open { view: watch::Receiver<ReplicaView>, reader: Reader<OsDisk> },
    /// The node is stopping.
    Stopping,
}

/// The facts that the port shows.
#[derive(Clone, Debug)]
pub(crate) struct PortFacts {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: watch::Receiver<Readiness>,
    pub(crate) data_dir: Arc<Path>,
    /// To look at the disk, which may hang: a scrape waits for its turn rather than for a thread of its own.
    pub(crate) turn: Arc<Semaphore>,
}

pub(crate) fn router(shown: PortFacts) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shown)
}

async fn ready(State(shown): State<PortFacts>) -> (StatusCode, String) {
    let unready = |why: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    match &*shown.readiness.borrow() {
        Readiness::Opening => unready("the log is being opened"),
        Readiness::Waiting(held) => unready(&format!("waiting until it is free: {held}")),
        Readiness::Stopping => unready("stopping"),
        Readiness::Open { view, .. } if view.has_changed().is_err() => unready("the replica has stopped itself"),
        Readiness::Open { view, .. } => {
            let view = view.borrow();
            match view.role {
                Role::Failed => unready(view.problem.as_deref().unwrap_or("the storage failed")),
                Role::Idle | Role::Follower | Role::Leader => (StatusCode::OK, "ok\n".to_owned()),
            }
        }
    }
}

async fn metrics(State(shown): State<PortFacts>) -> Response {
    // Looking at the files may wait for the disk.
    let Ok(turn) = Arc::clone(&shown.turn).acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let rendered = aside(turn, move || {
        look_at_disk(&shown);
        shown.metrics.render()
    });
    match rendered.await {
        Ok((Ok(text), _)) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok((Err(error), _)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Sets what is found out when it is asked for.
fn look_at_disk(shown: &PortFacts) {
    let PortFacts { metrics, readiness, data_dir, turn: _ } = shown;
    if let Readiness::Open { reader, .. } = &*readiness.borrow() {
        metrics.log_start.set(gauge(reader.log_start().0));
    }
    match disk_bytes(data_dir) {
        Ok((available, capacity)) => {
            metrics.disk_available_bytes.set(gauge(available));
            metrics.disk_capacity_bytes.set(gauge(capacity));
        }
        Err(error) => tracing::debug!(%error, "the disk does not say how full it is"),
    }
    let Ok(entries) = std::fs::read_dir(data_dir) else { return };
    let (mut segments, mut bytes) = (0_usize, 0_u64);
    for entry in entries.flatten() {
        bytes = bytes.saturating_add(entry.metadata().map_or(0, |metadata| metadata.len()));
        segments += usize::from(Path::new(&entry.file_name()).extension().is_some_and(|end| end == "log"));
    }
    metrics.log_size_bytes.set(gauge(bytes));
    metrics.segments.set(gauge(wide(segments)));
}
