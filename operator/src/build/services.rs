//! The Services of a cluster: its clients find any ready replica, the leader, each pod by name, and each replica from outside.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata::{REPLICA_LABEL, ROLE_LABEL, meta, selector};
use crate::cluster::{CLIENT_PORT, Cluster, METRICS_PORT, PEER_PORT};
use crate::crd::PerReplicaServices;

pub(super) fn all(cluster: &Cluster) -> Vec<Service> {
    let asked_for = cluster.spec.external_access.as_ref().and_then(|access| access.per_replica_services.as_ref());
    let replicas = asked_for
        .into_iter()
        .flat_map(|asked_for| cluster.ordinals().map(move |ordinal| replica(cluster, ordinal, asked_for)));
    [clients(cluster), leader(cluster), nodes(cluster)].into_iter().chain(replicas).collect()
}

/// Any ready replica: for reads, and to find the leader from.
fn clients(cluster: &Cluster) -> Service {
    service(cluster, &cluster.name, selector(cluster), vec![port("client", CLIENT_PORT)])
}

/// The leader, for appends by clients that follow no redirects. It leads before its pod counts as ready, if that has just started.
fn leader(cluster: &Cluster) -> Service {
    let mut selector = selector(cluster);
    selector.insert(ROLE_LABEL.to_owned(), "leader".to_owned());
    let service = service(cluster, &cluster.leader_service(), selector, vec![port("client", CLIENT_PORT)]);
    ready_or_not(service)
}

/// The pods' names. Replicas talk to each other before they are ready.
fn nodes(cluster: &Cluster) -> Service {
    let ports = vec![port("client", CLIENT_PORT), port("peer", PEER_PORT), port("metrics", METRICS_PORT)];
    let mut service = service(cluster, &cluster.nodes_service(), selector(cluster), ports);
    if let Some(spec) = &mut service.spec {
        spec.cluster_ip = Some("None".to_owned());
    }
    ready_or_not(service)
}

/// One replica, for clients outside: they are sent to it as soon as it leads, ready or not.
fn replica(cluster: &Cluster, ordinal: u32, asked_for: &PerReplicaServices) -> Service {
    let PerReplicaServices { type_, first_node_port, annotations } = asked_for;
    let pod = cluster.pod(ordinal);
    let mut selector = selector(cluster);
    selector.insert("statefulset.kubernetes.io/pod-name".to_owned(), pod.clone());
    let mut client = port("client", CLIENT_PORT);
    client.node_port = first_node_port.and_then(|first| first.checked_add_unsigned(ordinal));
    let mut service = service(cluster, &pod, selector, vec![client]);
    service.metadata.labels.get_or_insert_default().insert(REPLICA_LABEL.to_owned(), pod);
    if !annotations.is_empty() {
        service.metadata.annotations = Some(annotations.clone());
    }
    if let Some(spec) = &mut service.spec {
        spec.type_ = Some(type_.name().to_owned());
    }
    ready_or_not(service)
}

/// Kubernetes looks only every few seconds whether a pod is ready. Who is to be reached in any case is not to wait for that.
fn ready_or_not(mut service: Service) -> Service {
    if let Some(spec) = &mut service.spec {
        spec.publish_not_ready_addresses = Some(true);
    }
    service
}

fn service(cluster: &Cluster, name: &str, selector: BTreeMap<String, String>, ports: Vec<ServicePort>) -> Service {
    let spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        selector: Some(selector),
        ports: Some(ports),
        ..Default::default()
    };
    Service { metadata: meta(cluster, name), spec: Some(spec), status: None }
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..Default::default()
    }
}
