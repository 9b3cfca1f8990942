//! The program at its start, before an API server that is away and one that knows no ZueCluster.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;
use tokio::process::Command;

#[tokio::test]
async fn an_api_server_that_is_away_is_waited_for_but_a_missing_crd_ends_the_program() {
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = {
        let asked = Arc::clone(&asked);
        move || async move {
            let code = match asked.fetch_add(1, Ordering::Relaxed) {
                0 => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::NOT_FOUND,
            };
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "refused",
                "code": code.as_u16() });
            (code, status.to_string()).into_response()
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test", "users": [{ "name": "test", "user": {} }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "clusters": [{ "name": "test",
            "cluster": { "server": format!("http://{}", listener.local_addr().unwrap()) } }],
    });
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_zue-operator"))
        .args(["run", "--metrics-address", "127.0.0.1:0"])
        .env("KUBECONFIG", file)
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_mins(1), program.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && said.contains("install the CRD first"), "{said}");
    assert!(said.contains("cannot list ZueClusters: refused; next try in 1 s"), "{said}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
