//! The state of a ZueCluster by Kubernetes, in words.

use serde_json::Value;

use super::calls::Kubectl;

/// Conditions that are well when they are False; all others are when they are True.
const WELL_WHEN_FALSE: [&str; 4] = ["Progressing", "Degraded", "FailoverBlocked", "Paused"];

/// The pods of a cluster, as kubectl prints them.
pub(super) fn pods(kubectl: &Kubectl, name: &str) -> anyhow::Result<Vec<Value>> {
    let pods = kubectl.json(&["get", "pods", "-l", &selector(name)])?;
    Ok(list(&pods, "/items").cloned().collect())
}

/// The labels of everything that is made for a cluster.
pub(super) fn selector(name: &str) -> String {
    format!("app.kubernetes.io/name=zue,app.kubernetes.io/instance={name}")
}

/// The text at a JSON pointer (RFC 6901); empty where there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the list at a JSON pointer; none where there is no list.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The condition of that type.
pub(super) fn condition<'a>(resource: &'a Value, type_: &str) -> Option<&'a Value> {
    list(resource, "/status/conditions").find(|condition| text(condition, "/type") == type_)
}

/// Chooses the pod in which `zue` runs: the leader's where it is ready, else any that runs.
///
/// # Errors
/// When none runs, with the state of each.
pub(super) fn pod_to_ask(name: &str, pods: &[Value]) -> anyhow::Result<String> {
    let of_node = |pod: &Value, what: &str| pod.pointer(&format!("/status/containerStatuses/0/{what}")).cloned();
    let worth = |pod: &&Value| {
        let leads = text(pod, "/metadata/labels/zue.io~1role") == "leader";
        (of_node(pod, "ready") == Some(Value::Bool(true)), leads)
    };
    let running = pods.iter().filter(|pod| of_node(pod, "state/running").is_some());
    if let Some(pod) = running.max_by_key(worth) {
        return Ok(text(pod, "/metadata/name").to_owned());
    }
    let why = |pod: &Value| {
        let reasons = ["state/waiting/reason", "state/terminated/reason"].map(|what| of_node(pod, what));
        let reason = reasons.into_iter().flatten().find_map(|reason| reason.as_str().map(str::to_owned));
        format!("{} is {}", text(pod, "/metadata/name"), reason.as_deref().unwrap_or(text(pod, "/status/phase")))
    };
    match pods {
        [] => anyhow::bail!("{name} has no pods in this namespace: `kubectl get zue -A` lists the clusters"),
        pods => anyhow::bail!("no pod of {name} runs: {}", pods.iter().map(why).collect::<Vec<_>>().join(", ")),
    }
}

/// The state by the resource: a line on who leads, then one for each thing that is not well.
pub(super) fn summary(name: &str, resource: &Value) -> Vec<String> {
    let epoch = resource.pointer("/status/epoch").and_then(Value::as_u64);
    let first = match (text(resource, "/status/leader"), epoch) {
        ("", _) if resource.pointer("/status").is_none() => "no operator has looked at it yet".to_owned(),
        ("", _) | (_, None) => "nobody leads".to_owned(),
        (leader, Some(epoch)) => format!("{leader} leads epoch {epoch}"),
    };
    let conditions = list(resource, "/status/conditions").filter_map(|condition| {
        let (type_, is) = (text(condition, "/type"), text(condition, "/status"));
        let well = if WELL_WHEN_FALSE.contains(&type_) { "False" } else { "True" };
        (is != well).then(|| format!("! {type_} is {is}: {}", text(condition, "/message")))
    });
    let members = list(resource, "/status/members").filter_map(|member| {
        let problem = Some(text(member, "/problem")).filter(|problem| !problem.is_empty())?;
        Some(format!("! {}: {problem}", text(member, "/pod")))
    });
    std::iter::once(format!("{name}: {first}")).chain(conditions).chain(members).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, role: &str, state: &str, ready: bool) -> Value {
        let states = json!({state: {"reason": "CrashLoopBackOff"}});
        json!({"metadata": {"name": name, "labels": {"zue.io/role": role}},
            "status": {"phase": "Running", "containerStatuses": [{"state": states, "ready": ready}]}})
    }

    #[test]
    fn the_leader_is_asked_first_and_one_that_is_not_ready_before_none() {
        let (leader, follower) = (pod("a-0", "leader", "running", true), pod("a-1", "follower", "running", true));
        let asked = |pods: &[Value]| pod_to_ask("a", pods).map_err(|error| error.to_string());
        assert_eq!(asked(&[follower.clone(), leader]), Ok("a-0".to_owned()));
        let unready = pod("a-0", "leader", "running", false);
        assert_eq!(asked(&[unready.clone(), follower]), Ok("a-1".to_owned()));
        assert_eq!(asked(&[unready]), Ok("a-0".to_owned()));
        let said = asked(&[pod("a-0", "", "waiting", false)]).unwrap_err();
        assert_eq!(said, "no pod of a runs: a-0 is CrashLoopBackOff");
        assert!(asked(&[]).unwrap_err().contains("has no pods"));
    }

    #[test]
    fn what_is_not_well_has_a_line_and_what_is_well_has_none() {
        let resource = json!({"status": {"leader": "a-0", "epoch": 3,
            "conditions": [
                {"type": "Ready", "status": "True", "message": "takes appends"},
                {"type": "Degraded", "status": "True", "message": "a-2 is late"},
                {"type": "Reconciled", "status": "Unknown", "message": "nobody looked"},
                {"type": "Progressing", "status": "False", "message": ""}],
            "members": [{"pod": "a-2", "problem": "disk full"}, {"pod": "a-0"}]}});
        let expected = [
            "a: a-0 leads epoch 3",
            "! Degraded is True: a-2 is late",
            "! Reconciled is Unknown: nobody looked",
            "! a-2: disk full",
        ];
        assert_eq!(summary("a", &resource), expected);
        assert_eq!(summary("a", &json!({})), ["a: no operator has looked at it yet"]);
    }
}
