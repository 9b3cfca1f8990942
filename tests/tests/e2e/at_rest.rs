//! The cost of many clusters at rest for the operator: CPU and memory of its process, and what is written for them. Many are `CLUSTERS`, at
//! rest for `REST` seconds.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zue_tests::replicas::eventually;

use crate::changes::acting_operator;
use crate::kubernetes::{PATIENCE, apply, get, kubectl, operator, renew_namespace, run};

const NAMESPACE: &str = "bench-at-rest";
/// So many are made at a time.
const BATCH: usize = 20;
const CPU_MAX: f64 = 0.2;
const MEMORY_MAX: u64 = 128 << 20;
/// Clock ticks in a second, as Linux shows them everywhere.
const TICKS: f64 = 100.0;

fn variable<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// CPU seconds and resident bytes of the operator that acts.
fn used() -> (f64, u64) {
    let acting = acting_operator().expect("an operator acts");
    let pod = get(&["-n", "zue-system", "pod", &acting]);
    let machine = pod["spec"]["nodeName"].as_str().expect("it runs").to_owned();
    // Two operators never share a machine here.
    let script = "pid=$(pgrep -x zue-operator); cat /proc/$pid/stat; grep VmRSS /proc/$pid/status";
    let said = run("docker", &["exec", &machine, "sh", "-euc", script]).expect("it can be looked at");
    let (stat, memory) = said.split_once('\n').expect("two lines");
    let ticks: f64 = stat.split_whitespace().skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    (ticks / TICKS, kib << 10)
}

/// The version of every object of the clusters.
fn versions() -> BTreeMap<String, String> {
    let kinds = "zueclusters,statefulsets,services,configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies,secrets,\
                 persistentvolumeclaims,pods,events.events.k8s.io";
    let all = get(&["-n", NAMESPACE, kinds]);
    let version = |object: &Value| {
        let name = format!("{} {}", object["kind"].as_str()?, object["metadata"]["name"].as_str()?);
        Some((name, object["metadata"]["resourceVersion"].as_str()?.to_owned()))
    };
    all["items"].as_array().expect("a list").iter().filter_map(version).collect()
}

#[test]
fn many_clusters_at_rest_cost_the_operator_little_and_nothing_is_written_for_them() {
    let (count, rest) = (variable("CLUSTERS", 100_usize), Duration::from_secs(variable("REST", 600)));
    operator();
    renew_namespace(NAMESPACE);
    let one = |n: usize| {
        json!({ "apiVersion": "zue.io/v1alpha1", "kind": "ZueCluster", "metadata": { "name": format!("log-{n}") },
            "spec": { "replicas": 1, "storage": { "size": "1Gi" }, "resources": { "requests": { "cpu": "1m", "memory": "8Mi" } } } })
        .to_string()
    };
    let begun = Instant::now();
    for first in (0..count).step_by(BATCH) {
        let manifests: Vec<String> = (first..count.min(first + BATCH)).map(one).collect();
        apply(NAMESPACE, &manifests.join("\n---\n")).expect("they are right");
        let timeout = format!("--timeout={}s", 5 * PATIENCE.as_secs());
        kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "zue", "--all", &timeout]);
    }
    println!("{count} ZueClusters of one replica are Ready after {:?}", begun.elapsed());
    // Whatever follows their beginning is over once nothing was written for half a minute.
    let mut last = (versions(), Instant::now());
    let at_rest = || {
        let now = versions();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(30)).then_some(())
    };
    eventually(3 * PATIENCE, at_rest, || "nothing is written any more".to_owned());
    let (before, (cpu_before, _), since) = (versions(), used(), Instant::now());
    std::thread::sleep(rest);
    let ((cpu, memory), took) = (used(), since.elapsed());
    let cores = (cpu - cpu_before) / took.as_secs_f64();
    println!("at rest for {took:?}: the operator takes {cores:.3} of a core and {} MiB", memory >> 20);
    let after = versions();
    let is_written = |(name, version): &(&String, &String)| before.get(*name) != Some(*version);
    let written: Vec<&String> = after.iter().filter(is_written).map(|(name, _)| name).collect();
    assert!(written.is_empty(), "written while nothing happens: {written:?}");
    assert!(cores < CPU_MAX, "{cores:.3} of a core");
    assert!(memory < MEMORY_MAX, "{} MiB", memory >> 20);
    kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}
