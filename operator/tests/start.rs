//! The program at its start, before an API server that is away and one that knows no ZueCluster.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;
use tokio::process::Command;

/// An API server of these answers, and a file that names it.
async fn serve(routes: Router) -> (tempfile::TempDir, PathBuf) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test", "users": [{ "name": "test", "user": {} }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": "zue-system" } }],
        "clusters": [{ "name": "test",
            "cluster": { "server": format!("http://{}", listener.local_addr().unwrap()) } }],
    });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    (directory, file)
}

/// `zue-operator check` before an API server with this CRD, and with a Lease that is renewed by so many seconds with each look.
async fn check(crd: bool, renewed_by: usize) -> (bool, String) {
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = move |uri: axum::http::Uri| async move {
        let (code, answer) = match uri.path() {
            "/apis/zue.io/v1alpha1/namespaces/shop/zueclusters" if crd => (
                StatusCode::OK,
                json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueClusterList", "metadata": {}, "items": [] }),
            ),
            "/apis/coordination.k8s.io/v1/namespaces/zue-system/leases/mine" => {
                let second = asked.fetch_add(renewed_by, Ordering::Relaxed);
                let spec = json!({ "holderIdentity": "zue-operator-a", "renewTime": format!("2026-01-01T00:00:{second:02}.000000Z") });
                (StatusCode::OK, json!({ "metadata": { "name": "mine" }, "spec": spec }))
            }
            _ => {
                let status = json!({ "kind": "Status", "status": "Failure", "message": "not found", "code": 404 });
                (StatusCode::NOT_FOUND, status)
            }
        };
        (code, answer.to_string()).into_response()
    };
    let (_directory, file) = serve(Router::new().fallback(answer)).await;
    let mut program = Command::new(env!("CARGO_BIN_EXE_zue-operator"));
    program
        .args(["check", "--namespace", "shop", "--lease", "mine", "--within", "3"])
        .env("KUBECONFIG", file)
        .kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_mins(2), program.output()).await.unwrap().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn an_installation_is_checked_for_the_crd_and_for_an_operator_that_renews_its_lease() {
    let (works, missing, silent) = tokio::join!(check(true, 1), check(false, 1), check(true, 0));
    assert_eq!(works, (true, "ZueClusters may be read in shop\nzue-operator-a acts\n".to_owned()));
    assert!(!missing.0 && missing.1.contains("knows no ZueCluster"), "{missing:?}");
    assert!(!silent.0 && silent.1.contains("nobody has renewed the Lease mine"), "{silent:?}");
}

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
    let (_directory, file) = serve(Router::new().fallback(answer)).await;
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
    assert!(said.contains("cannot list ZueClusters: refused; it is tried again in 1 s"), "{said}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
