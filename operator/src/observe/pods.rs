//! The state of a pod: whether it is ready, its owner, and why it does not run. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// These come and go at every start.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// The length to which a message of Kubernetes is cut.
const WORDS_CHARS_MAX: usize = 240;
/// The scheduler's words where the pod's volume is on no node that there is.
const ELSEWHERE: &str = "volume node affinity";

/// Tells whether it is ready, and stays.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, ..)| status == "True") && pod.metadata.deletion_timestamp.is_none()
}

/// The zone of each pod, as far as it is known.
pub type Zones = BTreeMap<String, String>;

/// The IP of a pod, also of one on its way out: if it leads, it is to hand over before it goes.
pub fn ip_of(pods: &[Arc<Pod>], name: &str) -> Option<IpAddr> {
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name))?;
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// The uid of the StatefulSet that it belongs to, if it belongs to one.
pub fn set(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.kind == "StatefulSet").map(|owner| owner.uid.as_str())
}

/// The sets that make a cluster's pods: several, while one is made anew around its pods.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sets {
    /// The uids of those that were its own.
    pub own: Vec<String>,
    /// True if a pod of its name belongs to someone else, by what was seen last.
    pub is_anothers: bool,
}

impl Sets {
    /// Tells whether a pod of the cluster's name is the cluster's own: not one that a StatefulSet of a deleted ZueCluster made.
    pub fn has(&self, pod: &Pod) -> bool {
        match set(pod) {
            // It lost its owner, and is adopted.
            None => true,
            Some(_) if self.own.is_empty() => !self.is_anothers,
            Some(uid) => self.own.iter().any(|own| own == uid),
        }
    }

    /// With what was known before.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        let older = before.own.iter().filter(|uid| !self.own.contains(uid)).cloned().collect::<Vec<_>>();
        self.own.extend(older);
        self
    }
}

/// Why it does not run, in Kubernetes' own words; none of one that runs, or is merely starting.
///
/// Leaves out what changes with each try, like a pause: the same trouble is said in the same words.
pub fn stuck(pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    if let Some(("False", Some("Unschedulable"), said)) = condition(pod, "PodScheduled") {
        let hint = if said.contains(ELSEWHERE) {
            "; if its node is gone for good, the annotation zue.io/replace gives the replica a new volume"
        } else {
            ""
        };
        return Some(format!("Unschedulable: {}{hint}", cut(said)));
    }
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find_map(waits)
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !STARTING.contains(reason))?;
    let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    if let (Some(ended), "CrashLoopBackOff") = (ended, reason) {
        let why = ended.reason.as_deref().unwrap_or("Error");
        let said = ended.message.as_deref().map(|said| format!(": {}", cut(said))).unwrap_or_default();
        return Some(format!("{reason}: it ended with exit code {} ({why}){said}", ended.exit_code));
    }
    let said = waiting.message.as_deref().map(|said| format!(": {}", cut(said))).unwrap_or_default();
    Some(format!("{reason}{said}"))
}

/// A condition's status, reason and message.
fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<(&'a str, Option<&'a str>, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((&found.status, found.reason.as_deref(), found.message.as_deref().unwrap_or_default()))
}

fn cut(said: &str) -> String {
    said.trim().chars().take(WORDS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "orders-2" }, "status": status })).unwrap()
    }

    fn waiting(reason: &str, message: &str) -> serde_json::Value {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        json!({ "name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state })
    }

    #[test]
    fn the_pods_of_a_deleted_cluster_are_not_those_of_the_one_that_bears_its_name() {
        let of = |uid: Option<&str>| {
            let mut pod = Pod::default();
            pod.metadata.owner_references = uid.map(|uid| {
                let owner = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "orders", "uid": uid });
                vec![serde_json::from_value(owner).unwrap()]
            });
            pod
        };
        let has = |sets: &Sets| [of(Some("s-1")), of(Some("s-2")), of(None)].map(|pod| sets.has(&pod));
        let own = |uids: &[&str]| Sets { own: uids.iter().map(|uid| (*uid).to_owned()).collect(), is_anothers: false };
        assert_eq!(has(&own(&["s-1"])), [true, false, true]);
        assert_eq!(has(&own(&["s-2"]).since(&own(&["s-1"]))), [true, true, true], "made anew around its pods");
        assert_eq!(has(&Sets { is_anothers: true, ..Sets::default() }), [false, false, true]);
        assert_eq!(has(&Sets::default()), [true, true, true], "nothing is known");
    }

    #[test]
    fn a_pod_that_does_not_run_says_why_and_one_that_starts_says_nothing() {
        let image =
            pod(json!({ "containerStatuses": [waiting("ImagePullBackOff", "Back-off pulling image \"nope\"")] }));
        assert_eq!(stuck(&image).as_deref(), Some("ImagePullBackOff: Back-off pulling image \"nope\""));
        let said = "0/3 nodes are available: 3 Insufficient memory.";
        let unschedulable = |said: &str| {
            let condition =
                json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said });
            pod(json!({ "conditions": [condition] }))
        };
        assert_eq!(stuck(&unschedulable(said)), Some(format!("Unschedulable: {said}")));
        let lost = stuck(&unschedulable("0/2 nodes are available: 2 node(s) had volume node affinity conflict."));
        assert!(lost.unwrap().contains("zue.io/replace"), "what to do is said");
        for starting in ["ContainerCreating", "PodInitializing"] {
            assert_eq!(stuck(&pod(json!({ "containerStatuses": [waiting(starting, "")] }))), None);
        }
        assert_eq!(stuck(&Pod::default()), None);
    }

    #[test]
    fn one_that_crashes_again_and_again_says_the_same_each_time() {
        let crashed = |pause: &str| {
            let mut container = waiting("CrashLoopBackOff", &format!("back-off {pause} restarting failed container"));
            container["lastState"] =
                json!({ "terminated": { "exitCode": 78, "reason": "Error", "message": "bad file\n" } });
            stuck(&pod(json!({ "containerStatuses": [container] })))
        };
        assert_eq!(crashed("10s").as_deref(), Some("CrashLoopBackOff: it ended with exit code 78 (Error): bad file"));
        assert_eq!(crashed("10s"), crashed("5m0s"));
    }
}
