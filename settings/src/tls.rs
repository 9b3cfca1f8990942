//! The sections `tls` and `access` of a node's file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// The mode of TLS: whether connections are encrypted, and the other end known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum TlsMode {
    /// No: everybody who reaches a port may do all that it offers.
    #[default]
    Off,
    /// Both are taken: what comes without TLS may do everything, as with `Off`; what comes with it may do what it has a right to. Nodes
    /// reach each other with TLS where the other can. For as long as a cluster is moved from `Off` to `Required`, or back.
    Permissive,
    /// Yes: nobody gets in without.
    Required,
}

/// TLS on the ports of clients and peers. That of metrics has none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsSettings {
    /// The mode.
    pub mode: TlsMode,
    /// Holds `tls.crt` and `tls.key` (this node's certificate, signed by the peer authority), `peer-ca.crt` and `client-ca.crt` (the
    /// authorities of the peers and of the clients, one or more each). Read again when they change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// The rights on the port of the clients.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessSettings {
    /// The file that names the clients, their rights and their tokens. Read again when it changes. Without it no client has a right,
    /// unless `tls.mode` lets everybody in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl TlsSettings {
    /// Checks that what goes together is there.
    ///
    /// # Errors
    /// When it is not.
    pub fn validate(&self, access: &AccessSettings) -> Result<(), ConfigError> {
        let wrong = |field, value: String, remedy| Err(ConfigError::Field { field, value, remedy });
        match (self.mode, &self.folder, &access.file) {
            (TlsMode::Off, _, Some(file)) => {
                let remedy =
                    "with tls.mode Off everybody may do everything: set tls.mode (--tls-mode), or leave the file out";
                wrong("access.file", file.display().to_string(), remedy)
            }
            (TlsMode::Off, Some(folder), None) => {
                let remedy = "with tls.mode Off there is no TLS, whatever is there: set tls.mode (--tls-mode Required), or leave the folder out";
                wrong("tls.folder", folder.display().to_string(), remedy)
            }
            (TlsMode::Off, None, None) | (_, Some(_), _) => Ok(()),
            (_, None, _) => wrong("tls.folder", String::new(), "say where the certificates are (--tls-folder)"),
        }
    }
}
