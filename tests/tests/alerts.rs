//! The alerts: each is quiet, fires and clears by made-up numbers, has a page that says what to do, and asks for nothing that there is not.
#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use zue_telemetry::metrics::Described;
use zue_tests::programs::prometheus;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

const RULES: &str = "charts/zue-operator/files/alerts.yaml";

fn alerts() -> Vec<Value> {
    let text = std::fs::read_to_string(root().join(RULES)).expect("there are rules");
    let rules: Value = serde_yaml::from_str(&text).expect("they are YAML");
    let groups = rules["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

fn name(alert: &Value) -> String {
    alert["alert"].as_str().expect("a name").to_owned()
}

/// The series that an alert goes by, a number a minute: an hour and more of what is well, so many minutes of what is not, and the same of
/// what is well again.
struct Case {
    alert: &'static str,
    /// Of the alert, beside the name and the severity.
    labels: &'static str,
    minutes: u32,
    series: Vec<(String, Values)>,
}

/// The course of a series.
#[derive(Clone, Copy)]
enum Values {
    /// This while all is well, and that while it is not.
    Gauge(i64, i64),
    /// It grows by so much a minute while all is well, and by so much while it is not.
    Counter(i64, i64),
    /// It is there while all is well, and gone while it is not.
    Gone,
    /// It begins with the first, falls by the second a minute while something is wrong, and is the third afterwards.
    Falls(i64, i64, i64),
}

const WELL: u32 = 65;

impl Values {
    fn text(self, minutes: u32) -> String {
        let (well, wrong) = (WELL - 1, minutes - 1);
        match self {
            Self::Gauge(good, bad) => format!("{good}x{well} {bad}x{wrong} {good}x{well}"),
            Self::Counter(slow, fast) => {
                let first = slow * i64::from(WELL);
                let second = first + fast * i64::from(minutes);
                format!("0+{slow}x{well} {first}+{fast}x{wrong} {second}+{slow}x{well}")
            }
            Self::Gone => format!("1x{well} _x{minutes} 1x{well}"),
            Self::Falls(from, by, then) => format!("{from}x{well} {from}-{by}x{wrong} {then}x{well}"),
        }
    }
}

const NODE: &str = r#"namespace="shop",cluster="orders",pod="orders-1""#;
const CLUSTER: &str = r#"namespace="shop",cluster="orders""#;

fn case(alert: &'static str, labels: &'static str, minutes: u32, series: &[(&str, Values)]) -> Case {
    Case { alert, labels, minutes, series: series.iter().map(|(name, values)| ((*name).to_owned(), *values)).collect() }
}

/// A metric of a node, with more labels.
fn of_node(metric: &str, more: &str) -> String {
    format!("{metric}{{{NODE}{more}}}")
}

/// As the operator that acts tells it.
fn of_cluster(metric: &str, more: &str) -> String {
    format!("{metric}{{{CLUSTER},job=\"operator\"{more}}}")
}

fn node_gauge(alert: &'static str, minutes: u32, metric: &str, (good, bad): (i64, i64)) -> Case {
    case(alert, NODE, minutes, &[(&of_node(metric, ""), Values::Gauge(good, bad))])
}

fn cluster_gauge(alert: &'static str, minutes: u32, metric: &str, more: &str, (good, bad): (i64, i64)) -> Case {
    case(alert, CLUSTER, minutes, &[(&of_cluster(metric, more), Values::Gauge(good, bad))])
}

/// A thousand a minute, most of them within a millisecond, or all of them above the second bound.
fn slow(alert: &'static str, labels: &'static str, metric: &str, bound: &str) -> Case {
    let bucket = |le: &str| of_node(&format!("{metric}_bucket"), &format!(",le=\"{le}\""));
    case(
        alert,
        labels,
        20,
        &[
            (&bucket("0.001"), Values::Counter(1000, 0)),
            (&bucket(bound), Values::Counter(1000, 0)),
            (&bucket("10"), Values::Counter(1000, 1000)),
            (&bucket("+Inf"), Values::Counter(1000, 1000)),
        ],
    )
}

const FAILURES: &str = ",reason=\"NO_QUORUM\",outcome=\"UNKNOWN\"";

fn cases_of_nodes() -> Vec<Case> {
    let growing = |metric: &str, more: &str, by| (of_node(metric, more), Values::Counter(0, by));
    let refused = growing("zue_node_refused_calls_total", ",why=\"UNAUTHENTICATED\"", 60);
    let quiet = |metric: &str| (of_node(metric, ",port=\"client\""), Values::Counter(0, 0));
    let refused =
        vec![refused, quiet("zue_node_rejected_connections_total"), quiet("zue_node_tls_failed_handshakes_total")];
    let expiry = "zue_node_tls_certificate_expiry_timestamp_seconds";
    vec![
        case(
            "ZueTargetMissing",
            CLUSTER,
            15,
            &[
                (&of_cluster("zue_cluster_replicas", ""), Values::Gauge(1, 1)),
                (&of_node("zue_build_info", ",version=\"1\""), Values::Gone),
            ],
        ),
        node_gauge("ZueStorageFailed", 3, "zue_node_failed", (0, 1)),
        node_gauge("ZueDiskRestored", 3, "zue_node_disk_restored", (0, 1)),
        node_gauge("ZueRecordsLost", 3, "zue_lost_ranges", (0, 2)),
        node_gauge("ZueRecordsDamaged", 20, "zue_damaged_ranges", (0, 2)),
        node_gauge("ZueUpkeepEnded", 3, "zue_upkeep_ended", (0, 1)),
        // Time begins at 0.
        case(
            "ZueBackupTooOld",
            CLUSTER,
            40,
            &[
                (&of_node("zue_backup_newest_timestamp_seconds", ""), Values::Gauge(100_000, 0)),
                (&of_node("zue_backup_interval_seconds", ""), Values::Gauge(60, 60)),
            ],
        ),
        node_gauge("ZueBackupFailing", 15, "zue_backup_failing", (0, 1)),
        node_gauge("ZueNodeHasProblem", 15, "zue_node_has_problem", (0, 1)),
        node_gauge("ZueClockOff", 10, "zue_clock_ahead_seconds", (1, -7)),
        case(
            "ZuePeerUnreachable",
            r#"namespace="shop",cluster="orders",peer="orders-2""#,
            5,
            &[(&of_node("zue_peer_connected", ",peer=\"orders-2\""), Values::Gauge(1, 0))],
        ),
        Case {
            alert: "ZueAppendsFailing",
            labels: r#"namespace="shop",cluster="orders",reason="NO_QUORUM""#,
            minutes: 10,
            series: vec![
                growing("zue_append_failures_total", FAILURES, 1),
                // What is the clients' own doing goes on all the time.
                (
                    of_node("zue_append_failures_total", ",reason=\"TOO_LARGE\",outcome=\"NOT_APPENDED\""),
                    Values::Counter(60, 60),
                ),
            ],
        },
        Case {
            alert: "ZueFailoversRepeating",
            labels: CLUSTER,
            minutes: 10,
            series: vec![growing("zue_failovers_total", ",reason=\"LEADER_LOST\"", 1)],
        },
        // Sixty days, and then ten. Time begins at 0.
        node_gauge("ZueCertificateExpiring", 90, expiry, (60 * 86_400, 10 * 86_400)),
        case(
            "ZueTlsFilesUnusable",
            r#"namespace="shop",cluster="orders",pod="orders-1",file="tls.crt""#,
            10,
            &[(&of_node("zue_node_tls_problem", ",file=\"tls.crt\""), Values::Gauge(0, 1))],
        ),
        Case { alert: "ZueClientsRefused", labels: CLUSTER, minutes: 15, series: refused },
    ]
}

fn cases_of_disks() -> Vec<Case> {
    let capacity = (of_node("zue_disk_capacity_bytes", ""), Values::Gauge(100_000, 100_000));
    let disk = |values| vec![(of_node("zue_disk_available_bytes", ""), values), capacity.clone()];
    vec![
        case(
            "ZueAppendsStalled",
            r#"namespace="shop",cluster="orders",pod="orders-1",reason="DISK_FULL""#,
            3,
            &[
                (&of_node("zue_appends_stalled", ",reason=\"DISK_FULL\""), Values::Gauge(0, 1)),
                (&of_node("zue_appends_stalled", ",reason=\"TOO_MANY_FILES\""), Values::Gauge(0, 0)),
            ],
        ),
        Case { alert: "ZueDiskAlmostFull", labels: NODE, minutes: 10, series: disk(Values::Gauge(60_000, 9_000)) },
        Case {
            alert: "ZueDiskFillingUp",
            labels: NODE,
            minutes: 100,
            series: disk(Values::Falls(40_000, 200, 60_000)),
        },
        slow("ZueCommitSlow", CLUSTER, "zue_commit_duration_seconds", "1"),
        slow("ZueFsyncSlow", NODE, "zue_fsync_duration_seconds", "0.25"),
    ]
}

fn cases_of_clusters() -> Vec<Case> {
    let online = of_cluster("zue_cluster_offline", "");
    let condition = |name: &str| format!(",condition=\"{name}\"");
    let (blocked, reconciled) = (condition("FailoverBlocked"), condition("Reconciled"));
    let gauges = |quorum: &str, others: &str, bad| {
        [(of_node(quorum, ""), Values::Gauge(2, 2)), (of_node(others, ""), Values::Gauge(2, bad))].to_vec()
    };
    vec![
        cluster_gauge("ZueClusterOffline", 3, "zue_cluster_offline", "", (0, 1)),
        node_gauge("ZueClusterOffline", 3, "zue_node_is_leader", (1, 0)),
        case(
            "ZueBelowQuorum",
            CLUSTER,
            3,
            &[(&of_cluster("zue_cluster_below_quorum", ""), Values::Gauge(0, 1)), (&online, Values::Gauge(0, 0))],
        ),
        Case {
            alert: "ZueBelowQuorum",
            labels: CLUSTER,
            minutes: 3,
            series: gauges("zue_node_quorum", "zue_node_voters_in_reach", 1),
        },
        cluster_gauge("ZueUnderReplicated", 15, "zue_cluster_under_replicated", "", (0, 1)),
        Case {
            alert: "ZueUnderReplicated",
            labels: CLUSTER,
            minutes: 15,
            series: gauges("zue_node_voters", "zue_node_isr_size", 1),
        },
        case(
            "ZueReplicaLagging",
            NODE,
            10,
            &[(&of_cluster("zue_replica_lag_seconds", ",pod=\"orders-1\""), Values::Gauge(0, 30))],
        ),
        cluster_gauge("ZueFailoverBlocked", 5, "zue_cluster_condition", &blocked, (0, 1)),
        cluster_gauge("ZueRolloutStuck", 40, "zue_cluster_stale_pods", "", (0, 2)),
        cluster_gauge("ZueVolumeGrowthRefused", 10, "zue_cluster_volume_growth_refused", "", (0, 1)),
        cluster_gauge("ZueNotReconciled", 15, "zue_cluster_condition", &reconciled, (1, 0)),
        case(
            "ZueOperatorErring",
            r#"namespace="zue-system""#,
            40,
            &[(r#"zue_operator_reconcile_errors_total{namespace="zue-system",pod="o"}"#, Values::Counter(0, 10))],
        ),
    ]
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = [cases_of_nodes(), cases_of_disks(), cases_of_clusters()]
        .into_iter()
        .flatten()
        .map(|mut case| {
            // Else that one fires all the time.
            case.series.push((ACTS.to_owned(), Values::Gauge(1, 1)));
            if case.alert == "ZueClusterOffline" && case.labels == NODE {
                case.labels = CLUSTER;
            }
            case
        })
        .collect();
    cases.push(case("ZueOperatorAbsent", "", 5, &[(ACTS, Values::Gauge(1, 0))]));
    cases
}

const ACTS: &str = r#"zue_operator_is_leader{namespace="zue-system",pod="o"}"#;

/// As promtool takes it: all that fires is looked at, before, meanwhile and afterwards.
fn test_of(case: &Case, severity: &str) -> Value {
    let Case { alert, labels, minutes, series } = case;
    let separator = if labels.is_empty() { "" } else { "," };
    let fires =
        format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",severity=\"{severity}\"{separator}{labels}}}");
    let at = |minute: u32, fires: Value| json!({"expr": "ALERTS{alertstate=\"firing\"}", "eval_time": format!("{minute}m"), "exp_samples": fires});
    let series: Vec<Value> =
        series.iter().map(|(name, values)| json!({"series": name, "values": values.text(*minutes)})).collect();
    json!({
        "name": alert,
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            at(WELL - 1, json!([])),
            at(WELL + minutes - 1, json!([{"labels": fires, "value": 1}])),
            at(WELL + minutes + WELL - 1, json!([])),
        ],
    })
}

fn promtool(args: &[&str], input: Option<&Path>) -> (bool, String) {
    let mut command = Command::new(prometheus("promtool"));
    command.args(args);
    if let Some(input) = input {
        command.stdin(std::fs::File::open(input).expect("there is such a file"));
    }
    let output = command.output().expect("promtool runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_alert_is_quiet_while_all_is_well_fires_and_clears() {
    let severities: BTreeMap<String, String> = alerts()
        .iter()
        .map(|alert| (name(alert), alert["labels"]["severity"].as_str().expect("a severity").to_owned()))
        .collect();
    let cases = cases();
    let tested: BTreeSet<&str> = cases.iter().map(|case| case.alert).collect();
    assert_eq!(tested, severities.keys().map(String::as_str).collect());
    let tests: Vec<Value> = cases.iter().map(|case| test_of(case, &severities[case.alert])).collect();
    let folder = tempfile::tempdir().expect("a folder for the test");
    let rules = root().join(RULES).canonicalize().expect("there are rules");
    let file = folder.path().join("alerts.yaml");
    let all = json!({"rule_files": [rules], "evaluation_interval": "1m", "tests": tests});
    std::fs::write(&file, all.to_string()).expect("the tests can be written");
    let (passed, said) = promtool(&["test", "rules", file.to_str().expect("a path of text")], None);
    assert!(passed, "{said}");
}

#[test]
fn every_alert_says_what_to_do_and_no_page_is_of_none() {
    let folder = root().join("docs/runbooks");
    let pages = std::fs::read_dir(&folder).expect("there are runbooks");
    let mut pages: BTreeSet<String> =
        pages.map(|page| page.expect("a page").file_name().to_string_lossy().into_owned()).collect();
    pages.remove("README.md");
    let index = std::fs::read_to_string(folder.join("README.md")).expect("there is a list");
    // Those that other pages lead to.
    assert!(pages.remove("LostMajority.md") && index.contains("[LostMajority](LostMajority.md)"));
    for alert in alerts() {
        let name = name(&alert);
        let file = format!("{name}.md");
        assert!(pages.remove(&file), "{name} has no runbook");
        assert!(index.contains(&format!("[{name}]({file})")), "the list of runbooks lacks {name}");
        let annotations = &alert["annotations"];
        assert!(annotations["runbook_url"].as_str().is_some_and(|url| url.ends_with(&format!("docs/runbooks/{file}"))));
        assert!(["summary", "description"].iter().all(|one| annotations[one].is_string()), "{annotations}");
        let page = std::fs::read_to_string(folder.join(&file)).expect("it can be read");
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
        let title = format!("# {name}");
        assert_eq!(
            headings,
            [&title, "## What it means", "## What is at stake", "## What to look at", "## What to do"]
        );
        assert!(page.contains("```\n"), "{name} names no command");
    }
    assert_eq!(pages, BTreeSet::new());
}

/// The programs' metrics: each series with the labels whose values are known beforehand.
fn known() -> BTreeMap<String, Described> {
    let (node, operator) = (zue_node::Metrics::new(), zue_operator::metrics::Metrics::new());
    let (node, operator) = (node.expect("the node's metrics"), operator.expect("the operator's metrics"));
    let all = node.described().iter().chain(operator.described());
    all.flat_map(|one| one.series().into_iter().map(|series| (series, one.clone()))).collect()
}

/// The names of metrics in an expression, each with what its labels are to be.
fn asked(expression: &str) -> Vec<(String, String)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut asked, mut rest) = (Vec::new(), expression);
    while let Some(at) = ["zue_", "process_"].iter().filter_map(|begin| rest.find(begin)).min() {
        let word: String = rest[at..].chars().take_while(|c| is_word(*c)).collect();
        rest = &rest[at + word.len()..];
        let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(within, _)| within);
        asked.push((word, matchers.unwrap_or_default().to_owned()));
    }
    asked
}

/// The faults in what an expression asks for.
fn wrong_in(expression: &str, known: &BTreeMap<String, Described>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (metric, matchers) in asked(expression) {
        let Some(described) = known.get(&metric) else {
            wrong.push(format!("there is no {metric}"));
            continue;
        };
        for matcher in matchers.split(',').filter(|matcher| !matcher.is_empty()) {
            let signs = ["=~", "!~", "!=", "="];
            let Some((label, value)) = signs.iter().find_map(|sign| matcher.split_once(sign)) else {
                wrong.push(format!("{matcher} is nothing that a label can be"));
                continue;
            };
            let closed =
                described.labels.iter().find(|one| one.name == label.trim()).filter(|one| !one.values.is_empty());
            let has = |value: &&str| closed.is_none_or(|closed| closed.values.contains(value));
            let never = value.trim_matches('"').split('|').filter(|value| !value.starts_with('$') && !has(value));
            wrong.extend(never.map(|value| format!("{metric} never has {label}={value}")));
        }
    }
    wrong
}

/// Every query of the dashboard.
fn queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if name == "expr" || name == "query" || name == "definition" => {
                            found.push(text.clone());
                        }
                        value => collect(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let path = root().join("charts/zue-operator/files/dashboard.json");
    let mut found = Vec::new();
    if let Ok(text) = std::fs::read_to_string(path) {
        collect(&serde_json::from_str(&text).expect("the dashboard is JSON"), &mut found);
    }
    found
}

#[test]
fn what_alerts_and_dashboard_ask_for_is_there() {
    let known = known();
    let alerts = alerts();
    let expressions = alerts.iter().filter_map(|alert| alert["expr"].as_str().map(ToOwned::to_owned));
    let pages = std::fs::read_dir(root().join("docs/runbooks")).expect("there are runbooks");
    let pages = pages.map(|page| std::fs::read_to_string(page.expect("a page").path()).expect("it can be read"));
    let expressions = expressions.chain(queries()).chain(pages);
    let wrong: Vec<String> = expressions.flat_map(|expression| wrong_in(&expression, &known)).collect();
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(wrong_in("rate(zue_no_such_total[5m])", &known), ["there is no zue_no_such_total"]);
    let never = wrong_in("zue_append_failures_total{reason=~\"NO_QUORUM|NO_SUCH\"}", &known);
    assert_eq!(never, ["zue_append_failures_total never has reason=NO_SUCH"]);
}

#[test]
fn prometheus_finds_nothing_wrong_with_configuration_rules_and_metrics() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let config = std::fs::read_to_string(root().join("docs/prometheus.yml")).expect("there is a configuration");
    // Debian builds Prometheus without the discovery of pods.
    let known = config.replace("kubernetes_sd_configs: [{ role: pod }]", "static_configs: [{ targets: [\"node:1\"] }]");
    assert!(known != config && !known.contains("kubernetes_sd_configs"), "{known}");
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, known).expect("it can be written");
    std::fs::copy(root().join(RULES), folder.path().join("alerts.yaml")).expect("the rules can be copied");
    let (is_good, said) = promtool(&["check", "config", file.to_str().expect("a path of text")], None);
    assert!(is_good && said.contains(&format!("{} rules found", alerts().len())), "{said}");
    let node = zue_node::Metrics::new().expect("metrics").render();
    let operator = zue_operator::metrics::Metrics::new().expect("metrics").text();
    for text in [node, operator] {
        let file = folder.path().join("metrics");
        std::fs::write(&file, text.expect("they can be written")).expect("they can be written");
        let (is_good, said) = promtool(&["check", "metrics"], Some(&file));
        assert!(is_good && said.is_empty(), "{said}");
    }
}
