//! A look at the nodes and pods of a cluster. Pure: no clock, no network.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use zue_controller::notices::{Facts, Notice, notices};
use zue_core::control::{Blocked, Step};
use zue_core::quorum::effective_quorum;
use zue_proto::v1;

use super::backups::{Backups, backups};
use super::pods;
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
    /// Its role.
    pub role: MemberRole,
    /// True if it votes, as far as that is settled, and counts as in sync.
    pub in_sync: bool,
    /// The end of what is durable on it.
    pub durable_end: Option<u64>,
    /// The number of records that it is behind, by the leader's word; none while its leader has not reached it.
    pub lag_records: Option<u64>,
    /// The time since it was last caught up, in milliseconds, by the leader's word; none if it never was.
    pub lag_ms: Option<u64>,
    /// True if it has never been part of the cluster that others are part of: its disk was emptied.
    pub blank: bool,
    /// Its problem.
    pub problem: Option<String>,
    /// The version of its program.
    pub version: Option<String>,
    /// The state of its pod.
    pub pod_state: PodState,
}

/// A pod, by Kubernetes' word.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodState {
    /// True if it is ready.
    pub ready: bool,
    /// Why it does not run, if Kubernetes says so.
    pub stuck: Option<String>,
    /// The role that it is labelled with; the outer none where there is no pod.
    pub label: Option<Option<String>>,
}

/// A cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterView {
    /// The replicas by ordinal.
    pub replicas: Vec<Replica>,
    /// The name of the leader's pod.
    pub leader: Option<String>,
    /// The epoch it leads.
    pub leads_epoch: Option<u64>,
    /// The one who elected it, by its own word.
    pub elected_by: Option<String>,
    /// The greatest epoch ever reserved.
    pub epoch: u64,
    /// The number of replicas that commit.
    pub quorum: u32,
    /// The number of those that are to commit and are in sync, by the leader's word: of the new voters, while they change.
    pub committing: u32,
    /// True while a change of the voters is under way: those before it are still needed.
    pub is_changing: bool,
    /// The number of replicas that there are to be.
    pub wished: u32,
    /// The extent of the log.
    pub log: LogExtent,
    /// Why the control logic can do nothing, if it cannot.
    pub blocked: Option<Blocked>,
    /// Notices about the replicas side by side.
    pub notices: Vec<Notice>,
}

/// The extent of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogExtent {
    /// The end of what is committed, as far as anyone who answers knows.
    pub commit_end: Option<u64>,
    /// The part of it that is in backups, if any are made.
    pub backups: Option<Backups>,
}

/// Facts that one turn of the control logic saw.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The status of every node by ordinal, or why there is none.
    pub nodes: &'a [Result<v1::StatusResponse, String>],
    /// The greatest epoch written down.
    pub epoch: u64,
    /// The plan.
    pub step: &'a Step,
    /// The pods in sync when that was last known.
    pub isr_before: &'a [String],
}

/// Puts together what was seen of the nodes and of their pods.
pub fn view(cluster: &Cluster, seen: Observed<'_>, its_pods: &[impl AsRef<Pod>]) -> ClusterView {
    let leader = leader_of(seen.nodes);
    let names = cluster.pods();
    let replica = |(ordinal, name): (usize, &String)| {
        let status = seen.nodes.get(ordinal).map(Result::as_ref);
        let pod = its_pods.iter().map(AsRef::as_ref).find(|pod| pod.name_any() == *name);
        let mut replica = match status {
            Some(Ok(status)) => answered(name, status),
            Some(Err(why)) => Replica { pod: name.clone(), problem: Some(why.clone()), ..Replica::default() },
            None => Replica { pod: name.clone(), ..Replica::default() },
        };
        replica.pod_state = PodState {
            ready: pod.is_some_and(pods::is_ready),
            stuck: pod.and_then(pods::stuck),
            label: pod.map(|pod| pod.labels().get(ROLE_LABEL).cloned()),
        };
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
            let is_blank =
                |status: &v1::StatusResponse| status.cluster_id.is_empty() && !zue_proto::status::is_restored(status);
            replica.blank = status.as_ref().is_ok_and(is_blank);
        }
    }
    let odd = odd(&names, seen.nodes, leader);
    for (replica, odd) in replicas.iter_mut().zip(&odd) {
        // That says more than that it does not answer.
        if let Some(stuck) = replica.pod_state.stuck.clone().filter(|_| replica.role == MemberRole::Unreachable) {
            replica.problem = Some(stuck);
        }
        if let Some(odd) = odd {
            replica.problem.get_or_insert_with(|| odd.to_string());
        }
    }
    let start = leader.and_then(|leader| leader.last_epoch_start.as_ref());
    ClusterView {
        leader: replicas.iter().find(|replica| replica.role == MemberRole::Leader).map(|replica| replica.pod.clone()),
        leads_epoch: start.map(|start| start.epoch),
        elected_by: leader.map(|leader| leader.elected_by.clone()).filter(|by| !by.is_empty()),
        epoch: seen.epoch,
        committing: leader.map_or(0, committing),
        is_changing: start.is_some_and(|start| !start.old_voters.is_empty()),
        wished: cluster.spec.replicas,
        quorum: start.map_or_else(|| effective_quorum(names.len(), cluster.spec.quorum), |start| start.quorum),
        log: LogExtent {
            commit_end: answers().filter(|status| !status.cluster_id.is_empty()).map(|status| status.commit_end).max(),
            backups: backups(replicas.iter().zip(seen.nodes).filter_map(by_name)),
        },
        blocked: if let Step::Blocked(blocked) = seen.step { Some(blocked.clone()) } else { None },
        notices: odd.into_iter().flatten().collect(),
        replicas,
    }
}

/// The notice about each of them beside the others.
fn odd(
    names: &[String],
    nodes: &[Result<v1::StatusResponse, String>],
    leader: Option<&v1::StatusResponse>,
) -> Vec<Option<Notice>> {
    let facts = names.iter().zip(nodes).map(|(name, status)| {
        let status = status.as_ref().ok()?;
        let (known_as, name, replica) = (name.as_str(), status.name.as_str(), &status.replica_id[..]);
        let (cluster, restored) = (&status.cluster_id[..], zue_proto::status::is_restored(status));
        Some(Facts { known_as, name, replica, cluster, durability: &status.durability, restored })
    });
    let facts: Vec<_> = facts.collect();
    let leads = |facts: &Option<Facts<'_>>| {
        facts.is_some_and(|facts| leader.is_some_and(|one| one.replica_id == facts.replica))
    };
    notices(&facts, facts.iter().position(leads), None)
}

impl ClusterView {
    /// The pods in sync.
    pub fn isr(&self) -> Vec<String> {
        self.replicas.iter().filter(|replica| replica.in_sync).map(|replica| replica.pod.clone()).collect()
    }

    /// The number of replicas in sync.
    pub fn isr_size(&self) -> u32 {
        count(self.replicas.iter().filter(|replica| replica.in_sync).count())
    }

    /// The number of replicas, those included that are still to go.
    pub fn size(&self) -> u32 {
        count(self.replicas.len())
    }

    /// The number of pods that are ready.
    pub fn ready(&self) -> u32 {
        count(self.replicas.iter().filter(|replica| replica.pod_state.ready).count())
    }

    /// Tells whether appends are taken: somebody leads, and enough are in sync to commit.
    pub fn takes_appends(&self) -> bool {
        self.leader.is_some() && self.committing >= self.quorum
    }

    /// Tells whether all replicas are in sync with a leader, and no change of voters is under way.
    pub fn is_whole(&self) -> bool {
        self.leader.is_some() && !self.is_changing && self.replicas.iter().all(|replica| replica.in_sync)
    }

    /// Tells whether any one replica can go, and its disk with it: all are voters, at work and in sync. A leader takes a while to see that a
    /// follower is gone: in sync by its word alone is not enough.
    pub fn can_spare_one(&self) -> bool {
        self.is_whole() && self.replicas.iter().all(|replica| replica.role.is_at_work())
    }

    /// The number of records that the follower furthest behind lacks; none while nobody leads.
    pub fn lag_records(&self) -> Option<u64> {
        self.leader.as_ref().and_then(|_| self.replicas.iter().filter_map(|replica| replica.lag_records).max())
    }
}

fn by_name<'a>(
    (replica, node): (&'a Replica, &'a Result<v1::StatusResponse, String>),
) -> Option<(&'a str, &'a v1::StatusResponse)> {
    Some((replica.pod.as_str(), node.as_ref().ok()?))
}

/// The number of the leader's voters in sync, itself included.
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
    (replica.lag_records, replica.lag_ms) = (lag_records(follower), lag_ms(follower));
    if !follower.problem.is_empty() {
        replica.problem.get_or_insert_with(|| follower.problem.clone());
    }
}

/// A replica that does not answer here is found by the name that the leader knows it by.
fn by_the_leader_of_the_silent(replica: &mut Replica, leader: &v1::StatusResponse) {
    let Some(follower) = leader.followers.iter().find(|follower| follower.name == replica.pod) else { return };
    replica.in_sync = leader.isr.contains(&follower.replica_id);
    (replica.lag_records, replica.lag_ms) = (lag_records(follower), lag_ms(follower));
}

/// None of one that its leader has not reached: what that one has is not known, and all of the log would be told.
fn lag_records(follower: &v1::FollowerStatus) -> Option<u64> {
    Some(follower.lag_records).filter(|_| follower.connected || lag_ms(follower).is_some())
}

/// None of one that was never caught up: its leader has no number for that, and gives the greatest.
fn lag_ms(follower: &v1::FollowerStatus) -> Option<u64> {
    Some(follower.lag_ms).filter(|ms| *ms != u64::MAX)
}

/// There are at most nine.
fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
