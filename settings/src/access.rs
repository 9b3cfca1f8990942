//! The file that says which clients may do what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A right that a client may have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Right {
    /// Append records.
    Append,
    /// Read records.
    Read,
    /// Trim the log, switch the leader over, ask for the reflection of the services.
    Admin,
}

/// The file `access.file`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessFile {
    /// The clients that have access; nobody else has.
    pub clients: Vec<AccessClient>,
}

/// A client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessClient {
    /// Its name, as in its certificate: `spiffe://zue.io/NAMESPACE/CLUSTER/client/NAME`.
    pub name: String,
    /// The rights that it has.
    pub rights: Vec<Right>,
    /// Of each token that it may show instead of a certificate, the SHA-256 in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_sha256: Vec<String>,
}
