//! The command line of `kubectl zue`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  kubectl zue status my-log -n streams           what is wrong, then the replicas
  kubectl zue append my-log hello                append one record, print its offset
  my-program | kubectl zue append my-log         append what a program prints, one record a line
  kubectl zue read my-log --from 0 --max 10      print ten records
  kubectl zue tail my-log -f                     print records as they come
  kubectl zue switchover my-log --to my-log-1    let my-log-1 lead
  kubectl zue restart my-log                     restart one replica after the other
  kubectl zue replace my-log my-log-2            say what it means to give up a replica whose disk is lost; --yes does it
  kubectl zue verify my-log                      compare what the replicas hold
  kubectl zue report my-log                      pack what a bug report needs

append, read, tail, health and verify run `zue` in a pod of the cluster and pass on what follows the name: `zue help append` lists it.

Exit codes: 0 done, 1 failed, 2 wrong use.";

/// Zue clusters on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "kubectl-zue", bin_name = "kubectl zue", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) kube: Kube,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Flags that kubectl has too; they are passed on to it.
#[derive(Debug, Default, Args)]
pub(super) struct Kube {
    /// Namespace of the cluster [default: that of the context]
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// Context of the kubeconfig file
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub(super) context: Option<String>,
    /// Kubeconfig file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the problems of a cluster, and its replicas
    Status(Of),
    /// Append records and print their offsets
    Append(Through),
    /// Print records, from an offset up to the end
    Read(Through),
    /// Print the last records
    Tail(Through),
    /// Print the health in one line
    Health(Through),
    /// Make another replica the leader, without a failed append
    Switchover(Switchover),
    /// Restart one replica after the other, the leader last and after a hand-over
    Restart(Restart),
    /// Pause the operator for a cluster; the log goes on
    Pause(Of),
    /// Resume the operator for a cluster
    Resume(Of),
    /// Replace a replica whose node or disk is gone for good by an empty one
    Replace(Replace),
    /// Compare the replicas, record by record
    Verify(Through),
    /// Pack manifests, status, events, logs and metrics for a bug report; Secrets are not read
    Report(Report),
}

/// A ZueCluster.
#[derive(Debug, Args)]
pub(super) struct Of {
    /// Name of the ZueCluster
    #[arg(value_parser = object_name)]
    pub(super) name: String,
}

/// A ZueCluster, and what `zue` is given.
#[derive(Debug, Args)]
pub(super) struct Through {
    /// Name of the ZueCluster
    #[arg(value_parser = object_name)]
    pub(super) name: String,
    /// Passed on to `zue`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(super) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Switchover {
    /// Name of the ZueCluster
    #[arg(value_parser = object_name)]
    pub(super) name: String,
    /// Pod of the new leader
    #[arg(long, value_name = "POD", value_parser = object_name)]
    pub(super) to: String,
}

#[derive(Debug, Args)]
pub(super) struct Restart {
    /// Name of the ZueCluster
    #[arg(value_parser = object_name)]
    pub(super) name: String,
    /// Do not wait for the end
    #[arg(long)]
    pub(super) no_wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct Replace {
    /// Name of the ZueCluster
    #[arg(value_parser = object_name)]
    pub(super) name: String,
    /// Pod of the replica
    #[arg(value_parser = object_name)]
    pub(super) pod: String,
    /// Replace it; without this, only print the consequences
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Report {
    /// Name of the ZueCluster
    #[arg(value_parser = object_name)]
    pub(super) name: String,
    /// File to write, which must not exist [default: zue-report-NAME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

/// Checks the name of a Kubernetes object (RFC 1123), so that nothing typed is taken for a flag of kubectl.
fn object_name(text: &str) -> Result<String, String> {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let has_ends = !text.starts_with(['-', '.']) && !text.ends_with(['-', '.']);
    if !text.is_empty() && text.len() <= 253 && has_ends && text.chars().all(is_inner) {
        return Ok(text.to_owned());
    }
    Err("the name of an object has 1 to 253 lower-case letters, digits, '-' and '.'".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_name_is_passed_on_as_it_is() {
        let cli = Cli::try_parse_from(["kubectl-zue", "-n", "streams", "tail", "my-log", "-f", "--max", "3"]).unwrap();
        assert_eq!(cli.kube.namespace.as_deref(), Some("streams"));
        let Command::Tail(Through { name, args }) = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!((name.as_str(), args), ("my-log", ["-f", "--max", "3"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_name_is_never_a_flag_of_kubectl() {
        for wrong in ["--all", "-A", "", "Orders", "a/b", "a b", "a-"] {
            object_name(wrong).unwrap_err();
        }
        object_name("my-log.0").unwrap();
    }
}
