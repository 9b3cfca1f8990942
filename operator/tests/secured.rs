//! In which mode a cluster is from when on, with a real client, on an API server that answers as a test says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kube::{Client, Config};
use serde_json::{Value, json};
use zue_operator::build;
use zue_operator::cluster::Cluster;
use zue_operator::crd::ZueCluster;
use zue_operator::crd::security::TlsMode;
use zue_operator::identities::Link;
use zue_operator::identities::secured::{Secured, settle};

const CLUSTER: &str = "/apis/zue.io/v1alpha1/namespaces/shop/zueclusters/orders";
const SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/orders";
const PODS: &str = "/api/v1/namespaces/shop/pods";

type Write = (Method, String, Value);

/// Objects by path, and each write.
#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Value>,
    writes: Vec<Write>,
}

#[derive(Clone, Default)]
struct Api(Arc<Mutex<Kept>>);

async fn answer(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut kept = api.0.lock().unwrap();
    let Kept { objects, writes } = &mut *kept;
    let mut path = uri.path().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method != Method::GET {
        writes.push((method.clone(), path.clone(), body.clone()));
    }
    if method == Method::POST {
        path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
        objects.insert(path.clone(), body);
    }
    match objects.get(path.strip_suffix("/status").unwrap_or(&path)) {
        Some(object) => object.to_string().into_response(),
        None if path == PODS => json!({ "metadata": {}, "items": [] }).to_string().into_response(),
        None => {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                "message": "not found", "code": 404 });
            (StatusCode::NOT_FOUND, status.to_string()).into_response()
        }
    }
}

struct Found {
    api: Api,
    client: Client,
    resource: ZueCluster,
}

impl Found {
    async fn new(spec: &str, status: Value, others: &[(&str, Value)]) -> Self {
        let mut resource = ZueCluster::new("orders", serde_yaml::from_str(spec).unwrap());
        resource.metadata.namespace = Some("shop".to_owned());
        resource.metadata.uid = Some("u-1".to_owned());
        resource.status = serde_json::from_value(status).unwrap();
        let api = Api::default();
        let objects = others.iter().map(|(path, object)| ((*path).to_owned(), object.clone()));
        api.0.lock().unwrap().objects.extend(objects);
        api.0.lock().unwrap().objects.insert(CLUSTER.to_owned(), serde_json::to_value(&resource).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        Self { api, client, resource }
    }

    fn cluster(&self) -> Cluster {
        Cluster::new(&self.resource, "zue-node:test").unwrap()
    }

    /// The settled state, and what was written for it.
    async fn settle(&self) -> (Secured, Vec<Write>) {
        let (mut cluster, link) = (self.cluster(), Arc::new(Link::default()));
        let secured = Box::pin(settle(&self.client, &mut cluster, &link, &[], ".svc.cluster.local")).await.unwrap();
        assert_eq!(cluster.tls_mode, secured.mode);
        assert_eq!(link.dials().borrow().is_plain(), secured.mode == TlsMode::Off);
        let writes = std::mem::take(&mut self.api.0.lock().unwrap().writes);
        (secured, writes)
    }
}

fn mode_written(writes: &[Write]) -> Option<&Value> {
    let (method, path, body) = writes.first()?;
    assert_eq!(
        (method, path),
        (&Method::PATCH, &format!("{CLUSTER}/status")),
        "the mode is written down before all else"
    );
    Some(&body["status"]["tlsMode"])
}

#[tokio::test]
async fn a_new_cluster_is_closed_unless_it_asks_for_something_else() {
    for (spec, mode) in [("{}", TlsMode::Required), ("tls: {mode: 'Off'}", TlsMode::Off)] {
        let found = Found::new(spec, Value::Null, &[]).await;
        let (secured, writes) = found.settle().await;
        assert_eq!((secured.mode, mode_written(&writes)), (mode, Some(&json!(mode.name()))), "{spec}");
        // Certificates come only where somebody looks at them.
        assert_eq!(writes.iter().filter(|(_, path, _)| path.contains("/secrets")).count() > 0, mode != TlsMode::Off);
    }
}

#[tokio::test]
async fn what_ran_before_there_was_tls_is_left_as_it_is() {
    let plain = Found::new("tls: {mode: 'Off'}", Value::Null, &[]).await.cluster();
    let set = serde_json::to_value(build::objects(&plain).stateful_set).unwrap();
    let pod = set["spec"]["template"].clone();
    let pods = json!({ "metadata": {}, "items": [pod] });
    let (ready, led) = (json!({ "conditions": [] }), json!({ "epoch": 3 }));
    for (status, others) in [
        (ready, vec![(SET, set.clone())]),
        (Value::Null, vec![(SET, set)]),
        (Value::Null, vec![(PODS, pods)]),
        (led, vec![]),
    ] {
        let found = Found::new("{}", status, &others).await;
        let (secured, writes) = found.settle().await;
        assert_eq!((secured.mode, mode_written(&writes)), (TlsMode::Off, Some(&json!("Off"))));
        assert_eq!(writes.len(), 1, "nothing else is touched: {writes:?}");
        assert!(secured.events.is_empty());
    }
}

#[tokio::test]
async fn a_mode_that_is_written_down_is_kept_whatever_is_there() {
    let found = Found::new("{}", json!({ "tlsMode": "Required" }), &[]).await;
    let (secured, writes) = found.settle().await;
    assert_eq!(secured.mode, TlsMode::Required);
    assert!(writes.iter().all(|(_, path, _)| !path.ends_with("/status")), "{writes:?}");
}

#[tokio::test]
async fn what_is_not_this_clusters_opens_it_to_nobody() {
    let plain = Found::new("tls: {mode: 'Off'}", Value::Null, &[]).await.cluster();
    let set = serde_json::to_value(build::objects(&plain).stateful_set).unwrap();
    let of = |owners: Value| {
        let mut set = set.clone();
        set["metadata"]["ownerReferences"] = owners;
        set["metadata"]["labels"] = json!({});
        set
    };
    let deleted = json!([{ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "name": "orders", "uid": "u-0" }]);
    for (owners, said) in
        [(json!([]), "does not belong to this ZueCluster"), (deleted, "belongs to a deleted ZueCluster")]
    {
        let found = Found::new("{}", Value::Null, &[(SET, of(owners))]).await;
        let (mut cluster, link) = (found.cluster(), Arc::new(Link::default()));
        let settled = Box::pin(settle(&found.client, &mut cluster, &link, &[], ".svc.cluster.local")).await;
        let error = settled.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(found.api.0.lock().unwrap().writes.is_empty(), "no mode is written down");
    }
    // Pods that go with the StatefulSet that was deleted say nothing, either.
    let mut pod = set["spec"]["template"].clone();
    pod["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "orders", "uid": "x" }]);
    let pods = json!({ "metadata": {}, "items": [pod] });
    let found = Found::new("{}", Value::Null, &[(PODS, pods)]).await;
    assert_eq!(found.settle().await.0.mode, TlsMode::Required);
}

#[tokio::test]
async fn a_closed_cluster_that_has_lost_its_status_and_its_pods_stays_closed() {
    let closed = Found::new("{}", Value::Null, &[]).await;
    closed.settle().await;
    let secret = "/api/v1/namespaces/shop/secrets";
    let made = closed.api.0.lock().unwrap().objects.get(&format!("{secret}/orders-tls")).cloned().unwrap();
    let path = format!("{secret}/orders-tls");
    let found = Found::new("{}", json!({ "epoch": 3 }), &[(path.as_str(), made)]).await;
    assert_eq!(found.settle().await.0.mode, TlsMode::Required);
}

#[tokio::test]
async fn what_is_asked_to_be_replaced_is_taken_away_before_it_is_done_and_only_as_it_was_found() {
    let found = Found::new("{}", json!({ "tlsMode": "Required" }), &[]).await;
    {
        let mut kept = found.api.0.lock().unwrap();
        let resource = kept.objects.get_mut(CLUSTER).unwrap();
        resource["metadata"]["annotations"] = json!({ "zue.io/rotate": "certificates" });
        resource["metadata"]["resourceVersion"] = json!("7");
    }
    let (_, writes) = found.settle().await;
    let (method, path, body) = writes.first().unwrap();
    assert_eq!((method, path.as_str()), (&Method::PATCH, CLUSTER));
    let taken = json!({ "resourceVersion": "7", "annotations": { "zue.io/rotate": null } });
    assert_eq!(body["metadata"], taken, "whoever asks again meanwhile is heard");
    assert!(writes.len() > 1 && writes[1..].iter().all(|(_, path, _)| path.contains("/secrets")), "{writes:?}");
}
