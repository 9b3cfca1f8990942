//! Last statuses of the last operator that stops, before an API server that keeps what it is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kube::Client;
use serde_json::{Value, json};
use zue_operator::kubernetes::lease::LeaseHolder;
use zue_operator::report::farewell;

/// An API server with a Lease and clusters, and what was written there: the name and the patch.
#[derive(Clone, Default)]
struct Api {
    holder: &'static str,
    clusters: Vec<Value>,
    /// Those that somebody changes between the list and the patch.
    changed: Vec<&'static str>,
    written: Arc<Mutex<BTreeMap<String, Value>>>,
}

async fn answer(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> Response {
    let refused = |code: StatusCode, reason: &str| {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16() });
        (code, status.to_string()).into_response()
    };
    let path = uri.path();
    if method == Method::GET && path.contains("/leases/") {
        return json!({ "metadata": { "name": "zue-operator" }, "spec": { "holderIdentity": api.holder } })
            .to_string()
            .into_response();
    }
    if method == Method::GET {
        let of_namespace = |cluster: &&Value| {
            let namespace = format!("/namespaces/{}/", cluster["metadata"]["namespace"].as_str().unwrap());
            !path.contains("/namespaces/") || path.contains(&namespace)
        };
        let items: Vec<&Value> = api.clusters.iter().filter(of_namespace).collect();
        return json!({ "metadata": { "resourceVersion": "9" }, "items": items }).to_string().into_response();
    }
    assert!(method == Method::PATCH && path.ends_with("/status"), "{method} {path}");
    let name = path.split('/').rev().nth(1).unwrap().to_owned();
    let status: Value = serde_json::from_slice(&body).unwrap();
    let found = api.clusters.iter().find(|cluster| cluster["metadata"]["name"] == name.as_str()).unwrap().clone();
    assert_eq!(status["metadata"]["resourceVersion"], found["metadata"]["resourceVersion"], "of this version alone");
    if api.changed.contains(&name.as_str()) {
        return refused(StatusCode::CONFLICT, "Conflict");
    }
    api.written.lock().unwrap().insert(name, status["status"].clone());
    found.to_string().into_response()
}

fn condition(type_: &str, status: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": "Fine", "message": "all is well", "lastTransitionTime": "2026-11-29T20:00:00Z" })
}

fn cluster(namespace: &str, name: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "spec": {}, "status": status,
        "metadata": { "name": name, "namespace": namespace, "uid": name, "resourceVersion": format!("v-{name}") },
    })
}

fn clusters() -> Vec<Value> {
    let seen = json!({ "epoch": 4, "conditions": [condition("Ready", "True"), condition("Degraded", "False")] });
    let unknown = json!({ "conditions": [condition("Ready", "Unknown")] });
    vec![
        cluster("shop", "orders", &seen),
        cluster("shop", "busy", &seen),
        // Nothing was ever said of it, and of this one nothing that could be wrong by now.
        cluster("shop", "new", &Value::Null),
        cluster("shop", "unknown", &unknown),
        json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "spec": { "replicas": "many" },
            "metadata": { "name": "unreadable", "namespace": "shop", "uid": "u", "resourceVersion": "1" } }),
        cluster("bank", "bills", &seen),
    ]
}

/// Statuses of an operator that has given up the Lease, in these namespaces, all if there are none.
async fn said(api: Api, namespaces: &[&str]) -> BTreeMap<String, Value> {
    let written = Arc::clone(&api.written);
    let client = Client::new(Router::new().fallback(answer).with_state(api), "zue-system");
    let lease_holder = LeaseHolder::new(client.clone(), "zue-operator".to_owned(), "me".to_owned());
    let namespaces: Vec<String> = namespaces.iter().map(|name| (*name).to_owned()).collect();
    farewell::say(&client, &namespaces, &lease_holder).await;
    let written = written.lock().unwrap();
    written.clone()
}

#[tokio::test]
async fn what_nobody_looks_at_any_more_is_unknown() {
    let said = said(Api { clusters: clusters(), changed: vec!["busy"], ..Api::default() }, &[]).await;
    assert_eq!(said.keys().collect::<Vec<_>>(), ["bills", "orders"]);
    for (name, status) in said {
        assert_eq!(status.as_object().unwrap().len(), 1, "{name}: nothing but the conditions: {status}");
        let conditions = status["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 2, "{name}");
        for condition in conditions {
            assert_eq!((&condition["status"], &condition["reason"]), (&json!("Unknown"), &json!("NobodyLooks")));
            assert!(condition["message"].as_str().unwrap().contains("the log and its failover go on"), "{condition}");
        }
    }
}

#[tokio::test]
async fn an_operator_of_some_namespaces_says_nothing_of_others() {
    let said = said(Api { clusters: clusters(), ..Api::default() }, &["bank"]).await;
    assert_eq!(said.keys().collect::<Vec<_>>(), ["bills"]);
}

#[tokio::test]
async fn nothing_is_said_where_another_operator_acts() {
    let said = said(Api { holder: "another", clusters: clusters(), ..Api::default() }, &[]).await;
    assert!(said.is_empty(), "{said:?}");
}
