//! The page of all metrics is what the programs have, and their names and texts keep to Prometheus's rules. Run with `ZUE_UPDATE=1` to
//! write the page anew.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fmt::Write as _;
use std::path::Path;

use zue_telemetry::metrics::{Described, Label};

const HEAD: &str = "\
# Metrics

Made from the programs themselves: `ZUE_UPDATE=1 cargo test -p zue-tests --test metrics` writes this page anew. What to ask of them is
in the [alerts](../charts/zue-operator/files/alerts.yaml) and in the [dashboard](../charts/zue-operator/files/dashboard.json).

A label with its values behind it has no others, and each of them is there from the start. What happened to a cluster is counted by its
nodes, and so outlasts a change of operator. Only the operator that acts tells of clusters (`zue_cluster_*`, `zue_replica_*`).
";

fn label(label: &Label) -> String {
    if label.values.is_empty() {
        return format!("`{}`", label.name);
    }
    let values: Vec<String> = label.values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{}`: {}", label.name, values.join(" "))
}

fn table(page: &mut String, title: &str, described: &[Described]) {
    writeln!(page, "\n## {title}\n\n| metric | type | what it says | labels |\n|---|---|---|---|").unwrap();
    for Described { name, kind, help, labels } in described {
        let labels: Vec<String> = labels.iter().map(label).collect();
        writeln!(page, "| `{name}` | {} | {help} | {} |", kind.name(), labels.join("; ")).unwrap();
    }
}

fn node() -> zue_node::Metrics {
    zue_node::Metrics::new().unwrap()
}

fn operator() -> zue_operator::metrics::Metrics {
    zue_operator::metrics::Metrics::new().unwrap()
}

#[test]
fn the_page_of_all_metrics_is_current() {
    let mut page = HEAD.to_owned();
    table(&mut page, "Nodes, at port 9442", node().described());
    table(&mut page, "Operator, at port 8080", operator().described());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("ZUE_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/metrics.md is out of date: run `ZUE_UPDATE=1 cargo test -p zue-tests --test metrics`");
}

/// A text that stands by itself names its subject, and ends.
#[test]
fn names_and_texts_stand_by_themselves() {
    let (node, operator) = (node(), operator());
    let all = || node.described().iter().chain(operator.described());
    for Described { name, kind, help, .. } in all() {
        let is_ours = name.starts_with("zue_");
        assert!(is_ours || name.starts_with("process_"), "{name}");
        assert_eq!(kind.name() == "counter", name.ends_with("_total"), "{name}");
        let refers = ["Their ", "Its ", "The same", "that disk", "for them"].iter().any(|word| help.contains(word));
        assert!(help.ends_with('.') && help.len() > 15 && !refers, "{name}: {help}");
    }
    for one in operator.described().iter().filter(|one| !one.name.starts_with("process_")) {
        assert!(node.described().iter().all(|other| other.name != one.name), "both programs have {}", one.name);
    }
}
