//! The status of a ZueCluster, from what is seen. Pure: the time comes in, and nothing changes unless something has happened.

mod backed_up;
mod closed;
mod conditions;
mod fact;
mod known_status;
mod workload;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use crate::build;
use crate::cluster::Cluster;
use crate::crd::ZueClusterStatus;
use crate::crd::status::{BackupStatus, Member};
use crate::observe::view::{ClusterView, Replica};

pub use conditions::{RECONCILED, RECOVERING, REPLACING, facts, invalid, merge, unwatched};
pub use fact::Fact;
pub use known_status::KnownStatus;
pub use workload::{GivenUp, InvalidResource, PodFacts, PodZones, SharedWorkload, TaskNews, VolumeFacts, Workload};

/// A problem is cut to this length.
const PROBLEM_CHARS_MAX: usize = 400;
/// The same for the name of the elector.
const ELECTED_BY_CHARS_MAX: usize = 253;
/// The fields that are written down before something is done; a report never touches them.
const RECORDED: [&str; 5] = ["epoch", "recordedLeader", "clusterId", "tlsMode", "recovery"];

/// The status to write; what controllers have written down is carried over from `before`.
pub fn report(
    cluster: &Cluster,
    view: &ClusterView,
    (workload, facts): (&Workload, &[Fact]),
    before: &ZueClusterStatus,
    now: Timestamp,
) -> ZueClusterStatus {
    let mut conditions = merge(&before.conditions, facts, cluster.generation, now);
    if let Some(InvalidResource { generation, .. }) = workload.invalid {
        let reconciled = conditions.iter_mut().filter(|condition| condition.type_ == RECONCILED);
        reconciled.for_each(|condition| condition.observed_generation = generation);
    }
    let selector: Vec<String> =
        build::selector(cluster).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    ZueClusterStatus {
        observed_generation: workload.generation.or(before.observed_generation),
        conditions,
        epoch: before.epoch,
        recorded_leader: before.recorded_leader.clone(),
        cluster_id: before.cluster_id.clone(),
        tls_mode: before.tls_mode,
        recovery: before.recovery.clone(),
        attention: attention(facts),
        storage_size: workload.volumes.size.clone().or_else(|| before.storage_size.clone()),
        leader: view.leader.clone(),
        elected_by: view.elected_by.as_ref().map(|by| by.chars().take(ELECTED_BY_CHARS_MAX).collect()),
        isr: view.isr(),
        in_sync_replicas: Some(view.isr_size()),
        quorum: Some(view.quorum),
        lag_records: view.lag_records(),
        // Those that are left may not know of all that is committed.
        commit_end: if view.leader.is_some() {
            view.log.commit_end
        } else {
            view.log.commit_end.max(before.commit_end)
        },
        backup: view.log.backups.as_ref().map(backed_up::report),
        replicas: Some(view.size()),
        ready_replicas: Some(view.ready()),
        version: versions(view).or_else(|| before.version.clone()),
        selector: Some(selector.join(",")),
        members: view.replicas.iter().map(member).collect(),
    }
}

/// The conditions that a person may have to look at, beside whether it is ready.
fn attention(facts: &[Fact]) -> Option<String> {
    let is_odd = |fact: &&Fact| match fact.type_ {
        RECONCILED => !fact.holds,
        "FailoverBlocked" | REPLACING | RECOVERING => fact.holds || fact.reason == conditions::TO_CONFIRM,
        backed_up::BACKED_UP => backed_up::is_odd(fact.reason),
        "Progressing" => fact.reason == conditions::PODS_STUCK,
        _ => false,
    };
    let reasons: Vec<&str> = facts.iter().filter(is_odd).map(|fact| fact.reason).collect();
    Some(reasons.join(",")).filter(|reasons| !reasons.is_empty())
}

fn versions(view: &ClusterView) -> Option<String> {
    let mut versions: Vec<&str> = view.replicas.iter().filter_map(|replica| replica.version.as_deref()).collect();
    versions.sort_unstable();
    versions.dedup();
    Some(versions.join(", ")).filter(|versions| !versions.is_empty())
}

fn member(replica: &Replica) -> Member {
    Member {
        pod: replica.pod.clone(),
        replica_id: replica.replica_id.clone(),
        role: replica.role,
        in_sync: replica.in_sync,
        durable_end: replica.durable_end,
        lag_records: replica.lag_records,
        problem: replica.problem.as_ref().map(|problem| problem.chars().take(PROBLEM_CHARS_MAX).collect()),
    }
}

/// Tells whether they differ in more than offsets, which change all the time in a log that is in use.
pub fn differs(one: &ZueClusterStatus, other: &ZueClusterStatus) -> bool {
    without_offsets(one) != without_offsets(other)
}

fn without_offsets(status: &ZueClusterStatus) -> ZueClusterStatus {
    let mut status = status.clone();
    (status.commit_end, status.lag_records) = (None, None);
    if let Some(backup) = &mut status.backup {
        *backup = BackupStatus { problem: backup.problem.take(), ..BackupStatus::default() };
    }
    for member in &mut status.members {
        (member.durable_end, member.lag_records) = (None, None);
    }
    status
}

/// The merge patch that writes a report: all of its fields, absent ones taken away, and none of those written down by controllers.
pub fn patch(status: &ZueClusterStatus) -> Value {
    let absent = [
        "observedGeneration",
        "attention",
        "leader",
        "electedBy",
        "lagRecords",
        "commitEnd",
        "backup",
        "version",
        "conditions",
        "isr",
        "members",
    ];
    let mut fields: Map<String, Value> = absent.iter().map(|field| ((*field).to_owned(), Value::Null)).collect();
    if let Ok(Value::Object(present)) = serde_json::to_value(status) {
        fields.extend(present);
    }
    fields.retain(|field, _| !RECORDED.contains(&field.as_str()));
    serde_json::json!({ "status": fields })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::cluster;
    use crate::crd::status::MemberRole;
    use crate::observe::view::tests::healthy;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn workload() -> Workload {
        let pods = PodFacts { count: Some(3), revision: Some("a".to_owned()), ..PodFacts::default() };
        Workload { generation: Some(4), pods, ..Workload::default() }
    }

    fn reported(view: &ClusterView, before: &ZueClusterStatus, second: i64) -> ZueClusterStatus {
        let facts = facts(&cluster("{}"), view, &workload());
        report(&cluster("{}"), view, (&workload(), &facts), before, at(second))
    }

    #[test]
    fn a_converged_and_idle_cluster_is_reported_the_same_for_ever() {
        let first = reported(&healthy(), &ZueClusterStatus::default(), 10);
        assert_eq!(reported(&healthy(), &first, 5000), first);
        assert_eq!(
            (first.leader.as_deref(), first.in_sync_replicas, first.lag_records),
            (Some("orders-0"), Some(3), Some(0))
        );
        assert_eq!((first.observed_generation, first.version.as_deref()), (Some(4), Some("0.1.0")));
    }

    #[test]
    fn an_invalid_resource_is_reported_the_same_for_ever() {
        let refused = InvalidResource { generation: Some(5), message: "spec.replicas is 10".to_owned() };
        let workload = Workload { invalid: Some(refused), ..workload() };
        let facts = facts(&cluster("{}"), &healthy(), &workload);
        let reported = |before: &_, second| report(&cluster("{}"), &healthy(), (&workload, &facts), before, at(second));
        let first = reported(&self::reported(&healthy(), &ZueClusterStatus::default(), 10), 20);
        let condition = first.conditions.iter().find(|condition| condition.type_ == RECONCILED).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Invalid"));
        assert_eq!(
            (condition.message.as_str(), condition.observed_generation),
            ("spec.replicas is 10. Nothing is changed until the spec is valid", Some(5))
        );
        assert_eq!(condition.last_transition_time.0, at(20));
        assert_eq!(first.observed_generation, Some(4));
        assert_eq!(reported(&first, 30), first);
    }

    #[test]
    fn offsets_alone_can_wait() {
        let first = reported(&healthy(), &ZueClusterStatus::default(), 10);
        let mut view = healthy();
        view.log.commit_end = Some(99);
        view.replicas[1].durable_end = Some(98);
        view.replicas[1].lag_records = Some(1);
        let busy = reported(&view, &first, 11);
        assert_ne!(busy, first);
        assert!(!differs(&busy, &first));
        view.replicas[1].in_sync = false;
        assert!(differs(&reported(&view, &first, 11), &first));
    }

    #[test]
    fn a_report_never_touches_what_controllers_have_written_down() {
        let before = ZueClusterStatus {
            epoch: Some(7),
            recorded_leader: Some("ab".to_owned()),
            cluster_id: Some("cd".to_owned()),
            ..Default::default()
        };
        let status = reported(&healthy(), &before, 10);
        assert_eq!(
            (status.epoch, &status.recorded_leader, &status.cluster_id),
            (Some(7), &before.recorded_leader, &before.cluster_id)
        );
        let patch = patch(&status);
        let fields = patch["status"].as_object().unwrap();
        assert!(RECORDED.iter().all(|field| !fields.contains_key(*field)), "{fields:?}");
        assert_eq!(fields["leader"], "orders-0");
    }

    #[test]
    fn who_elected_the_leader_is_reported_and_cut_to_what_the_schema_takes() {
        let mut view = healthy();
        assert_eq!(reported(&view, &ZueClusterStatus::default(), 10).elected_by, None);
        view.elected_by = Some("ä".repeat(300));
        let by = reported(&view, &ZueClusterStatus::default(), 10).elected_by.unwrap();
        assert_eq!(by.chars().count(), 253);
    }

    #[test]
    fn what_is_known_no_more_is_taken_away() {
        let mut view = healthy();
        view.leader = None;
        view.replicas[0].role = MemberRole::Unreachable;
        let status = reported(&view, &ZueClusterStatus::default(), 10);
        assert_eq!(patch(&status)["status"]["leader"], Value::Null);
        let patch = patch(&status);
        let fields = patch["status"].as_object().unwrap();
        assert!(["lagRecords", "electedBy"].iter().all(|field| fields[*field] == Value::Null), "{fields:?}");
    }
}
