//! The chart's objects for those who watch: the objects are what their CRDs allow, hold the rules and the dashboard that the project keeps
//! once, and find the pods that there are.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails here fails the test")]

mod chart;

use std::process::Command;

use serde_json::{Value, json};
use zue_operator::build;
use zue_operator::cluster::Cluster;
use zue_operator::crd::ZueCluster;

use chart::{documents, of_kind, render, rendered, root};

const ALL: &str =
    "monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true";

/// The schema of one of the Prometheus operator's resources, out of its Go module; none where there is no Go.
fn schema(plural: &str) -> Option<Value> {
    let module = "github.com/prometheus-operator/prometheus-operator";
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", module]).current_dir(root().join("tests/kind/crds"));
    let Ok(output) = go.output() else {
        eprintln!("there is no Go: nothing is compared with the CRDs");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let downloaded: Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = format!("example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml");
    let path = std::path::Path::new(downloaded["Dir"].as_str().unwrap()).join(file);
    let crd: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let version = crd["spec"]["versions"].as_array().unwrap().iter().find(|version| version["storage"] == true);
    Some(version.unwrap()["schema"]["openAPIV3Schema"].clone())
}

/// The parts of a value that its schema does not allow: other types, fields that are not known, fields that are missing, values out of an
/// enumeration.
fn wrong(path: &str, schema: &Value, value: &Value) -> Vec<String> {
    let is_either = schema["x-kubernetes-int-or-string"] == true;
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        _ => !is_either || value.is_string() || value.is_i64(),
    };
    if !fits {
        return vec![format!("{path} is no {}: {value}", schema["type"])];
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        return vec![format!("{path} cannot be {value}")];
    }
    let mut found = Vec::new();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let is_missing = |name: &Value| value.is_object() && value.get(name.as_str().unwrap()).is_none();
    found.extend(required.into_iter().filter(is_missing).map(|name| format!("{path} lacks {name}")));
    // What any object has is checked by the API server alone.
    for (name, value) in
        value.as_object().into_iter().flatten().filter(|(name, _)| path.contains('.') || *name != "metadata")
    {
        let (known, other) = (&schema["properties"][name], &schema["additionalProperties"]);
        let path = format!("{path}.{name}");
        match (known.is_null(), other.is_null()) {
            (false, _) => found.extend(wrong(&path, known, value)),
            (true, false) => found.extend(wrong(&path, other, value)),
            (true, true) => found.push(format!("there is no {path}")),
        }
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(wrong(&format!("{path}.{n}"), &schema["items"], item));
    }
    found
}

#[test]
fn what_the_prometheus_operator_is_given_is_what_its_crds_allow() {
    let Some(chart) =
        rendered(&["--set", ALL, "--set", "monitoring.podMonitor.interval=15s,monitoring.prometheusRule.labels.a=b"])
    else {
        return;
    };
    for (kind, plural, count) in [("PodMonitor", "podmonitors", 2), ("PrometheusRule", "prometheusrules", 1)] {
        let objects = of_kind(&documents(&chart), kind);
        assert_eq!(objects.len(), count, "{kind}");
        let Some(schema) = schema(plural) else { return };
        for mut object in objects {
            assert_eq!(wrong(kind, &schema, &object), Vec::<String>::new());
            object["spec"]["podMetricsEndpoint"] = json!([]);
            assert_eq!(
                wrong(kind, &schema, &object).last().unwrap(),
                &format!("there is no {kind}.spec.podMetricsEndpoint")
            );
            object["spec"] = json!({"groups": [{"rules": []}], "podMetricsEndpoints": "all"});
            assert!(!wrong(kind, &schema, &object).is_empty());
        }
    }
}

#[test]
fn nothing_of_it_is_there_unless_it_is_asked_for() {
    let Some(chart) = rendered(&[]) else { return };
    let found: Vec<_> =
        ["PodMonitor", "PrometheusRule", "ConfigMap"].map(|kind| of_kind(&documents(&chart), kind).len()).into();
    assert_eq!(found, [0, 0, 0]);
    for one in ["podMonitor", "prometheusRule", "dashboard"] {
        let enabled = format!("monitoring.{one}.enabled=true");
        let Some(chart) = rendered(&["--set", &enabled]) else { return };
        let found = ["PodMonitor", "PrometheusRule", "ConfigMap"].map(|kind| of_kind(&documents(&chart), kind).len());
        assert_eq!(found.iter().filter(|count| **count > 0).count(), 1, "{one}: {found:?}");
    }
    for unknown in
        ["monitoring.podMonitor.enable=true", "monitoring.podMonitor.interval=often", "monitoring.dashboards=1"]
    {
        let Some(output) = render(&["--set", unknown]) else { return };
        assert!(!output.status.success(), "{unknown}");
    }
}

#[test]
fn the_rules_and_the_dashboard_are_the_files_that_are_kept() {
    let Some(chart) = rendered(&["--set", ALL]) else { return };
    let documents = documents(&chart);
    let read = |file: &str| std::fs::read_to_string(root().join("charts/zue-operator/files").join(file)).unwrap();
    let rules: Value = serde_yaml::from_str(&read("alerts.yaml")).unwrap();
    assert_eq!(of_kind(&documents, "PrometheusRule")[0]["spec"], rules);
    let dashboard = &of_kind(&documents, "ConfigMap")[0];
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let shown: Value = serde_json::from_str(dashboard["data"]["zue.json"].as_str().unwrap()).unwrap();
    assert_eq!(shown, serde_json::from_str::<Value>(&read("dashboard.json")).unwrap());
}

/// A monitor that selects nothing is not noticed until somebody looks for what it should have found.
#[test]
fn the_monitors_find_the_pods_that_there_are_and_the_names_of_clusters_stay() {
    let Some(chart) = rendered(&["--set", ALL]) else { return };
    let documents = documents(&chart);
    let monitors = of_kind(&documents, "PodMonitor");
    let of = |name: &str| monitors.iter().find(|monitor| monitor["metadata"]["name"] == name).unwrap()["spec"].clone();
    let (operator, nodes) = (of("zue-operator"), of("zue-operator-nodes"));
    let mut resource = ZueCluster::new("orders", serde_yaml::from_str("{}").unwrap());
    (resource.metadata.namespace, resource.metadata.uid) = (Some("shop".to_owned()), Some("u-1".to_owned()));
    let cluster = Cluster::new(&resource, "zue-node:test").unwrap();
    let set = serde_json::to_value(build::objects(&cluster).stateful_set).unwrap();
    let deployment = of_kind(&documents, "Deployment").remove(0);
    for (monitor, workload) in [(&operator, &deployment), (&nodes, &set)] {
        let pod = &workload["spec"]["template"];
        let wanted = monitor["selector"]["matchLabels"].as_object().unwrap();
        assert!(
            !wanted.is_empty() && wanted.iter().all(|(name, value)| pod["metadata"]["labels"][name] == *value),
            "{pod}"
        );
        let port = &monitor["podMetricsEndpoints"][0]["port"];
        let ports =
            pod["spec"]["containers"].as_array().unwrap().iter().flat_map(|one| one["ports"].as_array().unwrap());
        assert!(ports.into_iter().any(|one| one["name"] == *port), "{port}");
    }
    assert_eq!(operator["podMetricsEndpoints"][0]["honorLabels"], true);
    let relabeling = &nodes["podMetricsEndpoints"][0]["relabelings"][0];
    assert_eq!(relabeling["targetLabel"], "cluster");
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/instance"], "orders");
    assert_eq!(relabeling["sourceLabels"][0], "__meta_kubernetes_pod_label_app_kubernetes_io_instance");
    assert_eq!(nodes["namespaceSelector"], json!({"any": true}));
    let Some(chart) = rendered(&["--set", ALL, "--set", "watchNamespaces={a,b}"]) else { return };
    let monitors = of_kind(&self::documents(&chart), "PodMonitor");
    assert_eq!(monitors[1]["spec"]["namespaceSelector"], json!({"matchNames": ["a", "b"]}));
}
