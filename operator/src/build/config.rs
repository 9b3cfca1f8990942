//! The nodes' configuration file, and the ConfigMap that holds it.

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use serde_yaml::{Mapping, Value};
use zue_settings::BackupSettings;

use super::args::CONFIG_FILE;
use super::backup;
use super::metadata::{meta, strings};
use crate::cluster::Cluster;
use crate::crd::NodeSettings;

/// The file.
#[derive(Serialize)]
struct File<'a> {
    #[serde(flatten)]
    settings: &'a NodeSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<&'a BackupSettings>,
}

/// The text of the file: what is not as it is by default. A node of an earlier version (`spec.image`) refuses settings that it does not
/// know; so it gets those alone that somebody asks for.
pub(super) fn file(cluster: &Cluster) -> String {
    let settings =
        File { settings: &cluster.spec.config, backup: cluster.spec.backup.as_ref().map(|backup| &backup.settings) };
    let defaults = File { settings: &NodeSettings::default(), backup: Some(&BackupSettings::default()) };
    // Numbers and strings: nothing in them can fail to be written.
    let value = |file| serde_yaml::to_value(file).unwrap_or_default();
    let text = serde_yaml::to_string(&changed(value(settings), &value(defaults))).unwrap_or_default();
    format!("# Written by zue-operator from the spec of ZueCluster {}, without defaults.\n{text}", cluster.name)
}

/// The parts of a section that are not as by default, or an empty one.
fn changed(section: Value, defaults: &Value) -> Value {
    let Value::Mapping(fields) = section else { return section };
    let left = fields.into_iter().filter_map(|(name, value)| match defaults.get(&name) {
        Some(default) if *default == value => None,
        Some(default) => Some((name, changed(value, default))),
        None => Some((name, value)),
    });
    Value::Mapping(left.collect::<Mapping>())
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
    use super::{file, fingerprint};
    use crate::cluster::tests::cluster;

    fn text(spec: &str) -> String {
        file(&cluster(spec)).split_once('\n').unwrap().1.to_owned()
    }

    #[test]
    fn nodes_are_told_what_somebody_asks_for_and_no_default_that_an_earlier_version_may_not_know() {
        assert_eq!(text("{}"), "{}\n");
        assert_eq!(text("config: {log: {durability: Os, compaction: false}}"), "log:\n  durability: Os\n");
        let backup = "backup: {to: 's3://logs/orders', holdTrim: false, interval: 1m}";
        assert_eq!(text(backup), "backup:\n  to: s3://logs/orders\n");
        assert_eq!(
            text("backup: {to: 's3://logs/orders', holdTrim: true}"),
            "backup:\n  to: s3://logs/orders\n  holdTrim: true\n"
        );
        // The heartbeat follows from it.
        assert!(text("leader: {detectionTime: 300ms}").contains("heartbeat"));
    }

    #[test]
    fn the_fingerprint_is_fnv_1a() {
        // From the published test vectors: http://www.isthe.com/chongo/src/fnv/test_fnv.c
        assert_eq!(fingerprint(""), "cbf29ce484222325");
        assert_eq!(fingerprint("foobar"), "85944171f73967e8");
    }
}
