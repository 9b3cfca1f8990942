//! The schema of the values of charts/zue-cluster: its own, and the spec of a ZueCluster as the CRD has it.

use serde_json::{Map, Value, json};

/// Fields of which the types are Kubernetes' own: the API server checks them.
const THEIRS: [&str; 7] = [
    "resources",
    "access[].from",
    "monitoring.from",
    "pod.affinity",
    "pod.tolerations",
    "pod.topologySpreadConstraints",
    "pod.imagePullSecrets",
];

/// The values that are no part of the spec.
pub(crate) fn own() -> Value {
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    json!({
        "global": { "type": "object", "description": "What Helm hands to every chart." },
        "fullnameOverride": { "type": "string", "pattern": "^([a-z]([-a-z0-9]{0,38}[a-z0-9])?)?$" },
        "labels": texts,
        "annotations": texts,
        "helmTest": {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "image": { "type": "string" },
                "pullPolicy": { "type": "string", "enum": ["Always", "IfNotPresent", "Never"] },
                "imagePullSecrets": { "type": "array", "items": { "type": "object" } },
            },
        },
    })
}

/// The schema, from that of the resource.
pub(crate) fn schema(resource: &Value) -> Value {
    let mut properties = own().as_object().unwrap().clone();
    for (name, field) in resource["properties"]["spec"]["properties"].as_object().unwrap() {
        let before = properties.insert(name.clone(), plain(name, field));
        assert!(before.is_none(), "spec.{name} has the name of a value of the chart's own");
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of zue-cluster",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

/// Without what Kubernetes alone understands. What is not known is refused here already.
fn plain(path: &str, schema: &Value) -> Value {
    let keep = |names: &[&str]| -> Map<String, Value> {
        let has = |name: &&str| schema.get(*name).map(|value| ((*name).to_owned(), value.clone()));
        names.iter().filter_map(has).collect()
    };
    if THEIRS.contains(&path) {
        return keep(&["type", "description"]).into();
    }
    let mut plain = keep(&[
        "type",
        "description",
        "default",
        "enum",
        "pattern",
        "required",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
    ]);
    if let Some(fields) = schema["properties"].as_object() {
        let fields = fields.iter().map(|(name, field)| (name.clone(), self::plain(&format!("{path}.{name}"), field)));
        plain.insert("properties".to_owned(), Value::Object(fields.collect()));
        plain.insert("additionalProperties".to_owned(), false.into());
    } else if let Some(values) = schema.get("additionalProperties") {
        plain.insert("additionalProperties".to_owned(), self::plain(path, values));
    }
    if let Some(items) = schema.get("items") {
        plain.insert("items".to_owned(), self::plain(&format!("{path}[]"), items));
    }
    plain.into()
}
