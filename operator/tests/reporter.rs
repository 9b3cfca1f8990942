//! Statuses for an API server that takes its time, and what is written down while others write as well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use zue_controller::Store as _;
use zue_core::Epoch;
use zue_core::control::Recorded;
use zue_operator::cluster::Cluster;
use zue_operator::crd::status::{MemberRole, Recovery};
use zue_operator::crd::{ZueCluster, ZueClusterStatus};
use zue_operator::kubernetes::store::StatusStore;
use zue_operator::observe::view::{ClusterView, LogExtent, PodState, Replica};
use zue_operator::plan::event::ClusterEvent;
use zue_operator::plan::recover::{Recover, Stage};
use zue_operator::plan::replace::{self, Replace};
use zue_operator::report::content::{Asked as Deeds, Report};
use zue_operator::report::open;
use zue_operator::status::{self, Workload};

/// Tells of every change that it is asked for; a change of a status is answered only when that is let through.
#[derive(Clone)]
struct Api {
    asked: mpsc::UnboundedSender<(Method, String, Value)>,
    statuses: Arc<Semaphore>,
    /// The answers to replacing the status, last first; then it is done.
    replaces: Arc<Mutex<Vec<StatusCode>>>,
}

type Asked = mpsc::UnboundedReceiver<(Method, String, Value)>;

async fn serve(replaces: Vec<StatusCode>) -> (Client, Api, Asked) {
    let (asked, seen) = mpsc::unbounded_channel();
    let api = Api { asked, statuses: Arc::new(Semaphore::new(0)), replaces: Arc::new(Mutex::new(replaces)) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(api.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Client::try_from(Config::new(url.parse().unwrap())).unwrap(), api, seen)
}

async fn answer(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let refused = |code: StatusCode| {
        let reason = code.canonical_reason().unwrap().replace(' ', "");
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
            "message": "refused", "code": code.as_u16() });
        (code, status.to_string()).into_response()
    };
    let path = uri.path().to_owned();
    if method == Method::GET && !path.contains("zueclusters") {
        return refused(StatusCode::NOT_FOUND);
    }
    if method != Method::GET {
        api.asked.send((method.clone(), path.clone(), body.clone())).unwrap();
    }
    if method == Method::PUT
        && let Some(code) = api.replaces.lock().unwrap().pop()
    {
        return refused(code);
    }
    if path.ends_with("/status") && method == Method::PATCH {
        api.statuses.acquire().await.unwrap().forget();
    }
    let object = if path.contains("zueclusters") {
        json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "spec": {},
            "metadata": { "name": "orders", "namespace": "shop", "uid": "u-1", "resourceVersion": "7" } })
    } else {
        let mut object = body;
        object["metadata"]["name"] = "orders".into();
        object
    };
    object.to_string().into_response()
}

fn cluster() -> Cluster {
    let mut resource = ZueCluster::new("orders", serde_json::from_value(json!({})).unwrap());
    resource.metadata.namespace = Some("shop".to_owned());
    resource.metadata.uid = Some("u-1".to_owned());
    Cluster::new(&resource, "zue-node:test").unwrap()
}

fn report(quorum: u32) -> Report {
    let leader = Replica {
        pod: "orders-0".to_owned(),
        role: MemberRole::Leader,
        in_sync: true,
        pod_state: PodState { ready: true, stuck: None, label: Some(Some("leader".to_owned())) },
        ..Replica::default()
    };
    let view = ClusterView {
        leader: Some(leader.pod.clone()),
        replicas: vec![leader],
        leads_epoch: Some(1),
        elected_by: None,
        epoch: 1,
        quorum,
        wished: 1,
        log: LogExtent::default(),
        committing: 0,
        is_changing: false,
        notices: Vec::new(),
        blocked: None,
    };
    let asked = Deeds { seen_at: Instant::now(), switchover: None, recovers: false, may_go: false, pods: Vec::new() };
    let workload = Workload::default();
    let facts = status::facts(&cluster(), &view, &workload);
    Report { cluster: cluster(), view, workload, facts, found: None, recorded: Recorded::default(), asked }
}

/// The next change of something whose path ends so.
async fn next(asked: &mut Asked, end: &str) -> Value {
    let found = async {
        loop {
            let (_, path, body) = asked.recv().await.unwrap();
            if path.ends_with(end) {
                return body;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap()
}

#[tokio::test]
async fn of_what_waits_for_a_slow_api_server_only_the_latest_is_told_and_events_go_their_own_way() {
    let (client, api, mut asked) = serve(Vec::new()).await;
    let before = ZueClusterStatus::default();
    let (reports, reporting) = open(&client, &cluster(), "operator", before, Arc::default());
    let reporting = tokio::spawn(reporting);
    let quorum = |patch: &Value| patch["status"]["quorum"].as_u64().unwrap();
    reports.report(report(1));
    // The budget comes before the status: it allows nothing until it is known that it may.
    assert_eq!(next(&mut asked, "/poddisruptionbudgets/orders").await["spec"]["maxUnavailable"], 0);
    assert_eq!(quorum(&next(&mut asked, "/status").await), 1);
    for of_many in 2..9 {
        reports.report(report(of_many));
    }
    reports.tell(ClusterEvent::normal("Told", "while the status hangs"));
    assert_eq!(next(&mut asked, "/events").await["note"], "while the status hangs");
    api.statuses.add_permits(2);
    assert_eq!(quorum(&next(&mut asked, "/status").await), 8);
    drop(reports);
    tokio::time::timeout(Duration::from_secs(20), reporting).await.unwrap().unwrap();
    drop((client, api));
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn a_report_that_comes_between_does_not_fail_what_is_written_down() {
    let (from, to) = (Recorded::default(), Recorded { epoch: Epoch(1), ..Recorded::default() });
    let (client, _, mut asked) = serve(vec![StatusCode::CONFLICT; 2]).await;
    let store = StatusStore::new(client, &cluster());
    assert!(store.swap(&from, &to).await.unwrap());
    for _ in 0..3 {
        assert_eq!(next(&mut asked, "/status").await["status"]["epoch"], 1);
    }
    // But what is compared must be as it was, and nobody tries for ever.
    assert!(!store.swap(&to, &from).await.unwrap());
    let (client, _, _asked) = serve(vec![StatusCode::CONFLICT; 99]).await;
    assert!(!StatusStore::new(client, &cluster()).swap(&from, &to).await.unwrap());
}

#[tokio::test]
async fn what_somebody_writes_into_the_status_is_corrected_and_a_cluster_at_rest_is_left_alone() {
    let (client, api, mut asked) = serve(Vec::new()).await;
    api.statuses.add_permits(9);
    let (reports, reporting) = open(&client, &cluster(), "operator", ZueClusterStatus::default(), Arc::default());
    let reporting = tokio::spawn(reporting);
    let shows = |version: &str, status: &ZueClusterStatus| Report {
        found: Some((Some(version.to_owned()), status.clone())),
        ..report(2)
    };
    reports.report(shows("1", &ZueClusterStatus::default()));
    let mut written = next(&mut asked, "/status").await["status"].clone();
    written.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let written: ZueClusterStatus = serde_json::from_value(written).unwrap();
    let mut wrong = written.clone();
    wrong.leader = Some("orders-2".to_owned());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for (version, shown, is_corrected) in
        [("1", &ZueClusterStatus::default(), false), ("2", &written, false), ("3", &wrong, true)]
    {
        reports.report(shows(version, shown));
        let patience = Duration::from_millis(if is_corrected { 20_000 } else { 300 });
        let mut is_written = false;
        while !is_written && let Ok(Some((_, path, body))) = tokio::time::timeout(patience, asked.recv()).await {
            is_written = path.ends_with("/status") && body["status"]["leader"] == "orders-0";
        }
        assert_eq!(is_written, is_corrected, "version {version}");
    }
    drop(reports);
    reporting.abort();
}

#[tokio::test]
async fn a_replica_is_given_up_only_once_the_resource_says_what_that_means_and_the_annotation_goes_first() {
    let (client, api, mut asked) = serve(Vec::new()).await;
    api.statuses.add_permits(9);
    let (reports, reporting) = open(&client, &cluster(), "operator", ZueClusterStatus::default(), Arc::default());
    let reporting = tokio::spawn(reporting);
    let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "orders-0", "uid": "p-0",
        "deletionTimestamp": "2026-01-01T00:00:00Z" } }))
    .unwrap();
    let asks = |status: &ZueClusterStatus| {
        let mut report = report(1);
        report.workload.given_up.replica = Some(Replace::Pod("orders-0".to_owned()));
        report.facts = status::facts(&report.cluster, &report.view, &report.workload);
        report.found = Some((Some("8".to_owned()), status.clone()));
        report.asked.pods = vec![Arc::new(pod.clone())];
        // However slow this machine is, it was seen just now.
        report.asked.seen_at = Instant::now() + Duration::from_mins(1);
        report
    };
    reports.report(asks(&ZueClusterStatus::default()));
    let mut said = None;
    // Until the status is told, and a while longer.
    let patience = |is_said: bool| Duration::from_millis(if is_said { 500 } else { 20_000 });
    while let Ok(Some((method, path, body))) = tokio::time::timeout(patience(said.is_some()), asked.recv()).await {
        assert!(
            method != Method::DELETE && !path.ends_with("/zueclusters/orders"),
            "{method} {path} before it is said"
        );
        if path.ends_with("/status") {
            let mut status = body["status"].clone();
            status.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            said = Some(serde_json::from_value::<ZueClusterStatus>(status).unwrap());
        }
    }
    let said = said.unwrap();
    let replacing = said.conditions.iter().find(|condition| condition.type_ == "Replacing").unwrap();
    assert_eq!((replacing.status.as_str(), replacing.message.clone()), ("True", replace::meaning("orders-0")));
    reports.report(asks(&said));
    let mut done = Vec::new();
    while done.len() < 3
        && let Ok(Some((method, path, body))) = tokio::time::timeout(Duration::from_secs(20), asked.recv()).await
    {
        if method == Method::DELETE || path.ends_with("/zueclusters/orders") {
            done.push((path.rsplit('/').next().unwrap().to_owned(), body));
        }
    }
    let names: Vec<&str> = done.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["orders", "data-orders-0", "orders-0"]);
    assert_eq!(done[0].1["metadata"]["annotations"], json!({ "zue.io/replace": null }));
    // The machine that would confirm that it is gone may be gone itself.
    assert_eq!((&done[2].1["preconditions"]["uid"], &done[2].1["gracePeriodSeconds"]), (&json!("p-0"), &json!(0)));
    drop(reports);
    reporting.abort();
}

/// Everything that is asked for within a while, but the budget and Events.
async fn all(asked: &mut Asked) -> Vec<(Method, String, Value)> {
    let mut seen = Vec::new();
    while let Ok(Some(one)) = tokio::time::timeout(Duration::from_millis(700), asked.recv()).await {
        if !one.1.ends_with("/events") && !one.1.ends_with("/poddisruptionbudgets/orders") {
            seen.push(one);
        }
    }
    seen
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one recovery, from the annotation to the new cluster")]
async fn a_majority_is_given_up_only_once_the_resource_says_what_that_means() {
    let (client, api, mut asked) = serve(Vec::new()).await;
    api.statuses.add_permits(99);
    let (reports, reporting) = open(&client, &cluster(), "operator", ZueClusterStatus::default(), Arc::default());
    let reporting = tokio::spawn(reporting);
    let id = |n: u128| format!("{n:032x}");
    let recovery = Recovery { pod: "orders-0".to_owned(), replica_id: id(3), cluster_id: id(9), end: 80 };
    let (meaning, now) = ("what it means".to_owned(), Instant::now() + Duration::from_mins(1));
    let shows = |recover: Option<Recover>, status: &ZueClusterStatus| {
        let mut report = report(1);
        report.workload.given_up.majority = recover;
        report.facts = status::facts(&report.cluster, &report.view, &report.workload);
        report.found = Some((Some("8".to_owned()), status.clone()));
        (report.asked.seen_at, report.asked.recovers) = (now, true);
        report
    };
    let confirmed = || Some(Recover::Confirmed(recovery.clone(), meaning.clone()));
    // The resource says nothing of it, or something else.
    let mut written = ZueClusterStatus::default();
    for recover in [Some(Recover::Meaning("else".to_owned())), confirmed()] {
        reports.report(shows(recover, &written));
        for (method, path, body) in all(&mut asked).await {
            assert!(method == Method::PATCH && path.ends_with("/status"), "{method} {path}");
            assert!(body["status"].get("recovery").is_none(), "written down before it was said: {body}");
            let mut status = body["status"].clone();
            status.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            written = serde_json::from_value(status).unwrap();
        }
    }
    reports.report(shows(confirmed(), &written));
    let done = all(&mut asked).await;
    let recoveries: Vec<&Value> =
        done.iter().map(|(.., body)| body).filter(|body| body["status"].get("recovery").is_some()).collect();
    assert_eq!(recoveries.len(), 1, "{done:?}");
    assert_eq!(*recoveries[0], json!({ "metadata": { "resourceVersion": "8" }, "status": { "recovery": recovery } }));

    // Once it is written down the annotation goes, then the survivor restarts, and the lost cluster is forgotten.
    let under_way = |stage: Stage, recovers: bool, applied: bool| {
        let mut report = shows(None, &written);
        report.cluster.recovery = Some(recovery.clone());
        (report.workload.given_up.stage, report.workload.pods.revision) = (Some(stage), Some("new".to_owned()));
        report.workload.given_up.applied = applied.then(|| recovery.clone());
        report.asked.recovers = recovers;
        let pod = json!({ "metadata": { "name": "orders-0", "uid": "p-0", "labels": { "controller-revision-hash": "old" } } });
        report.asked.pods = vec![Arc::new(serde_json::from_value(pod).unwrap())];
        // No roll takes the pod: its replica is at work.
        report.view.leader = None;
        report.view.replicas[0].role = MemberRole::Follower;
        report
    };
    let mut did = async |report: Report| {
        reports.report(report);
        let seen = all(&mut asked).await.into_iter();
        // Labels and reports are told beside.
        let is_label = |(_, path, body): &(Method, String, Value)| {
            path.contains("/pods/") && !body["metadata"]["labels"].is_null()
        };
        let is_report =
            |(_, path, body): &(Method, String, Value)| path.ends_with("/status") && body["metadata"].is_null();
        seen.filter(|one| !is_label(one) && !is_report(one)).collect::<Vec<_>>()
    };
    let taken = did(under_way(Stage::Detaching, true, true)).await;
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(taken[0].2["metadata"]["annotations"], json!({ "zue.io/unsafe-recover": null }));
    for stage in [Stage::Stopping(vec!["orders-1".to_owned()]), Stage::Beginning, Stage::Begun] {
        let done = did(under_way(stage, false, true)).await;
        assert!(done.iter().all(|(method, ..)| *method != Method::DELETE), "{done:?}");
    }
    let early = did(under_way(Stage::Detaching, false, false)).await;
    assert!(early.iter().all(|(method, ..)| *method != Method::DELETE), "the set is not of it yet: {early:?}");
    let forgotten = did(under_way(Stage::Forgetting, false, true)).await;
    assert_eq!(forgotten.len(), 1, "{forgotten:?}");
    assert_eq!(forgotten[0].2["status"], json!({ "clusterId": null, "recordedLeader": null }));
    let restarted = did(under_way(Stage::Detaching, false, true)).await;
    let deleted: Vec<_> = restarted.iter().filter(|(method, ..)| *method == Method::DELETE).collect();
    assert_eq!(deleted.len(), 1, "{restarted:?}");
    assert_eq!(deleted[0].2["preconditions"]["uid"], "p-0");
    drop(reports);
    reporting.abort();
}
