//! Invalid manifests, and ones made up at random: refused by the CRD with the field's name, or else followed. The operator
//! panics at none, and says the same of each for ever.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use kube::core::cel;
use proptest::prelude::*;
use serde_json::{Value, json};
use zue_operator::build;
use zue_operator::cluster::Cluster;
use zue_operator::crd::{ZueCluster, ZueClusterStatus, schema};
use zue_operator::observe::pods;
use zue_operator::observe::view::{ClusterView, LogExtent, PodState, Replica};
use zue_operator::plan::replace;
use zue_operator::plan::switchover;
use zue_operator::status::{self, GivenUp, Workload};

fn matches(pattern: &str, text: &str) -> bool {
    let rule =
        json!({ "type": "string", "x-kubernetes-validations": [{ "rule": format!("self.matches(r'{pattern}')") }] });
    cel::Validator::new().validate(&rule, &text.into(), None).is_ok()
}

/// The fields of a document that the schema alone refuses, as the API server would, by field.
fn structural(path: &str, schema: &Value, value: &Value) -> Vec<String> {
    if schema["x-kubernetes-preserve-unknown-fields"] == true || schema["x-kubernetes-int-or-string"] == true {
        return Vec::new();
    }
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    let number = |name: &str| schema[name].as_f64();
    let length = |value: usize, least: &str, most: &str| {
        let value = u64::try_from(value).unwrap();
        schema[least].as_u64().is_none_or(|least| value >= least)
            && schema[most].as_u64().is_none_or(|most| value <= most)
    };
    let is_good = match value {
        Value::String(text) => {
            let named = schema["enum"].as_array().is_none_or(|names| names.contains(value));
            let fits = length(text.chars().count(), "minLength", "maxLength");
            named && fits && schema["pattern"].as_str().is_none_or(|pattern| matches(pattern, text))
        }
        Value::Number(found) => {
            let found = found.as_f64().unwrap();
            number("minimum").is_none_or(|least| found >= least) && number("maximum").is_none_or(|most| found <= most)
        }
        Value::Array(items) => length(items.len(), "minItems", "maxItems"),
        _ => true,
    };
    if !is_of_type || !is_good {
        return vec![path.to_owned()];
    }
    let mut refused = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            refused.push(format!("{path}.{name}"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema)) => refused.extend(structural(&path, schema, field)),
            // Those are Kubernetes' own.
            (None, None) if path == "metadata" || path.starts_with("metadata.") => {}
            (None, None) if ["apiVersion", "kind"].contains(&path.as_str()) => {}
            (None, None) => refused.push(path),
        }
    }
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        refused.extend(structural(&format!("{path}[{at}]"), &schema["items"], item));
    }
    refused
}

/// The fields that the API server would refuse.
fn refused(schema: &Value, document: &Value) -> Vec<String> {
    let structural = structural("", schema, document);
    if !structural.is_empty() {
        return structural;
    }
    // With its defaults, where it can be read.
    let resource = serde_json::from_value::<ZueCluster>(document.clone());
    let resource = resource.map_or_else(|_| document.clone(), |resource| serde_json::to_value(resource).unwrap());
    match cel::Validator::new().validate(schema, &resource, None) {
        Ok(()) => Vec::new(),
        Err(errors) => {
            // Rules of the whole resource name their field in words.
            let field = |error: &cel::ValidationError| match error.field_path.trim_matches('.') {
                "" => error.message.clone(),
                field => field.replace("..", "."),
            };
            errors.iter().map(field).collect()
        }
    }
}

#[test]
fn each_bad_manifest_is_refused_with_its_field() {
    let (schema, mut seen) = (schema(), 0);
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let field = text.lines().next().unwrap().strip_prefix("# refused: ").expect("the first line names the field");
        let refused = refused(&schema, &serde_yaml::from_str(&text).unwrap());
        let is_named = refused.iter().any(|found| found == field || found.starts_with(&format!("{field} ")));
        assert!(is_named, "{}: {refused:?}", path.display());
        seen += 1;
    }
    assert!(seen >= 30, "{seen}");
}

fn resource(spec: &Value, status: &Value) -> Option<ZueCluster> {
    let metadata = json!({ "name": "orders", "namespace": "shop", "uid": "u-1", "generation": 3,
        "annotations": { "zue.io/restart": "x".repeat(9000) } });
    let resource = json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "metadata": metadata, "spec": spec,
        "status": status });
    serde_json::from_value(resource).ok()
}

fn view(cluster: &Cluster) -> ClusterView {
    let replica = |pod: &String| {
        let pod_state = PodState { stuck: Some("x".repeat(9000)), ..PodState::default() };
        Replica { pod: pod.clone(), pod_state, ..Replica::default() }
    };
    ClusterView {
        replicas: cluster.pods().iter().map(replica).collect(),
        leader: None,
        leads_epoch: None,
        elected_by: None,
        epoch: 0,
        quorum: 1,
        committing: 0,
        is_changing: false,
        wished: cluster.spec.replicas,
        log: LogExtent::default(),
        blocked: None,
        notices: Vec::new(),
    }
}

/// Whatever can be read is either followed or refused, and what is said of it converges.
fn is_survived(spec: &Value, status: &Value, text: &str) {
    let Some(resource) = resource(spec, status) else { return };
    drop(Cluster::unchecked(&resource, "image"));
    let Ok(cluster) = Cluster::new(&resource, "image") else { return };
    let cluster = cluster.around(Some(i32::MAX));
    drop((build::objects(&cluster), cluster.wish(), cluster.addresses(".svc", |_| None)));
    let view = view(&cluster);
    drop(switchover::asked(&cluster, Some(text)));
    let workload = Workload {
        given_up: GivenUp { replica: replace::asked(&view, Some(text)), ..GivenUp::default() },
        ..Workload::default()
    };
    let facts = status::facts(&cluster, &view, &workload);
    let report = |before: &ZueClusterStatus, second| {
        let now = Timestamp::from_second(second).unwrap();
        status::report(&cluster, &view, (&workload, &facts), before, now)
    };
    let first = report(&resource.status.clone().unwrap_or_default(), 10);
    assert_eq!(report(&first, 20), first, "it is written again and again");
    let refused = |status: &Value| structural("status", &schema()["properties"]["status"], status);
    // What is kept is kept as it is, the id of the log above all: the API server took it. Nothing is added that it does not take.
    let before = refused(&serde_json::to_value(resource.status.unwrap_or_default()).unwrap());
    let after = refused(&serde_json::to_value(&first).unwrap());
    assert!(after.iter().all(|path| before.contains(path)), "the API server refuses {after:?}");
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        "[0-9]{1,20}(B|KiB|MiB|GiB|ms|s|m|h|Gi|Mi)".prop_map(Value::from),
        "[0-9a-f]{32}".prop_map(Value::from),
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
    ]
}

/// A document in which some fields are something else.
fn garbled(document: Value) -> impl Strategy<Value = Value> {
    fn paths(at: &str, value: &Value, found: &mut Vec<String>) {
        found.push(at.to_owned());
        let fields = value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value));
        let items = value.as_array().into_iter().flatten().enumerate().map(|(at, value)| (at.to_string(), value));
        fields.chain(items).for_each(|(name, value)| paths(&format!("{at}/{name}"), value, found));
    }
    let mut all = Vec::new();
    paths("", &document, &mut all);
    let changes = proptest::collection::vec((0..all.len(), scalar()), 0..4);
    changes.prop_map(move |changes| {
        let mut document = document.clone();
        for (at, value) in changes {
            if let Some(place) = document.pointer_mut(&all[at]) {
                *place = value;
            }
        }
        document
    })
}

fn whole_spec() -> Value {
    let spec = json!({ "storage": { "size": "1Gi", "storageClassName": "fast" }, "quorum": 2, "image": "i",
        "externalAccess": { "addressTemplate": "a:1", "perReplicaServices": { "type": "NodePort", "firstNodePort": 30000 } },
        "access": [{ "name": "shop", "rights": ["read"], "token": true }], "pod": { "annotations": { "a": "b" } } });
    serde_json::to_value(resource(&spec, &Value::Null).unwrap().spec).unwrap()
}

fn whole_status() -> Value {
    let condition = |type_: &str| {
        json!({ "type": type_, "status": "True", "reason": "R", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    json!({ "observedGeneration": 1, "conditions": [condition("Ready"), condition("Other")], "epoch": 4,
        "recordedLeader": "0".repeat(31) + "1", "clusterId": "0".repeat(31) + "9", "tlsMode": "Off", "leader": "orders-0",
        "isr": ["orders-0"], "inSyncReplicas": 1, "quorum": 2, "commitEnd": 9, "replicas": 3, "readyReplicas": 3,
        "version": "0.1.0", "selector": "a=b", "storageSize": "1Gi", "attention": "x",
        "members": [{ "pod": "orders-0", "role": "Leader", "inSync": true, "durableEnd": 9 }] })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn garbage_in_the_resource_neither_panics_nor_loops(
        spec in garbled(whole_spec()), status in garbled(whole_status()), text in "\\PC{0,80}"
    ) {
        is_survived(&spec, &status, &text);
    }

    #[test]
    fn garbage_in_a_pod_is_read(status in garbled(json!({ "conditions": [{ "type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "m" }], "containerStatuses": [{ "name": "node", "image": "", "imageID": "",
        "ready": false, "restartCount": 1, "state": { "waiting": { "reason": "R", "message": "m" } } }] })))
    {
        if let Ok(pod) = serde_json::from_value(json!({ "metadata": {}, "status": status })) {
            drop((pods::stuck(&pod), pods::is_ready(&pod), pods::set(&pod)));
        }
    }
}
