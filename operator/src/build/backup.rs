//! Parts of a pod for backups: the credentials, and the container that restores a log before the first node starts.

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, SecretKeySelector};

use super::args::{CONFIG_DIRECTORY, DATA_DIRECTORY};
use super::beside::beside;
use crate::cluster::Cluster;
use crate::crd::backup::RestoreFrom;

/// The beginning of a key of the ConfigMap that orders a restore, of the pod whose ordinal follows.
const ORDER: &str = "restore-";

/// The variables with credentials, and whether there need be none.
const CREDENTIALS: [(&str, bool); 3] =
    [("AWS_ACCESS_KEY_ID", false), ("AWS_SECRET_ACCESS_KEY", false), ("AWS_SESSION_TOKEN", true)];

/// The variables of a node.
pub(super) fn environment(cluster: &Cluster) -> Vec<EnvVar> {
    let secret = cluster.spec.backup.as_ref().and_then(|backup| backup.credentials_secret_name.as_ref());
    credentials(secret)
}

fn credentials(secret: Option<&String>) -> Vec<EnvVar> {
    let Some(secret) = secret else { return Vec::new() };
    let variable = |(key, optional): (&str, bool)| {
        let selector = SecretKeySelector { name: secret.clone(), key: key.to_owned(), optional: Some(optional) };
        let source = EnvVarSource { secret_key_ref: Some(selector), ..Default::default() };
        EnvVar { name: key.to_owned(), value_from: Some(source), value: None }
    };
    CREDENTIALS.map(variable).to_vec()
}

/// The order to restore, which stands in the ConfigMap until the log has begun: the first pod obeys it, as long as its volume is empty. A
/// volume that is emptied later is filled by the other replicas.
pub(super) fn order(cluster: &Cluster) -> Option<(String, String)> {
    let from = &cluster.spec.bootstrap.as_ref()?.from;
    let text = format!("The first node begins with the log that was backed up to {}.\n", from.backup);
    (!cluster.has_begun).then(|| (format!("{ORDER}0"), text))
}

/// The container in front of a node, made from the node's own container. It stays as long as the ZueCluster, or the pods would all be replaced
/// once the log has begun.
pub(super) fn restore(cluster: &Cluster, node: &Container) -> Option<Container> {
    let RestoreFrom { backup, cluster_id, until, access } = &cluster.spec.bootstrap.as_ref()?.from;
    let mut args = vec![
        "restore".to_owned(),
        DATA_DIRECTORY.to_owned(),
        format!("--from={backup}"),
        format!("--once={CONFIG_DIRECTORY}/{ORDER}$(POD_INDEX)"),
    ];
    args.extend(cluster_id.iter().map(|id| format!("--cluster={id}")));
    args.extend(until.iter().map(|until| format!("--until={}", until.argument())));
    let mut variables: Vec<EnvVar> = node.env.iter().flatten().filter(|env| env.name == "POD_INDEX").cloned().collect();
    variables.extend(credentials(access.credentials_secret_name.as_ref()));
    let plain =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
    variables.extend(access.region.iter().map(|region| plain("AWS_REGION", region)));
    if let Some(endpoint) = &access.endpoint {
        variables.push(plain("AWS_ENDPOINT_URL", endpoint));
        variables.extend(endpoint.starts_with("http://").then(|| plain("AWS_ALLOW_HTTP", "true")));
    }
    let (name, args, env) = ("restore".to_owned(), Some(args), Some(variables));
    Some(beside(node, Container { name, args, env, ..Default::default() }))
}

#[cfg(test)]
mod tests {
    use serde_yaml::Value;

    use super::super::objects;
    use crate::cluster::Cluster;
    use crate::cluster::tests::{cluster, resource};

    const BACKED_UP: &str = "
backup: {to: 's3://logs/orders', endpoint: 'http://minio.storage:9000', keep: 168h, credentialsSecretName: bucket,
         serviceAccountAnnotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/backups'}}
";
    const RESTORED: &str = "
bootstrap: {from: {backup: 's3://logs/orders', clusterId: 00000000000000000000000000000009, region: eu-west-1,
                   until: {time: '2026-11-28T12:00:00Z'}, credentialsSecretName: bucket}}
";

    fn file(cluster: &Cluster) -> Value {
        let data = objects(cluster).config_map.data.unwrap();
        serde_yaml::from_str(&data["node.yaml"]).unwrap()
    }

    #[test]
    fn backups_are_settings_of_the_nodes_and_credentials_are_none() {
        let cluster = cluster(BACKED_UP);
        let backup = file(&cluster)["backup"].clone();
        assert_eq!((backup["to"].as_str(), backup["keep"].as_str()), (Some("s3://logs/orders"), Some("168h")));
        assert!(backup.get("credentialsSecretName").is_none());
        let objects = objects(&cluster);
        let annotations = objects.service_account.metadata.annotations.unwrap();
        assert_eq!(annotations["eks.amazonaws.com/role-arn"], "arn:aws:iam::1:role/backups");
        let spec = objects.stateful_set.spec.unwrap().template.spec.unwrap();
        let env = spec.containers[0].env.clone().unwrap();
        let key = env.iter().find(|env| env.name == "AWS_SECRET_ACCESS_KEY").unwrap();
        let selector = key.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap();
        assert_eq!((selector.name.as_str(), selector.optional), ("bucket", Some(false)));
        assert!(spec.init_containers.is_none());
    }

    #[test]
    fn a_cluster_without_backups_tells_its_nodes_nothing_of_them() {
        let objects = objects(&cluster("{}"));
        assert!(objects.service_account.metadata.annotations.is_none());
        assert!(!objects.config_map.data.unwrap()["node.yaml"].contains("backup"));
    }

    #[test]
    fn the_first_pod_restores_until_the_log_has_begun() {
        let mut cluster = cluster(RESTORED);
        let before = objects(&cluster);
        let spec = before.stateful_set.spec.clone().unwrap().template.spec.unwrap();
        let restore = spec.init_containers.unwrap().remove(0);
        assert_eq!(
            restore.args.unwrap(),
            [
                "restore",
                "/data",
                "--from=s3://logs/orders",
                "--once=/etc/zue/restore-$(POD_INDEX)",
                "--cluster=00000000000000000000000000000009",
                "--until=2026-11-28T12:00:00Z"
            ]
        );
        let names: Vec<String> = restore.env.unwrap().into_iter().map(|env| env.name).collect();
        let expected = ["POD_INDEX", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"];
        assert_eq!(names, expected);
        assert!(before.config_map.data.unwrap().contains_key("restore-0"));
        // Nothing of the pods changes once it has: none is replaced.
        cluster.has_begun = true;
        let after = objects(&cluster);
        assert_eq!(after.stateful_set, before.stateful_set);
        assert!(!after.config_map.data.unwrap().keys().any(|key| key.starts_with("restore")));
    }

    #[test]
    fn whether_the_log_has_begun_is_what_is_written_down() {
        let mut resource = resource(RESTORED);
        assert!(!Cluster::new(&resource, "i").unwrap().has_begun);
        resource.status = Some(serde_yaml::from_str("clusterId: 00000000000000000000000000000007").unwrap());
        assert!(Cluster::new(&resource, "i").unwrap().has_begun);
    }

    #[test]
    fn what_the_schema_cannot_bound_is_refused_with_its_field() {
        for (setting, why) in [
            ("interval: 999ms", "spec.backup.interval is 999ms: it must be between 1s and 24h"),
            ("keep: 59m", "spec.backup.keep is 59m: it must be between 1h and "),
            ("bytesPerSecond: 1KiB", "spec.backup.bytesPerSecond is 1KiB: it must be between 64KiB and "),
        ] {
            let wrong = resource(&format!("backup: {{to: 's3://logs', {setting}}}"));
            let said = Cluster::new(&wrong, "i").unwrap_err().to_string();
            assert!(said.starts_with(why), "{said}");
        }
    }
}
