//! The security of a cluster, as its owner asks for it.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS on the ports of clients and peers. That of metrics has none.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// `Required`: every connection has TLS, and a certificate or a token. `Permissive`: connections with and without TLS are taken; one
    /// without may do everything. `"Off"`, in quotes, since YAML takes it for `false` without: no TLS, and everybody may do everything.
    /// Where no mode is given, a new ZueCluster has `Required`, and one that exists keeps its mode, `status.tlsMode`. A running cluster is
    /// moved in steps, over `Permissive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// A Secret with the authority that signs nodes and the operator: `tls.crt` and `tls.key`, as cert-manager makes them with
    /// `isCA: true` and a `privateKey` of `algorithm: ECDSA`, `encoding: PKCS8`. By default the operator makes one of its own. It must
    /// sign nobody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// A Secret with the authority that signs clients, as `secretName` has it for nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub client_ca_secret_name: Option<String>,
    /// Further names and IP addresses by which clients reach the nodes. Those of the Services, of the pods and of
    /// `externalAccess.addressTemplate` are in the nodes' certificate anyway.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = r"^(\*\.)?[-a-zA-Z0-9.:]+$")))]
    pub dns_names: Vec<String>,
}

/// Encryption of the connections.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a documented variant would not be a plain enum in the schema")]
pub enum TlsMode {
    Off,
    Permissive,
    Required,
}

impl TlsMode {
    /// As a node knows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "Off",
            Self::Permissive => "Permissive",
            Self::Required => "Required",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Off, Self::Permissive, Self::Required].into_iter().find(|mode| mode.name() == name)
    }
}

/// A client that has access. With `tls.mode: "Off"` everybody has, whatever is listed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.name != 'ca'")
        .message("a client cannot be called ca: the Secret <cluster>-client-ca is that of the authority")
        .field_path(".name")
)]
pub struct Access {
    /// Its name. Its credentials are in the Secret `<cluster>-client-<name>`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its rights: append records, read them, or trim the log and switch the leader over.
    #[schemars(length(max = 3))]
    pub rights: Vec<Right>,
    /// True for a token (`token` in the Secret) instead of a certificate (`tls.crt`, `tls.key`). The nodes know only the token's hash.
    #[serde(default)]
    pub token: bool,
    /// The pods of the client, in the words of a NetworkPolicy: by default in the namespace of the ZueCluster, and anywhere where there is
    /// `externalAccess`. The port of the clients is open to all places that the list names together, and to no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub from: Vec<NetworkPolicyPeer>,
}

/// The collectors of metrics.
#[derive(JsonSchema, Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// The pods of the collectors, in the words of a NetworkPolicy, beside the namespace of the ZueCluster. Metrics have no TLS: with
    /// `tls.mode: Required` nobody else reaches them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub from: Vec<NetworkPolicyPeer>,
}

/// A right of a client.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "a documented variant would not be a plain enum in the schema")]
pub enum Right {
    Append,
    Read,
    Admin,
}

impl From<Right> for zue_settings::Right {
    fn from(right: Right) -> Self {
        match right {
            Right::Append => Self::Append,
            Right::Read => Self::Read,
            Right::Admin => Self::Admin,
        }
    }
}
