//! The CRD as Kubernetes takes it, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

use super::on_demand::ZueBackup;
use super::{ZueCluster, bounds};

/// The CRD of ZueCluster.
pub fn crd() -> CustomResourceDefinition {
    let mut value = serde_json::to_value(ZueCluster::crd()).unwrap_or_default();
    plain(&mut value);
    if let Some(spec) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec") {
        bounds::add(spec);
    }
    // A CRD that was a value a moment ago is one again.
    serde_json::from_value(value).unwrap_or_else(|_| ZueCluster::crd())
}

/// The CRD of ZueBackup.
pub fn crd_of_backups() -> CustomResourceDefinition {
    let mut value = serde_json::to_value(ZueBackup::crd()).unwrap_or_default();
    plain(&mut value);
    serde_json::from_value(value).unwrap_or_else(|_| ZueBackup::crd())
}

/// Both as a file. Kubernetes' tools read YAML in which `Off` is the same as `false`, unless it is quoted.
///
/// # Errors
/// When it cannot be written.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    let (clusters, backups) = (serde_yaml::to_string(&crd())?, serde_yaml::to_string(&crd_of_backups())?);
    Ok(format!("{}---\n{backups}", clusters.replace("- Off\n", "- 'Off'\n")))
}

/// The schema of a ZueCluster.
pub fn schema() -> Value {
    schema_of(crd())
}

/// The schema of a ZueBackup.
pub fn schema_of_backups() -> Value {
    schema_of(crd_of_backups())
}

fn schema_of(crd: CustomResourceDefinition) -> Value {
    let versions = crd.spec.versions;
    let schema = versions.into_iter().next().and_then(|version| version.schema?.open_api_v3_schema);
    serde_json::to_value(schema).unwrap_or_default()
}

/// Without what Kubernetes warns about or what only gets in the way: it knows no unsigned numbers, and a field that may be null as
/// well as absent would slip past `has()` in a rule.
fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("nullable");
            // Kubernetes refuses unknown fields by itself, and this beside properties.
            if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
                fields.remove("additionalProperties");
            }
            // What may be absent need not be null.
            if let Some(Value::Array(values)) = fields.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if let Some(Value::String(format)) = fields.get_mut("format") {
                match format.as_str() {
                    "uint8" | "uint16" => "int32".clone_into(format),
                    "uint32" | "uint64" => "int64".clone_into(format),
                    _ => {}
                }
            }
            fields.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}
