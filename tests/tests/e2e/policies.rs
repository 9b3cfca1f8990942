//! Policies of the network that bite: who reaches which port of a closed cluster, by where a pod is. It takes a Kubernetes that enforces
//! them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use zue_tests::replicas::eventually;

use crate::kubernetes::{NAME, PATIENCE, Zue, apply, get, image, kubectl, renew_namespace, run};

const PORTS: [u16; 3] = [9440, 9441, 9442];

/// A pod that does nothing, and from which connections are tried.
fn visitor(namespace: &str) {
    let (repository, tag) = image("ZUE_NODE_IMAGE", "zue-node:test");
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "visitor" },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "visitor", "image": format!("{repository}:{tag}"), "command": ["sleep", "infinity"] }],
        },
    });
    apply(namespace, &pod.to_string()).expect("the pod is taken");
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    kubectl(&["wait", "-n", namespace, "--for=condition=Ready", "pod/visitor", &timeout]);
}

/// The ports of a pod that the visitor of a namespace reaches.
fn reached(namespace: &str, ip: &str) -> BTreeSet<u16> {
    let is_open = |port: &u16| {
        let connect = format!("exec 3<>/dev/tcp/{ip}/{port}");
        run("kubectl", &["exec", "-n", namespace, "visitor", "--", "timeout", "2", "bash", "-c", &connect]).is_ok()
    };
    PORTS.into_iter().filter(is_open).collect()
}

/// Waits until the visitor of a namespace reaches just these ports of a pod.
fn expect(namespace: &str, ip: &str, ports: &[u16]) {
    let wanted: BTreeSet<u16> = ports.iter().copied().collect();
    let is_so = || (reached(namespace, ip) == wanted).then_some(());
    eventually(Duration::from_mins(1), is_so, || {
        let reached = reached(namespace, ip);
        format!("{namespace} reaches {wanted:?}, not {reached:?}; does this Kubernetes enforce NetworkPolicies?")
    });
}

#[test]
fn each_port_of_a_closed_cluster_is_reached_only_from_where_its_resource_says() {
    let friends = "e2e-friends";
    let from = format!("{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {friends}}}}}}}");
    let spec = format!("  access: [{{name: test, rights: [append], from: [{from}]}}]\n");
    // What it is Ready by goes through its policy: its pods' and the operator's way to the peer port.
    let ours = Zue::create_with("e2e-policies", 31190, &spec);
    let pod = get(&["-n", &ours.namespace, "pod", &format!("{NAME}-1")]);
    let ip = pod["status"]["podIP"].as_str().expect("it has an address").to_owned();
    for elsewhere in [friends, "e2e-elsewhere"] {
        renew_namespace(elsewhere);
    }
    for namespace in [friends, "e2e-elsewhere", &ours.namespace] {
        visitor(namespace);
    }
    expect(friends, &ip, &[9440]);
    expect("e2e-elsewhere", &ip, &[]);
    expect(&ours.namespace, &ip, &[9442]);
    // Without `from`, clients come from outside, and so from anywhere; and nothing else does.
    let open = json!({ "spec": { "access": [{ "name": "test", "rights": ["append"] }] } });
    kubectl(&["patch", "-n", &ours.namespace, "zue", NAME, "--type=merge", "-p", &open.to_string()]);
    expect("e2e-elsewhere", &ip, &[9440]);
    for namespace in [friends, "e2e-elsewhere"] {
        kubectl(&["delete", "namespace", namespace, "--wait=false"]);
    }
}
