//! Work of the operator that an annotation asks for: each verb writes it, and waits until it can be seen.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::RESOURCE;
use super::args::{Replace, Restart, Switchover};
use super::calls::Kubectl;
use super::cluster::{condition, list, pods, text};
use crate::Usage;
use crate::terminal::output;

const SWITCHOVER_TO: &str = "zue.io/switchover-to";
const RESTART: &str = "zue.io/restart";
const PAUSED: &str = "zue.io/paused";
const REPLACE: &str = "zue.io/replace";

/// The time that a switchover may take before it is given up.
const SWITCHOVER_WITHIN: &str = "60s";
/// The operator takes an annotation away before it does what is asked, or if it refuses: so long after that a pod must be gone.
const DONE_WITHIN: Duration = Duration::from_secs(45);
/// The time without anything seen to happen after which a verb says so and ends.
const IDLE_MAX: Duration = Duration::from_mins(5);
const LOOK: Duration = Duration::from_secs(1);

/// Writes an annotation of the resource; `KEY=VALUE`, or `KEY-` to take it away.
fn annotate(kubectl: &Kubectl, name: &str, annotation: &str) -> anyhow::Result<()> {
    kubectl.output(&["annotate", "--overwrite", RESOURCE, name, annotation]).map(drop)
}

fn is_paused(resource: &Value) -> bool {
    text(resource, "/metadata/annotations/zue.io~1paused") == "true"
}

/// The resource, unless the operator leaves it alone.
fn heeded(kubectl: &Kubectl, name: &str) -> anyhow::Result<Value> {
    let resource = kubectl.json(&["get", RESOURCE, name])?;
    if is_paused(&resource) {
        anyhow::bail!(
            "{name} is paused, and the operator does nothing for it: `kubectl zue resume {name}` comes first"
        );
    }
    Ok(resource)
}

/// The advice where something does not happen.
fn hint(name: &str) -> String {
    format!(
        "`kubectl events --for {RESOURCE}/{name}` shows why it was refused, `kubectl zue status {name}` what is missing"
    )
}

/// Has the operator let another replica lead, and waits until it does.
pub(super) fn switchover(kubectl: &Kubectl, Switchover { name, to }: &Switchover) -> anyhow::Result<ExitCode> {
    heeded(kubectl, name)?;
    annotate(kubectl, name, &format!("{SWITCHOVER_TO}={to}"))?;
    let leads = format!("--for=jsonpath={{.status.leader}}={to}");
    let timeout = format!("--timeout={SWITCHOVER_WITHIN}");
    if let Err(error) = kubectl.output(&["wait", RESOURCE, name, &leads, &timeout]) {
        return Err(error.context(format!("{to} does not lead after {SWITCHOVER_WITHIN}; {}", hint(name))));
    }
    output::line(&format!("{to} leads"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pause(kubectl: &Kubectl, name: &str) -> anyhow::Result<ExitCode> {
    annotate(kubectl, name, &format!("{PAUSED}=true"))?;
    output::line(&format!(
        "{name} is paused: the operator changes nothing, whatever the manifest says or whatever breaks."
    ))?;
    output::line(
        "Appends go on. The nodes replace a lost leader among themselves, unless spec.leader.policy is Static.",
    )?;
    output::line(&format!("`kubectl zue resume {name}` ends it."))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn resume(kubectl: &Kubectl, name: &str) -> anyhow::Result<ExitCode> {
    annotate(kubectl, name, &format!("{PAUSED}-"))?;
    output::line(&format!("the operator looks after {name} again"))?;
    Ok(ExitCode::SUCCESS)
}

/// Has the operator replace every pod, and tells of each that is back.
pub(super) fn restart(kubectl: &Kubectl, Restart { name, no_wait }: &Restart) -> anyhow::Result<ExitCode> {
    heeded(kubectl, name)?;
    let mut left = uids(&pods(kubectl, name)?);
    // Of two that ask at once the later one asks anew: what has been restarted for the first is so again.
    annotate(kubectl, name, &format!("{RESTART}={}", jiff::Timestamp::now()))?;
    output::line(&format!("{name} restarts one replica after the other, the leader last and after a hand-over"))?;
    if *no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let mut last = Instant::now();
    while !left.is_empty() {
        std::thread::sleep(LOOK);
        // Whatever is replaced at this moment: a look that fails is followed by another.
        for pod in pods(kubectl, name).map(|now| back(&now, &left)).unwrap_or_default() {
            left.remove(&pod);
            last = Instant::now();
            output::line(&format!("{pod} is back"))?;
        }
        if last.elapsed() > IDLE_MAX {
            let why = kubectl.json(&["get", RESOURCE, name]).ok();
            let why =
                why.and_then(|resource| condition(&resource, "Progressing").map(|it| text(it, "/message").to_owned()));
            let pods = left.into_keys().collect::<Vec<_>>().join(", ");
            anyhow::bail!(
                "{pods} did not restart within the last {} minutes: {}; {}",
                IDLE_MAX.as_secs() / 60,
                why.unwrap_or_default(),
                hint(name)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what it means to give up a replica; with `--yes` has the operator do it, and waits until its pod is a new one.
pub(super) fn replace(kubectl: &Kubectl, Replace { name, pod, yes }: &Replace) -> anyhow::Result<ExitCode> {
    let resource = heeded(kubectl, name)?;
    for line in meaning(name, pod, &resource)? {
        output::line(&line)?;
    }
    if !yes {
        return Err(Usage("nothing was done: say --yes to do it".to_owned()).into());
    }
    let before = uids(&pods(kubectl, name)?).remove(pod);
    annotate(kubectl, name, &format!("{REPLACE}={pod}"))?;
    let (begun, mut taken) = (Instant::now(), None);
    loop {
        let now = pods(kubectl, name).map(|pods| uids(&pods).remove(pod)).unwrap_or_default();
        if now.is_some() && now != before {
            break;
        }
        let asks = kubectl
            .json(&["get", RESOURCE, name])
            .map(|now| !text(&now, "/metadata/annotations/zue.io~1replace").is_empty());
        if taken.is_none() && matches!(asks, Ok(false)) {
            taken = Some(Instant::now());
        }
        if begun.elapsed() > IDLE_MAX || taken.is_some_and(|taken| taken.elapsed() > DONE_WITHIN) {
            anyhow::bail!("{pod} was not replaced within {} s; {}", begun.elapsed().as_secs(), hint(name));
        }
        std::thread::sleep(LOOK);
    }
    output::line(&format!("{pod} is a new pod. `kubectl zue status {name}` shows when its replica has caught up."))?;
    Ok(ExitCode::SUCCESS)
}

/// The consequences of giving up a replica.
///
/// # Errors
/// When it is none.
fn meaning(name: &str, pod: &str, resource: &Value) -> anyhow::Result<Vec<String>> {
    let members: Vec<&str> = list(resource, "/status/members").map(|member| text(member, "/pod")).collect();
    if !members.contains(&pod) {
        let said = format!("{pod} is no replica of {name}; the replicas are: {}", members.join(", "));
        return Err(Usage(said).into());
    }
    let mut lines = vec![
        format!(
            "{pod} is given up: its pod and its volume claim data-{pod} are deleted, and its copy of the log with them."
        ),
        "An empty replica takes its place, on any node, and copies the log from the others.".to_owned(),
    ];
    let quorum = resource.pointer("/status/quorum").and_then(Value::as_u64).unwrap_or_default();
    let others: Vec<&str> = list(resource, "/status/isr").filter_map(Value::as_str).filter(|one| *one != pod).collect();
    let count = u64::try_from(others.len()).unwrap_or_default();
    lines.push(match count {
        0 => "! No other replica is in sync: what it alone holds is lost.".to_owned(),
        _ if count < quorum => format!(
            "! In sync without it: {}. An append needs {quorum}: none is acknowledged until the new replica has caught up.",
            others.join(", ")
        ),
        _ => format!("In sync without it: {}. An append needs {quorum}, so appends go on.", others.join(", ")),
    });
    Ok(lines)
}

/// The pods that there are by name, each with the id of this very pod.
fn uids(pods: &[Value]) -> BTreeMap<String, String> {
    let of = |pod: &Value| (text(pod, "/metadata/name").to_owned(), text(pod, "/metadata/uid").to_owned());
    pods.iter().map(of).collect()
}

/// The pods that are new and ready, of those that there were.
fn back(now: &[Value], before: &BTreeMap<String, String>) -> Vec<String> {
    let is_ready = |pod: &&Value| {
        list(pod, "/status/conditions").any(|it| text(it, "/type") == "Ready" && text(it, "/status") == "True")
    };
    let ready: Vec<Value> = now.iter().filter(is_ready).cloned().collect();
    let is_new = |(name, uid): &(String, String)| before.get(name).is_some_and(|before| before != uid);
    uids(&ready).into_iter().filter(is_new).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_paused_is_known_by_the_word_of_the_annotation_alone() {
        let with = |value: &str| json!({"metadata": {"annotations": {"zue.io/paused": value}}});
        let is = [with("true"), with("false"), json!({})].map(|resource| is_paused(&resource));
        assert_eq!(is, [true, false, false]);
        assert_eq!(PAUSED.replace('/', "~1"), "zue.io~1paused");
    }

    #[test]
    fn a_pod_is_back_once_it_is_another_and_ready() {
        let pod = |name: &str, uid: &str, ready: &str| json!({"metadata": {"name": name, "uid": uid}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let before = uids(&[pod("a-0", "1", "True"), pod("a-1", "2", "True"), pod("a-2", "3", "False")]);
        let now = [pod("a-0", "1", "True"), pod("a-1", "9", "False"), pod("a-2", "8", "True"), pod("a-3", "7", "True")];
        assert_eq!(back(&now, &before), ["a-2"]);
    }

    #[test]
    fn what_a_replacement_costs_is_said_before_it_is_done() {
        let resource = |isr: &[&str]| json!({"status": {"quorum": 2, "isr": isr, "members": [{"pod": "a-0"}, {"pod": "a-1"}, {"pod": "a-2"}]}});
        let last = |isr: &[&str]| meaning("a", "a-2", &resource(isr)).unwrap().pop().unwrap();
        assert_eq!(last(&["a-0", "a-1", "a-2"]), "In sync without it: a-0, a-1. An append needs 2, so appends go on.");
        assert!(last(&["a-0", "a-2"]).contains("none is acknowledged"), "{}", last(&["a-0", "a-2"]));
        assert!(last(&["a-2"]).contains("is lost"), "{}", last(&["a-2"]));
        let wrong = meaning("a", "b-0", &resource(&[])).unwrap_err().to_string();
        assert_eq!(wrong, "b-0 is no replica of a; the replicas are: a-0, a-1, a-2");
    }
}
