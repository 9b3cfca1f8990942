//! Applying a cluster's objects with a real client, to an API server that keeps what it is told in memory: what is another's is
//! never touched, and volumes grow.
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
use zue_operator::apply;
use zue_operator::apply::recovered;
use zue_operator::apply::volumes::{self, Growth};
use zue_operator::cluster::Cluster;
use zue_operator::crd::ZueCluster;
use zue_operator::plan::scale::Spare;

const SETS: &str = "/apis/apps/v1/namespaces/shop/statefulsets";
const BUDGETS: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets";
const ACCOUNTS: &str = "/api/v1/namespaces/shop/serviceaccounts";
const CONFIGS: &str = "/api/v1/namespaces/shop/configmaps";
const SERVICES: &str = "/api/v1/namespaces/shop/services";
const CLAIMS: &str = "/api/v1/namespaces/shop/persistentvolumeclaims";
const UID: &str = "u-1";

/// Objects by path, and everything that was asked to be changed.
#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Value>,
    writes: Vec<(Method, String, Value)>,
    /// The path prefix of what may not be changed.
    refused: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Api(Arc<Mutex<Kept>>);

impl Api {
    /// Serves on a port of its own until the test ends.
    async fn serve(&self) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Client::try_from(Config::new(url.parse().unwrap())).unwrap()
    }

    fn put(&self, collection: &str, name: &str, owner: Option<Value>, mut object: Value) {
        object["metadata"] = json!({ "name": name, "namespace": "shop", "uid": format!("{name}-uid") });
        if let Some(owner) = owner {
            object["metadata"]["ownerReferences"] = json!([owner]);
        }
        self.0.lock().unwrap().objects.insert(format!("{collection}/{name}"), object);
    }

    fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(&format!("{collection}/{name}")).cloned()
    }

    /// The changes that were asked for since the last call, as method and path.
    fn writes(&self) -> Vec<(Method, String, Value)> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }
}

fn failure(code: StatusCode) -> Response {
    let reason = code.canonical_reason().unwrap().replace(' ', "");
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": "refused", "code": code.as_u16() });
    (code, status.to_string()).into_response()
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            patch.iter().for_each(|(name, value)| merge(into.entry(name).or_insert(Value::Null), value));
        }
        (into, patch) => *into = patch.clone(),
    }
}

async fn answer(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut kept = api.0.lock().unwrap();
    let path = uri.path().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method != Method::GET {
        kept.writes.push((method.clone(), path.clone(), body.clone()));
    }
    let found = kept.objects.get(&path).cloned();
    if method != Method::GET && kept.refused.is_some_and(|refused| path.starts_with(refused)) {
        return failure(StatusCode::FORBIDDEN);
    }
    match method {
        Method::GET if path == SERVICES => json!({ "metadata": {}, "items": [] }).to_string().into_response(),
        Method::GET => found.map_or_else(|| failure(StatusCode::NOT_FOUND), |found| found.to_string().into_response()),
        Method::DELETE => {
            let Some(found) = found else { return failure(StatusCode::NOT_FOUND) };
            if body["preconditions"]["uid"] != found["metadata"]["uid"] {
                return failure(StatusCode::CONFLICT);
            }
            kept.objects.remove(&path);
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }).to_string().into_response()
        }
        Method::PATCH => {
            let asked = &body["metadata"]["uid"];
            if !asked.is_null() && found.as_ref().is_none_or(|found| found["metadata"]["uid"] != *asked) {
                return failure(StatusCode::CONFLICT);
            }
            let mut object = found.unwrap_or_else(|| json!({ "metadata": { "uid": "new" } }));
            merge(&mut object, &body);
            kept.objects.insert(path, object.clone());
            object.to_string().into_response()
        }
        _ => failure(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn cluster(size: &str) -> Cluster {
    let spec = serde_json::from_value(json!({ "storage": { "size": size } })).unwrap();
    let mut resource = ZueCluster::new("orders", spec);
    resource.metadata.namespace = Some("shop".to_owned());
    resource.metadata.uid = Some(UID.to_owned());
    Cluster::new(&resource, "zue-node:test").unwrap()
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid })
}

fn claim(size: &str) -> Value {
    json!({ "spec": { "resources": { "requests": { "storage": size } } } })
}

fn set(size: &str) -> Value {
    let mut claim = claim(size);
    claim["metadata"] = json!({ "name": "data" });
    json!({ "spec": { "replicas": 3, "selector": {}, "template": {}, "volumeClaimTemplates": [claim] } })
}

fn size_of(claim: &Value) -> &str {
    claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap()
}

async fn applied(client: &Client, size: &str) -> (Option<String>, Vec<String>) {
    let (growth, errors) = with_growth(client, size).await;
    assert_eq!(growth.refused, None);
    (growth.grown_to, errors)
}

/// As a reconciliation does it: the volumes first.
async fn with_growth(client: &Client, size: &str) -> (Growth, Vec<String>) {
    let growth = Box::pin(volumes::grow_claims(client, &cluster(size))).await;
    let applied = Box::pin(apply::objects(client, &cluster(size), Ok(()), growth.refused.is_none(), None)).await;
    (growth, applied.errors.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn what_is_anothers_is_left_alone_and_all_else_is_applied() {
    let api = Api::default();
    let client = api.serve().await;
    api.put(SERVICES, "orders", None, json!({ "spec": { "selector": { "app": "shop" } } }));
    api.put(BUDGETS, "orders", Some(owner("Deployment", "orders", "u-9")), json!({}));
    let (_, errors) = applied(&client, "1Gi").await;
    let of = |kind| {
        format!(
            "{kind} orders does not belong to this ZueCluster: remove it if unused, or give the ZueCluster another name"
        )
    };
    assert_eq!(errors, [of("Service")]);
    let refused = apply::disruption_budget(&client, &cluster("1Gi"), true).await.unwrap_err();
    assert_eq!(refused.to_string(), of("PodDisruptionBudget"));
    let touched = |path: String| api.0.lock().unwrap().writes.iter().any(|(_, written, _)| *written == path);
    assert!(!touched(format!("{SERVICES}/orders")) && !touched(format!("{BUDGETS}/orders")));
    assert!(touched(format!("{SERVICES}/orders-leader")) && touched(format!("{SETS}/orders")));
}

#[tokio::test]
async fn pods_are_neither_made_nor_changed_while_what_they_use_is_anothers_but_their_volumes_grow() {
    for (collection, kind, name) in [
        (ACCOUNTS, "ServiceAccount", "orders"),
        (CONFIGS, "ConfigMap", "orders"),
        (SERVICES, "Service", "orders-nodes"),
    ] {
        let api = Api::default();
        let client = api.serve().await;
        api.put(collection, name, None, json!({}));
        let refused = vec![format!(
            "{kind} {name} does not belong to this ZueCluster: remove it if unused, or give the ZueCluster another name"
        )];
        assert_eq!(applied(&client, "1Gi").await, (None, refused.clone()));
        assert_eq!((api.get(SETS, "orders"), api.get(collection, name).unwrap().get("data")), (None, None), "{kind}");
        api.put(SETS, "orders", Some(owner("ZueCluster", "orders", UID)), set("1Gi"));
        api.put(CLAIMS, "data-orders-0", None, claim("1Gi"));
        api.writes();
        // A full disk is not to wait for anything.
        assert_eq!(applied(&client, "2Gi").await, (Some("2Gi".to_owned()), refused));
        let touched = |path: &str| path.starts_with(SETS) || path.starts_with(collection) && path.ends_with(name);
        assert!(api.writes().iter().all(|(_, path, _)| !touched(path)), "{kind}");
        // Once the other has gone, all is done.
        api.0.lock().unwrap().objects.remove(&format!("{collection}/{name}"));
        assert_eq!(applied(&client, "2Gi").await, (None, vec![]));
        let set = api.get(SETS, "orders").unwrap();
        assert_eq!(size_of(&set["spec"]["volumeClaimTemplates"][0]), "2Gi");
    }
}

#[tokio::test]
async fn anothers_stateful_set_keeps_its_volumes_and_lives() {
    let api = Api::default();
    let client = api.serve().await;
    api.put(SETS, "orders", None, set("1Gi"));
    api.put(CLAIMS, "data-orders-0", None, claim("1Gi"));
    let (_, errors) = applied(&client, "2Gi").await;
    assert_eq!(
        errors,
        [
            "StatefulSet orders does not belong to this ZueCluster: remove it if unused, or give the ZueCluster another name"
        ]
    );
    assert_eq!(api.writes(), []);
    // That of a resource which bore the name goes by itself.
    api.put(SETS, "orders", Some(owner("ZueCluster", "orders", "u-0")), set("1Gi"));
    let (_, errors) = applied(&client, "2Gi").await;
    assert!(errors[0].contains("a deleted ZueCluster"), "{errors:?}");
    assert_eq!(api.writes(), []);
}

#[tokio::test]
async fn ones_own_objects_are_applied_again_by_their_uid_and_the_budget_is_its_keepers() {
    let api = Api::default();
    let client = api.serve().await;
    let budget = || api.get(BUDGETS, "orders").unwrap()["spec"]["maxUnavailable"].clone();
    assert_eq!(applied(&client, "1Gi").await, (None, vec![]));
    assert_eq!(api.get(BUDGETS, "orders"), None, "it has one writer");
    apply::disruption_budget(&client, &cluster("1Gi"), true).await.unwrap();
    assert_eq!(budget(), 1);
    apply::disruption_budget(&client, &cluster("1Gi"), false).await.unwrap();
    assert_eq!(budget(), 0);
    api.writes();
    assert_eq!(applied(&client, "1Gi").await, (None, vec![]));
    assert!(api.writes().iter().all(|(_, path, body)| body["metadata"]["uid"] == "new" || panic!("{path}")));
}

#[tokio::test]
async fn growing_volumes_replaces_the_stateful_set_around_its_pods() {
    let api = Api::default();
    let client = api.serve().await;
    api.put(SETS, "orders", Some(owner("ZueCluster", "orders", UID)), set("1Gi"));
    for pod in 0..2 {
        api.put(CLAIMS, &format!("data-orders-{pod}"), None, claim("1Gi"));
    }
    assert_eq!(applied(&client, "2Gi").await, (Some("2Gi".to_owned()), vec![]));
    assert_eq!(size_of(&api.get(CLAIMS, "data-orders-1").unwrap()), "2Gi");
    assert_eq!(api.get(CLAIMS, "data-orders-2"), None);
    let made = api.get(SETS, "orders").unwrap();
    assert_eq!((&made["metadata"]["uid"], size_of(&made["spec"]["volumeClaimTemplates"][0])), (&"new".into(), "2Gi"));
    let deleted: Vec<_> = api.writes().into_iter().filter(|(method, ..)| method == Method::DELETE).collect();
    assert_eq!(deleted.len(), 1);
    assert_eq!(
        (&deleted[0].2["propagationPolicy"], &deleted[0].2["preconditions"]["uid"]),
        (&"Orphan".into(), &"orders-uid".into())
    );
    assert_eq!(applied(&client, "2Gi").await, (None, vec![]));
}

#[tokio::test]
async fn a_volume_that_stayed_while_others_grew_grows_when_its_pod_is_back() {
    let api = Api::default();
    let client = api.serve().await;
    api.put(SETS, "orders", Some(owner("ZueCluster", "orders", UID)), set("2Gi"));
    for (pod, size) in ["2Gi", "1Gi", "4Gi"].iter().enumerate() {
        api.put(CLAIMS, &format!("data-orders-{pod}"), None, claim(size));
    }
    assert_eq!(applied(&client, "2Gi").await, (Some("2Gi".to_owned()), vec![]));
    let sizes = [0, 1, 2].map(|pod| api.get(CLAIMS, &format!("data-orders-{pod}")).unwrap());
    assert_eq!([0, 1, 2].map(|pod| size_of(&sizes[pod])), ["2Gi", "2Gi", "4Gi"]);
    assert!(api.writes().iter().all(|(method, ..)| method != Method::DELETE));
    // Those of a resource that was deleted, and made anew with more.
    api.0.lock().unwrap().objects.remove(&format!("{SETS}/orders"));
    assert_eq!(applied(&client, "3Gi").await, (Some("3Gi".to_owned()), vec![]));
    assert_eq!(size_of(&api.get(CLAIMS, "data-orders-0").unwrap()), "3Gi");
}

#[tokio::test]
async fn a_growth_that_is_refused_traps_nobody_all_else_is_applied_and_the_size_may_go_back() {
    let api = Api::default();
    let client = api.serve().await;
    api.put(SETS, "orders", Some(owner("ZueCluster", "orders", UID)), set("1Gi"));
    for pod in 0..3 {
        api.put(CLAIMS, &format!("data-orders-{pod}"), None, claim("1Gi"));
    }
    // As a storage class without expansion does.
    api.0.lock().unwrap().refused = Some(CLAIMS);
    let (growth, errors) = with_growth(&client, "2Gi").await;
    assert_eq!((growth.grown_to, errors), (None, vec![]));
    assert_eq!(growth.refused.as_deref(), Some("cannot grow claim data-orders-0: refused"));
    let size = |api: &Api| {
        let set = api.get(SETS, "orders").unwrap();
        (set["metadata"]["uid"].clone(), size_of(&set["spec"]["volumeClaimTemplates"][0]).to_owned())
    };
    assert_eq!(size(&api), ("orders-uid".into(), "1Gi".to_owned()), "the StatefulSet stays");
    assert!(api.get(SERVICES, "orders").is_some(), "all else is applied");
    assert_eq!(applied(&client, "1Gi").await, (None, vec![]), "it was taken back");
    api.0.lock().unwrap().refused = None;
    assert_eq!(applied(&client, "2Gi").await, (Some("2Gi".to_owned()), vec![]));
    assert_eq!(size(&api), ("new".into(), "2Gi".to_owned()));
}

#[tokio::test]
async fn claims_that_would_go_with_their_stateful_set_are_told_to_stay_before_it_is_made_anew() {
    let api = Api::default();
    let client = api.serve().await;
    let mut found = set("1Gi");
    let policy = |when: &str| json!({ "whenDeleted": when, "whenScaled": "Retain" });
    found["spec"]["persistentVolumeClaimRetentionPolicy"] = policy("Delete");
    api.put(SETS, "orders", Some(owner("ZueCluster", "orders", UID)), found);
    api.put(CLAIMS, "data-orders-0", None, claim("1Gi"));
    assert_eq!(applied(&client, "2Gi").await, (Some("2Gi".to_owned()), vec![]));
    let of_set = |(method, path, body): (Method, String, Value)| {
        path.starts_with(SETS).then(|| (method, body["spec"]["persistentVolumeClaimRetentionPolicy"].clone()))
    };
    let writes: Vec<_> = api.writes().into_iter().filter_map(of_set).collect();
    assert_eq!(writes[0], (Method::PATCH, policy("Retain")));
    assert_eq!((&writes[1].0, &writes[2].0), (&Method::DELETE, &Method::PATCH));
}

#[tokio::test]
async fn the_last_pods_go_only_by_a_fresh_word_on_just_as_many() {
    let api = Api::default();
    let client = api.serve().await;
    let mut of_five = set("10Gi");
    of_five["spec"]["replicas"] = 5.into();
    api.put(SETS, "orders", Some(owner("ZueCluster", "orders", UID)), of_five);
    let now = std::time::Instant::now();
    let long_ago = now.checked_sub(std::time::Duration::from_mins(1)).unwrap();
    let spare = |of, needed, seen_at| Some(Spare { of, needed, seen_at });
    for (spare, has, scaled_down) in [
        (None, 5, None),
        (spare(4, 3, now), 5, None),
        (spare(5, 3, long_ago), 5, None),
        (spare(5, 4, now), 4, Some((5, 4))),
        (spare(5, 3, now), 4, None),
        // Never fewer than are asked for.
        (spare(4, 1, now), 3, Some((4, 3))),
        (spare(3, 1, now), 3, None),
    ] {
        let applied = Box::pin(apply::objects(&client, &cluster("10Gi"), Ok(()), true, spare)).await;
        assert!(applied.errors.is_empty(), "{:?}", applied.errors);
        assert_eq!(applied.scaled_down, scaled_down, "{spare:?}");
        assert_eq!(api.get(SETS, "orders").unwrap()["spec"]["replicas"], has, "{spare:?}");
    }
}

/// A ZueCluster of which a majority is given up, with this cluster written down.
fn given_up(recorded: Option<u128>) -> ZueCluster {
    let id = |n: u128| format!("{n:032x}");
    let recovery = json!({ "pod": "orders-2", "replicaId": id(3), "clusterId": id(9), "end": 80 });
    let resource = json!({
        "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "spec": {},
        "metadata": { "name": "orders", "namespace": "shop", "uid": UID, "resourceVersion": "7" },
        "status": { "recovery": recovery, "clusterId": recorded.map(id) },
    });
    serde_json::from_value(resource).unwrap()
}

#[tokio::test]
async fn all_replicas_run_again_only_once_the_log_goes_on_and_nobody_keeps_the_volumes_of_the_others() {
    let api = Api::default();
    let client = api.serve().await;
    let resource = json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "spec": {} });
    api.put("/apis/zue.io/v1alpha1/namespaces/shop/zueclusters/orders", "status", None, resource);
    let ended = async |recorded: Option<u128>| {
        let resource = given_up(recorded);
        let cluster = Cluster::new(&resource, "zue-node:test").unwrap();
        assert!(recovered::settle(&client, &cluster, &resource).await.unwrap().is_some(), "it is looked for again");
        let writes = api.writes();
        assert!(writes.iter().all(|(method, path, body)| {
            *method == Method::PATCH && path.ends_with("/status") && body["metadata"]["resourceVersion"] == "7"
        }));
        writes.iter().any(|(.., body)| body["status"] == json!({ "recovery": null }))
    };
    api.put(CLAIMS, "data-orders-2", None, claim("1Gi"));
    // Not begun yet, or as the lost cluster.
    assert!(!ended(None).await && !ended(Some(9)).await);
    // Of any replica there may have been.
    api.put(CLAIMS, "data-orders-4", None, claim("1Gi"));
    assert!(!ended(Some(10)).await);
    api.0.lock().unwrap().objects.remove(&format!("{CLAIMS}/data-orders-4"));
    assert!(ended(Some(10)).await);
    // Where none is under way there is nothing to be done.
    assert_eq!(recovered::settle(&client, &cluster("1Gi"), &given_up(None)).await.unwrap(), None);
}

#[tokio::test]
async fn a_set_keeps_the_survivor_alone_and_services_of_the_stopped_ones_stay() {
    let api = Api::default();
    let client = api.serve().await;
    api.put(SETS, "orders", Some(owner("ZueCluster", "orders", UID)), set("10Gi"));
    let given_up = Cluster::new(&given_up(Some(9)), "zue-node:test").unwrap();
    let applied = Box::pin(apply::objects(&client, &given_up, Ok(()), true, None)).await;
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    let spec = api.get(SETS, "orders").unwrap()["spec"].clone();
    assert_eq!((&spec["replicas"], &spec["ordinals"]["start"]), (&json!(1), &json!(2)));
    assert!(api.writes().iter().all(|(method, ..)| *method == Method::PATCH), "nothing is deleted");
}
