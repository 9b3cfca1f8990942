//! The names under which the nodes of a cluster are reached: all of them stand in the one certificate that they share. Pure.

use std::collections::BTreeSet;

use zue_tls::Names;

use crate::cluster::Cluster;

/// So many replicas may come to be; those of them that do not exist yet are named already, so that scaling needs no new certificate.
const REPLICAS: u32 = 9;

/// The names; `services_suffix` is what follows that of a Service in full.
pub fn names(cluster: &Cluster, services_suffix: &str) -> Names {
    let namespace = &cluster.namespace;
    let forms = |name: &str| {
        let in_full = |suffix: &str| format!("{name}.{namespace}{suffix}");
        [name.to_owned(), in_full(""), in_full(".svc"), in_full(services_suffix)]
    };
    let nodes = cluster.nodes_service();
    let services = [cluster.name.clone(), cluster.leader_service(), nodes.clone(), format!("*.{nodes}")];
    let pods = (0..REPLICAS).map(|ordinal| cluster.pod(ordinal));
    let outside = (0..REPLICAS).filter_map(|ordinal| {
        cluster.spec.external_access.as_ref()?;
        let address = cluster.client_address_of(&cluster.pod(ordinal), &ordinal.to_string());
        address.rsplit_once(':').map(|(host, _)| host.to_owned())
    });
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let all: BTreeSet<String> = services
        .iter()
        .flat_map(|name| forms(name))
        .chain(pods.flat_map(|pod| forms(&pod)))
        .chain(outside)
        .chain(local)
        .chain(cluster.spec.tls.dns_names.iter().cloned())
        .collect();
    Names::parse(all)
}

/// Tells whether they have changed.
pub fn hash(names: &Names) -> String {
    zue_tls::hex(&zue_tls::sha256(format!("{names:?}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::cluster;

    #[test]
    fn every_way_to_a_node_is_named() {
        let external =
            "{externalAccess: {addressTemplate: '10.0.0.7:3094{ordinal}'}, tls: {dnsNames: [log.example.com]}}";
        let names = names(&cluster(external), ".svc.cluster.local");
        for name in [
            "orders",
            "orders.shop",
            "orders.shop.svc",
            "orders.shop.svc.cluster.local",
            "orders-leader.shop.svc",
            "*.orders-nodes.shop.svc",
            "*.orders-nodes.shop.svc.cluster.local",
            "orders-8.shop.svc",
            "orders-8",
            "localhost",
            "log.example.com",
        ] {
            assert!(names.dns.iter().any(|known| known == name), "{name}: {names:?}");
        }
        let ips: Vec<String> = names.ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.0.0.7", "127.0.0.1", "::1"]);
        assert_ne!(hash(&names), hash(&super::names(&cluster("{}"), ".svc.cluster.local")));
    }
}
