//! The death of a leader while whoever would replace it is away: both operators, the API server, the cluster's DNS. The nodes elect by
//! themselves.

use std::time::Duration;

use serde_json::Value;
use zue_tests::load::Load;
use zue_tests::replicas::eventually;

use crate::kubernetes::{NAME, PATIENCE, Zue, get, kubectl, operator, pods, run};

const TIMES: usize = 5;
/// Far above what it takes, far below an outage: who is paged sees the difference.
const STALL_MAX: Duration = Duration::from_secs(5);

/// Ends an outage when it is dropped, also where a test fails.
pub struct Outage<F: Fn()>(pub F);

impl<F: Fn()> Drop for Outage<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The statuses of the nodes, a row each: no API server is asked.
pub fn rows(cluster: &Zue) -> Vec<Value> {
    let output = cluster.zue(&["-o", "json", "status"], b"");
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn leader(cluster: &Zue) -> Option<String> {
    let rows = rows(cluster);
    let whole = rows.len() == 3 && rows.iter().all(|row| row["in_sync"] == true && row["stands_by"] == true);
    let leader = rows.iter().find(|row| row["role"] == "leader").filter(|_| whole)?;
    leader["name"].as_str().map(str::to_owned)
}

/// Kills the leader again and again; gives how long appends stood still each time.
fn stalls(cluster: &Zue, load: &Load, machines: &[(String, String)]) -> Vec<Duration> {
    let mut stalls = vec![];
    for _ in 0..TIMES {
        let leader = eventually(PATIENCE, || leader(cluster), || format!("all is well: {:?}", rows(cluster)));
        let machine = machines.iter().find(|(pod, _)| *pod == leader).expect("a pod runs somewhere");
        load.take_stall();
        signal(&machine.1, "-KILL", "zue-node");
        load.expect_acks(200, PATIENCE);
        stalls.push(load.take_stall());
    }
    stalls
}

pub fn signal(machine: &str, which: &str, program: &str) {
    run("docker", &["exec", machine, "pkill", which, "-x", program]).expect("the signal arrives");
}

pub fn machines() -> Vec<String> {
    let nodes = get(&["nodes"]);
    let names = nodes["items"].as_array().expect("a list").iter();
    names.filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// Runs the same load through an outage.
fn through(namespace: &str, port: u16, what: &str, begin: impl FnOnce(), end: impl Fn()) {
    let cluster = Zue::create(namespace, port);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let at: Vec<_> = pods().into_iter().map(|pod| (pod.clone(), cluster.node_of(&pod))).collect();
    let with_all = stalls(&cluster, &load, &at);
    let outage = Outage(end);
    begin();
    let without = stalls(&cluster, &load, &at);
    let by = rows(&cluster).iter().find_map(|row| row["elected_by"].as_str().map(str::to_owned));
    drop(outage);
    println!("stalls after a kill of the leader: {with_all:?} with all there, {without:?} {what}; elected by {by:?}");
    cluster.check(load);
    assert!(with_all.iter().chain(&without).all(|stall| *stall < STALL_MAX), "{with_all:?}, {without:?}");
}

#[test]
fn leaders_are_replaced_with_both_operators_away() {
    operator();
    let scale = |replicas: &str| {
        kubectl(&["scale", "-n", "zue-system", "deployment/zue-operator", &format!("--replicas={replicas}")]);
    };
    let begin = || {
        scale("0");
        let gone = || {
            let pods = get(&["-n", "zue-system", "pods"]);
            pods["items"].as_array().is_some_and(Vec::is_empty).then_some(())
        };
        eventually(PATIENCE, gone, || "the operators are gone".to_owned());
    };
    through("e2e-alone", 31100, "with no operator", begin, || scale("2"));
}

#[test]
fn leaders_are_replaced_while_the_api_server_is_stopped() {
    let control = machines().into_iter().find(|name| name.ends_with("control-plane")).expect("a control plane");
    let send = |which: &str| signal(&control, which, "kube-apiserver");
    through("e2e-no-api", 31110, "with the API server stopped", || send("-STOP"), || send("-CONT"));
}

#[test]
fn leaders_are_replaced_while_no_name_resolves() {
    let all = machines();
    let of_dns = |which: &str| {
        for machine in &all {
            drop(run("docker", &["exec", machine, "pkill", which, "-x", "coredns"]));
        }
    };
    let begin = || {
        of_dns("-STOP");
        // Whoever is called at night looks at the leader from within: its own name needs no DNS.
        let status = get(&["-n", "e2e-no-dns", "zuecluster", NAME]);
        let leader = status["status"]["leader"].as_str().expect("there is a leader");
        for asked in [&["status"][..], &["read", "--from", "0", "--max", "1"]] {
            kubectl(&[&["exec", "-n", "e2e-no-dns", leader, "--", "zue"], asked].concat());
        }
    };
    through("e2e-no-dns", 31120, "with the DNS stopped", begin, || of_dns("-CONT"));
}
