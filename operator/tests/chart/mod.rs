//! The charts, as helm renders them where there is a helm.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod readme;
pub(crate) mod values;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize as _;
use serde_json::Value;

/// The chart of the operator, and the release that most tests make of it.
pub(crate) const OPERATOR: &str = "zue-operator";
/// The chart of a ZueCluster.
pub(crate) const CLUSTER: &str = "zue-cluster";

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Compares a file with what it is to be, or writes it.
pub(crate) fn is_current(file: &str, expected: &str) {
    let path = root().join(file);
    if std::env::var_os("ZUE_UPDATE").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{file} is out of date: run `ZUE_UPDATE=1 cargo test -p zue-operator --test manifests --test charts`"
    );
}

/// helm, where there is one.
fn helm() -> Option<PathBuf> {
    let cached = std::env::home_dir().map(|home| home.join(".cache/zue-kind/bin/helm"));
    let found = [Some(PathBuf::from("helm")), cached]
        .into_iter()
        .flatten()
        .find(|helm| Command::new(helm).arg("version").output().is_ok_and(|output| output.status.success()));
    if found.is_none() {
        eprintln!("there is no helm: the chart is not rendered");
    }
    found
}

/// Runs helm with these arguments.
pub(crate) fn helm_of(args: &[&str]) -> Option<Output> {
    Some(Command::new(helm()?).args(args).current_dir(root()).output().unwrap())
}

/// A chart as a release of that name in a namespace of the same one, with its tests.
pub(crate) fn render_of(chart: &str, release: &str, extra: &[&str]) -> Option<Output> {
    let chart = format!("charts/{chart}");
    // A helm that was built from source does not know which Kubernetes it is for.
    let args = ["template", release, &chart, "--namespace", "zue-system", "--kube-version", "1.34.0"];
    helm_of(&[&args[..], extra].concat())
}

pub(crate) fn rendered_of(chart: &str, release: &str, extra: &[&str]) -> Option<String> {
    let output = render_of(chart, release, extra)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The operator's chart, without its tests.
pub(crate) fn render(extra: &[&str]) -> Option<Output> {
    render_of(OPERATOR, OPERATOR, &[&["--skip-tests"], extra].concat())
}

pub(crate) fn rendered(extra: &[&str]) -> Option<String> {
    rendered_of(OPERATOR, OPERATOR, &[&["--skip-tests"], extra].concat())
}

pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

pub(crate) fn of_kind(documents: &[Value], kind: &str) -> Vec<Value> {
    documents.iter().filter(|document| document["kind"] == kind).cloned().collect()
}

/// Every field of a document must be one that the schema knows.
pub(crate) fn knows(path: &str, schema: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if schema.get("additionalProperties").is_some()
                    || schema.get("x-kubernetes-preserve-unknown-fields").is_some()
                {
                    continue;
                }
                let field = schema["properties"].get(name);
                knows(&format!("{path}.{name}"), field.unwrap_or_else(|| panic!("{path} has no field {name}")), value);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| knows(path, &schema["items"], item)),
        _ => {}
    }
}
