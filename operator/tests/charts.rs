//! The charts: what they render is what is committed, their values are what the CRD knows, their READMEs are made of their values, and
//! what was installed by the chart before can be upgraded. Run with `ZUE_UPDATE=1` to write anew what is made.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "what fails here fails the test")]

mod chart;

use std::collections::BTreeMap;

use kube::core::cel;
use serde_json::{Value, json};
use zue_operator::cluster::Cluster;
use zue_operator::crd::{ZueCluster, schema};

use chart::{
    CLUSTER, OPERATOR, documents, helm_of, is_current, knows, of_kind, readme, render_of, rendered_of, root, values,
};

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn full(chart: &str) -> String {
    format!("charts/{chart}/ci/full-values.yaml")
}

#[test]
fn what_is_rendered_is_what_is_committed() {
    for (chart, release) in [(OPERATOR, "one"), (CLUSTER, "orders")] {
        let Some(output) = rendered_of(chart, release, &["-f", &full(chart)]) else { return };
        is_current(&format!("operator/tests/rendered/{chart}-full.yaml"), &output);
    }
    let Some(output) = rendered_of(CLUSTER, "my-log", &[]) else { return };
    is_current("operator/tests/rendered/zue-cluster.yaml", &output);
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    for chart in [OPERATOR, CLUSTER] {
        for extra in [vec![], vec!["-f".to_owned(), full(chart)]] {
            let folder = format!("charts/{chart}");
            let mut args = vec!["lint", "--strict", "--kube-version", "1.34.0", &folder];
            args.extend(extra.iter().map(String::as_str));
            let Some(output) = helm_of(&args) else { return };
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{chart}: {said}");
        }
    }
}

#[test]
fn the_values_of_a_cluster_are_the_spec_of_the_resource() {
    let made = values::schema(&schema());
    is_current("charts/zue-cluster/values.schema.json", &format!("{}\n", serde_json::to_string_pretty(&made).unwrap()));
    // Whoever looks for a field finds it, if only in a comment.
    let text = read("charts/zue-cluster/values.yaml");
    for name in schema()["properties"]["spec"]["properties"].as_object().unwrap().keys() {
        let is_there = text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name}:")));
        assert!(is_there, "{name} is missing in values.yaml");
    }
    // What the template leaves out of the spec is the chart's own, and nothing else.
    let helpers = read("charts/zue-cluster/templates/_helpers.tpl");
    let omitted = helpers.split("omit .Values ").nth(1).unwrap().split(" }}").next().unwrap();
    let mut omitted: Vec<_> = omitted.split(' ').map(|name| name.trim_matches('"').to_owned()).collect();
    omitted.sort();
    assert_eq!(omitted, values::own().as_object().unwrap().keys().cloned().collect::<Vec<_>>());
}

#[test]
fn the_rendered_cluster_is_one_that_kubernetes_and_the_operator_take() {
    for extra in [vec![], vec!["-f".to_owned(), full(CLUSTER)]] {
        let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
        let Some(rendered) = rendered_of(CLUSTER, "orders", &extra) else { return };
        let clusters = of_kind(&documents(&rendered), "ZueCluster");
        assert_eq!(clusters.len(), 1);
        knows("spec", &schema()["properties"]["spec"], &clusters[0]["spec"]);
        let given = clusters[0]["spec"].as_object().unwrap().len();
        let mut resource: ZueCluster = serde_json::from_value(clusters[0].clone()).unwrap();
        resource.metadata.uid = Some("u".to_owned());
        Cluster::new(&resource, "image").unwrap();
        cel::Validator::new().validate(&schema(), &serde_json::to_value(&resource).unwrap(), None).unwrap();
        let fields = schema()["properties"]["spec"]["properties"].as_object().unwrap().len();
        assert_eq!(given == fields, !extra.is_empty(), "the full values give all {fields} fields: {given}");
    }
}

#[test]
fn values_that_no_cluster_has_are_refused_before_anything_is_made() {
    for wrong in [
        "replicas=0",
        "replicas=10",
        "replica=3",
        "leader.policy=Sometimes",
        "storage.size=lots",
        "config.log.segmentBytesMix=1MiB",
        "tls.mode=false",
        "access[0].name=shop,access[0].rights={write}",
        "fullnameOverride=Not_A_Name",
        "helmTest.pullPolicy=Sometimes",
    ] {
        let Some(output) = render_of(CLUSTER, "orders", &["--set", wrong]) else { return };
        assert!(!output.status.success(), "{wrong}");
    }
}

/// The test of a chart runs as strictly as a namespace may ask for, and what it shows to the log is what the pods of the cluster show.
#[test]
fn the_tests_of_the_charts_may_run_anywhere_and_are_no_part_of_what_is_installed() {
    for chart in [OPERATOR, CLUSTER] {
        let Some(rendered) = rendered_of(chart, "zue-operator", &[]) else { return };
        let pod = of_kind(&documents(&rendered), "Pod").remove(0);
        assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
        let context = &pod["spec"]["containers"][0]["securityContext"];
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(
            (&context["allowPrivilegeEscalation"], &context["readOnlyRootFilesystem"]),
            (&json!(false), &json!(true))
        );
        // Else it would count as an operator or a replica, and Services would lead to it.
        let name = &pod["metadata"]["labels"]["app.kubernetes.io/name"];
        assert!(name != "zue" && name != "zue-operator", "{name}");
        let Some(without) = rendered_of(chart, "zue-operator", &["--skip-tests"]) else { return };
        assert_eq!(of_kind(&documents(&without), "Pod"), [Value::Null; 0]);
    }
}

#[test]
fn a_second_release_makes_no_definition_and_no_roles_of_its_own() {
    let args = ["--set", "crds.create=false,watchNamespaces={b}"];
    let Some(second) = rendered_of(OPERATOR, "second", &args) else { return };
    let documents = documents(&second);
    for kind in ["CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"] {
        assert_eq!(of_kind(&documents, kind), [Value::Null; 0], "{kind}");
    }
    let Some(first) = rendered_of(OPERATOR, "first", &["--set", "watchNamespaces={a}"]) else { return };
    let key = |object: &Value| (object["kind"].to_string(), object["metadata"]["name"].to_string());
    let first: Vec<_> = chart::documents(&first).iter().map(key).collect();
    let shared: Vec<_> = documents.iter().map(key).filter(|one| first.contains(one)).collect();
    assert_eq!(shared, [], "both would be of one name");
}

#[test]
fn the_roles_of_people_cover_the_resource_and_grow_those_that_there_are() {
    let Some(rendered) = rendered_of(OPERATOR, OPERATOR, &[]) else { return };
    let roles = of_kind(&documents(&rendered), "ClusterRole");
    let of = |to: &str| {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{to}");
        let roles: Vec<_> = roles.iter().filter(|role| role["metadata"]["labels"][&label] == "true").collect();
        assert_eq!(roles.len(), 1, "{to}");
        roles[0]["rules"][0]["verbs"].as_array().unwrap().len()
    };
    assert_eq!((of("view"), of("edit"), of("admin")), (3, 5, 5));
}

#[test]
fn the_readmes_are_made_of_the_values() {
    for chart in [OPERATOR, CLUSTER] {
        let folder = format!("charts/{chart}");
        let schema = serde_json::from_str(&read(&format!("{folder}/values.schema.json"))).unwrap();
        let table = readme::table(&schema, &read(&format!("{folder}/values.yaml")));
        let file = format!("{folder}/README.md");
        let found = read(&file);
        let (before, _) = found.split_once("## Values\n").expect("a README has a section on the values");
        is_current(&file, &format!("{before}## Values\n\n{table}"));
    }
}

#[test]
fn comments_are_those_above_a_key_and_examples_are_none() {
    let text = "# Of a.\na:\n  # Of b,\n  # further.\n  b: 1\n\n# Lost.\n\n# c: 2\nd: {}\n";
    let found = readme::comments(text);
    let expected = [("a", "Of a."), ("a.b", "Of b, further.")].map(|(key, text)| (key.to_owned(), text.to_owned()));
    assert_eq!(found, BTreeMap::from(expected));
}

/// Fields of what was installed that may not be changed, and texts that would not be read any more: `rendered/before.jsonl` is the chart of
/// 0.1.0 before the values of this one.
#[test]
fn what_the_chart_before_has_installed_can_be_upgraded() {
    let Some(now) = rendered_of(OPERATOR, OPERATOR, &["--skip-tests"]) else { return };
    let now = documents(&now);
    let before = read("operator/tests/rendered/before.jsonl");
    let mut seen = 0;
    for before in before.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let of = |object: &Value, field: &str| object["metadata"][field].clone();
        let is_it = |now: &&Value| {
            now["kind"] == before["kind"]
                && ["name", "namespace"].iter().all(|field| of(now, field) == of(&before, field))
        };
        let now =
            now.iter().find(is_it).unwrap_or_else(|| panic!("{} {} is gone", before["kind"], of(&before, "name")));
        assert_eq!(now["apiVersion"], before["apiVersion"]);
        for fixed in ["/spec/selector", "/roleRef", "/spec/scope", "/spec/group", "/spec/names"] {
            if before["kind"] != "PodDisruptionBudget" {
                assert_eq!(now.pointer(fixed), before.pointer(fixed), "{fixed} of {}", before["kind"]);
            }
        }
        if before["kind"] == "CustomResourceDefinition" {
            let version = |crd: &Value| crd["spec"]["versions"][0].clone();
            let (now, before) = (version(now), version(&before));
            assert_eq!(
                (&now["name"], &now["served"], &now["storage"]),
                (&json!("v1alpha1"), &json!(true), &json!(true))
            );
            let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
            assert_eq!(narrower("", &schema(&before), &schema(&now)), Vec::<String>::new());
        }
        seen += 1;
    }
    assert!(seen >= 7, "{seen}");
}

/// The place where a schema refuses or drops what the one before took.
fn narrower(path: &str, before: &Value, now: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if before["type"] != now["type"] {
        found.push(format!("{path} is of another type"));
    }
    let texts = |schema: &Value, name: &str| -> Vec<Value> { schema[name].as_array().cloned().unwrap_or_default() };
    let required = texts(now, "required").into_iter().filter(|name| !texts(before, "required").contains(name));
    found.extend(required.map(|name| format!("{path} must have {name} now")));
    let values = texts(before, "enum").into_iter().filter(|value| !texts(now, "enum").contains(value));
    found.extend(values.map(|value| format!("{path} cannot be {value} any more")));
    for (limit, is_lower) in
        [("maxLength", true), ("maxItems", true), ("maximum", true), ("minLength", false), ("minimum", false)]
    {
        let of = |schema: &Value| schema[limit].as_f64();
        let is_narrower = match (of(before), of(now)) {
            (Some(before), Some(now)) => {
                if is_lower {
                    now < before
                } else {
                    now > before
                }
            }
            (None, Some(_)) => true,
            _ => false,
        };
        if is_narrower {
            found.push(format!("{path} has a narrower {limit}"));
        }
    }
    for (name, field) in before["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match now["properties"].get(name) {
            Some(now) => found.extend(narrower(&path, field, now)),
            None => found.push(format!("{path} is gone")),
        }
    }
    for part in ["items", "additionalProperties"] {
        if let (Some(before), Some(now)) = (before.get(part), now.get(part)) {
            found.extend(narrower(&format!("{path}.{part}"), before, now));
        }
    }
    found
}

#[test]
fn a_schema_that_takes_less_than_before_is_found() {
    let before = json!({ "type": "object", "properties": {
        "a": { "type": "string", "maxLength": 9, "enum": ["x", "y"] }, "b": { "type": "array", "items": { "type": "string" } } } });
    let now = json!({ "type": "object", "required": ["c"], "properties": {
        "a": { "type": "string", "maxLength": 8, "enum": ["x"] }, "c": { "type": "string" } } });
    let expected = [" must have \"c\" now", ".a cannot be \"y\" any more", ".a has a narrower maxLength", ".b is gone"];
    assert_eq!(narrower("", &before, &now), expected);
    assert_eq!(narrower("", &before, &before), Vec::<String>::new());
}
