//! A node's configuration: a YAML file and flags that override it. Checked once, here; every error names the field, the value
//! and what to write instead. Reads no file.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::BackupSettings;
use crate::error::ConfigError;
use crate::limits::LimitSettings;
use crate::log::LogSettings;
use crate::replication::ReplicationSettings;
use crate::tls::{AccessSettings, TlsSettings};
use crate::words::{is_address, is_word};

/// A node's configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The name of this replica for people, for example the pod's name.
    pub name: String,
    /// The directory of the log. One process at a time; made if it is not there.
    pub data_dir: PathBuf,
    /// The addresses to listen at.
    pub listen: ListenSettings,
    /// The addresses that others are told.
    pub advertise: AdvertiseSettings,
    /// The log on disk.
    pub log: LogSettings,
    /// The feeding of followers.
    pub replication: ReplicationSettings,
    /// The limits of this node.
    pub limits: LimitSettings,
    /// TLS on the ports of clients and peers.
    pub tls: TlsSettings,
    /// The rights on the port of the clients.
    pub access: AccessSettings,
    /// Backups of the log, to a bucket or a directory.
    pub backup: BackupSettings,
}

/// The addresses to listen at: IP and port; port 0 takes any free one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListenSettings {
    /// For clients.
    pub client: SocketAddr,
    /// For replication and control. Unless `tls.mode` is `Required`, keep it to the cluster's own network.
    pub peer: SocketAddr,
    /// For metrics and health, over HTTP.
    pub metrics: SocketAddr,
}

/// The addresses that others are told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdvertiseSettings {
    /// `host:port` at which clients reach this replica. Needed when `listen.client` is a wildcard address; otherwise that is
    /// the default.
    pub client: Option<String>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            data_dir: PathBuf::new(),
            listen: ListenSettings::default(),
            advertise: AdvertiseSettings::default(),
            log: LogSettings::default(),
            replication: ReplicationSettings::default(),
            limits: LimitSettings::default(),
            tls: TlsSettings::default(),
            access: AccessSettings::default(),
            backup: BackupSettings::default(),
        }
    }
}

impl Default for ListenSettings {
    fn default() -> Self {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self { client: any(9440), peer: any(9441), metrics: any(9442) }
    }
}

impl NodeConfig {
    /// Takes the text of a file. Flags may still override what it says, so its values are checked by [`NodeConfig::validate`].
    ///
    /// # Errors
    /// When it says nothing, or has unknown fields or values of the wrong kind; they name the file by `path`.
    pub fn of_file(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let parsed = Self::parse(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        if let Some(section) = empty_section(text) {
            return Err(ConfigError::EmptySection { path: path.to_owned(), section });
        }
        parsed.ok_or_else(|| ConfigError::Empty { path: path.to_owned() })
    }

    /// Reads the text of a file; none if it says nothing.
    ///
    /// # Errors
    /// When it has unknown fields or values of the wrong kind.
    pub fn parse(yaml: &str) -> Result<Option<Self>, serde_yaml::Error> {
        serde_yaml::from_str(yaml)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first one that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { name, data_dir, listen, advertise, log, replication, limits, tls, access, backup } = self;
        let wrong = |field, value: &str, remedy| Err(ConfigError::Field { field, value: value.to_owned(), remedy });
        if name.is_empty() || !is_word(name) {
            return wrong("name", name, "give this replica a name of 1 to 253 bytes without spaces (--name)");
        }
        if data_dir.as_os_str().is_empty() {
            return wrong("dataDir", "", "say where the log is to be kept (--data-dir)");
        }
        match &advertise.client {
            Some(address) if !is_address(address) => {
                return wrong("advertise.client", address, "write host:port (--advertise-client)");
            }
            None if listen.client.ip().is_unspecified() => {
                let remedy = "clients cannot be sent to a wildcard address: say at which host:port they reach this \
                              replica in advertise.client (--advertise-client)";
                return wrong("listen.client", &listen.client.to_string(), remedy);
            }
            _ => {}
        }
        log.validate()?;
        replication.validate()?;
        limits.validate()?;
        backup.validate()?;
        tls.validate(access)
    }
}

/// The first section that is named and says nothing; the format takes that for all defaults.
fn empty_section(yaml: &str) -> Option<String> {
    let sections: BTreeMap<String, serde_yaml::Value> = serde_yaml::from_str(yaml).ok()?;
    sections.into_iter().find(|(_, value)| value.is_null()).map(|(section, _)| section)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name: zue-0\ndataDir: /data\nadvertise: {client: \"zue-0.zue:9440\"}\n";

    fn error(yaml: &str) -> String {
        match NodeConfig::parse(yaml) {
            Err(error) => error.to_string(),
            Ok(config) => config.unwrap().validate().unwrap_err().to_string(),
        }
    }

    #[test]
    fn a_file_says_only_what_differs_from_the_defaults() {
        let config = NodeConfig::parse(GOOD).unwrap().unwrap();
        config.validate().unwrap();
        assert_eq!(config.limits, LimitSettings::default());
        assert_eq!(config.listen.client.port(), 9440);
        assert_eq!(NodeConfig::parse("{}").unwrap(), Some(NodeConfig::default()));
    }

    #[test]
    fn a_file_that_says_nothing_is_an_error_and_not_all_defaults() {
        let error = |text| NodeConfig::of_file(Path::new("/etc/node.yaml"), text).unwrap_err().to_string();
        for text in ["", "\n\n", "# only a comment\n", "---\n", "null\n"] {
            let error = error(text);
            assert!(error.contains("node.yaml is empty") && error.contains("{}"), "{text:?}: {error}");
        }
        // Cut off behind the name of a section.
        let error = error("name: zue-0\nlog:\n");
        assert!(error.contains("node.yaml: log is empty"), "{error}");
    }

    #[test]
    fn what_is_printed_is_what_is_read() {
        let config = NodeConfig::parse(GOOD).unwrap();
        assert_eq!(NodeConfig::parse(&serde_yaml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn an_error_names_the_field_the_value_and_the_remedy() {
        let cases: &[(&str, &[&str])] = &[
            ("nam: x", &["unknown field `nam`", "expected one of `name`"]),
            ("log: {segmentBytes: 1MiB}", &["log: unknown field `segmentBytes`", "`segmentBytesMax`", "line 1"]),
            ("log: {segmentBytesMax: 64MB}", &["log.segmentBytesMax", "\"64MB\"", "MiB"]),
            ("log: {segmentBytesMax: 5}", &["log.segmentBytesMax", "\"5\"", "MiB"]),
            ("log: {durability: Never}", &["log.durability", "`Never`", "`Sync`"]),
            ("replication: {heartbeatInterval: 5 s}", &["replication.heartbeatInterval", "\"5 s\"", "\"500ms\""]),
            ("listen: {client: \"localhost\"}", &["listen.client", "invalid socket address"]),
            ("limits: {headersMax: -1}", &["limits.headersMax", "-1"]),
            ("name: ''", &["name", "--name"]),
            ("name: 'a b'", &["name", "a b", "--name"]),
            ("name: a", &["dataDir", "--data-dir"]),
            ("name: a\ndataDir: /d", &["listen.client", "0.0.0.0:9440", "--advertise-client"]),
            ("name: a\ndataDir: /d\nadvertise: {client: nowhere}", &["advertise.client", "nowhere", "host:port"]),
        ];
        for (yaml, parts) in cases {
            let error = error(yaml);
            for part in *parts {
                assert!(error.contains(part), "{yaml:?} gives {error:?}, which lacks {part:?}");
            }
        }
        let out_of_bounds = [
            ("log: {segmentBytesMax: 1KiB}", "log.segmentBytesMax is 1KiB: it must be between 32KiB and 4GiB"),
            (
                "log: {retentionAge: 999ms}",
                "log.retentionAge is 999ms: it must be between 1s and 18446744073709551615ms",
            ),
            ("replication: {lagTimeMax: 200ms}", "replication.lagTimeMax is 200ms: it must be between 400ms and 10m"),
            ("limits: {connectionsMax: 1}", "limits.connectionsMax is 1: it must be between 8 and 100000"),
            ("limits: {recordBytesMax: 1GiB}", "limits.recordBytesMax is 1GiB: it must be between 1B and 32MiB"),
        ];
        for (section, expected) in out_of_bounds {
            assert_eq!(error(&format!("{GOOD}{section}")), expected);
        }
    }
}
