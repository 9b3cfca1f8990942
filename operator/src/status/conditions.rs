//! The conditions of a ZueCluster: each with a reason for programs and a message that a person can act on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use zue_core::control::Blocked;

use super::backed_up::{BACKED_UP, backed_up};
use super::closed::closed;
use super::fact::{Fact, fact};
use super::workload::Workload;
use crate::cluster::Cluster;
use crate::crd::status::MemberRole;
use crate::observe::view::{ClusterView, Replica};
use crate::plan::recover::{self, Recover};
use crate::plan::replace::{self, Replace};

/// The condition that says whether the Kubernetes objects are as they should be.
pub const RECONCILED: &str = "Reconciled";

/// The reason of pods that do not start.
pub(super) const PODS_STUCK: &str = "PodsStuck";

/// The condition that says whether a log goes on without the majority of its replicas.
pub const RECOVERING: &str = "Recovering";
/// The reason of what waits for a second word.
pub(super) const TO_CONFIRM: &str = "ToBeConfirmed";

/// The condition that says whether a replica is being replaced.
pub const REPLACING: &str = "Replacing";

/// Conditions of the nodes, not known while nobody looks.
const OWN: [&str; 7] =
    ["Ready", "Progressing", "Degraded", "LeaderElected", "FullyReplicated", "FailoverBlocked", BACKED_UP];

/// The resource is invalid; nothing else can be said.
pub fn invalid(message: &str) -> Fact {
    fact(RECONCILED, false, "Invalid", format!("{message}. Nothing is changed until the spec is valid"))
}

/// Everything that conditions say.
pub fn facts(cluster: &Cluster, view: &ClusterView, workload: &Workload) -> Vec<Fact> {
    let known = [
        ready(view, workload),
        progressing(view, workload),
        degraded(view),
        leader_elected(view),
        fully_replicated(view),
        failover_blocked(view),
        reconciled(workload),
        replacing(workload),
        backups(cluster, view),
        recovering(cluster, workload),
        fact("Paused", false, "NotPaused", "the operator looks after this cluster".to_owned()),
    ];
    known.into_iter().chain(closed(cluster, workload)).collect()
}

fn ready(view: &ClusterView, workload: &Workload) -> Fact {
    let type_ = "Ready";
    if !workload.pods.foreign.is_empty() || (workload.pods.sets.is_anothers && workload.pods.sets.own.is_empty()) {
        let pods =
            if workload.pods.foreign.is_empty() { "its pods".to_owned() } else { workload.pods.foreign.join(", ") };
        let message = format!("{pods} belong to a deleted ZueCluster of that name: they are replaced");
        return fact(type_, false, "PodsOfAnother", message);
    }
    let Some(leader) = &view.leader else { return fact(type_, false, "NoLeader", nobody_leads(view)) };
    let (isr, quorum) = (view.committing, view.quorum);
    if view.takes_appends() {
        return fact(type_, true, "TakesAppends", format!("{leader} takes appends"));
    }
    let (replicas, late) = (view.size(), out_of_sync(view));
    let message = format!("{isr} of {replicas} replicas are in sync, {quorum} are needed to append; {late}");
    fact(type_, false, "BelowQuorum", message)
}

fn leader_elected(view: &ClusterView) -> Fact {
    match (&view.leader, view.leads_epoch) {
        (Some(leader), epoch) => {
            let by = view.elected_by.as_ref().map(|by| format!(", elected by {by}")).unwrap_or_default();
            let message = format!("{leader} leads epoch {}{by}", epoch.unwrap_or_default());
            fact("LeaderElected", true, "Elected", message)
        }
        (None, _) => fact("LeaderElected", false, "NoLeader", nobody_leads(view)),
    }
}

fn fully_replicated(view: &ClusterView) -> Fact {
    let type_ = "FullyReplicated";
    match (&view.leader, view.is_whole()) {
        (None, _) => fact(type_, false, "NoLeader", nobody_leads(view)),
        (Some(_), true) => fact(type_, true, "AllInSync", "all replicas are in sync".to_owned()),
        (Some(_), false) => fact(type_, false, "OutOfSync", out_of_sync(view)),
    }
}

fn degraded(view: &ClusterView) -> Fact {
    let type_ = "Degraded";
    let failed: Vec<String> =
        view.replicas.iter().filter(|replica| replica.role == MemberRole::Failed).map(failure).collect();
    if !failed.is_empty() {
        return fact(type_, true, "ReplicaFailed", failed.join("; "));
    }
    let blank: Vec<&str> =
        view.replicas.iter().filter(|replica| replica.blank).map(|replica| replica.pod.as_str()).collect();
    if !blank.is_empty() {
        let message = format!(
            "the disk of {} was emptied and its promises are lost: it has no vote until it has caught up again",
            blank.join(", ")
        );
        return fact(type_, true, "ReplicaBlank", message);
    }
    let silent = |replica: &&Replica| replica.role == MemberRole::Unreachable;
    let silent: Vec<&str> = view.replicas.iter().filter(silent).map(|replica| replica.pod.as_str()).collect();
    if !silent.is_empty() {
        return fact(type_, true, "ReplicaUnreachable", format!("no answer from {}", silent.join(", ")));
    }
    if view.leader.is_some() && !view.is_whole() {
        return fact(type_, true, "OutOfSync", out_of_sync(view));
    }
    if let Some(first) = view.notices.first() {
        let said: Vec<String> = view.notices.iter().map(ToString::to_string).collect();
        return fact(type_, true, first.name(), said.join("; "));
    }
    fact(type_, false, "AllWell", "all replicas answer".to_owned())
}

fn failure(replica: &Replica) -> String {
    let problem: String = replica.problem.as_deref().unwrap_or("it does not say why").chars().take(300).collect();
    format!("{} has failed: {problem}", replica.pod)
}

fn progressing(view: &ClusterView, workload: &Workload) -> Fact {
    let said = progress(view, workload);
    let stuck: Vec<String> = view
        .replicas
        .iter()
        .filter_map(|replica| Some(format!("{}: {}", replica.pod, replica.pod_state.stuck.as_ref()?)))
        .collect();
    if stuck.is_empty() {
        return said;
    }
    // A condition's message may be long, but not without end.
    let message: String = format!("{}; {}", said.message, stuck.join("; ")).chars().take(2000).collect();
    fact(said.type_, true, PODS_STUCK, message)
}

fn progress(view: &ClusterView, workload: &Workload) -> Fact {
    let type_ = "Progressing";
    let (ready, replicas) = (view.ready(), view.size());
    if workload.pods.stale > 0 {
        let message = format!("{} of {replicas} pods are still to be replaced", workload.pods.stale);
        return fact(type_, true, "RollingOut", message);
    }
    let of = |role: MemberRole| view.replicas.iter().filter(move |replica| replica.role == role);
    let learning: Vec<&str> = of(MemberRole::Learner).map(|replica| replica.pod.as_str()).collect();
    if replicas > view.wished {
        let message =
            format!("scaling from {replicas} to {} pods: the last ones give up their votes one by one", view.wished);
        return fact(type_, true, "ScalingDown", message);
    }
    if !learning.is_empty() {
        let message = format!("{} copies the log, and votes once it has caught up", learning.join(", "));
        return fact(type_, true, "ReplicaLearning", message);
    }
    if view.is_changing {
        let message = "a change of the voters is being settled: the previous voters are still needed".to_owned();
        return fact(type_, true, "VotersChanging", message);
    }
    if ready < replicas {
        return fact(type_, true, "PodsStarting", format!("{ready} of {replicas} pods are ready"));
    }
    fact(type_, false, "Converged", "all pods are ready and up to date".to_owned())
}

fn failover_blocked(view: &ClusterView) -> Fact {
    let type_ = "FailoverBlocked";
    match &view.blocked {
        // A cluster that has not begun has nothing to fail over.
        Some(blocked @ Blocked::WaitingForReplicas { .. }) => fact(type_, false, reason(blocked), blocked.to_string()),
        Some(blocked) => fact(type_, true, reason(blocked), blocked.to_string()),
        None => fact(type_, false, "NotBlocked", "nothing blocks an election".to_owned()),
    }
}

const fn reason(blocked: &Blocked) -> &'static str {
    match blocked {
        Blocked::WaitingForReplicas { .. } => "WaitingForReplicas",
        Blocked::DataGone(_) => "DataGone",
        Blocked::NoMajority { .. } => "NoMajority",
        Blocked::StaticLeaderDown { .. } => "StaticLeaderDown",
        Blocked::ForeignReplica { .. } => "ForeignReplica",
        Blocked::ManyRestored(_) => "ManyRestored",
        Blocked::RestoredBesideCluster { .. } => "RestoredBesideCluster",
        Blocked::RestoredHurt { .. } => "RestoredHurt",
    }
}

fn reconciled(workload: &Workload) -> Fact {
    if let Some(refused) = &workload.invalid {
        return invalid(&refused.message);
    }
    if let Some(why) = &workload.volumes.growth_refused {
        let also = workload.problem.as_ref().map(|problem| format!("; {problem}")).unwrap_or_default();
        let message = format!(
            "the volumes cannot be grown, and the operator tries again: {why}; spec.storage.size may go back to status.storageSize{also}"
        );
        return fact(RECONCILED, false, "VolumeGrowthRefused", message);
    }
    let problems = workload.problem.iter().chain(&workload.budget_problem).chain(&workload.pods.pod_zones.problem);
    let problems: Vec<&str> = problems.map(String::as_str).collect();
    match Some(problems.join("; ")).filter(|problems| !problems.is_empty()) {
        Some(problem) => fact(RECONCILED, false, "ApplyFailed", problem),
        None => fact(RECONCILED, true, "Applied", "all objects are as the spec wants them".to_owned()),
    }
}

fn replacing(workload: &Workload) -> Fact {
    match &workload.given_up.replica {
        Some(Replace::Pod(pod)) => fact(REPLACING, true, "ReplicaReplaced", replace::meaning(pod)),
        Some(Replace::Refused(why)) => fact(REPLACING, false, "Refused", why.clone()),
        None => fact(REPLACING, false, "NotAsked", "no replica is to be replaced".to_owned()),
    }
}

fn backups(cluster: &Cluster, view: &ClusterView) -> Fact {
    let (holds, reason, message) = backed_up(cluster.spec.backup.is_some(), view.log.backups.as_ref());
    fact(BACKED_UP, holds, reason, message)
}

fn recovering(cluster: &Cluster, workload: &Workload) -> Fact {
    if let Some((recovery, stage)) = cluster.recovery.as_ref().zip(workload.given_up.stage.as_ref()) {
        let (reason, message) = recover::words(recovery, stage);
        return fact(RECOVERING, true, reason, message);
    }
    match &workload.given_up.majority {
        Some(Recover::Meaning(meaning)) => fact(RECOVERING, false, TO_CONFIRM, meaning.clone()),
        Some(Recover::Confirmed(_, meaning)) => fact(RECOVERING, true, "Confirmed", meaning.clone()),
        Some(Recover::Refused(why)) => fact(RECOVERING, false, "Refused", why.clone()),
        None => fact(RECOVERING, false, "NotAsked", "no majority is given up".to_owned()),
    }
}

fn nobody_leads(view: &ClusterView) -> String {
    match &view.blocked {
        Some(blocked) => blocked.to_string(),
        None => "nobody leads; an election is under way".to_owned(),
    }
}

fn out_of_sync(view: &ClusterView) -> String {
    let late: Vec<&str> =
        view.replicas.iter().filter(|replica| !replica.in_sync).map(|replica| replica.pod.as_str()).collect();
    format!("out of sync: {}", late.join(", "))
}

/// The conditions of which nobody knows any more whether they hold, for this reason. What was said of them last is kept in words.
pub fn unwatched(before: &[Condition], reason: &'static str, why: &str, now: Timestamp) -> Vec<Condition> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let unknown = |condition: &Condition| {
        if !OWN.contains(&condition.type_.as_str()) || condition.status == "Unknown" {
            return condition.clone();
        }
        let Condition { status, message, .. } = condition;
        let message = format!("{why}; {status} when last seen: {message}").chars().take(2000).collect();
        let (status, reason) = ("Unknown".to_owned(), reason.to_owned());
        Condition { status, reason, message, last_transition_time: Time(now), ..condition.clone() }
    };
    before.iter().map(unknown).collect()
}

/// The conditions with what is known now. The time of a transition is that of the last change from true to false or back; conditions
/// that nothing is said about stay.
pub fn merge(before: &[Condition], facts: &[Fact], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let mut conditions = before.to_vec();
    // The API server keeps seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    for Fact { type_, holds, reason, message } in facts {
        let status = if *holds { "True" } else { "False" };
        let old = conditions.iter().position(|condition| condition.type_ == *type_);
        let since = old.and_then(|at| conditions.get(at)).filter(|old| old.status == status);
        let condition = Condition {
            type_: (*type_).to_owned(),
            status: status.to_owned(),
            reason: (*reason).to_owned(),
            message: message.clone(),
            observed_generation: generation,
            last_transition_time: since.map_or(Time(now), |old| old.last_transition_time.clone()),
        };
        match old.and_then(|at| conditions.get_mut(at)) {
            Some(old) => *old = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use zue_core::control::Step;

    use super::super::workload::{PodFacts, VolumeFacts};
    use super::*;
    use crate::cluster::tests::cluster;
    use crate::observe::pods::Sets;
    use crate::observe::view::tests::{follower, healthy, leader, look, silent};

    fn said(view: &ClusterView) -> Vec<(&'static str, bool, &'static str)> {
        facts(&cluster("{}"), view, &Workload::default())
            .into_iter()
            .map(|fact| (fact.type_, fact.holds, fact.reason))
            .collect()
    }

    fn message(view: &ClusterView, type_: &str) -> String {
        facts(&cluster("{}"), view, &Workload::default()).into_iter().find(|fact| fact.type_ == type_).unwrap().message
    }

    #[test]
    fn a_healthy_cluster_says_so() {
        let expected = [
            ("Ready", true, "TakesAppends"),
            ("Progressing", false, "Converged"),
            ("Degraded", false, "AllWell"),
            ("LeaderElected", true, "Elected"),
            ("FullyReplicated", true, "AllInSync"),
            ("FailoverBlocked", false, "NotBlocked"),
            ("Reconciled", true, "Applied"),
            ("Replacing", false, "NotAsked"),
            ("BackedUp", false, "NotAsked"),
            ("Recovering", false, "NotAsked"),
            ("Paused", false, "NotPaused"),
        ];
        assert_eq!(said(&healthy()), expected);
    }

    #[test]
    fn who_elected_the_leader_is_told_beside_it() {
        let by = |elected_by: &str| {
            let mut nodes = [leader(1, 4, &[1, 2, 3], &[(2, 0), (3, 0)]), follower(2), follower(3)];
            elected_by.clone_into(&mut nodes[0].as_mut().unwrap().elected_by);
            look(&nodes, &Step::Nothing, &[])
        };
        assert_eq!(message(&by("orders-2"), "LeaderElected"), "orders-0 leads epoch 4, elected by orders-2");
        // A node of an earlier version does not say.
        assert_eq!(message(&by(""), "LeaderElected"), "orders-0 leads epoch 4");
    }

    #[test]
    fn replicas_that_do_not_go_together_degrade() {
        let mut nodes = [leader(1, 4, &[1, 2, 3], &[(2, 0), (3, 0)]), follower(2), follower(3)];
        for (node, durability) in nodes.iter_mut().zip(["sync", "sync", "interval"]) {
            node.as_mut().unwrap().durability = durability.to_owned();
        }
        let view = look(&nodes, &Step::Nothing, &[]);
        assert!(said(&view).contains(&("Degraded", true, "OtherDurability")));
        assert!(message(&view, "Degraded").contains("orders-2 runs with durability interval"));
        assert!(said(&view).contains(&("Ready", true, "TakesAppends")));
    }

    #[test]
    fn one_follower_down_degrades_but_does_not_stop() {
        let view = look(&[leader(1, 4, &[1, 3], &[(2, 70), (3, 0)]), silent(), follower(3)], &Step::Nothing, &[]);
        let said = said(&view);
        assert!(said.contains(&("Ready", true, "TakesAppends")));
        assert!(said.contains(&("Degraded", true, "ReplicaUnreachable")));
        assert!(said.contains(&("FullyReplicated", false, "OutOfSync")));
        assert_eq!(message(&view, "FullyReplicated"), "out of sync: orders-1");
    }

    #[test]
    fn below_the_quorum_nothing_is_taken_and_the_missing_are_named() {
        let view = look(&[leader(1, 4, &[1], &[(2, 70), (3, 70)]), silent(), silent()], &Step::Nothing, &[]);
        assert!(said(&view).contains(&("Ready", false, "BelowQuorum")));
        let expected = "1 of 3 replicas are in sync, 2 are needed to append; out of sync: orders-1, orders-2";
        assert_eq!(message(&view, "Ready"), expected);
    }

    #[test]
    fn a_roll_that_does_not_go_on_says_why() {
        let mut view = look(&[leader(1, 4, &[1, 2], &[(2, 0), (3, 70)]), follower(2), silent()], &Step::Nothing, &[]);
        view.replicas[2].pod_state.stuck = Some("ImagePullBackOff: no such image".to_owned());
        let workload = Workload { pods: PodFacts { stale: 2, ..PodFacts::default() }, ..Workload::default() };
        let fact = progressing(&view, &workload);
        assert_eq!((fact.holds, fact.reason), (true, "PodsStuck"));
        assert_eq!(fact.message, "2 of 3 pods are still to be replaced; orders-2: ImagePullBackOff: no such image");
    }

    #[test]
    fn a_growth_that_is_refused_says_how_it_can_be_taken_back() {
        let growth_refused = Some("no expansion".to_owned());
        let volumes = VolumeFacts { growth_refused, ..VolumeFacts::default() };
        let workload = Workload { volumes, ..Workload::default() };
        let fact = reconciled(&workload);
        assert_eq!((fact.holds, fact.reason), (false, "VolumeGrowthRefused"));
        assert!(fact.message.contains("no expansion") && fact.message.contains("status.storageSize"));
    }

    #[test]
    fn a_cluster_is_not_ready_by_the_pods_of_a_deleted_one() {
        let ready = |workload: &Workload| ready(&healthy(), workload);
        assert!(ready(&Workload::default()).holds);
        let pods = PodFacts { foreign: vec!["orders-1".to_owned()], ..PodFacts::default() };
        let foreign = Workload { pods, ..Workload::default() };
        assert_eq!((ready(&foreign).holds, ready(&foreign).reason), (false, "PodsOfAnother"));
        assert!(ready(&foreign).message.starts_with("orders-1 belong"));
        let sets = Sets { is_anothers: true, ..Sets::default() };
        assert!(!ready(&Workload { pods: PodFacts { sets, ..PodFacts::default() }, ..Workload::default() }).holds);
    }

    #[test]
    fn what_nobody_looks_at_is_unknown_and_says_what_was_known() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let known = merge(&[], &facts(&cluster("{}"), &healthy(), &Workload::default()), Some(1), at(10));
        let unwatched = |before: &[Condition], second| unwatched(before, "NobodyLooks", "no operator runs", at(second));
        let unknown = unwatched(&known, 20);
        let of = |type_: &str| unknown.iter().find(|condition| condition.type_ == type_).unwrap();
        assert_eq!((of("Ready").status.as_str(), of("Ready").last_transition_time.0), ("Unknown", at(20)));
        assert_eq!(of("Ready").message, "no operator runs; True when last seen: orders-0 takes appends");
        assert_eq!(of("Reconciled").status, "True", "that is not of the nodes");
        assert_eq!(unwatched(&unknown, 30), unknown);
    }

    #[test]
    fn a_blocked_election_says_why() {
        let step = Step::Blocked(Blocked::StaticLeaderDown { ordinal: 0 });
        let view = look(&[silent(), follower(2), follower(3)], &step, &[]);
        let said = said(&view);
        assert!(said.contains(&("FailoverBlocked", true, "StaticLeaderDown")));
        assert!(said.contains(&("Ready", false, "NoLeader")));
        assert!(message(&view, "Ready").contains("replica 0, the leader by the Static policy"));
    }

    #[test]
    fn scaling_is_told_until_it_is_done() {
        let mut view = healthy();
        view.replicas[2].role = MemberRole::Learner;
        assert!(said(&view).contains(&("Progressing", true, "ReplicaLearning")));
        assert!(message(&view, "Progressing").starts_with("orders-2 copies the log"));
        view.wished = 2;
        assert!(said(&view).contains(&("Progressing", true, "ScalingDown")));
        assert!(message(&view, "Progressing").starts_with("scaling from 3 to 2 pods"));
    }

    #[test]
    fn a_transition_is_timed_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let says = |holds, message: &str| vec![fact("Ready", holds, "R", message.to_owned())];
        let first = merge(&[], &says(true, "a"), Some(1), at(10));
        let reworded = merge(&first, &says(true, "b"), Some(2), at(20));
        assert_eq!((reworded[0].last_transition_time.0, reworded[0].message.as_str()), (at(10), "b"));
        assert_eq!(reworded[0].observed_generation, Some(2));
        let flipped = merge(&reworded, &says(false, "b"), Some(2), at(30));
        assert_eq!(flipped[0].last_transition_time.0, at(30));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let other = Condition {
            type_: "Audited".to_owned(),
            status: "True".to_owned(),
            reason: "X".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let merged = merge(
            std::slice::from_ref(&other),
            &facts(&cluster("{}"), &healthy(), &Workload::default()),
            None,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(merged[0], other);
        assert_eq!(merged.len(), 12);
    }
}
