//! The command line of a node. Everything that differs from pod to pod is here, everything else is in the configuration file.

use crate::cluster::Cluster;
use crate::crd::security::TlsMode;

/// The mount of the configuration file's directory.
pub const CONFIG_DIRECTORY: &str = "/etc/zue";
/// The configuration file in it.
pub const CONFIG_FILE: &str = "node.yaml";
/// The mount of the nodes' certificate, of whom they believe, and of who has access.
pub const TLS_DIRECTORY: &str = "/etc/zue-tls";
/// The file in it that says who has access.
pub const ACCESS_FILE: &str = "access.yaml";
/// The mount of the certificate of the pods' own client.
pub const CLIENT_DIRECTORY: &str = "/etc/zue-client";
/// The argument that a pod's mode follows.
pub const MODE_ARGUMENT: &str = "--tls-mode=";
/// The mount of the volume.
pub const DATA_DIRECTORY: &str = "/data";

/// The arguments of a pod, which the kubelet completes from the variables `POD_NAME` and `POD_INDEX`.
pub fn template(cluster: &Cluster) -> Vec<String> {
    args(cluster, "$(POD_NAME)", "$(POD_INDEX)")
}

/// The arguments of one pod.
pub fn args(cluster: &Cluster, pod: &str, ordinal: &str) -> Vec<String> {
    let mut args = vec![
        format!("--config={CONFIG_DIRECTORY}/{CONFIG_FILE}"),
        format!("--data-dir={DATA_DIRECTORY}"),
        format!("--name={pod}"),
        format!("--advertise-client={}", cluster.client_address_of(pod, ordinal)),
        "--log-format=json".to_owned(),
    ];
    if cluster.tls_mode != TlsMode::Off {
        args.extend([
            format!("{MODE_ARGUMENT}{}", cluster.tls_mode.name()),
            format!("--tls-folder={TLS_DIRECTORY}"),
            format!("--access-file={TLS_DIRECTORY}/{ACCESS_FILE}"),
        ]);
    }
    args
}
