//! `kubectl zue report`: what a bug report needs, in one file. No Secret is read.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use super::args::Report;
use super::calls::Kubectl;
use super::cluster::{list, pods, selector, text};
use super::{CONTAINER, RESOURCE, forward};
use crate::terminal::output;

/// Kinds of object that the operator makes for a cluster; Secrets are left out.
const KINDS: &str =
    "statefulsets,pods,services,configmaps,persistentvolumeclaims,poddisruptionbudgets,networkpolicies,serviceaccounts";
const OF_OPERATOR: &str = "app.kubernetes.io/name=zue-operator";
/// Bytes of each container's log, the newest.
const LOG_LIMIT: &str = "--limit-bytes=8388608";
const LOG_LINES: &str = "--tail=50000";
const METRICS_PORT: u16 = 9442;

/// A file of the report, and the call of kubectl that prints what is in it.
struct Piece {
    file: String,
    call: Vec<String>,
}

fn piece(file: impl Into<String>, call: &[&str]) -> Piece {
    Piece { file: file.into(), call: call.iter().map(|&arg| arg.to_owned()).collect() }
}

pub(super) fn run(kubectl: &Kubectl, Report { name, file }: &Report) -> anyhow::Result<ExitCode> {
    kubectl.output(&["get", RESOURCE, name])?; // A cluster that is not there has no report.
    let path = file.clone().unwrap_or_else(|| PathBuf::from(format!("zue-report-{name}.tar.gz")));
    let cannot = || format!("cannot write {}", path.display());
    let mut archive = Archive::create(&path).with_context(cannot)?;
    let mut pieces = of_cluster(name);
    let mut names = vec![];
    match pods(kubectl, name) {
        Ok(pods) => {
            pieces.extend(pods.iter().flat_map(of_pod));
            names.extend(pods.iter().map(|pod| text(pod, "/metadata/name").to_owned()));
        }
        Err(error) => archive.add_or_why("pods", Err(error)).with_context(cannot)?,
    }
    match kubectl.json(&["get", "pods", "--all-namespaces", "-l", OF_OPERATOR]) {
        Ok(operators) => pieces.extend(list(&operators, "/items").flat_map(of_operator)),
        Err(error) => archive.add_or_why("operator", Err(error)).with_context(cannot)?,
    }
    for Piece { file, call } in &pieces {
        let call: Vec<&str> = call.iter().map(String::as_str).collect();
        archive.add_or_why(file, kubectl.output(&call)).with_context(cannot)?;
    }
    for name in &names {
        let metrics = forward::get(kubectl, name, METRICS_PORT, "/metrics");
        archive.add_or_why(&format!("{name}/metrics.txt"), metrics).with_context(cannot)?;
    }
    let Archive { whole, missing, .. } = archive;
    archive.finish().with_context(cannot)?;
    let path = path.display();
    output::line(&format!("{path}: {whole} files; {missing} could not be had, each says why in FILE.error.txt"))?;
    output::line(
        "It holds no Secrets. Names, addresses and annotations are in it: look through it before you hand it on.",
    )?;
    Ok(ExitCode::SUCCESS)
}

fn of_cluster(name: &str) -> Vec<Piece> {
    let labels = selector(name);
    vec![
        piece("versions.yaml", &["version", "-o", "yaml"]),
        piece("nodes.txt", &["get", "nodes", "-o", "wide"]),
        piece("zuecluster.yaml", &["get", RESOURCE, name, "-o", "yaml"]),
        piece("zuecluster.txt", &["describe", RESOURCE, name]),
        piece("objects.yaml", &["get", KINDS, "-l", &labels, "-o", "yaml"]),
        piece("objects.txt", &["get", KINDS, "-l", &labels, "-o", "wide"]),
        piece("events.txt", &["get", "events", "--sort-by=.metadata.creationTimestamp", "-o", "wide"]),
    ]
}

fn of_pod(pod: &Value) -> Vec<Piece> {
    let name = text(pod, "/metadata/name");
    let zue = ["exec", name, "-c", CONTAINER, "--", "zue", "--deadline", "10s"];
    vec![
        piece(format!("{name}/log.txt"), &["logs", name, "-c", CONTAINER, "--timestamps", LOG_LIMIT, LOG_LINES]),
        piece(format!("{name}/log-before.txt"), &["logs", name, "-c", CONTAINER, "--previous", LOG_LIMIT, LOG_LINES]),
        piece(format!("{name}/status.json"), &[&zue[..], &["-o", "json", "status"]].concat()),
    ]
}

fn of_operator(pod: &Value) -> Vec<Piece> {
    let name = text(pod, "/metadata/name");
    let namespace = format!("--namespace={}", text(pod, "/metadata/namespace"));
    let logs = ["logs", name, &namespace, "--timestamps", LOG_LIMIT, LOG_LINES];
    vec![
        piece(format!("operator/{name}.yaml"), &["get", "pod", name, &namespace, "-o", "yaml"]),
        piece(format!("operator/{name}.log.txt"), &logs),
        piece(format!("operator/{name}.log-before.txt"), &[&logs[..], &["--previous"]].concat()),
    ]
}

/// A compressed tar file that is being written.
struct Archive {
    tar: tar::Builder<GzEncoder<File>>,
    /// The number of files, and of those that hold only the reason why they could not be fetched.
    whole: usize,
    missing: usize,
}

impl Archive {
    /// Begins a file that must not exist.
    fn create(path: &Path) -> std::io::Result<Self> {
        let tar = tar::Builder::new(GzEncoder::new(File::create_new(path)?, Compression::default()));
        Ok(Self { tar, whole: 0, missing: 0 })
    }

    /// Adds what was had, or why it was not.
    fn add_or_why(&mut self, name: &str, had: anyhow::Result<Vec<u8>>) -> std::io::Result<()> {
        match had {
            Ok(bytes) => {
                self.whole += 1;
                self.add(name, &bytes)
            }
            Err(error) => {
                self.missing += 1;
                self.add(&format!("{name}.error.txt"), format!("{error:#}\n").as_bytes())
            }
        }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        header.set_mode(0o644);
        self.tar.append_data(&mut header, format!("zue-report/{name}"), bytes)
    }

    fn finish(self) -> std::io::Result<()> {
        self.tar.into_inner()?.finish()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_call_of_a_report_asks_for_a_secret() {
        let pod = json!({"metadata": {"name": "a-0", "namespace": "n"}});
        let all = [of_cluster("a"), of_pod(&pod), of_operator(&pod)].concat_calls();
        assert!(all.iter().any(|call| call.contains("configmaps")), "{all:?}");
        for call in all {
            assert!(!call.to_lowercase().contains("secret"), "{call}");
            assert!(!call.contains(" all "), "{call}");
        }
    }

    trait Calls {
        fn concat_calls(self) -> Vec<String>;
    }

    impl Calls for [Vec<Piece>; 3] {
        fn concat_calls(self) -> Vec<String> {
            self.into_iter().flatten().map(|piece| piece.call.join(" ")).collect()
        }
    }
}
