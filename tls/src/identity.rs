//! Identities: `spiffe://zue.io/<namespace>/<cluster>/{node|controller|client/NAME}`, the URI in a certificate.

use std::fmt;
use std::str::FromStr;

/// The prefix of every identity.
const PREFIX: &str = "spiffe://zue.io/";
/// The greatest length of a name: that of a Kubernetes object.
const NAME_BYTES_MAX: usize = 253;

/// A cluster, by the names that people gave it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cluster {
    namespace: String,
    name: String,
}

/// A role in a cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// A storage node: all of them are trusted alike.
    Node,
    /// A controller, which elects and appoints: the operator, `zue control`.
    Controller,
    /// An application, by its name in the list of those who have access.
    Client(String),
}

/// An identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    /// Of which cluster.
    pub cluster: Cluster,
    /// Its role there.
    pub role: Role,
}

/// A text that is no identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadIdentity {
    /// It does not look like one.
    #[error("{0:?} is no identity: spiffe://zue.io/NAMESPACE/CLUSTER/node, …/controller or …/client/NAME is expected")]
    Form(String),
    /// A cluster that is not named as one.
    #[error("{0:?} is no cluster: NAMESPACE/NAME is expected")]
    Cluster(String),
    /// A part of it is no name.
    #[error("{0:?} is no name: it has 1 to 253 bytes of a-z, 0-9, - and ., and begins and ends with a letter or digit")]
    Name(String),
}

/// The text as it is told: never longer than a name may be.
fn told(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

fn name(text: &str) -> Result<String, BadIdentity> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let is_outer = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let fits = text.len() <= NAME_BYTES_MAX
        && text.bytes().all(is_inner)
        && is_outer(text.bytes().next())
        && is_outer(text.bytes().last());
    if fits { Ok(text.to_owned()) } else { Err(BadIdentity::Name(told(text))) }
}

impl Cluster {
    /// The cluster of that name in that namespace.
    ///
    /// # Errors
    /// When one of them is no name.
    pub fn new(namespace: &str, cluster: &str) -> Result<Self, BadIdentity> {
        Ok(Self { namespace: name(namespace)?, name: name(cluster)? })
    }

    /// Its name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Somebody in it.
    pub fn identity(&self, role: Role) -> Identity {
        Identity { cluster: self.clone(), role }
    }

    /// A client of it.
    ///
    /// # Errors
    /// When that is no name.
    pub fn client(&self, client: &str) -> Result<Identity, BadIdentity> {
        Ok(self.identity(Role::Client(name(client)?)))
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for Cluster {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| BadIdentity::Cluster(told(text)))?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Controller => f.write_str("controller"),
            Self::Client(name) => write!(f, "client/{name}"),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.cluster, self.role)
    }
}

impl FromStr for Identity {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let form = || BadIdentity::Form(told(text));
        let parts: Vec<&str> = text.strip_prefix(PREFIX).ok_or_else(form)?.split('/').collect();
        let (namespace, cluster, role) = match parts.as_slice() {
            [namespace, cluster, "node"] => (namespace, cluster, Role::Node),
            [namespace, cluster, "controller"] => (namespace, cluster, Role::Controller),
            [namespace, cluster, "client", client] => (namespace, cluster, Role::Client(name(client)?)),
            _ => return Err(form()),
        };
        Ok(Cluster::new(namespace, cluster)?.identity(role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_is_written() {
        for text in [
            "spiffe://zue.io/default/my-log/node",
            "spiffe://zue.io/default/my-log/controller",
            "spiffe://zue.io/a/b.c/client/shop-2",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_identity_is_named() {
        let long = format!("spiffe://zue.io/a/b/client/{}", "x".repeat(254));
        for text in [
            "",
            "spiffe://zue.io/a/b",
            "spiffe://zue.io/a/b/node/c",
            "spiffe://zue.io/a/b/client",
            "spiffe://zue.io/a/b/client/",
            "spiffe://zue.io/a/b/client/x/y",
            "spiffe://zue.io//b/node",
            "spiffe://zue.io/a/b/Node",
            "spiffe://zue.io/a/b/client/Shop",
            "spiffe://zue.io/a/b/client/-x",
            "spiffe://zue.io/a/b/client/x%2fnode",
            "spiffe://example.org/a/b/node",
            "SPIFFE://zue.io/a/b/node",
            &long,
        ] {
            let error = text.parse::<Identity>().unwrap_err().to_string();
            assert!(error.contains("is no ") && error.len() < 700, "{text}: {error}");
        }
        assert!("default".parse::<Cluster>().is_err());
        assert!("default/a/b".parse::<Cluster>().is_err());
    }
}
