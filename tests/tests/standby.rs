//! Three real nodes whose controller is gone: they elect by themselves.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::time::{Duration, Instant};

use zue_tests::load::Load;
use zue_tests::programs::zue_ok;
use zue_tests::replicas::{check_replicas, eventually};
use zue_tests::three::{Cluster, SOON};

#[test]
fn without_a_controller_the_nodes_elect_and_one_that_comes_back_agrees() {
    let mut cluster = Cluster::start(&[]);
    let load = Load::start(&cluster.servers(), "load", Duration::from_millis(5));
    for round in 0..2 {
        cluster.controller.take();
        let (leader, epoch, _) = eventually(SOON, || cluster.led_by(), || "somebody leads".to_owned());
        cluster.nodes[leader].take();
        let begun = Instant::now();
        let others = || cluster.led_by().filter(|(other, later, _)| *other != leader && *later > epoch);
        let (elected, later, by) = eventually(SOON, others, || format!("{:?}", cluster.status()));
        zue_ok(&cluster.servers(), &["append", &format!("x{round}")], b"");
        println!("round {round}: zue-{elected} leads {later} after {:?}, elected by {by}", begun.elapsed());
        assert!(by.starts_with("zue-"), "{by} elected it");
        cluster.restart(leader);
        cluster.control(&[]);
        let agrees = || {
            let status = cluster.status();
            let in_epoch = status.iter().filter(|member| member["epoch"].as_u64() == Some(later)).count();
            (in_epoch == 3).then_some(())
        };
        eventually(SOON, agrees, || format!("all are in epoch {later}: {:?}", cluster.status()));
    }
    let acks = load.finish();
    let names = ["zue-0", "zue-1", "zue-2"].map(str::to_owned);
    check_replicas(&cluster.servers(), &names, &acks, SOON);
}
