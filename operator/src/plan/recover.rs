//! A majority of the replicas that is gone for good, by an annotation of the ZueCluster: the log of one replica that is left begins a new
//! cluster. What that means is said before, and must be confirmed in as many words. Pure: it is told the time.

use std::time::{Duration, Instant};

use zue_core::quorum::majority;
use zue_proto::v1;

use crate::cluster::Cluster;
use crate::crd::ZueCluster;
use crate::crd::status::{MemberRole, Recovery};
use crate::observe::view::ClusterView;

/// Names the replica whose log is to go on, and once more with the place from which on all is lost. The operator takes it away once that
/// is written down, or if it refuses.
pub const RECOVER_ANNOTATION: &str = "zue.io/unsafe-recover";

/// So long no majority must have answered before a log begins a new cluster: a machine that restarts is back by then.
const GONE_FOR: Duration = Duration::from_mins(1);

/// The next step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recover {
    /// It can be done once it is confirmed: what it means, and how it is confirmed.
    Meaning(String),
    /// It was confirmed.
    Confirmed(Recovery, String),
    /// It cannot be done, for this reason.
    Refused(String),
}

/// The time since when too few voters answer.
#[derive(Debug, Default)]
pub struct MajorityOutage(Option<Instant>);

impl MajorityOutage {
    /// For how long that has been so.
    pub fn look(&mut self, nodes: &[Result<v1::StatusResponse, String>], now: Instant) -> Duration {
        self.0 = are_too_few(nodes).then(|| self.0.unwrap_or(now));
        self.0.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// True if those that answer, and those that they reach, are too few of the newest voters they know of to elect anybody or to commit.
fn are_too_few(nodes: &[Result<v1::StatusResponse, String>]) -> bool {
    let left = || nodes.iter().flatten().filter(|status| !status.cluster_id.is_empty());
    let starts = left().filter_map(|status| status.last_epoch_start.as_ref());
    let Some(newest) = starts.max_by_key(|start| start.epoch) else { return false };
    // A leader that does not answer here may have everybody else.
    let answers = |id: &[u8]| left().any(|status| status.replica_id == id);
    if left().any(|status| status.leader_connected && !answers(&status.promised_leader)) {
        return false;
    }
    let reaches = |status: &v1::StatusResponse, voter: &[u8]| {
        let follows_it = |follower: &v1::FollowerStatus| follower.connected && follower.replica_id == voter;
        status.replica_id == voter || status.followers.iter().any(follows_it)
    };
    let is_there = |voter: &[u8]| left().any(|status| reaches(status, voter));
    let mut electorates = [&newest.voters, &newest.old_voters].into_iter().filter(|voters| !voters.is_empty());
    electorates.any(|voters| voters.iter().filter(|voter| is_there(voter)).count() < majority(voters.len()))
}

/// Facts of the cluster whose majority is gone.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryFacts<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The look at it.
    pub view: &'a ClusterView,
    /// The word of each node.
    pub nodes: &'a [Result<v1::StatusResponse, String>],
    /// The time for which too few voters have answered.
    pub gone_for: Duration,
    /// The end of what was committed, as far as it was ever written down.
    pub commit_end: Option<u64>,
}

/// Reads the annotation, if it is there and not obeyed yet.
pub fn asked(known: RecoveryFacts<'_>, annotation: Option<&str>) -> Option<Recover> {
    let text = annotation.filter(|_| known.cluster.recovery.is_none())?;
    let (pod, confirmed) = text.split_once('@').map_or((text, None), |(pod, end)| (pod, Some(end)));
    Some(match survivor(known, pod) {
        Err(why) => Recover::Refused(format!("{pod:.63} does not begin a new cluster: {why}")),
        Ok(recovery) => {
            let meaning = meaning(known, &recovery);
            let is_confirmed = confirmed == Some(recovery.end.to_string().as_str()) && known.gone_for >= GONE_FOR;
            if is_confirmed { Recover::Confirmed(recovery, meaning) } else { Recover::Meaning(meaning) }
        }
    })
}

/// The replica that is left and holds most, if it is that one; or why it is not.
fn survivor(known: RecoveryFacts<'_>, pod: &str) -> Result<Recovery, String> {
    let RecoveryFacts { cluster, view, nodes, .. } = known;
    if view.takes_appends() || !are_too_few(nodes) {
        return Err("enough voters are in reach: nothing has to be given up".to_owned());
    }
    let pods = cluster.pods();
    let tail = |status: &v1::StatusResponse| status.durable.map_or((0, 0), |durable| (durable.epoch, durable.end));
    let left = || pods.iter().zip(nodes).filter_map(|(pod, status)| Some((pod, status.as_ref().ok()?)));
    let Some((_, status)) = left().find(|(name, _)| *name == pod) else {
        let left: Vec<&str> = left().map(|(pod, _)| pod.as_str()).collect();
        return Err(format!("it does not answer; those that do are {}", left.join(", ")));
    };
    let (id, lost) =
        (zue_proto::replica_id("replica_id", &status.replica_id), zue_proto::cluster_id(&status.cluster_id));
    let (Ok(id), Ok(Some(lost))) = (id, lost) else {
        return Err("it holds nothing of the cluster: its disk was emptied".to_owned());
    };
    let role = view.replicas.iter().find(|replica| replica.pod == pod).map(|replica| replica.role);
    if role == Some(MemberRole::Failed) || status.damaged {
        return Err("its log is damaged: restore a backup instead".to_owned());
    }
    let of_cluster = || left().filter(|(_, other)| other.cluster_id == status.cluster_id);
    if let Some((more, other)) = of_cluster().find(|(_, other)| tail(other) > tail(status)) {
        let ((epoch, end), (of, at)) = (tail(other), tail(status));
        return Err(format!("{more} holds more: up to {end} in epoch {epoch}, not up to {at} in epoch {of}"));
    }
    Ok(Recovery { pod: pod.to_owned(), replica_id: id.to_string(), cluster_id: lost.to_string(), end: tail(status).1 })
}

/// The consequences, said before it is done.
fn meaning(known: RecoveryFacts<'_>, recovery: &Recovery) -> String {
    let RecoveryFacts { cluster, gone_for, commit_end, .. } = known;
    let Recovery { pod, end, .. } = recovery;
    let lost = match commit_end.filter(|committed| committed > end) {
        Some(committed) => {
            format!("the records from {end} to {} at least are lost, and all behind them", committed - 1)
        }
        None => format!("every record from {end} on is lost, if others acknowledged any"),
    };
    let others: Vec<String> = cluster.pods().into_iter().filter(|other| other != pod).collect();
    let others = others.join(", ");
    let wait = GONE_FOR.saturating_sub(gone_for).as_secs();
    let wait = if wait == 0 { String::new() } else { format!(", in {wait} s at the earliest") };
    format!(
        "DANGER: {pod} holds the records before {end}, and its log would begin a new cluster: {lost}. The pods of {others} are stopped \
         first, and their volumes stay. If any of them runs somewhere and cannot be reached, it must never come back. To confirm{wait}: \
         kubectl annotate zue {} -n {} --overwrite {RECOVER_ANNOTATION}={pod}@{end}",
        cluster.name, cluster.namespace
    )
}

/// Its progress, once it is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// These pods are still there: they may still be of the old cluster.
    Stopping(Vec<String>),
    /// The pod of the survivor is to be made anew, so that its log leaves the cluster.
    Detaching,
    /// Its log has left the cluster, which is to be forgotten.
    Forgetting,
    /// The new cluster begins.
    Beginning,
    /// The new cluster has begun. The others are kept stopped as long as their volumes are there.
    Begun,
}

/// The look at a recovery that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The confirmation.
    pub recovery: &'a Recovery,
    /// The names of all pods that there are, whosever they are.
    pub pods: &'a [String],
    /// The cluster that is written down.
    pub recorded: Option<&'a str>,
    /// The word of the survivor, if it answers.
    pub survivor: Option<&'a v1::StatusResponse>,
}

/// Its progress.
pub fn stage(progress: Progress<'_>) -> Stage {
    let Progress { recovery, pods, recorded, survivor } = progress;
    if recorded.is_some_and(|recorded| recorded != recovery.cluster_id) {
        return Stage::Begun;
    }
    let others: Vec<String> = pods.iter().filter(|pod| **pod != recovery.pod).cloned().collect();
    if !others.is_empty() {
        return Stage::Stopping(others);
    }
    match (recorded, survivor.is_some_and(zue_proto::status::is_restored)) {
        (Some(_), false) => Stage::Detaching,
        (Some(_), true) => Stage::Forgetting,
        (None, _) => Stage::Beginning,
    }
}

/// The facts that a controller starts from; when they change, it starts over. One of them is whether the lost cluster is forgotten.
pub fn footing(resource: Option<&ZueCluster>) -> (Option<Recovery>, bool) {
    let recovery = resource.and_then(ZueCluster::recovery);
    let has_none = |resource: &ZueCluster| resource.status.as_ref().is_none_or(|status| status.cluster_id.is_none());
    let is_forgotten = recovery.is_some() && resource.is_some_and(has_none);
    (recovery, is_forgotten)
}

/// The progress of one that is under way, by the resource as it is shown, its pods, and what the survivor says.
pub fn seen(
    resource: Option<&ZueCluster>,
    pods: impl Iterator<Item = String>,
    survivor: Option<&v1::StatusResponse>,
) -> Option<Stage> {
    let (resource, pods) = (resource?, pods.collect::<Vec<_>>());
    let recovery = resource.recovery()?;
    let recorded = resource.status.as_ref().and_then(|status| status.cluster_id.as_deref());
    Some(stage(Progress { recovery: &recovery, pods: &pods, recorded, survivor }))
}

/// In words.
pub fn words(recovery: &Recovery, stage: &Stage) -> (&'static str, String) {
    let Recovery { pod, end, cluster_id, .. } = recovery;
    match stage {
        Stage::Stopping(others) => (
            "StoppingOthers",
            format!(
                "waiting until these pods are gone: {}. Kubernetes waits for their machines to say so: for machines that are gone for \
                 good, set the taint node.kubernetes.io/out-of-service",
                others.join(", ")
            ),
        ),
        Stage::Detaching => ("Detaching", format!("{pod} restarts, and its log leaves cluster {cluster_id}")),
        Stage::Forgetting => {
            ("Forgetting", format!("the log of {pod} has left cluster {cluster_id}, which is forgotten now"))
        }
        Stage::Beginning => ("Beginning", format!("a new cluster begins with the log of {pod}, which ends at {end}")),
        Stage::Begun => (
            "OthersStopped",
            format!(
                "a new cluster has begun with the log of {pod}, which ended at {end}. The other replicas stay stopped as long as their \
                 volume claims are there: save what they hold, then delete the claims, and blank replicas come"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::cluster;
    use crate::observe::view::tests::healthy;

    const LOST: u128 = 9;

    #[allow(clippy::unnecessary_wraps, reason = "it is an answer, as they come")]
    fn status(replica: u128, epoch: u64, end: u64) -> Result<v1::StatusResponse, String> {
        Ok(v1::StatusResponse {
            replica_id: zue_proto::id_bytes(replica),
            cluster_id: zue_proto::id_bytes(LOST),
            durable: Some(v1::Tail { epoch, end }),
            last_epoch_start: Some(v1::EpochStart {
                epoch,
                leader: zue_proto::id_bytes(1),
                voters: [1, 2, 3].map(zue_proto::id_bytes).to_vec(),
                ..Default::default()
            }),
            promised_leader: zue_proto::id_bytes(1),
            ..Default::default()
        })
    }

    fn lost() -> ClusterView {
        let mut view = healthy();
        (view.leader, view.committing) = (None, 0);
        for replica in &mut view.replicas {
            replica.role = MemberRole::Unreachable;
        }
        view.replicas[2].role = MemberRole::Idle;
        view
    }

    fn silent() -> Result<v1::StatusResponse, String> {
        Err("no answer".to_owned())
    }

    fn ask(view: &ClusterView, nodes: &[Result<v1::StatusResponse, String>], secs: u64, text: &str) -> Option<Recover> {
        let gone_for = Duration::from_secs(secs);
        asked(RecoveryFacts { cluster: &cluster("{}"), view, nodes, gone_for, commit_end: Some(90) }, Some(text))
    }

    fn refused(view: &ClusterView, nodes: &[Result<v1::StatusResponse, String>], text: &str) -> String {
        match ask(view, nodes, 600, text) {
            Some(Recover::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_lost_is_named_and_it_is_done_only_once_the_place_is_confirmed() {
        let nodes = [silent(), silent(), status(3, 4, 80)];
        assert_eq!(
            asked(
                RecoveryFacts {
                    cluster: &cluster("{}"),
                    view: &lost(),
                    nodes: &nodes,
                    gone_for: GONE_FOR,
                    commit_end: None
                },
                None
            ),
            None
        );
        for text in ["orders-2", "orders-2@", "orders-2@79", "orders-2@81", "orders-2@080", "orders-2@80 "] {
            let Some(Recover::Meaning(said)) = ask(&lost(), &nodes, 600, text) else { panic!("{text}") };
            assert!(said.contains("records from 80 to 89 at least are lost"), "{said}");
            assert!(
                said.contains("orders-0, orders-1 are stopped") && said.contains("unsafe-recover=orders-2@80"),
                "{said}"
            );
        }
        let Some(Recover::Meaning(said)) = ask(&lost(), &nodes, 20, "orders-2@80") else { panic!("too soon") };
        assert!(said.contains("in 40 s at the earliest"), "{said}");
        let Some(Recover::Confirmed(recovery, _)) = ask(&lost(), &nodes, 60, "orders-2@80") else { panic!() };
        let (replica_id, cluster_id) = (format!("{:032x}", 3), format!("{LOST:032x}"));
        assert_eq!(recovery, Recovery { pod: "orders-2".to_owned(), replica_id, cluster_id, end: 80 });
    }

    #[test]
    fn nothing_is_given_up_that_need_not_be() {
        let nodes = [silent(), silent(), status(3, 4, 80)];
        assert!(
            refused(&healthy(), &nodes, "orders-2@80").contains("enough voters"),
            "it commits, by its leader's word"
        );
        // This operator is cut off: the survivor hears its leader, or the leader a follower.
        let edit = |edit: fn(&mut v1::StatusResponse)| {
            let mut one = status(3, 4, 80).unwrap();
            edit(&mut one);
            [silent(), silent(), Ok(one)]
        };
        let hears = edit(|one| one.leader_connected = true);
        let feeds = edit(|one| {
            let replica_id = zue_proto::id_bytes(2);
            one.followers = vec![v1::FollowerStatus { replica_id, connected: true, ..Default::default() }];
        });
        let two = [silent(), status(2, 4, 80), status(3, 4, 80)];
        let hears_of_five = edit(|one| {
            let voters = [1, 2, 3, 4, 5].map(zue_proto::id_bytes).to_vec();
            one.last_epoch_start = Some(v1::EpochStart { epoch: 4, voters, ..Default::default() });
            one.leader_connected = true;
        });
        for nodes in [&hears, &hears_of_five, &feeds, &two] {
            assert!(refused(&lost(), nodes, "orders-2@80").contains("enough voters"), "{nodes:?}");
        }
        // While the voters change, both majorities are needed.
        let of_old = edit(|one| {
            let old_voters = [4, 5, 6].map(zue_proto::id_bytes).to_vec();
            let voters = vec![zue_proto::id_bytes(3)];
            one.last_epoch_start = Some(v1::EpochStart { epoch: 4, voters, old_voters, ..Default::default() });
        });
        assert!(matches!(ask(&lost(), &of_old, 600, "orders-2@80"), Some(Recover::Confirmed(..))));
        // One that leads on without anybody is as much left as one that follows nobody.
        let mut lonely = lost();
        (lonely.leader, lonely.committing, lonely.replicas[2].role) =
            (Some("orders-2".to_owned()), 1, MemberRole::Leader);
        assert!(matches!(ask(&lonely, &nodes, 600, "orders-2@80"), Some(Recover::Confirmed(..))));
        assert!(refused(&lost(), &nodes, "orders-1@80").contains("those that do are orders-2"));
        for name in ["", "@", "orders-3", "2", &"ä".repeat(9000)] {
            assert!(refused(&lost(), &nodes, name).len() < 400, "{name:.9}");
        }
        // The newer epoch counts, then the longer log.
        for (other, more) in [((5, 10), true), ((4, 81), true), ((4, 80), false), ((3, 99), false)] {
            // Of five voters, which the newer epoch start names.
            let of_five = |node: Result<v1::StatusResponse, String>| {
                node.map(|mut status| {
                    let start = status.last_epoch_start.get_or_insert_default();
                    start.voters = [1, 2, 3, 4, 5].map(zue_proto::id_bytes).to_vec();
                    status
                })
            };
            let nodes = [silent(), of_five(status(2, other.0, other.1)), of_five(status(3, 4, 80))];
            let said = ask(&lost(), &nodes, 600, "orders-2@80");
            assert_eq!(
                matches!(&said, Some(Recover::Refused(why)) if why.contains("orders-1 holds more")),
                more,
                "{said:?}"
            );
        }
        let blank = Ok(v1::StatusResponse { replica_id: zue_proto::id_bytes(9), ..Default::default() });
        let nodes = [status(1, 4, 80), silent(), blank];
        assert!(refused(&lost(), &nodes, "orders-2@0").contains("emptied"));
        let hurt = status(3, 4, 80).map(|status| v1::StatusResponse { damaged: true, ..status });
        assert!(refused(&lost(), &[silent(), silent(), hurt], "orders-2@80").contains("damaged"));
        let mut failed = lost();
        failed.replicas[2].role = MemberRole::Failed;
        let alone = [silent(), silent(), status(3, 4, 80)];
        assert!(refused(&failed, &alone, "orders-2@80").contains("damaged"));
    }

    #[test]
    fn a_majority_that_comes_and_goes_is_not_gone() {
        let (mut gone, begun) = (MajorityOutage::default(), Instant::now());
        let one = [silent(), silent(), status(3, 4, 80)];
        let two = [silent(), status(2, 4, 80), status(3, 4, 80)];
        let mut at = |second: u64, nodes: &[_; 3]| gone.look(nodes, begun + Duration::from_secs(second)).as_secs();
        assert_eq!([at(0, &one), at(50, &one), at(55, &two), at(60, &one), at(70, &one)], [0, 50, 0, 0, 10]);
        let nobody = [silent(), silent(), silent()];
        assert_eq!(at(80, &nobody), 0, "who is cut off from all knows nothing");
    }

    #[test]
    fn the_others_are_gone_before_the_log_leaves_and_that_before_the_cluster_is_forgotten() {
        let recovery = Recovery {
            pod: "orders-2".to_owned(),
            replica_id: format!("{:032x}", 3),
            cluster_id: format!("{LOST:032x}"),
            end: 80,
        };
        let (old, new) = (recovery.cluster_id.clone(), format!("{:032x}", 10));
        let seed = v1::StatusResponse { durable: Some(v1::Tail { epoch: 4, end: 80 }), ..Default::default() };
        let member = status(3, 4, 80).unwrap();
        let own = ["orders-2".to_owned()];
        let all = ["orders-0".to_owned(), "orders-2".to_owned()];
        let at = |pods, recorded: Option<&String>, survivor| {
            stage(Progress { recovery: &recovery, pods, recorded: recorded.map(String::as_str), survivor })
        };
        // Whatever the survivor is, while one of the others may run.
        for survivor in [None, Some(&member), Some(&seed)] {
            assert_eq!(at(&all, Some(&old), survivor), Stage::Stopping(vec!["orders-0".to_owned()]));
        }
        assert_eq!(at(&own, Some(&old), None), Stage::Detaching);
        assert_eq!(at(&own, Some(&old), Some(&member)), Stage::Detaching);
        assert_eq!(at(&[], Some(&old), None), Stage::Detaching);
        assert_eq!(at(&own, Some(&old), Some(&seed)), Stage::Forgetting);
        assert_eq!(at(&own, None, Some(&seed)), Stage::Beginning);
        assert_eq!(at(&all, None, Some(&seed)), Stage::Stopping(vec!["orders-0".to_owned()]));
        assert_eq!(at(&own, Some(&new), None), Stage::Begun);
        assert_eq!((recovery.ordinal("orders"), recovery.ordinal("other")), (Some(2), None));
        assert_eq!(recovery.others("orders").len(), 8);
    }
}
