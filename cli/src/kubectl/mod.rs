//! `kubectl zue`: this program under the name `kubectl-zue`. It asks Kubernetes through kubectl, with the rights and contexts of whoever
//! calls it, and the replicas through `zue` in one of their pods, which has the cluster's credentials: none leaves the cluster.

mod args;
mod asked;
mod calls;
mod cluster;
mod forward;
mod report;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::terminal::output;
use args::{Cli, Command, Of, Through};
use calls::Kubectl;

/// The resource as kubectl finds it, whatever other short names there are.
const RESOURCE: &str = "zueclusters.zue.io";
const CONTAINER: &str = "node";

/// Tells whether the program was called as a plugin of kubectl.
pub(crate) fn is_called(program: Option<&OsStr>) -> bool {
    let stem = program.and_then(|program| Path::new(program).file_stem());
    stem.and_then(OsStr::to_str) == Some("kubectl-zue")
}

pub(crate) fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => crate::ended(run(cli)),
        Err(wrong) => crate::misused(&wrong),
    }
}

fn run(Cli { kube, command }: Cli) -> anyhow::Result<ExitCode> {
    let kubectl = Kubectl::new(&kube);
    match command {
        Command::Status(Of { name }) => status(&kubectl, &name),
        Command::Append(through) => zue(&kubectl, "append", through),
        Command::Read(through) => zue(&kubectl, "read", through),
        Command::Tail(through) => zue(&kubectl, "tail", through),
        Command::Health(through) => zue(&kubectl, "health", through),
        Command::Switchover(of) => asked::switchover(&kubectl, &of),
        Command::Restart(of) => asked::restart(&kubectl, &of),
        Command::Pause(Of { name }) => asked::pause(&kubectl, &name),
        Command::Resume(Of { name }) => asked::resume(&kubectl, &name),
        Command::Replace(of) => asked::replace(&kubectl, &of),
        Command::Verify(through) => zue(&kubectl, "verify", through),
        Command::Report(of) => report::run(&kubectl, &of),
    }
}

/// Prints what is wrong according to the resource, then what the replicas say; the exit code is that of `zue status`.
fn status(kubectl: &Kubectl, name: &str) -> anyhow::Result<ExitCode> {
    let resource = kubectl.json(&["get", RESOURCE, name])?;
    for line in cluster::summary(name, &resource) {
        output::line(&line)?;
    }
    let pod = cluster::pod_to_ask(name, &cluster::pods(kubectl, name)?)?;
    kubectl.run(&["exec", &pod, "-c", CONTAINER, "--", "zue", "status"])
}

/// Becomes `zue COMMAND` in a pod of the cluster.
fn zue(kubectl: &Kubectl, command: &str, Through { name, args }: Through) -> anyhow::Result<ExitCode> {
    if command == "append" && args.iter().any(|arg| arg == "--file" || arg.starts_with("--file=")) {
        let said = format!("--file names a file in the pod; pipe yours in: kubectl zue append {name} < FILE");
        return Err(crate::Usage(said).into());
    }
    let pod = cluster::pod_to_ask(&name, &cluster::pods(kubectl, &name)?)?;
    let mut all = vec!["exec", "-i", &pod, "-c", CONTAINER, "--", "zue", command];
    all.extend(args.iter().map(String::as_str));
    Err(kubectl.become_it(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_by_which_kubectl_calls_it_makes_it_a_plugin() {
        for (program, expected) in [
            (Some("/usr/local/bin/kubectl-zue"), true),
            (Some("kubectl-zue"), true),
            (Some("/usr/local/bin/zue"), false),
            (Some("/opt/kubectl-zue/zue"), false),
            (None, false),
        ] {
            assert_eq!(is_called(program.map(OsStr::new)), expected, "{program:?}");
        }
    }
}
