//! What a look at the nodes and pods of a cluster shows. Pure: no clock, no network.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use zue_client::notices::{Facts, Notice, notices};
use zue_core::control::{Blocked, Step};
use zue_core::quorum::effective_quorum;
use zue_proto::v1;

use crate::build::ROLE_LABEL;
use crate::cluster::Cluster;
use crate::crd::status::MemberRole;

/// One replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replica {
    /// Its pod's name.
    pub pod: String,
    /// Its id in hex; none while it does not answer.
    pub replica_id: Option<String>,
    /// What it does.
    pub role: MemberRole,
    /// Whether it votes, as far as that is settled, and counts as in sync.
    pub in_sync: bool,
    /// The end of what is durable on it.
    pub durable_end: Option<u64>,
    /// How many records it is behind, by the leader's word.
    pub lag_records: Option<u64>,
    /// How long ago it was last caught up, in milliseconds, by the leader's word; none if it never was.
    pub lag_ms: Option<u64>,
    /// Whether it has never been part of the cluster that others are part of: its disk was emptied.
    pub blank: bool,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// The version of its program.
    pub version: Option<String>,
    /// Whether its pod is ready.
    pub ready: bool,
    /// The role that its pod is labelled with; the outer none where there is no pod.
    pub label: Option<Option<String>>,
}

/// A cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The replicas by ordinal.
    pub replicas: Vec<Replica>,
    /// The name of the leader's pod.
    pub leader: Option<String>,
    /// The epoch it leads.
    pub leads_epoch: Option<u64>,
    /// The greatest epoch ever reserved.
    pub epoch: u64,
    /// How many replicas commit.
    pub quorum: u32,
    /// How many of those that are to commit are in sync, by the leader's word: of the new voters, while they change.
    pub committing: u32,
    /// Whether a change of the voters is under way: those before it are still needed.
    pub is_changing: bool,
    /// How many replicas there are to be.
    pub wished: u32,
    /// The end of what is committed, as far as anyone who answers knows.
    pub commit_end: Option<u64>,
    /// Why the control logic can do nothing, if it cannot.
    pub blocked: Option<Blocked>,
    /// What is odd about the replicas side by side.
    pub notices: Vec<Notice>,
}

/// What one turn of the control logic saw, as facts.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The status of every node by ordinal, or why there is none.
    pub nodes: &'a [Result<v1::StatusResponse, String>],
    /// The greatest epoch written down.
    pub epoch: u64,
    /// What was planned.
    pub step: &'a Step,
    /// The pods in sync when that was last known.
    pub isr_before: &'a [String],
}

/// Puts together what was seen of the nodes and of their pods.
pub fn view(cluster: &Cluster, seen: Seen<'_>, pods: &[impl AsRef<Pod>]) -> View {
    let leader = leader_of(seen.nodes);
    let names = cluster.pods();
    let replica = |(ordinal, name): (usize, &String)| {
        let status = seen.nodes.get(ordinal).map(Result::as_ref);
        let pod = pods.iter().map(AsRef::as_ref).find(|pod| pod.name_any() == *name);
        let mut replica = match status {
            Some(Ok(status)) => answered(name, status),
            Some(Err(why)) => Replica { pod: name.clone(), problem: Some(why.clone()), ..Replica::default() },
            None => Replica { pod: name.clone(), ..Replica::default() },
        };
        replica.ready = pod.is_some_and(is_ready);
        replica.label = pod.map(|pod| pod.labels().get(ROLE_LABEL).cloned());
        match (leader, status) {
            (Some(leader), Some(Ok(status))) => by_the_leader(&mut replica, leader, &status.replica_id),
            (Some(leader), _) => by_the_leader_of_the_silent(&mut replica, leader),
            // Nobody says who is in sync any more: who was, and is in reach, still has what it had.
            (None, Some(Ok(_))) => replica.in_sync = seen.isr_before.contains(name),
            (None, _) => {}
        }
        replica
    };
    let mut replicas: Vec<Replica> = names.iter().enumerate().map(replica).collect();
    let answers = || seen.nodes.iter().flatten();
    if answers().any(|status| !status.cluster_id.is_empty()) {
        for (replica, status) in replicas.iter_mut().zip(seen.nodes) {
            replica.blank = status.as_ref().is_ok_and(|status| status.cluster_id.is_empty());
        }
    }
    let odd = odd(&names, seen.nodes, leader);
    for (replica, odd) in replicas.iter_mut().zip(&odd) {
        if let Some(odd) = odd {
            replica.problem.get_or_insert_with(|| odd.to_string());
        }
    }
    let start = leader.and_then(|leader| leader.last_epoch_start.as_ref());
    View {
        leader: replicas.iter().find(|replica| replica.role == MemberRole::Leader).map(|replica| replica.pod.clone()),
        leads_epoch: start.map(|start| start.epoch),
        epoch: seen.epoch,
        committing: leader.map_or(0, committing),
        is_changing: start.is_some_and(|start| !start.old_voters.is_empty()),
        wished: cluster.spec.replicas,
        quorum: start.map_or_else(|| effective_quorum(names.len(), cluster.spec.quorum), |start| start.quorum),
        commit_end: answers().filter(|status| !status.cluster_id.is_empty()).map(|status| status.commit_end).max(),
        blocked: if let Step::Blocked(blocked) = seen.step { Some(blocked.clone()) } else { None },
        notices: odd.into_iter().flatten().collect(),
        replicas,
    }
}

/// What is odd about each of them beside the others.
fn odd(
    names: &[String],
    nodes: &[Result<v1::StatusResponse, String>],
    leader: Option<&v1::StatusResponse>,
) -> Vec<Option<Notice>> {
    let facts = names.iter().zip(nodes).map(|(name, status)| {
        let status = status.as_ref().ok()?;
        let (known_as, name, replica) = (name.as_str(), status.name.as_str(), &status.replica_id[..]);
        Some(Facts { known_as, name, replica, cluster: &status.cluster_id, durability: &status.durability })
    });
    let facts: Vec<_> = facts.collect();
    let leads = |facts: &Option<Facts<'_>>| {
        facts.is_some_and(|facts| leader.is_some_and(|one| one.replica_id == facts.replica))
    };
    notices(&facts, facts.iter().position(leads), None)
}

impl View {
    /// The pods in sync.
    pub fn isr(&self) -> Vec<String> {
        self.replicas.iter().filter(|replica| replica.in_sync).map(|replica| replica.pod.clone()).collect()
    }

    /// How many replicas are in sync.
    pub fn isr_size(&self) -> u32 {
        count(self.replicas.iter().filter(|replica| replica.in_sync).count())
    }

    /// How many replicas there are, those included that are still to go.
    pub fn size(&self) -> u32 {
        count(self.replicas.len())
    }

    /// How many pods are ready.
    pub fn ready(&self) -> u32 {
        count(self.replicas.iter().filter(|replica| replica.ready).count())
    }

    /// Whether appends are taken: somebody leads, and enough are in sync to commit.
    pub fn takes_appends(&self) -> bool {
        self.leader.is_some() && self.committing >= self.quorum
    }

    /// Whether all replicas are in sync with a leader, and no change of voters is under way.
    pub fn is_whole(&self) -> bool {
        self.leader.is_some() && !self.is_changing && self.replicas.iter().all(|replica| replica.in_sync)
    }

    /// Whether any one replica can go, and its disk with it: all are voters, at work and in sync. A leader takes a while to see that a
    /// follower is gone: in sync by its word alone is not enough.
    pub fn can_spare_one(&self) -> bool {
        self.is_whole() && self.replicas.iter().all(|replica| replica.role.is_at_work())
    }

    /// How many records the follower that is furthest behind lacks; none while nobody leads.
    pub fn lag_records(&self) -> Option<u64> {
        self.leader.as_ref().and_then(|_| self.replicas.iter().filter_map(|replica| replica.lag_records).max())
    }
}

/// How many of the leader's voters are in sync, itself included.
fn committing(leader: &v1::StatusResponse) -> u32 {
    let in_sync = |id: &[u8]| {
        let follows = |follower: &v1::FollowerStatus| follower.in_sync && follower.replica_id == id;
        leader.replica_id == id || leader.followers.iter().any(follows)
    };
    let voters = leader.last_epoch_start.iter().flat_map(|start| &start.voters);
    count(voters.filter(|id| in_sync(id)).count())
}

/// Of those who say they lead, the one with the newest epoch: another does not know yet that it leads no more.
fn leader_of(nodes: &[Result<v1::StatusResponse, String>]) -> Option<&v1::StatusResponse> {
    let epoch = |status: &&v1::StatusResponse| status.last_epoch_start.as_ref().map_or(0, |start| start.epoch);
    nodes.iter().flatten().filter(|status| status.role() == v1::Role::Leader).max_by_key(epoch)
}

fn answered(pod: &str, status: &v1::StatusResponse) -> Replica {
    Replica {
        pod: pod.to_owned(),
        replica_id: zue_proto::replica_id("replica_id", &status.replica_id).ok().map(|id| id.to_string()),
        role: match status.role() {
            // Until it is known that no newer epoch is led by another.
            v1::Role::Unspecified | v1::Role::Idle | v1::Role::Leader => MemberRole::Idle,
            v1::Role::Follower => MemberRole::Follower,
            v1::Role::Failed => MemberRole::Failed,
        },
        durable_end: status.durable.as_ref().map(|tail| tail.end),
        problem: Some(status.problem.clone()).filter(|problem| !problem.is_empty()),
        version: Some(status.version.clone()).filter(|version| !version.is_empty()),
        ..Replica::default()
    }
}

fn by_the_leader(replica: &mut Replica, leader: &v1::StatusResponse, replica_id: &[u8]) {
    replica.in_sync = leader.isr.iter().any(|id| id == replica_id);
    if leader.replica_id == replica_id {
        replica.role = MemberRole::Leader;
        (replica.lag_records, replica.lag_ms) = (Some(0), Some(0));
        return;
    }
    let Some(follower) = leader.followers.iter().find(|follower| follower.replica_id == replica_id) else { return };
    if !follower.voter && replica.role == MemberRole::Follower {
        replica.role = MemberRole::Learner;
    }
    (replica.lag_records, replica.lag_ms) = (Some(follower.lag_records), lag_ms(follower));
    if !follower.problem.is_empty() {
        replica.problem.get_or_insert_with(|| follower.problem.clone());
    }
}

/// A replica that does not answer here is found by the name that the leader knows it by.
fn by_the_leader_of_the_silent(replica: &mut Replica, leader: &v1::StatusResponse) {
    let Some(follower) = leader.followers.iter().find(|follower| follower.name == replica.pod) else { return };
    replica.in_sync = leader.isr.contains(&follower.replica_id);
    (replica.lag_records, replica.lag_ms) = (Some(follower.lag_records), lag_ms(follower));
}

/// None of one that was never caught up: its leader has no number for that, and gives the greatest.
fn lag_ms(follower: &v1::FollowerStatus) -> Option<u64> {
    Some(follower.lag_ms).filter(|ms| *ms != u64::MAX)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// There are at most nine.
fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
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

    pub(crate) fn look(nodes: &[Answer], step: &Step, isr_before: &[&str]) -> View {
        let before: Vec<String> = isr_before.iter().map(|pod| (*pod).to_owned()).collect();
        let pods: Vec<_> = (0..3).map(|ordinal| pod(&format!("orders-{ordinal}"), true, None)).collect();
        view(&cluster("{}"), Seen { nodes, epoch: 4, step, isr_before: &before }, &pods)
    }

    pub(crate) fn healthy() -> View {
        let nodes = [leader(1, 4, &[1, 2, 3], &[(2, 0), (3, 0)]), follower(2), follower(3)];
        look(&nodes, &Step::Nothing, &[])
    }

    #[test]
    fn a_healthy_cluster_is_whole_and_takes_appends() {
        let view = healthy();
        assert_eq!((view.leader.as_deref(), view.leads_epoch, view.quorum), (Some("orders-0"), Some(4), 2));
        assert_eq!(view.isr(), ["orders-0", "orders-1", "orders-2"]);
        assert!(view.is_whole() && view.takes_appends());
        assert_eq!((view.lag_records(), view.commit_end, view.ready()), (Some(0), Some(10), 3));
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
    fn what_was_never_caught_up_has_no_time_for_which_it_was_not() {
        let mut led = leader(1, 4, &[1], &[(2, 70), (3, 80)]);
        for follower in &mut led.as_mut().unwrap().followers {
            follower.lag_ms = u64::MAX;
        }
        let view = look(&[led, follower(2), silent()], &Step::Nothing, &[]);
        let lags: Vec<_> = view.replicas.iter().map(|replica| (replica.lag_records, replica.lag_ms)).collect();
        assert_eq!(lags, [(Some(0), Some(0)), (Some(70), None), (Some(80), None)]);
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
        let nodes = [leader(1, 4, &[1, 2], &[(2, 0)]), follower(2), Ok(blank.clone())];
        let view = look(&nodes, &Step::Nothing, &[]);
        assert_eq!(view.replicas.iter().map(|replica| replica.blank).collect::<Vec<_>>(), [false, false, true]);
        let fresh = look(&[Ok(blank), silent(), silent()], &Step::Nothing, &[]);
        assert!(fresh.replicas.iter().all(|replica| !replica.blank));
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_not_ready() {
        let mut leaving = Pod::clone(&pod("orders-0", true, None));
        assert!(is_ready(&leaving));
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert!(!is_ready(&leaving));
    }
}
