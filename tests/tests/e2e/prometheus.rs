//! A real Prometheus in the cluster, which scrapes the operator and the nodes of one ZueCluster every second.
//!
//! Its targets are found by DNS: Debian builds Prometheus without the discovery of pods.

use serde_json::{Value, json};
use zue_tests::replicas::eventually;
#[cfg(feature = "e2e-full")]
use zue_tests::watch::{Watch, Windows, hurried};

use crate::kubernetes::{PATIENCE, apply, get, kubectl, renew_namespace, run};

const NAMESPACE: &str = "zue-monitoring";

/// Starts it for the ZueCluster of a namespace.
pub fn start(namespace: &str) {
    start_with(namespace, None);
}

/// Starts it with the chart's alerts, hurried.
#[cfg(feature = "e2e-full")]
pub fn watch(namespace: &str, windows: Windows) -> Watch {
    start_with(namespace, Some(&hurried(windows)));
    Watch::new(PATIENCE, Box::new(get_path))
}

fn start_with(namespace: &str, rules: Option<&str>) {
    renew_namespace(NAMESPACE);
    if let Some(rules) = rules {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "rules" }, "data": { "alerts.yaml": rules } });
        apply(NAMESPACE, &map.to_string()).expect("the rules are taken");
    }
    // The operators' addresses, also of those that come later.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "operators-watched" },
        "spec": {
            "clusterIP": "None", "publishNotReadyAddresses": true, "selector": { "app.kubernetes.io/name": "zue-operator" },
            "ports": [{ "name": "metrics", "port": 8080 }],
        },
    });
    apply("zue-system", &service.to_string()).expect("a Service is taken");
    let image = std::env::var("ZUE_PROMETHEUS_IMAGE").unwrap_or_else(|_| "zue-prometheus:test".to_owned());
    // Of the operators one acts, and it alone speaks of clusters.
    let pods = get(&["-n", "zue-system", "pods"])["items"].clone();
    let targets = 3.0 + f64::from(u32::try_from(pods.as_array().expect("pods").len()).expect("few operators"));
    let manifest = include_str!("prometheus.yaml").replace("PROMETHEUS_IMAGE", &image);
    let manifest = manifest.replace("NAMESPACE", namespace);
    apply(NAMESPACE, &manifest).expect("the manifest is right");
    kubectl(&["rollout", "status", "-n", NAMESPACE, "deploy/prometheus", "--timeout=120s"]);
    expect("sum(up)", |value| value == targets);
}

fn get_path(path: &str) -> Result<String, String> {
    run("kubectl", &["get", "--raw", &format!("/api/v1/namespaces/{NAMESPACE}/services/prometheus:9090/proxy{path}")])
}

fn ask(query: &str) -> Result<Value, String> {
    let encode =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let query: String = query.bytes().map(encode).collect();
    let answer = get_path(&format!("/api/v1/query?query={query}"))?;
    serde_json::from_str(&answer).map_err(|error| error.to_string())
}

/// The single value of a query; none while there is no such series.
pub fn value(query: &str) -> Option<f64> {
    let answer = ask(query).ok()?;
    let result = answer["data"]["result"].as_array()?;
    assert!(result.len() <= 1, "{query} gives {} series", result.len());
    result.first()?["value"][1].as_str()?.parse().ok()
}

/// Waits until a query's value satisfies a condition, and gives it.
pub fn expect(query: &str, is_met: impl Fn(f64) -> bool) -> f64 {
    let last = std::cell::Cell::new(None);
    let ask = || {
        last.set(value(query));
        last.get().filter(|value| is_met(*value))
    };
    eventually(PATIENCE, ask, || format!("{query}, last {:?}", last.get()))
}
