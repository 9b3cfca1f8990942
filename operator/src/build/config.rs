//! The nodes' configuration file, and the ConfigMap that holds it.

use k8s_openapi::api::core::v1::ConfigMap;

use super::args::CONFIG_FILE;
use super::backup;
use super::metadata::{meta, strings};
use crate::cluster::Cluster;

/// The text of the file.
pub(super) fn file(cluster: &Cluster) -> String {
    // Numbers and strings: nothing in them can fail to be written.
    let settings = serde_yaml::to_string(&cluster.spec.config).unwrap_or_default();
    format!(
        "# Written by zue-operator from the spec of ZueCluster {}.\n{settings}{}",
        cluster.name,
        backup::settings(cluster)
    )
}

pub(super) fn map(cluster: &Cluster, file: &str) -> ConfigMap {
    let mut data = strings(&[(CONFIG_FILE, file)]);
    data.extend(backup::order(cluster));
    ConfigMap { metadata: meta(cluster, &cluster.name), data: Some(data), ..Default::default() }
}

/// A number that changes with the text, and never with the version of a library: a new one restarts the pods. FNV-1a, 64 bits.
pub(super) fn fingerprint(file: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", file.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn the_fingerprint_is_fnv_1a() {
        // From the published test vectors: http://www.isthe.com/chongo/src/fnv/test_fnv.c
        assert_eq!(fingerprint(""), "cbf29ce484222325");
        assert_eq!(fingerprint("foobar"), "85944171f73967e8");
    }
}
