//! Files that a pod would find mounted: the Secret of a client of a cluster, in files of this machine.

use std::path::Path;

use tempfile::TempDir;
use zue_tests::identities::write;
use zue_tests::replicas::eventually;

use crate::kubernetes::{PATIENCE, run};

/// The separator between the texts of two keys, which is in none of them.
const BETWEEN: &str = "\n\t\n";

/// The text of a key of a Secret; none while it is not there.
pub fn secret(namespace: &str, name: &str, key: &str) -> Option<String> {
    texts(namespace, name, [key]).map(|[text]| text)
}

/// The texts of keys of a Secret, all as of one moment; none while one of them is not there.
fn texts<const N: usize>(namespace: &str, name: &str, keys: [&str; N]) -> Option<[String; N]> {
    let each = keys.map(|key| format!("{{{{index .data \"{key}\" | base64decode}}}}"));
    let template = format!("go-template={}", each.join(BETWEEN));
    let said = run("kubectl", &["get", "-n", namespace, "secret", name, "-o", &template]).ok()?;
    let texts: Vec<String> = said.split(BETWEEN).map(str::to_owned).collect();
    <[String; N]>::try_from(texts).ok().filter(|texts| texts.iter().all(|text| !text.is_empty()))
}

/// A client's Secret.
pub struct Mounted {
    namespace: String,
    secret: String,
    folder: TempDir,
}

impl Mounted {
    /// That of a client of a cluster, once it is there.
    pub fn of(namespace: &str, cluster: &str, client: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mounted = Self { namespace: namespace.to_owned(), secret: format!("{cluster}-client-{client}"), folder };
        eventually(PATIENCE, || mounted.refresh().then_some(()), || format!("there is a Secret {}", mounted.secret));
        mounted
    }

    /// Takes over what is in the Secret now, as a kubelet does every minute or so; false if it is not there.
    pub fn refresh(&self) -> bool {
        let files = ["tls.crt", "tls.key", "ca.crt"];
        let Some(texts) = texts(&self.namespace, &self.secret, files) else { return false };
        for (file, text) in files.iter().zip(&texts) {
            write(&self.path().join(file), text);
        }
        true
    }

    /// The place where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The flags that tell a command of it.
    pub fn flags(&self) -> Vec<String> {
        let file = |(flag, file): (&str, &str)| [flag.to_owned(), self.path().join(file).display().to_string()];
        [("--ca", "ca.crt"), ("--cert", "tls.crt"), ("--key", "tls.key")].map(file).concat()
    }
}
