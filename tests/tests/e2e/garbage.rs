//! Nonsense in the resource: refused by the API server or told in a condition. The operator neither ends nor goes round in circles.

use serde_json::{Value, json};
use zue_tests::replicas::eventually;

use crate::changes::expect_members;
use crate::kubernetes::{NAME, PATIENCE, Zue, apply, get, kubectl, operator, renew_namespace, run};

/// The number of times that each operator's container was restarted.
fn restarts() -> u64 {
    let pods = get(&["-n", "zue-system", "pods", "-l", "app.kubernetes.io/name=zue-operator"]);
    let count = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    pods["items"].as_array().expect("a list").iter().filter_map(count).sum()
}

fn manifest(name: &str, spec: &Value) -> String {
    json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "metadata": { "name": name }, "spec": spec })
        .to_string()
}

/// The number of times that the status of a resource is written within ten seconds at rest: an operator that goes round in circles writes.
fn writes_at_rest(namespace: &str, name: &str) -> bool {
    let version = || get(&["-n", namespace, "zue", name])["metadata"]["resourceVersion"].clone();
    let mut before = version();
    // What is under way may be told of first.
    for _ in 0..12 {
        std::thread::sleep(std::time::Duration::from_secs(10));
        let now = version();
        if now == before {
            return false;
        }
        before = now;
    }
    true
}

/// Documents that the API server takes although they cannot work, and a word by which the status says why; none where Kubernetes makes no
/// pod, whose state would say it.
const TAKEN: &[(&str, &str, &str)] = &[
    ("image", r#"{"replicas": 1, "image": "nope/nope:nope"}"#, "Pull"),
    ("memory", r#"{"replicas": 1, "resources": {"requests": {"memory": "500Gi"}}}"#, "emory"),
    ("limits", r#"{"replicas": 1, "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}"#, ""),
    ("class", r#"{"replicas": 1, "storage": {"storageClassName": "nope"}}"#, ""),
    ("selector", r#"{"replicas": 1, "pod": {"nodeSelector": {"zue.io/nowhere": "x"}}}"#, "selector"),
    ("priority", r#"{"replicas": 1, "pod": {"priorityClassName": "nope"}}"#, ""),
    ("authority", r#"{"replicas": 1, "tls": {"secretName": "nope"}}"#, "nope"),
];

/// Documents that it must refuse, beside what `main.rs` has.
const REFUSED: &[&str] = &[
    "3",
    "[]",
    r#"{"replicas": "three"}"#,
    r#"{"replicas": -1}"#,
    r#"{"replicas": 1e30}"#,
    r#"{"storage": {"size": "-1Gi"}}"#,
    r#"{"storage": {"size": "99999999999999999999Gi"}}"#,
    r#"{"leader": {"detectionTime": "soon"}}"#,
    r#"{"tls": {"mode": false}}"#,
    r#"{"access": [{"name": "../../etc", "rights": []}]}"#,
    r#"{"access": [{"name": "a", "rights": ["append"]}, {"name": "a", "rights": []}]}"#,
    r#"{"externalAccess": {"addressTemplate": "http://x:1/"}}"#,
    r#"{"config": {"log": {"segmentBytesMax": "1e99GiB"}}}"#,
    r#"{"pod": {"topologySpreadConstraints": [{}]}}"#,
];

#[test]
fn nonsense_is_refused_or_told_in_a_condition_and_the_operator_lives_on() {
    operator();
    let namespace = "e2e-garbage";
    renew_namespace(namespace);
    let before = restarts();
    for spec in REFUSED {
        let text = format!(
            r#"{{"apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "metadata": {{"name": "bad"}}, "spec": {spec}}}"#
        );
        let said = apply(namespace, &text).err().unwrap_or_else(|| panic!("{spec} is taken"));
        println!("{spec}: {}", said.lines().next().unwrap_or_default());
    }
    for (name, spec, word) in TAKEN {
        let spec = serde_json::from_str(spec).expect("JSON");
        // Should the API server come to know better, so much the better.
        let Ok(_) = apply(namespace, &manifest(name, &spec)) else { continue };
        let told = || {
            let status = get(&["-n", namespace, "zue", name])["status"].clone();
            let conditions = status["conditions"].as_array()?.clone();
            let is_bad = |condition: &&Value| {
                let expected = if ["Degraded", "FailoverBlocked"].contains(&condition["type"].as_str()?) {
                    "True"
                } else {
                    "False"
                };
                let counts = ["Ready", "Reconciled", "Degraded"].contains(&condition["type"].as_str()?);
                Some(counts && condition["status"] == expected && condition["message"].as_str()?.len() > 10)
            };
            let bad = conditions.iter().find(|condition| is_bad(condition) == Some(true)).cloned();
            bad.filter(|_| status.to_string().contains(word))
        };
        let told = eventually(PATIENCE, told, || format!("{name} is told to be bad"));
        println!("{name}: {}: {}", told["type"], told["message"]);
    }
    for (name, ..) in TAKEN {
        if run("kubectl", &["get", "zue", "-n", namespace, name]).is_ok() {
            assert!(!writes_at_rest(namespace, name), "{name}: the operator writes again and again");
        }
    }
    assert_eq!(restarts(), before, "an operator has ended");
    kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

/// The same numbers for the same seed: a linear congruential generator.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % below.max(1)
    }

    fn value(&mut self) -> Value {
        let values = [
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(i64::MAX),
            json!(1e300),
            json!(""),
            json!("x".repeat(70_000)),
            json!("\u{0}\u{202e}🦀"),
            json!("9999h"),
            json!("0ms"),
            json!("1Ki"),
            json!([]),
            json!({}),
            json!([[[[]]]]),
            json!({ "a": { "b": { "c": [1, null] } } }),
            json!("Off"),
            json!("18446744073709551616"),
        ];
        values[self.next(values.len())].clone()
    }
}

/// Puts a value in the place of one that is there, or beside it.
fn mutate(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Object(fields) if !fields.is_empty() && dice.next(4) > 0 => {
            let at = dice.next(fields.len());
            if let Some(field) = fields.values_mut().nth(at) {
                mutate(field, dice);
            }
        }
        Value::Array(items) if !items.is_empty() && dice.next(3) > 0 => {
            let at = dice.next(items.len());
            mutate(&mut items[at], dice);
        }
        other => *other = dice.value(),
    }
}

#[test]
fn mutated_specs_and_statuses_end_no_operator_and_a_cluster_with_a_wrong_status_goes_on() {
    let namespace = "e2e-fuzzed";
    let cluster = Zue::create(namespace, 31230);
    expect_members(&cluster, 3);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let (before, mut dice, mut taken) = (restarts(), Dice(16), 0);
    let good = json!({
        "replicas": 1, "quorum": 1, "leader": { "policy": "Automatic", "ordinal": 0, "detectionTime": "1s", "standbyAfter": "1s" },
        "storage": { "size": "1Gi" }, "resources": { "requests": { "cpu": "10m" } },
        "config": { "log": { "segmentBytesMax": "8MiB" }, "replication": {}, "limits": { "connectionsMax": 100 } },
        "externalAccess": { "addressTemplate": "a:1", "perReplicaServices": { "type": "ClusterIP", "annotations": { "a": "b" } } },
        "tls": { "mode": "Required", "dnsNames": ["a.b"] }, "access": [{ "name": "a", "rights": ["read"], "token": true, "from": [{}] }],
        "pod": { "annotations": { "a": "b" }, "nodeSelector": {}, "tolerations": [{ "operator": "Exists" }] },
    });
    for n in 0..60 {
        let mut spec = good.clone();
        mutate(&mut spec, &mut dice);
        let name = format!("m-{n}");
        if apply(namespace, &manifest(&name, &spec)).is_ok() {
            taken += 1;
            std::thread::sleep(std::time::Duration::from_millis(500));
            kubectl(&["delete", "zue", "-n", namespace, &name, "--wait=false"]);
        }
    }
    println!("of 60 mutated specs the API server took {taken}");
    for _ in 0..30 {
        let mut status = cluster.status();
        mutate(&mut status, &mut dice);
        let patch = json!({ "status": status }).to_string();
        // What the schema does not take is refused.
        drop(run(
            "kubectl",
            &["patch", "-n", namespace, "zue", NAME, "--subresource=status", "--type=merge", "-p", &patch],
        ));
        load.expect_acks(50, PATIENCE);
    }
    expect_members(&cluster, 3);
    load.expect_acks(500, PATIENCE);
    assert_eq!(restarts(), before, "an operator has ended");
    cluster.check(load);
}
