//! What a pod would find mounted: the Secret of a client of a cluster, in files of this machine.

use std::path::Path;

use tempfile::TempDir;
use zue_tests::identities::write;
use zue_tests::replicas::eventually;

use crate::kubernetes::{PATIENCE, run};

/// The text of a key of a Secret; none while it is not there.
pub fn secret(namespace: &str, name: &str, key: &str) -> Option<String> {
    let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
    run("kubectl", &["get", "-n", namespace, "secret", name, "-o", &template]).ok().filter(|text| !text.is_empty())
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
        let texts =
            ["tls.crt", "tls.key", "ca.crt"].map(|key| Some((key, secret(&self.namespace, &self.secret, key)?)));
        for (file, text) in texts.iter().flatten() {
            write(&self.path().join(file), text);
        }
        texts.iter().all(Option::is_some)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What tells a command of it.
    pub fn flags(&self) -> Vec<String> {
        let file = |(flag, file): (&str, &str)| [flag.to_owned(), self.path().join(file).display().to_string()];
        [("--ca", "ca.crt"), ("--cert", "tls.crt"), ("--key", "tls.key")].map(file).concat()
    }
}
