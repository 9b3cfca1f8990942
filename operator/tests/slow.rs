//! The care for a cluster before an API server that takes everything and answers nothing: the turns of the controller go on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use kube::core::DeserializeGuard;
use kube::runtime::{reflector, watcher};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use zue_operator::cluster::Cluster;
use zue_operator::crd::ZueCluster;
use zue_operator::identities::Link;
use zue_operator::metrics::Metrics;
use zue_operator::run::cluster_task::take_care_whatever_happens;
use zue_operator::run::shared::Shared;
use zue_operator::status::{PodFacts, Workload};

const PATIENCE: Duration = Duration::from_secs(20);
/// The operator gives up a call to the API server after 5 s.
const TURNS_GO_ON_WITHIN: Duration = Duration::from_secs(4);

type Asked = mpsc::UnboundedSender<(Method, String)>;

async fn hang(State(asked): State<Asked>, method: Method, uri: Uri) -> Response {
    asked.send((method, uri.path().to_owned())).unwrap();
    std::future::pending().await
}

fn resource(generation: i64, replicas: u32, annotations: &Value) -> DeserializeGuard<ZueCluster> {
    let resource = json!({
        "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "spec": { "replicas": replicas },
        "metadata": { "name": "orders", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
            "generation": generation, "annotations": annotations },
    });
    serde_json::from_value(resource).unwrap()
}

/// The turns of the care for a cluster go on while the API server hangs at that change.
async fn goes_on(annotations: Value, pods: &[Value], change: (Method, &str)) {
    let (asked, mut changes) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(hang).with_state(asked)).await });
    let (clusters, mut writer) = reflector::store();
    let (pods_seen, mut pods_writer) = reflector::store::<Pod>();
    let first = resource(1, 3, &annotations);
    writer.apply_watcher_event(&watcher::Event::Apply(first.clone()));
    for pod in pods {
        pods_writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(pod.clone()).unwrap()));
    }
    let (metrics, (_acts, acts)) = (Arc::new(Metrics::new().unwrap()), watch::channel(true));
    let shared = Shared {
        client: Client::try_from(Config::new(url.parse().unwrap())).unwrap(),
        clusters,
        pods: pods_seen,
        acts,
        again: mpsc::channel(1).0,
        metrics: Arc::clone(&metrics),
        default_image: "zue-node:test".into(),
        instance: "operator".into(),
        services_suffix: "".into(),
    };
    let cluster = Cluster::new(&first.0.unwrap(), "zue-node:test").unwrap();
    let pods = PodFacts { count: Some(3), revision: Some("new".to_owned()), ..PodFacts::default() };
    let workload = Workload { generation: Some(1), pods, ..Workload::default() };
    let (workload, link) = (Arc::new(Mutex::new(workload)), Link::default());
    let care = tokio::spawn(take_care_whatever_happens(shared, cluster, workload, link.dials()));

    let hung = async { while changes.recv().await.unwrap() != (change.0.clone(), change.1.to_owned()) {} };
    timeout(PATIENCE, hung).await.unwrap_or_else(|_| panic!("{change:?} is not asked for"));
    let since = Instant::now();
    writer.apply_watcher_event(&watcher::Event::Apply(resource(2, 5, &annotations)));
    let seen = || metrics.text().unwrap().contains("zue_cluster_replicas{cluster=\"orders\",namespace=\"shop\"} 5");
    while !seen() {
        assert!(since.elapsed() < TURNS_GO_ON_WITHIN, "no turn after {:?} of {change:?}", since.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    care.abort();
}

#[tokio::test]
async fn no_turn_waits_for_an_annotation_that_is_obeyed() {
    let change = (Method::PATCH, "/apis/zue.io/v1alpha1/namespaces/shop/zueclusters/orders");
    goes_on(json!({ "zue.io/switchover-to": "nobody" }), &[], change).await;
}

#[tokio::test]
async fn no_turn_waits_for_a_pod_that_is_replaced() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "orders-2", "namespace": "shop", "uid": "p-2",
            "labels": { "app.kubernetes.io/instance": "orders", "controller-revision-hash": "old" } },
    });
    goes_on(json!({}), &[pod], (Method::DELETE, "/api/v1/namespaces/shop/pods/orders-2")).await;
}
