//! A machine that loses its network, with the leader and the acting operator on it.

use std::time::Duration;

use serde_json::Value;
use zue_tests::replicas::eventually;

use crate::changes::{acting_operator, expect_members, switch_over};
use crate::kubernetes::{PATIENCE, Zue, get, pods, run};

const TIMES: usize = 5;
/// The time without a leader until the nodes elect one by themselves, with room for the client that has to notice it too.
const STALL_MAX: Duration = Duration::from_secs(4);

/// A machine whose network drops everything, until this is dropped. What runs on it runs on.
pub struct CutOff<'a>(&'a str);

impl<'a> CutOff<'a> {
    pub fn begin(machine: &'a str) -> Self {
        let cut = Self(machine);
        cut.rules("-I").expect("the machine is cut off");
        cut
    }

    fn rules(&self, how: &str) -> Result<(), String> {
        let rules = [("raw", "PREROUTING", "-i"), ("mangle", "POSTROUTING", "-o")];
        rules.iter().try_for_each(|(table, chain, side)| {
            let rule = ["iptables", "-w", "-t", table, how, chain, side, "eth0", "-j", "DROP"];
            run("docker", &[&["exec", self.0], &rule[..]].concat()).map(drop)
        })
    }
}

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        drop(self.rules("-D"));
    }
}

/// The machine of the operator that holds the Lease, once there is one and both operators run.
pub fn machine_of_the_acting_operator() -> String {
    let machine = || {
        let pods = get(&["-n", "zue-system", "pods"]);
        let pods = pods["items"].as_array()?;
        let is_ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        let all_ready = pods.iter().filter(|pod| is_ready(pod)).count() == 2;
        let acting = acting_operator().filter(|_| all_ready)?;
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == acting.as_str())?;
        pod["spec"]["nodeName"].as_str().map(str::to_owned)
    };
    eventually(PATIENCE, machine, || "two operators run, and one of them acts".to_owned())
}

#[test]
fn a_leader_cut_off_with_the_acting_operator_is_replaced_within_four_seconds() {
    let cluster = Zue::create("e2e-cut-off", 31130);
    let load = cluster.load();
    load.expect_acks(500, PATIENCE);
    let mut stalls = vec![];
    for _ in 0..TIMES {
        expect_members(&cluster, 3);
        let machine = machine_of_the_acting_operator();
        let pod = pods().into_iter().find(|pod| cluster.node_of(pod) == machine).expect("each machine has a replica");
        switch_over(&cluster, &pod);
        load.expect_acks(500, PATIENCE);
        load.take_stall();
        let cut = CutOff::begin(&machine);
        load.expect_acks(500, PATIENCE);
        stalls.push(load.take_stall());
        drop(cut);
    }
    println!("stalls after the leader's machine was cut off, with the acting operator on it: {stalls:?}");
    expect_members(&cluster, 3);
    cluster.check(load);
    assert!(stalls.iter().all(|stall| *stall < STALL_MAX), "{stalls:?}");
}
