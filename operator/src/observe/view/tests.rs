//! Views of made-up nodes, and what they show.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};

use super::*;
use crate::cluster::tests::cluster;

pub(crate) type Answer = Result<v1::StatusResponse, String>;

fn status(replica: u128, role: v1::Role) -> v1::StatusResponse {
    v1::StatusResponse {
        name: format!("orders-{}", replica - 1),
        replica_id: zue_proto::id_bytes(replica),
        cluster_id: zue_proto::id_bytes(9),
        version: "0.1.0".to_owned(),
        role: role.into(),
        durable: Some(v1::Tail { epoch: 4, end: 10 }),
        commit_end: 10,
        ..Default::default()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it stands in a list beside one that does not answer")]
pub(crate) fn follower(replica: u128) -> Answer {
    Ok(status(replica, v1::Role::Follower))
}

#[allow(clippy::unnecessary_wraps, reason = "it stands in a list beside one that does not answer")]
pub(crate) fn leader(replica: u128, epoch: u64, isr: &[u128], lags: &[(u128, u64)]) -> Answer {
    let voters = (1..=3).map(zue_proto::id_bytes).collect();
    let start = v1::EpochStart { epoch, voters, quorum: 2, ..Default::default() };
    let progress = |(id, lag): &(u128, u64)| v1::FollowerStatus {
        replica_id: zue_proto::id_bytes(*id),
        name: format!("orders-{}", id - 1),
        in_sync: isr.contains(id),
        lag_records: *lag,
        lag_ms: *lag,
        voter: true,
        ..Default::default()
    };
    Ok(v1::StatusResponse {
        last_epoch_start: Some(start),
        isr: isr.iter().copied().map(zue_proto::id_bytes).collect(),
        followers: lags.iter().map(progress).collect(),
        ..status(replica, v1::Role::Leader)
    })
}

pub(crate) fn silent() -> Answer {
    Err("no answer within 800 ms".to_owned())
}

pub(crate) fn pod(name: &str, ready: bool, label: Option<&str>) -> Arc<Pod> {
    let mut pod = Pod::default();
    pod.metadata.name = Some(name.to_owned());
    let label = label.map(|label| [(ROLE_LABEL.to_owned(), label.to_owned())].into());
    pod.metadata.labels = label;
    let status = if ready { "True" } else { "False" }.to_owned();
    let condition = PodCondition { type_: "Ready".to_owned(), status, ..Default::default() };
    pod.status = Some(PodStatus { conditions: Some(vec![condition]), ..Default::default() });
    Arc::new(pod)
}

pub(crate) fn look(nodes: &[Answer], step: &Step, isr_before: &[&str]) -> ClusterView {
    let before: Vec<String> = isr_before.iter().map(|pod| (*pod).to_owned()).collect();
    let pods: Vec<_> = (0..3).map(|ordinal| pod(&format!("orders-{ordinal}"), true, None)).collect();
    view(&cluster("{}"), Observed { nodes, epoch: 4, step, isr_before: &before }, &pods)
}

pub(crate) fn healthy() -> ClusterView {
    let nodes = [leader(1, 4, &[1, 2, 3], &[(2, 0), (3, 0)]), follower(2), follower(3)];
    look(&nodes, &Step::Nothing, &[])
}

#[test]
fn a_healthy_cluster_is_whole_and_takes_appends() {
    let view = healthy();
    assert_eq!((view.leader.as_deref(), view.leads_epoch, view.quorum), (Some("orders-0"), Some(4), 2));
    assert_eq!(view.isr(), ["orders-0", "orders-1", "orders-2"]);
    assert!(view.is_whole() && view.takes_appends());
    assert_eq!((view.lag_records(), view.log.commit_end, view.ready()), (Some(0), Some(10), 3));
}

#[test]
fn while_the_voters_change_no_pod_can_be_spared_and_appends_go_by_the_new_ones() {
    let change = |new: &[u128], old: &[u128], isr: &[u128], in_sync: &[u128]| {
        let mut led = leader(1, 4, isr, &[(2, 0), (3, 0)]);
        let status = led.as_mut().unwrap();
        let start = status.last_epoch_start.as_mut().unwrap();
        start.voters = new.iter().copied().map(zue_proto::id_bytes).collect();
        start.old_voters = old.iter().copied().map(zue_proto::id_bytes).collect();
        for follower in &mut status.followers {
            follower.in_sync = in_sync.iter().any(|id| follower.replica_id == zue_proto::id_bytes(*id));
        }
        look(&[led, follower(2), follower(3)], &Step::Nothing, &[])
    };
    let added = change(&[1, 2], &[1], &[1], &[2]);
    assert!(added.takes_appends() && !added.can_spare_one(), "{added:?}");
    assert!(!change(&[1, 2], &[1], &[1], &[]).takes_appends(), "the new one is needed and is late");
    let removed = change(&[1, 2], &[1, 2, 3], &[1, 2, 3], &[2, 3]);
    assert!(removed.takes_appends() && !removed.is_whole() && !removed.can_spare_one());
    assert!(change(&[1, 2, 3], &[], &[1, 2, 3], &[2, 3]).is_whole());
}

#[test]
fn a_replica_that_acknowledges_otherwise_than_its_leader_is_told() {
    let with = |answer: Answer, durability: &str| {
        answer.map(|status| v1::StatusResponse { durability: durability.to_owned(), ..status })
    };
    let led = leader(1, 4, &[1, 2, 3], &[(2, 0), (3, 0)]);
    let view = look(&[with(led, "sync"), with(follower(2), "os"), with(follower(3), "sync")], &Step::Nothing, &[]);
    let said = view.replicas[1].problem.clone().unwrap_or_default();
    assert!(said.starts_with("orders-1 runs with durability os, and orders-0, the leader, with sync"), "{said}");
    assert_eq!((view.notices.len(), view.replicas[2].problem.as_ref()), (1, None));
}

#[test]
fn a_follower_that_is_down_keeps_its_lag_by_the_leaders_word() {
    let nodes = [leader(1, 4, &[1, 3], &[(2, 70), (3, 0)]), silent(), follower(3)];
    let view = look(&nodes, &Step::Nothing, &[]);
    let down = &view.replicas[1];
    assert_eq!((down.role, down.in_sync, down.lag_records), (MemberRole::Unreachable, false, Some(70)));
    assert_eq!(view.lag_records(), Some(70));
    assert!(view.takes_appends() && !view.is_whole());
}

#[test]
fn what_was_never_caught_up_has_no_time_for_which_it_was_not_and_what_was_never_reached_no_lag() {
    let mut led = leader(1, 4, &[1], &[(2, 70), (3, 80)]);
    for follower in &mut led.as_mut().unwrap().followers {
        follower.lag_ms = u64::MAX;
        follower.connected = follower.lag_records == 70;
    }
    let view = look(&[led, follower(2), silent()], &Step::Nothing, &[]);
    let lags: Vec<_> = view.replicas.iter().map(|replica| (replica.lag_records, replica.lag_ms)).collect();
    assert_eq!(lags, [(Some(0), Some(0)), (Some(70), None), (None, None)]);
}

#[test]
fn a_follower_without_a_vote_is_a_learner() {
    let mut led = leader(1, 4, &[1, 2], &[(2, 0), (3, 70)]);
    led.as_mut().unwrap().followers[1].voter = false;
    let view = look(&[led, follower(2), follower(3)], &Step::Nothing, &[]);
    assert_eq!((view.replicas[1].role, view.replicas[2].role), (MemberRole::Follower, MemberRole::Learner));
    assert!(!view.is_whole());
}

#[test]
fn of_two_that_say_they_lead_the_newer_epoch_leads() {
    let nodes = [leader(1, 4, &[1, 2, 3], &[]), leader(2, 5, &[2, 3], &[(1, 3)]), follower(3)];
    let view = look(&nodes, &Step::Nothing, &[]);
    assert_eq!((view.leader.as_deref(), view.leads_epoch), (Some("orders-1"), Some(5)));
    assert_eq!(view.replicas[0].role, MemberRole::Idle);
    assert_eq!(view.isr(), ["orders-1", "orders-2"]);
}

#[test]
fn without_a_leader_those_in_sync_before_stay_so_while_they_are_in_reach() {
    let view = look(&[silent(), follower(2), follower(3)], &Step::Nothing, &["orders-0", "orders-1"]);
    assert_eq!(view.isr(), ["orders-1"]);
    assert_eq!((view.leader.as_deref(), view.lag_records()), (None, None));
    assert!(!view.takes_appends());
}

#[test]
fn an_emptied_disk_is_told_from_a_new_cluster() {
    let mut blank = status(7, v1::Role::Idle);
    blank.cluster_id.clear();
    (blank.durable, blank.last_epoch_start) = (None, None);
    let nodes = [leader(1, 4, &[1, 2], &[(2, 0)]), follower(2), Ok(blank.clone())];
    let view = look(&nodes, &Step::Nothing, &[]);
    assert_eq!(view.replicas.iter().map(|replica| replica.blank).collect::<Vec<_>>(), [false, false, true]);
    let fresh = look(&[Ok(blank), silent(), silent()], &Step::Nothing, &[]);
    assert!(fresh.replicas.iter().all(|replica| !replica.blank));
}

#[test]
fn a_pod_that_is_being_deleted_is_not_ready() {
    let mut leaving = Pod::clone(&pod("orders-0", true, None));
    assert!(pods::is_ready(&leaving));
    leaving.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    assert!(!pods::is_ready(&leaving));
}
