//! The required content of a cluster's objects.

use std::path::Path;

use clap::Parser as _;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use zue_settings::NodeConfig;

use super::*;
use crate::cluster::tests::cluster;
use crate::crd::ZueClusterStatus;
use crate::crd::status::Recovery;

fn pod_of(objects: &Objects) -> PodSpec {
    objects.stateful_set.spec.clone().unwrap().template.spec.unwrap()
}

fn container_of(objects: &Objects) -> Container {
    pod_of(objects).containers.remove(0)
}

fn names(objects: &Objects) -> Vec<String> {
    objects.services.iter().map(|service| service.metadata.name.clone().unwrap()).collect()
}

#[test]
fn pods_start_together_and_only_the_operator_replaces_them() {
    let spec = objects(&cluster("{}")).stateful_set.spec.unwrap();
    assert_eq!(spec.replicas, Some(3));
    assert_eq!(spec.pod_management_policy.as_deref(), Some("Parallel"));
    assert_eq!(spec.update_strategy.unwrap().type_.as_deref(), Some("OnDelete"));
    assert_eq!(spec.service_name.as_deref(), Some("orders-nodes"));
}

#[test]
fn volumes_outlive_the_cluster_and_carry_no_labels() {
    let spec = objects(&cluster("storage: {size: 1Gi, storageClassName: fast}")).stateful_set.spec.unwrap();
    let retention = spec.persistent_volume_claim_retention_policy.unwrap();
    assert_eq!((retention.when_deleted.as_deref(), retention.when_scaled.as_deref()), (Some("Retain"), Some("Retain")));
    let claim = spec.volume_claim_templates.unwrap().remove(0);
    assert_eq!((claim.metadata.labels, claim.metadata.owner_references), (None, None));
    let claim = claim.spec.unwrap();
    assert_eq!(claim.storage_class_name.as_deref(), Some("fast"));
    assert_eq!(claim.resources.unwrap().requests.unwrap()["storage"].0, "1Gi");
}

#[test]
fn volumes_go_with_the_cluster_only_if_that_is_asked_for_and_never_with_a_replica() {
    let spec = objects(&cluster("storage: {whenDeleted: Delete}")).stateful_set.spec.unwrap();
    let retention = spec.persistent_volume_claim_retention_policy.unwrap();
    assert_eq!((retention.when_deleted.as_deref(), retention.when_scaled.as_deref()), (Some("Delete"), Some("Retain")));
}

#[test]
fn a_token_restarts_the_pods_and_nothing_else_of_them_changes() {
    let of = |restart: Option<&str>| objects(&Cluster { restart: restart.map(str::to_owned), ..cluster("{}") });
    let annotation = |objects: &Objects| {
        let template = objects.stateful_set.spec.clone().unwrap().template;
        template.metadata.unwrap().annotations.unwrap().get("zue.io/restart").cloned()
    };
    assert_eq!((annotation(&of(None)), annotation(&of(Some("monday")))), (None, Some("monday".to_owned())));
    assert_eq!(pod_of(&of(None)), pod_of(&of(Some("monday"))));
}

#[test]
fn pods_meet_the_restricted_profile() {
    let objects = objects(&cluster("{}"));
    let pod = pod_of(&objects);
    let of_pod = pod.security_context.unwrap();
    assert_eq!((of_pod.run_as_non_root, of_pod.run_as_user, of_pod.fs_group), (Some(true), Some(65532), Some(65532)));
    assert_eq!(of_pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
    let of_container = container_of(&objects).security_context.unwrap();
    assert_eq!(of_container.allow_privilege_escalation, Some(false));
    assert_eq!(of_container.read_only_root_filesystem, Some(true));
    assert_eq!(of_container.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(objects.service_account.automount_service_account_token, Some(false));
}

#[test]
fn pods_ask_for_whole_names_once_and_give_up_a_silent_server_of_names_soon() {
    let options = pod_of(&objects(&cluster("{}"))).dns_config.unwrap().options.unwrap();
    let options: Vec<_> = options.into_iter().map(|option| (option.name.unwrap(), option.value.unwrap())).collect();
    let expected = [("ndots", "1"), ("timeout", "1"), ("attempts", "2")];
    assert_eq!(options, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn neither_the_template_nor_its_selector_knows_of_roles() {
    let spec = objects(&cluster("{}")).stateful_set.spec.unwrap();
    let template_labels = spec.template.metadata.unwrap().labels.unwrap();
    assert!(!template_labels.contains_key(ROLE_LABEL));
    for (key, value) in spec.selector.match_labels.unwrap() {
        assert_eq!(template_labels.get(&key), Some(&value));
        assert_ne!(key, ROLE_LABEL);
    }
}

#[test]
fn the_leader_service_selects_the_role_and_only_the_one_of_any_replica_waits_for_pods_to_be_ready() {
    let objects = objects(&cluster("{}"));
    assert_eq!(names(&objects), ["orders", "orders-leader", "orders-nodes"]);
    let specs: Vec<_> = objects.services.iter().map(|service| service.spec.clone().unwrap()).collect();
    assert_eq!(specs[0].selector.as_ref().unwrap().get(ROLE_LABEL), None);
    assert_eq!(specs[1].selector.as_ref().unwrap()[ROLE_LABEL], "leader");
    assert_eq!(specs[2].cluster_ip.as_deref(), Some("None"));
    let ready_or_not: Vec<_> = specs.iter().map(|spec| spec.publish_not_ready_addresses).collect();
    assert_eq!(ready_or_not, [None, Some(true), Some(true)]);
}

#[test]
fn each_replica_gets_a_service_with_its_node_port_when_asked_for() {
    let external = "
externalAccess:
  addressTemplate: 'node.example.com:3094{ordinal}'
  perReplicaServices: {type: NodePort, firstNodePort: 30940, annotations: {a: b}}";
    let objects = objects(&cluster(external));
    assert_eq!(names(&objects)[3..], ["orders-0", "orders-1", "orders-2"]);
    let last = objects.services.last().unwrap();
    let spec = last.spec.as_ref().unwrap();
    assert_eq!((spec.type_.as_deref(), spec.publish_not_ready_addresses), (Some("NodePort"), Some(true)));
    assert_eq!(spec.ports.as_ref().unwrap()[0].node_port, Some(30942));
    assert_eq!(spec.selector.as_ref().unwrap()["statefulset.kubernetes.io/pod-name"], "orders-2");
    assert_eq!(last.metadata.annotations.as_ref().unwrap()["a"], "b");
    let args = container_of(&objects).args.unwrap();
    assert!(args.contains(&"--advertise-client=node.example.com:3094$(POD_INDEX)".to_owned()), "{args:?}");
}

#[test]
fn every_variable_in_the_arguments_is_set() {
    let external = "externalAccess: {addressTemplate: '{pod}.example.com:3094{ordinal}'}";
    let container = container_of(&objects(&cluster(external)));
    let set: Vec<_> = container.env.unwrap().into_iter().map(|variable| format!("$({})", variable.name)).collect();
    for arg in container.args.unwrap() {
        let rest = set.iter().fold(arg.clone(), |arg, variable| arg.replace(variable, ""));
        assert!(!rest.contains('$'), "{arg}");
    }
}

#[test]
fn a_node_starts_with_its_arguments_and_its_file() {
    let cluster = cluster(
        "{config: {log: {durability: Os}}, externalAccess: {addressTemplate: '{pod}.example.com:3094{ordinal}'}}",
    );
    let file = objects(&cluster).config_map.data.unwrap().remove(args::CONFIG_FILE).unwrap();
    let args = args::args(&cluster, "orders-2", "2");
    let parsed = zue_settings::Args::try_parse_from(std::iter::once("zue-node".to_owned()).chain(args)).unwrap();
    assert_eq!(parsed.config, Some(Path::new(args::CONFIG_DIRECTORY).join(args::CONFIG_FILE)));
    let config = parsed.over(NodeConfig::parse(&file).unwrap().unwrap());
    config.validate().unwrap();
    assert_eq!((config.name.as_str(), config.data_dir.to_str().unwrap()), ("orders-2", args::DATA_DIRECTORY));
    assert_eq!(config.advertise.client.as_deref(), Some("orders-2.example.com:30942"));
    assert_eq!((config.log, config.limits), (cluster.spec.config.log, cluster.spec.config.limits));
    let ports =
        [config.listen.client, config.listen.peer, config.listen.metrics].map(|address| i32::from(address.port()));
    assert_eq!(ports, [crate::cluster::CLIENT_PORT, crate::cluster::PEER_PORT, crate::cluster::METRICS_PORT]);
}

#[test]
fn the_command_in_a_pod_asks_the_pod_itself() {
    for spec in ["{}", "externalAccess: {addressTemplate: 'example.com:3094{ordinal}'}"] {
        let set = container_of(&objects(&cluster(spec))).env.unwrap();
        let servers = set.into_iter().find(|variable| variable.name == "ZUE_SERVERS").unwrap().value;
        assert_eq!(servers.as_deref(), Some("$(POD_NAME):9440"), "{spec}");
    }
}

#[test]
fn what_a_mode_takes_is_mounted_and_a_plain_cluster_is_as_it_ever_was() {
    use crate::crd::security::TlsMode;
    let of = |tls_mode| container_of(&objects(&Cluster { tls_mode, ..cluster("{}") }));
    let plain = of(TlsMode::Off);
    assert_eq!((plain.args.unwrap().len(), plain.env.unwrap().len(), plain.volume_mounts.unwrap().len()), (5, 3, 2));
    let closed = of(TlsMode::Required);
    let args = closed.args.unwrap();
    let parsed = zue_settings::Args::try_parse_from(std::iter::once("zue-node".to_owned()).chain(args)).unwrap();
    assert_eq!(parsed.tls_mode, Some(zue_settings::TlsMode::Required));
    let mounted: Vec<_> = closed.volume_mounts.unwrap().into_iter().map(|mount| mount.mount_path).collect();
    assert_eq!(mounted[2..], ["/etc/zue-tls", "/etc/zue-client"]);
    assert!(
        parsed.access_file.unwrap().starts_with(&mounted[2]) && parsed.tls_folder.unwrap().starts_with(&mounted[2])
    );
    let shown: Vec<_> = closed
        .env
        .unwrap()
        .into_iter()
        .filter(|variable| variable.name != "ZUE_SERVERS")
        .filter_map(|variable| variable.value)
        .collect();
    assert_eq!(shown, ["ca.crt", "tls.crt", "tls.key"].map(|file| format!("/etc/zue-client/{file}")));
    let pod = pod_of(&objects(&Cluster { tls_mode: TlsMode::Required, ..cluster("{}") }));
    let secrets: Vec<_> = pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name).collect();
    assert_eq!(secrets, ["orders-tls", "orders-client-pods.zue.io"], "no authority's key is mounted");
    assert_eq!(of(TlsMode::Permissive).env.unwrap().len(), 3, "not all pods have TLS yet");
}

#[test]
fn a_change_of_settings_changes_the_template() {
    let annotations = |spec: &str| {
        let spec = objects(&cluster(spec)).stateful_set.spec.unwrap();
        spec.template.metadata.unwrap().annotations.unwrap()
    };
    assert_ne!(
        annotations("{}")["zue.io/config"],
        annotations("config: {replication: {lagRecordsMax: 5}}")["zue.io/config"]
    );
    assert_eq!(annotations("{}"), annotations("storage: {size: 20Gi}"));
    assert_eq!(annotations("pod: {annotations: {x: y}}")["x"], "y");
}

#[test]
fn replicas_are_spread_softly_unless_the_owner_says_otherwise() {
    let pod = pod_of(&objects(&cluster("{}")));
    let spread = pod.topology_spread_constraints.unwrap();
    assert!(spread.iter().all(|constraint| constraint.when_unsatisfiable == "ScheduleAnyway"));
    assert!(spread.iter().all(|constraint| constraint.label_selector.is_some()));
    let anti = pod.affinity.unwrap().pod_anti_affinity.unwrap();
    assert!(anti.required_during_scheduling_ignored_during_execution.is_none());
    let own = pod_of(&objects(&cluster("pod: {affinity: {}, topologySpreadConstraints: []}")));
    assert_eq!(own.affinity.unwrap(), k8s_openapi::api::core::v1::Affinity::default());
    assert_eq!(own.topology_spread_constraints.unwrap(), []);
}

#[test]
fn at_most_one_pod_is_evicted_at_a_time_and_none_while_all_are_needed() {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let allowed = |may_evict| disruption_budget(&cluster("{}"), may_evict).spec.unwrap().max_unavailable;
    assert_eq!((allowed(true), allowed(false)), (Some(IntOrString::Int(1)), Some(IntOrString::Int(0))));
}

#[test]
fn probes_depend_on_no_quorum() {
    let container = container_of(&objects(&cluster("{}")));
    let path = |probe: Option<k8s_openapi::api::core::v1::Probe>| probe.unwrap().http_get.unwrap().path.unwrap();
    assert_eq!(path(container.liveness_probe), "/livez");
    assert_eq!(path(container.startup_probe), "/livez");
    assert_eq!(path(container.readiness_probe), "/readyz");
}

#[test]
fn everything_belongs_to_the_resource() {
    let Objects { service_account, config_map, services, stateful_set } = objects(&cluster("{}"));
    let disruption_budget = disruption_budget(&cluster("{}"), true);
    let metas = [service_account.metadata, config_map.metadata, disruption_budget.metadata, stateful_set.metadata];
    for meta in metas.into_iter().chain(services.into_iter().map(|service| service.metadata)) {
        let owner = meta.owner_references.unwrap().remove(0);
        assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.controller), ("ZueCluster", "orders", Some(true)));
        assert_eq!(meta.namespace.as_deref(), Some("shop"));
    }
}

#[test]
fn while_a_majority_is_given_up_only_the_survivor_runs_and_its_log_is_detached_first() {
    let id = |n: u128| format!("{n:032x}");
    let mut resource = crate::cluster::tests::resource("{replicas: 5, quorum: 4, leader: {ordinal: 3}}");
    let recovery = Recovery { pod: "orders-2".to_owned(), replica_id: id(3), cluster_id: id(9), end: 80 };
    let status = |recovery: &Recovery| ZueClusterStatus { recovery: Some(recovery.clone()), ..Default::default() };
    resource.status = Some(status(&recovery));
    let cluster = Cluster::new(&resource, "zue-node:test").unwrap().around(Some(5));
    assert_eq!((cluster.pods(), cluster.has_begun), (vec!["orders-2".to_owned()], true));
    let wish = cluster.wish();
    assert_eq!((wish.replicas, wish.ordinal, wish.quorum), (1, 0, None));
    let spec = objects(&cluster).stateful_set.spec.unwrap();
    assert_eq!((spec.replicas, spec.ordinals.unwrap().start), (Some(1), Some(2)));
    assert_eq!(spec.persistent_volume_claim_retention_policy.unwrap().when_scaled.as_deref(), Some("Retain"));
    let before = spec.template.spec.unwrap().init_containers.unwrap();
    let args = before[0].args.clone().unwrap();
    let expected =
        ["log", "detach", "/data", &format!("--cluster={}", id(9)), &format!("--replica={}", id(3)), "--once"];
    assert_eq!(args, expected);
    assert!(before[0].volume_mounts.as_ref().unwrap().iter().any(|mount| mount.mount_path == "/data"));
    // Invalid values are not followed: whoever wrote them, pods run.
    for wrong in [
        Recovery { pod: "orders-9".to_owned(), ..recovery.clone() },
        Recovery { pod: "bills-2".to_owned(), ..recovery.clone() },
        Recovery { cluster_id: "--help".to_owned(), ..recovery },
    ] {
        resource.status = Some(status(&wrong));
        let set = objects(&Cluster::new(&resource, "zue-node:test").unwrap()).stateful_set.spec.unwrap();
        assert!(set.replicas == Some(5) && set.ordinals.is_none(), "{wrong:?}");
    }
}
