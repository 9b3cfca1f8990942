//! Rights of the clients: the file `access.file`, checked once when it is read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use subtle::ConstantTimeEq as _;
use zue_settings::{AccessClient, AccessFile, Right};
use zue_tls::{BadIdentity, Cluster, FileError, hex, read_text, sha256};

/// The most clients, the most tokens of one, and the most of all.
const CLIENTS_MAX: usize = 1000;
const TOKENS_MAX: usize = 8;
const ALL_TOKENS_MAX: usize = 1000;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A client's name.
    #[error("cannot take {}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The fault of the name.
        source: BadIdentity,
    },
    /// Something of it does not go together.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The fault, and what to write instead.
        why: String,
    },
}

/// The rights of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rights {
    pub(crate) append: bool,
    pub(crate) read: bool,
    pub(crate) admin: bool,
}

impl Rights {
    fn of(rights: &[Right]) -> Self {
        let has = |right| rights.contains(&right);
        Self { append: has(Right::Append), read: has(Right::Read), admin: has(Right::Admin) }
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(self.append, "append"), (self.read, "read"), (self.admin, "admin")];
        let named: Vec<&str> = named.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        f.write_str(if named.is_empty() { "none".to_owned() } else { named.join(", ") }.as_str())
    }
}

/// One who has access.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) rights: Rights,
}

/// The clients that have access.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Access {
    clients: BTreeMap<String, Arc<Client>>,
    tokens: Vec<([u8; 32], Arc<Client>)>,
    /// The hash of the file; empty where there is none.
    pub(crate) sha256: String,
}

impl Access {
    pub(crate) fn read(path: &Path, cluster: &Cluster) -> Result<Self, AccessError> {
        let text = read_text(path)?;
        let wrong = |why: String| AccessError::Content { path: path.to_owned(), why };
        let parse = |error: serde_yaml::Error| wrong(without_values(&error));
        let value: serde_yaml::Value = serde_yaml::from_slice(&text).map_err(parse)?;
        // One that was cut off is not one that lets nobody in.
        if value.is_null() || value.get("clients").is_some_and(serde_yaml::Value::is_null) {
            return Err(wrong("it names no clients: clients: [] is written where nobody has access".to_owned()));
        }
        let parsed: AccessFile = serde_yaml::from_value(value).map_err(parse)?;
        let mut access = Self { sha256: hex(&sha256(&text)), ..Self::default() };
        if parsed.clients.len() > CLIENTS_MAX {
            return Err(wrong(format!("it names {} clients; at most {CLIENTS_MAX} are allowed", parsed.clients.len())));
        }
        for AccessClient { name, rights, token_sha256 } in parsed.clients {
            cluster.client(&name).map_err(|source| AccessError::Name { path: path.to_owned(), source })?;
            if token_sha256.len() > TOKENS_MAX {
                return Err(wrong(format!(
                    "{name} has {} tokens; at most {TOKENS_MAX} are allowed",
                    token_sha256.len()
                )));
            }
            let client = Arc::new(Client { rights: Rights::of(&rights), name });
            for text in token_sha256 {
                let hash = from_hex(&text).ok_or_else(|| {
                    wrong(format!("{} has a token whose hash is not the 64 digits of a SHA-256", client.name))
                })?;
                if access.by_token(&hash).is_some() {
                    return Err(wrong(format!("a token of {} is there twice: each is for one client", client.name)));
                }
                access.tokens.push((hash, Arc::clone(&client)));
            }
            if let Some(twice) = access.clients.insert(client.name.clone(), client) {
                return Err(wrong(format!("{} is there twice: put its rights and tokens together", twice.name)));
            }
        }
        if access.tokens.len() > ALL_TOKENS_MAX {
            return Err(wrong(format!("it has {} tokens; at most {ALL_TOKENS_MAX} are allowed", access.tokens.len())));
        }
        Ok(access)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Client>> {
        self.clients.get(name)
    }

    /// The client whose token has this hash. The time that takes does not depend on how much of the hash is right.
    pub(crate) fn by_token(&self, hash: &[u8; 32]) -> Option<&Arc<Client>> {
        let mut found = None;
        for (known, client) in &self.tokens {
            if bool::from(known.ct_eq(hash)) {
                found = Some(client);
            }
        }
        found
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// The fault of the file, in the parser's words unless they show a value: that may be a token or a key.
fn without_values(error: &serde_yaml::Error) -> String {
    let words = error.to_string();
    if ["unknown field", "missing field", "unknown variant"].iter().any(|safe| words.contains(safe)) {
        return words;
    }
    let place =
        error.location().map_or_else(String::new, |at| format!(" (line {}, column {})", at.line(), at.column()));
    format!(
        "it does not say who has access{place}: clients: [{{name: orders, rights: [append, read], tokenSha256: [HASH]}}] is expected"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Access, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.yaml");
        std::fs::write(&path, yaml).unwrap();
        Access::read(&path, &Cluster::new("default", "my-log").unwrap()).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", source.unwrap_or_default())
        })
    }

    #[test]
    fn an_error_never_shows_what_stands_in_the_file() {
        for file in
            ["zue-token-value", "clients: zue-token-value", "clients: [{name: a, tokenSha256: zue-token-value}]"]
        {
            let told = read(file).unwrap_err();
            assert!(told.contains("it does not say who has access") && !told.contains("zue-token-value"), "{told}");
        }
    }

    #[test]
    fn a_client_is_found_by_its_name_and_by_each_of_its_tokens() {
        let (one, two) = (hex(&sha256(b"one")), hex(&sha256(b"two")));
        let access = read(&format!(
            "clients:\n- name: shop\n  rights: [append, read]\n  tokenSha256: [{one}, {}]\n- {{name: till, rights: []}}\n",
            two.to_uppercase()
        ))
        .unwrap();
        let shop = access.by_name("shop").unwrap();
        assert_eq!((shop.rights.to_string().as_str(), shop.rights.admin), ("append, read", false));
        for token in [&b"one"[..], b"two"] {
            assert_eq!(access.by_token(&sha256(token)), Some(shop));
        }
        assert_eq!(access.by_token(&sha256(b"three")), None);
        assert_eq!(access.by_name("till").unwrap().rights.to_string(), "none");
        assert!(access.by_name("other").is_none());
        assert_eq!(read("clients: []").unwrap().clients.len(), 0);
    }

    #[test]
    fn what_is_wrong_with_it_is_named_and_no_hash_is_told() {
        let hash = hex(&sha256(b"one"));
        let many = |count: usize, client: &dyn Fn(usize) -> String| -> String {
            format!("clients: [{}]", (0..count).map(client).collect::<Vec<_>>().join(","))
        };
        let hashes = |count: usize| (0..count).map(|n| hex(&sha256(&n.to_be_bytes()))).collect::<Vec<_>>().join(",");
        for (yaml, why) in [
            (String::new(), "it names no clients"),
            ("clients:".to_owned(), "it names no clients"),
            ("client: []".to_owned(), "unknown field `client`"),
            ("clients: [{name: shop}]".to_owned(), "missing field `rights`"),
            ("clients: [{name: shop, rights: [write]}]".to_owned(), "unknown variant `write`"),
            ("clients: [{name: Shop, rights: []}]".to_owned(), "\"Shop\" is no name"),
            ("clients: [{name: shop, rights: []}, {name: shop, rights: [read]}]".to_owned(), "shop is there twice"),
            (format!("clients: [{{name: a, rights: [], tokenSha256: [{}]}}]", &hash[1..]), "a has a token whose hash"),
            (
                format!(
                    "clients: [{{name: a, rights: [], tokenSha256: [{hash}]}}, {{name: b, rights: [], tokenSha256: [{hash}]}}]"
                ),
                "a token of b is there twice",
            ),
            (many(1001, &|n| format!("{{name: c{n}, rights: []}}")), "1001 clients; at most 1000 are allowed"),
            (
                format!("clients: [{{name: a, rights: [], tokenSha256: [{}]}}]", hashes(9)),
                "a has 9 tokens; at most 8 are allowed",
            ),
        ] {
            let error = read(&yaml).unwrap_err();
            assert!(error.contains(why) && error.contains("access.yaml"), "{why}: {error}");
            assert!(!error.contains(&hash[1..]), "{error}");
        }
    }
}
