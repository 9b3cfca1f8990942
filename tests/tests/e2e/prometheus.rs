//! A real Prometheus in the cluster, which scrapes the operator and the nodes of one ZueCluster every second.
//!
//! Its targets are named one by one: Debian builds Prometheus without the discovery of pods.

use serde_json::Value;
use zue_tests::replicas::eventually;

use crate::kubernetes::{PATIENCE, apply, get, kubectl, renew_namespace, run};

const NAMESPACE: &str = "zue-monitoring";

/// Starts it for the ZueCluster of a namespace.
pub fn start(namespace: &str) {
    renew_namespace(NAMESPACE);
    let image = std::env::var("ZUE_PROMETHEUS_IMAGE").unwrap_or_else(|_| "zue-prometheus:test".to_owned());
    // Of the operators one acts, and it alone speaks of clusters.
    let pods = get(&["-n", "zue-system", "pods"])["items"].clone();
    let address =
        |pod: &Value| format!("{}:8080", pod["status"]["podIP"].as_str().expect("an operator has an address"));
    let operators: Vec<String> = pods.as_array().expect("pods").iter().map(address).collect();
    let targets = 3.0 + f64::from(u32::try_from(operators.len()).expect("few operators"));
    let manifest = include_str!("prometheus.yaml").replace("PROMETHEUS_IMAGE", &image);
    let manifest = manifest.replace("NAMESPACE", namespace).replace("OPERATORS", &operators.join(", "));
    apply(NAMESPACE, &manifest).expect("the manifest is right");
    kubectl(&["rollout", "status", "-n", NAMESPACE, "deploy/prometheus", "--timeout=120s"]);
    expect("sum(up)", |value| value == targets);
}

fn ask(query: &str) -> Result<Value, String> {
    let encode =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let query: String = query.bytes().map(encode).collect();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services/prometheus:9090/proxy/api/v1/query?query={query}");
    let answer = run("kubectl", &["get", "--raw", &path])?;
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
