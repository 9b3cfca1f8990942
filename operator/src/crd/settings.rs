//! The nodes' settings that a ZueCluster offers: the node's own structs, so that a knob, its default, its bounds and its documentation
//! are declared once. They are written as they stand into the nodes' configuration file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zue_settings::{ConfigError, LimitSettings, LogSettings, ReplicationSettings};

/// Settings of the nodes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSettings {
    /// The log on disk.
    pub log: LogSettings,
    /// The feeding of followers, and when they count as in sync.
    pub replication: ReplicationSettings,
    /// The limits of a node.
    pub limits: LimitSettings,
}

impl NodeSettings {
    /// Checks what a schema cannot say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { log, replication, limits } = self;
        log.validate()?;
        replication.validate()?;
        limits.validate()
    }
}
