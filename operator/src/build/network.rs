//! The policy of a closed cluster: who reaches its pods, and at which port. The certificates hold without this; with it, strangers do not even get
//! to show theirs, and the metrics, which have none, are kept inside.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata::{label_selector, meta, strings};
use crate::cluster::{CLIENT_PORT, Cluster, METRICS_PORT, PEER_PORT};
use crate::crd::security::TlsMode;

/// The policy; none while everybody is let in anyway. `operator_namespace` is where the operator's own pods are.
pub(super) fn policy(cluster: &Cluster, operator_namespace: &str) -> Option<NetworkPolicy> {
    if cluster.tls_mode != TlsMode::Required {
        return None;
    }
    let pods = NetworkPolicyPeer { pod_selector: Some(label_selector(cluster)), ..Default::default() };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(labelled(&[("kubernetes.io/metadata.name", operator_namespace)])),
        pod_selector: Some(labelled(&[("app.kubernetes.io/name", "zue-operator")])),
        ..Default::default()
    };
    let monitoring = std::iter::once(namespace()).chain(cluster.spec.monitoring.from.clone()).collect();
    let spec = NetworkPolicySpec {
        pod_selector: Some(label_selector(cluster)),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(vec![
            rule(PEER_PORT, Some(vec![pods.clone(), operator])),
            rule(CLIENT_PORT, clients(cluster, pods)),
            rule(METRICS_PORT, Some(monitoring)),
        ]),
        egress: None,
    };
    Some(NetworkPolicy { metadata: meta(cluster, &cluster.name), spec: Some(spec) })
}

/// The sources of clients; none if they may come from anywhere: node ports and load balancers may hide the client's address.
fn clients(cluster: &Cluster, pods: NetworkPolicyPeer) -> Option<Vec<NetworkPolicyPeer>> {
    let access = &cluster.spec.access;
    let is_unsaid = access.is_empty() || access.iter().any(|client| client.from.is_empty());
    if is_unsaid && cluster.spec.external_access.is_some() {
        return None;
    }
    // The pods find each other's leader, whoever else there is.
    let own = if is_unsaid { namespace() } else { pods };
    let mut from = vec![own];
    for peer in access.iter().flat_map(|client| &client.from) {
        if !from.contains(peer) {
            from.push(peer.clone());
        }
    }
    Some(from)
}

/// All pods of the cluster's own namespace.
fn namespace() -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..Default::default() }
}

fn labelled(labels: &[(&str, &str)]) -> LabelSelector {
    LabelSelector { match_labels: Some(strings(labels)), match_expressions: None }
}

fn rule(port: i32, from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    let protocol = Some("TCP".to_owned());
    let port = NetworkPolicyPort { port: Some(IntOrString::Int(port)), protocol, end_port: None };
    NetworkPolicyIngressRule { from, ports: Some(vec![port]) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::tests::cluster;

    fn spec(text: &str) -> Value {
        let cluster = Cluster { tls_mode: TlsMode::Required, ..cluster(text) };
        let policy = policy(&cluster, "zue-system").unwrap();
        assert_eq!(policy.metadata.name.as_deref(), Some("orders"));
        serde_json::to_value(policy.spec).unwrap()
    }

    fn from(text: &str, port: i32) -> Value {
        let rules = spec(text)["ingress"].as_array().unwrap().clone();
        let is_of_port = |rule: &&Value| rule["ports"][0]["port"] == port;
        rules.iter().find(is_of_port).unwrap()["from"].clone()
    }

    #[test]
    fn peers_and_the_operator_reach_the_peer_port_and_the_namespace_the_others() {
        let pods =
            json!({ "matchLabels": { "app.kubernetes.io/name": "zue", "app.kubernetes.io/instance": "orders" } });
        let expected = json!({
            "podSelector": pods,
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "ports": [{ "port": 9441, "protocol": "TCP" }],
                    "from": [
                        { "podSelector": pods },
                        {
                            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "zue-system" } },
                            "podSelector": { "matchLabels": { "app.kubernetes.io/name": "zue-operator" } },
                        },
                    ],
                },
                { "ports": [{ "port": 9440, "protocol": "TCP" }], "from": [{ "podSelector": {} }] },
                { "ports": [{ "port": 9442, "protocol": "TCP" }], "from": [{ "podSelector": {} }] },
            ],
        });
        assert_eq!(spec("{}"), expected);
    }

    #[test]
    fn clients_come_from_where_their_access_says_and_from_anywhere_where_they_come_from_outside() {
        let outside = "externalAccess: {addressTemplate: 'a.example.com:3094{ordinal}'}";
        assert_eq!(from(outside, 9440), Value::Null);
        let shop = json!({ "namespaceSelector": { "matchLabels": { "team": "shop" } } });
        let of_shop = "{name: shop, rights: [read], from: [{namespaceSelector: {matchLabels: {team: shop}}}]}";
        let pods = from("{}", 9441)[0].clone();
        for access in [format!("access: [{of_shop}]"), format!("{outside}\naccess: [{of_shop}]")] {
            assert_eq!(from(&access, 9440), json!([pods, shop]), "{access}");
        }
        let other = format!("access: [{of_shop}, {{name: till, rights: [append]}}]");
        assert_eq!(
            from(&other, 9440),
            json!([{ "podSelector": {} }, shop]),
            "till's pods may be anywhere in the namespace"
        );
        assert_eq!(from(&format!("{outside}\n{other}"), 9440), Value::Null);
        let monitoring = "monitoring: {from: [{namespaceSelector: {matchLabels: {team: shop}}}]}";
        assert_eq!(from(monitoring, 9442), json!([{ "podSelector": {} }, shop]));
    }

    #[test]
    fn a_cluster_that_takes_whoever_comes_has_none() {
        for tls_mode in [TlsMode::Off, TlsMode::Permissive] {
            assert_eq!(policy(&Cluster { tls_mode, ..cluster("{}") }, "zue-system"), None);
        }
    }
}
