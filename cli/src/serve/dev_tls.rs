//! Files that `zue dev --tls` makes for TLS, in the folder `tls` of its data: authorities once, certificates at every start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zue_settings::{AccessSettings, TlsMode, TlsSettings};
use zue_tls::{Cluster, Dial, Insecure, Names, Role};

use crate::tls::{Authorities, write};

const DAY: Duration = Duration::from_hours(24);
/// The lifetime of certificates: who lets it run for longer starts it again once.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
const LIFE: Duration = DAY.saturating_mul(365);
/// The client's name.
const CLIENT: &str = "dev";
/// The address that it is reached at: nowhere but on this machine.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// TLS of a cluster on this machine; nothing where it is not wanted.
pub(crate) struct DevTls(Option<PathBuf>);

impl DevTls {
    pub(crate) fn of(data: &Path, wanted: bool) -> Self {
        Self(wanted.then(|| data.join("tls")))
    }

    /// Makes what the nodes, the controller and clients find there.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        let Some(folder) = &self.0 else { return Ok(()) };
        let made = if folder.join("cluster").exists() {
            Authorities::load(folder)?
        } else {
            Authorities::make(folder, &Cluster::new("dev", "zue")?, AUTHORITY_LIFE)?
        };
        let names = Names::parse(NAMES);
        made.give(&made.cluster.identity(Role::Node), &names, LIFE, &folder.join("node"))?;
        made.give(&made.cluster.identity(Role::Controller), &Names::default(), LIFE, &folder.join("controller"))?;
        made.give(&made.cluster.client(CLIENT)?, &Names::default(), LIFE, &folder.join("client"))?;
        let access = folder.join("access.yaml");
        if access.exists() {
            return Ok(()); // Whoever uses it may have named others.
        }
        write(&access, &format!("clients:\n- name: {CLIENT}\n  rights: [append, read, admin]\n"))
    }

    /// For a node.
    pub(crate) fn settings(&self) -> (TlsSettings, AccessSettings) {
        self.0.as_ref().map_or_else(Default::default, |folder| {
            let tls = TlsSettings { mode: TlsMode::Required, folder: Some(folder.join("node")) };
            (tls, AccessSettings { file: Some(folder.join("access.yaml")) })
        })
    }

    /// For the controller.
    pub(crate) fn dial(&self) -> anyhow::Result<Dial> {
        let folder = self.0.as_ref().map(|folder| folder.join("controller"));
        Ok(folder.map_or_else(|| Ok(Dial::plain()), |folder| Dial::controller(&folder, Insecure::Never))?)
    }

    /// The environment that clients need.
    pub(crate) fn exports(&self) -> Vec<String> {
        let Some(folder) = &self.0 else { return Vec::new() };
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).join("client");
        let file = |variable: &str, name: &str| format!("export {variable}={}", quoted(&folder.join(name)));
        vec![file("ZUE_CA", "ca.crt"), file("ZUE_CERT", "tls.crt"), file("ZUE_KEY", "tls.key")]
    }
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_is_told_is_one_word() {
        assert_eq!(quoted(Path::new("/data/zue-data")), "/data/zue-data");
        assert_eq!(quoted(Path::new("/my data/it's")), "'/my data/it'\\''s'");
    }
}
