//! A node's configuration: a YAML file and flags that override it. Checked once, here; every error names the field, the value
//! and what to write instead.

pub(crate) mod args;
pub(crate) mod memory;
pub(crate) mod settings;
pub(crate) mod units;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zue_core::quorum::majority;

use crate::backup::BackupSettings;
use crate::config::settings::{LimitSettings, LogSettings, ReplicationSettings};
use crate::tls::{AccessSettings, TlsSettings};

/// How long a node's name may be, and a host's: that of a Kubernetes object.
const NAME_BYTES_MAX: usize = 253;
/// How long a settings file may be.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A node's configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeConfig {
    /// What people call this replica, for example the pod's name.
    pub name: String,
    /// The directory of the log. One process at a time; made if it is not there.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: ListenSettings,
    /// What others are told.
    pub advertise: AdvertiseSettings,
    /// How the log is kept on disk.
    pub log: LogSettings,
    /// How followers are fed.
    pub replication: ReplicationSettings,
    /// What this node takes on at most.
    pub limits: LimitSettings,
    /// TLS on the ports of clients and peers.
    pub tls: TlsSettings,
    /// Who may do what on the port of the clients.
    pub access: AccessSettings,
    /// Backups of the log, to a bucket or a directory.
    pub backup: BackupSettings,
}

/// Where to listen: address and port; port 0 takes any free one.
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

/// What others are told.
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

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not say what a node's file says; the source names the field and the line.
    #[error("cannot take the configuration file {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_yaml::Error,
    },
    /// The file says nothing at all, as one does that was cut off when it was written.
    #[error("{} is empty: a node's file holds its settings, or {{}} where all are to be the defaults", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A section is named and says nothing, as one that was cut off.
    #[error("{}: {section} is empty: write its settings, or leave it out where all are to be the defaults", path.display())]
    EmptySection {
        /// The file.
        path: PathBuf,
        /// The section.
        section: String,
    },
    /// A value out of its bounds.
    #[error("{field} is {value}: it must be between {min} and {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The least it may be.
        min: String,
        /// The most it may be.
        max: String,
    },
    /// A value that cannot be.
    #[error("{field} is {value:?}: {remedy}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// A quorum that could let two leaders commit, or none.
    #[error(transparent)]
    Quorum(#[from] BadQuorum),
}

/// A quorum that is not more than half and at most all of the replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a quorum of {quorum} does not go with {replicas} replicas: it must be between {} and {replicas}", majority(*.replicas))]
pub struct BadQuorum {
    /// How many replicas there are.
    pub replicas: usize,
    /// How many of them were to commit.
    pub quorum: u32,
}

/// Checks that a quorum is more than half and at most all of the replicas.
///
/// # Errors
/// When it is not.
pub fn check_quorum(replicas: usize, quorum: u32) -> Result<(), BadQuorum> {
    let fits = usize::try_from(quorum).is_ok_and(|quorum| (majority(replicas)..=replicas).contains(&quorum));
    if fits { Ok(()) } else { Err(BadQuorum { replicas, quorum }) }
}

/// Nothing if the value is within its bounds, both included.
pub(crate) fn bounded<T: PartialOrd + Display>(
    field: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), ConfigError> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { field, value: value.to_string(), min: min.to_string(), max: max.to_string() })
}

impl NodeConfig {
    /// Reads a file. Flags may still override what it says, so its values are checked by [`NodeConfig::validate`].
    ///
    /// # Errors
    /// When it cannot be read, or has unknown fields or values of the wrong kind.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = zue_log::read_text(path, FILE_BYTES_MAX)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let parsed = Self::parse(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        if let Some(section) = empty_section(&text) {
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

/// Whether it is as long as a name may be, and has nothing that would break a line or a word.
pub(crate) fn is_word(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Whether it is `host:port`.
pub(crate) fn is_address(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_ipv6 = host.starts_with('[') && host.ends_with(']');
        let host_fits = !host.is_empty()
            && is_word(host)
            && !host.contains(['/', '@', '?', '#'])
            && (is_ipv6 || !host.contains(':'));
        host_fits && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.yaml");
        for text in ["", "\n\n", "# only a comment\n", "---\n", "null\n"] {
            std::fs::write(&path, text).unwrap();
            let error = NodeConfig::read(&path).unwrap_err().to_string();
            assert!(error.contains("node.yaml is empty") && error.contains("{}"), "{text:?}: {error}");
        }
        // Cut off behind the name of a section.
        std::fs::write(&path, "name: zue-0\nlog:\n").unwrap();
        let error = NodeConfig::read(&path).unwrap_err().to_string();
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

    #[test]
    fn a_quorum_is_more_than_half_and_at_most_all() {
        for (replicas, quorum, fits) in
            [(3, 2, true), (3, 3, true), (3, 1, false), (3, 4, false), (4, 2, false), (1, 1, true)]
        {
            assert_eq!(check_quorum(replicas, quorum).is_ok(), fits, "{quorum} of {replicas}");
        }
        let error = check_quorum(3, 1).unwrap_err().to_string();
        assert_eq!(error, "a quorum of 1 does not go with 3 replicas: it must be between 2 and 3");
    }
}
