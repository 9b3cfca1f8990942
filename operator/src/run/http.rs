//! Metrics and health, over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::Metrics;

/// True once the operator has seen everything it watches.
pub type Ready = Arc<AtomicBool>;

/// `/metrics`, `/livez` (the program answers) and `/readyz` (it has seen everything it watches).
pub fn routes(metrics: Arc<Metrics>, ready: Ready) -> Router {
    let readyz = move || async move {
        if ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not all resources were seen yet\n")
        }
    };
    let scrape = move || async move {
        match metrics.text() {
            Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        }
    };
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
}

/// Serves until the program ends.
pub async fn serve(address: SocketAddr, routes: Router) -> std::io::Result<()> {
    axum::serve(tokio::net::TcpListener::bind(address).await?, routes).await
}
