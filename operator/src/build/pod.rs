//! The pods of a cluster: fit for namespaces that enforce the restricted profile, and spread out as far as that goes.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodDNSConfig, PodDNSConfigOption, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretVolumeSource, SecurityContext, TopologySpreadConstraint,
    Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::args::{self, CONFIG_DIRECTORY, DATA_DIRECTORY};
use super::beside::beside;
use super::metadata::{DATA_VOLUME, label_selector, labels, strings};
use super::{backup, config, resources};
use crate::cluster::{CLIENT_PORT, Cluster, METRICS_PORT, PEER_PORT, PODS_CLIENT, RESTART_ANNOTATION};
use crate::crd::PodSettings;
use crate::crd::security::TlsMode;
use crate::crd::status::Recovery;

/// The user and group of the images.
const USER: i64 = 65532;
const CONFIG_VOLUME: &str = "config";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

pub(super) fn template(cluster: &Cluster, config: &str) -> PodTemplateSpec {
    // Kubernetes itself says what the annotations for Prometheus mean nowhere; every example configuration reads these.
    let mut annotations = strings(&[
        ("zue.io/config", &config::fingerprint(config)),
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", &METRICS_PORT.to_string()),
        ("prometheus.io/path", "/metrics"),
    ]);
    // Another token is another revision of the pods.
    annotations.extend(cluster.restart.iter().map(|token| (RESTART_ANNOTATION.to_owned(), token.clone())));
    annotations.extend(cluster.spec.pod.annotations.clone());
    let metadata = ObjectMeta { labels: Some(labels(cluster)), annotations: Some(annotations), ..Default::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec(cluster)) }
}

fn spec(cluster: &Cluster) -> PodSpec {
    let PodSettings {
        annotations: _,
        affinity,
        node_selector,
        tolerations,
        topology_spread_constraints,
        image_pull_secrets,
        priority_class_name,
    } = cluster.spec.pod.clone();
    let config = ConfigMapVolumeSource { name: cluster.name.clone(), ..Default::default() };
    let config = Volume { name: CONFIG_VOLUME.to_owned(), config_map: Some(config), ..Default::default() };
    let secrets = secrets(cluster).into_iter().map(|(name, secret, _)| {
        // The group alone, which is the pod's own.
        let source = SecretVolumeSource { secret_name: Some(secret), default_mode: Some(0o440), ..Default::default() };
        Volume { name: name.to_owned(), secret: Some(source), ..Default::default() }
    });
    let node = container(cluster);
    PodSpec {
        init_containers: Some(before(cluster, &node)).filter(|containers| !containers.is_empty()),
        service_account_name: Some(cluster.name.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        dns_config: Some(names_at_once()),
        termination_grace_period_seconds: Some(30),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // A large log is not walked through at every start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..Default::default()
        }),
        containers: vec![node],
        volumes: Some(std::iter::once(config).chain(secrets).collect()),
        affinity: Some(affinity.unwrap_or_else(|| apart(cluster))),
        topology_spread_constraints: Some(spread(cluster, topology_spread_constraints)),
        node_selector: Some(node_selector).filter(|labels| !labels.is_empty()),
        tolerations: Some(tolerations).filter(|tolerations| !tolerations.is_empty()),
        image_pull_secrets: Some(image_pull_secrets).filter(|secrets| !secrets.is_empty()),
        priority_class_name,
        ..Default::default()
    }
}

/// The containers that run before a node: the log is restored, or leaves a cluster whose majority is gone.
fn before(cluster: &Cluster, node: &Container) -> Vec<Container> {
    let detach = cluster.recovery.as_ref().map(|recovery| {
        let Recovery { replica_id, cluster_id, .. } = recovery;
        let (cluster, replica) = (format!("--cluster={cluster_id}"), format!("--replica={replica_id}"));
        let words = ["log", "detach", DATA_DIRECTORY, &cluster, &replica, "--once"];
        let args = words.map(str::to_owned).to_vec();
        beside(node, Container { name: "detach".to_owned(), args: Some(args), ..Default::default() })
    });
    backup::restore(cluster, node).into_iter().chain(detach).collect()
}

/// The nodes look up each other's names alone, and these are whole: they are asked for as they are, not with each search domain in turn.
/// A server of names that does not answer is given up soon.
fn names_at_once() -> PodDNSConfig {
    let option = |(name, value): (&str, &str)| {
        let (name, value) = (Some(name.to_owned()), Some(value.to_owned()));
        PodDNSConfigOption { name, value }
    };
    let options = [("ndots", "1"), ("timeout", "1"), ("attempts", "2")].map(option).to_vec();
    PodDNSConfig { options: Some(options), ..Default::default() }
}

fn container(cluster: &Cluster) -> Container {
    Container {
        name: "node".to_owned(),
        image: Some(cluster.image.clone()),
        args: Some(args::template(cluster)),
        env: Some(environment(cluster)),
        ports: Some(vec![port("client", CLIENT_PORT), port("peer", PEER_PORT), port("metrics", METRICS_PORT)]),
        resources: Some(resources::of(cluster)),
        // The log is opened, or its last holder waited for, while the process answers already: five minutes to start are for a slow
        // image or disk.
        startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(300), ..probe("/livez") }),
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..probe("/livez") }),
        readiness_probe: Some(Probe { period_seconds: Some(2), failure_threshold: Some(2), ..probe("/readyz") }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..Default::default()
        }),
        volume_mounts: Some(mounts(cluster)),
        ..Default::default()
    }
}

/// The Secrets that are mounted: as which volume, of which name, and where.
fn secrets(cluster: &Cluster) -> Vec<(&'static str, String, &'static str)> {
    if cluster.tls_mode == TlsMode::Off {
        return Vec::new();
    }
    vec![
        ("tls", cluster.tls_secret(), args::TLS_DIRECTORY),
        ("client", cluster.client_secret(PODS_CLIENT), args::CLIENT_DIRECTORY),
    ]
}

fn mounts(cluster: &Cluster) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: Option<bool>| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..Default::default()
    };
    let fixed = [mount(DATA_VOLUME, DATA_DIRECTORY, None), mount(CONFIG_VOLUME, CONFIG_DIRECTORY, Some(true))];
    let secrets = secrets(cluster).into_iter().map(|(name, _, path)| mount(name, path, Some(true)));
    fixed.into_iter().chain(secrets).collect()
}

/// The variables that complete the arguments; whom the command in the pod asks, and what it shows of itself. With `Permissive` it goes without: not all
/// pods have TLS yet.
fn environment(cluster: &Cluster) -> Vec<EnvVar> {
    let mut variables = vec![
        from_field("POD_NAME", "metadata.name"),
        from_field("POD_INDEX", "metadata.labels['apps.kubernetes.io/pod-index']"),
    ];
    // The pod itself, which names the others: by its host name, which /etc/hosts has even where DNS does not answer or does not know the pod yet.
    let own = format!("$(POD_NAME):{CLIENT_PORT}");
    variables.push(EnvVar { name: "ZUE_SERVERS".to_owned(), value: Some(own), value_from: None });
    if cluster.tls_mode == TlsMode::Required {
        let file = |(name, file): (&str, &str)| EnvVar {
            name: name.to_owned(),
            value: Some(format!("{}/{file}", args::CLIENT_DIRECTORY)),
            value_from: None,
        };
        variables.extend([("ZUE_CA", "ca.crt"), ("ZUE_CERT", "tls.crt"), ("ZUE_KEY", "tls.key")].map(file));
    }
    variables.extend(backup::environment(cluster));
    variables
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), api_version: Some("v1".to_owned()) };
    let source = EnvVarSource { field_ref: Some(field), ..Default::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), value: None }
}

fn port(name: &str, number: i32) -> ContainerPort {
    let (name, protocol) = (Some(name.to_owned()), Some("TCP".to_owned()));
    ContainerPort { name, container_port: number, protocol, ..Default::default() }
}

fn probe(path: &str) -> Probe {
    let port = IntOrString::String("metrics".to_owned());
    let http_get = HTTPGetAction { path: Some(path.to_owned()), port, ..Default::default() };
    Probe { http_get: Some(http_get), timeout_seconds: Some(5), ..Default::default() }
}

/// Replicas on one host fail together: the scheduler is asked for another host, not made to wait for one.
fn apart(cluster: &Cluster) -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(label_selector(cluster)),
        topology_key: HOSTNAME.to_owned(),
        ..Default::default()
    };
    let weighted = WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term };
    let pod_anti_affinity = PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(vec![weighted]),
        ..Default::default()
    };
    Affinity { pod_anti_affinity: Some(pod_anti_affinity), ..Default::default() }
}

fn spread(cluster: &Cluster, asked_for: Option<Vec<TopologySpreadConstraint>>) -> Vec<TopologySpreadConstraint> {
    let soft = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..Default::default()
    };
    let mut constraints = asked_for.unwrap_or_else(|| vec![soft(HOSTNAME), soft(ZONE)]);
    for constraint in &mut constraints {
        constraint.label_selector.get_or_insert_with(|| label_selector(cluster));
    }
    constraints
}
