//! Generated files equal those that are committed: the CRD, the chart's rights, the plain manifests. Run with `ZUE_UPDATE=1` to write them
//! anew.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

mod chart;

use clap::Parser as _;
use kube::core::cel;
use serde_json::Value;
use zue_operator::args::{self, Cli};
use zue_operator::build;
use zue_operator::cluster::Cluster;
use zue_operator::crd::security::TlsMode;
use zue_operator::crd::{LeaderPolicy, ZueCluster, crd, schema};
use zue_operator::rbac;

use chart::{documents, is_current, knows, of_kind, render, rendered, root};

/// Else the operator that a NetworkPolicy lets in is none.
#[test]
fn the_operators_pods_have_the_labels_by_which_they_are_let_in() {
    let spec = serde_yaml::from_str("{}").unwrap();
    let mut resource = ZueCluster::new("orders", spec);
    (resource.metadata.namespace, resource.metadata.uid) = (Some("shop".to_owned()), Some("u-1".to_owned()));
    let cluster = Cluster { tls_mode: TlsMode::Required, ..Cluster::new(&resource, "zue-node:test").unwrap() };
    let policy = serde_json::to_value(build::network_policy(&cluster, "zue-system").unwrap()).unwrap();
    let operator = policy["spec"]["ingress"][0]["from"][1]["podSelector"]["matchLabels"].as_object().unwrap();
    let manifests = std::fs::read_to_string(root().join("deploy/operator.yaml")).unwrap();
    let deployment = of_kind(&documents(&manifests), "Deployment").remove(0);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert!(!operator.is_empty() && operator.iter().all(|(name, value)| labels[name] == *value), "{labels}");
}

#[test]
fn the_crd_is_current() {
    let yaml = zue_operator::crd::yaml().unwrap();
    assert!(yaml.contains("- 'Off'\n") && !yaml.contains("- null"), "Kubernetes would read false");
    assert!(!yaml.contains("{{"), "the chart's copy would be taken for a template");
    is_current("deploy/crd.yaml", &yaml);
    let made = format!("{{{{- if .Values.crds.create }}}}\n{yaml}{{{{- end }}}}\n");
    is_current("charts/zue-operator/templates/crd.yaml", &made);
}

#[test]
fn the_charts_rights_are_current() {
    let rules = serde_json::json!({ "rules": rbac::rules() });
    is_current("charts/zue-operator/files/rules.yaml", &serde_yaml::to_string(&rules).unwrap());
}

#[test]
fn the_plain_manifests_are_the_rendered_chart() {
    let Some(chart) = rendered(&[]) else { return };
    let namespace = "\
# What `helm template` makes of charts/zue-operator, in a namespace of its own. Install it with
#   kubectl apply -f deploy/operator.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: zue-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
";
    is_current("deploy/operator.yaml", &format!("{namespace}{chart}"));
}

#[test]
fn the_rendered_role_is_the_one_that_the_program_prints() {
    let Some(chart) = rendered(&[]) else { return };
    let mut roles = of_kind(&documents(&chart), "ClusterRole");
    roles.retain(|role| role["metadata"]["name"] == "zue-operator");
    assert_eq!(roles[0]["rules"], serde_json::to_value(rbac::rules()).unwrap());
    assert_eq!(roles[0]["metadata"]["name"], rbac::cluster_role().metadata.name.unwrap());
}

#[test]
fn with_namespaces_to_watch_there_is_a_role_in_each_and_none_for_all() {
    let Some(chart) = rendered(&["--set", "watchNamespaces={a,b}"]) else { return };
    let documents = documents(&chart);
    // Those by which people view and edit come with the CRD.
    let names: Vec<_> =
        of_kind(&documents, "ClusterRole").iter().map(|role| role["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["zue-operator-edit", "zue-operator-view"]);
    let mut roles = of_kind(&documents, "Role");
    roles.retain(|role| role["metadata"]["name"] != "zue-operator-lease");
    let places: Vec<_> = roles.iter().map(|role| role["metadata"]["namespace"].as_str().unwrap()).collect();
    assert_eq!(places, ["a", "b"]);
    assert_eq!(run_of(&documents).namespaces, ["a", "b"]);
}

#[test]
fn two_operators_elect_the_one_that_acts_by_a_lease_that_they_may_write() {
    let Some(chart) = rendered(&[]) else { return };
    let documents = documents(&chart);
    assert_eq!(of_kind(&documents, "Deployment")[0]["spec"]["replicas"], 2);
    assert_eq!(of_kind(&documents, "PodDisruptionBudget").len(), 1);
    let role = of_kind(&documents, "Role").remove(0);
    assert_eq!(role["metadata"]["namespace"], "zue-system");
    let lease = run_of(&documents).lease;
    let named = role["rules"].as_array().unwrap().iter().find(|rule| !rule["resourceNames"].is_null()).unwrap();
    assert_eq!((&named["resourceNames"][0], &named["verbs"]), (&lease.into(), &serde_json::json!(["get", "update"])));
    let Some(one) = rendered(&["--set", "replicas=1"]) else { return };
    assert_eq!(of_kind(&self::documents(&one), "PodDisruptionBudget"), [Value::Null; 0]);
}

/// The Deployment's arguments, read by the program's own parser.
fn run_of(documents: &[Value]) -> args::Run {
    let deployment = of_kind(documents, "Deployment").remove(0);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
    match Cli::try_parse_from(std::iter::once("zue-operator".to_owned()).chain(args)).unwrap().command {
        args::Command::Run(run) => run,
        other => panic!("the chart starts {other:?}"),
    }
}

#[test]
fn the_program_understands_the_charts_arguments() {
    let Some(chart) = rendered(&["--set", "nodeImage.repository=r/zue-node,nodeImage.tag=t,logFormat=text"]) else {
        return;
    };
    let run = run_of(&documents(&chart));
    assert_eq!((run.image.as_str(), run.metrics_address.port()), ("r/zue-node:t", 8080));
    assert_eq!((run.namespaces.len(), run.log_format), (0, zue_telemetry::LogFormat::Text));
}

#[test]
fn values_that_the_chart_does_not_know_are_refused() {
    for wrong in ["replicas=0", "image.pullPolicy=Sometimes", "watchNamespaces={Not_A_Name}", "logFormat=xml"] {
        let Some(output) = render(&["--set", wrong]) else { return };
        assert!(!output.status.success(), "{wrong}");
    }
}

#[test]
fn the_crd_stays_when_the_chart_goes() {
    assert_eq!(crd().metadata.annotations.unwrap()["helm.sh/resource-policy"], "keep");
}

#[test]
fn the_samples_are_good() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("deploy/samples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for document in documents(&text) {
            assert_eq!((&document["apiVersion"], &document["kind"]), (&"zue.io/v1alpha1".into(), &"ZueCluster".into()));
            knows("spec", &schema()["properties"]["spec"], &document["spec"]);
            let mut resource: ZueCluster = serde_json::from_value(document).unwrap();
            assert_eq!(resource.spec.leader.policy, LeaderPolicy::Automatic);
            resource.metadata.namespace.get_or_insert("default".to_owned());
            resource.metadata.uid = Some("u".to_owned());
            Cluster::new(&resource, "image").unwrap();
            cel::Validator::new().validate(&schema(), &serde_json::to_value(&resource).unwrap(), None).unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 2);
}

#[test]
#[should_panic(expected = "spec.storage has no field sise")]
fn a_field_that_is_not_known_is_denied() {
    knows("spec", &schema()["properties"]["spec"], &serde_json::json!({ "storage": { "sise": "1Gi" } }));
}
