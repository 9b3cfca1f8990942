//! The chart, as helm renders it where there is a helm.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize as _;
use serde_json::Value;

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
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

pub(crate) fn render(extra: &[&str]) -> Option<Output> {
    let chart = root().join("charts/zue-operator");
    let mut command = Command::new(helm()?);
    // A helm that was built from source does not know which Kubernetes it is for.
    command.args(["template", "zue-operator"]).arg(chart).args([
        "--namespace",
        "zue-system",
        "--kube-version",
        "1.34.0",
    ]);
    Some(command.args(extra).output().unwrap())
}

pub(crate) fn rendered(extra: &[&str]) -> Option<String> {
    let output = render(extra)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

pub(crate) fn of_kind(documents: &[Value], kind: &str) -> Vec<Value> {
    documents.iter().filter(|document| document["kind"] == kind).cloned().collect()
}
