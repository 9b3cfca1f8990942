//! `zue backup` and `zue restore`: what can be typed, and which store and backup is meant by it.

mod ask;
mod list;
mod make;
mod restore;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use zue_client::Client;

use crate::terminal::output::Output;
use crate::terminal::waiting::Waiting;
use list::{List, Remove, Verify};

pub(crate) use restore::{RESTORE_HELP, Restore, run as restore};

const STORE: &str = "\
URL is s3://BUCKET/PREFIX or file:///DIRECTORY. A bucket is reached by the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION, AWS_ENDPOINT_URL of a store that is not Amazon's, AWS_ALLOW_HTTP=true for one without TLS, AWS_CA_BUNDLE for one whose
certificate is of an authority of its own; or by the identity that the pod or machine has.";

#[derive(Debug, Subcommand)]
#[command(after_help = STORE)]
pub(crate) enum Backup {
    /// Make a backup: one of the nodes of a running cluster does, or, of a node that does not run, from its data directory
    #[command(after_help = "\
Without --data, a node makes it, to the store that its configuration names (backup.to); a follower, if there is one.")]
    Create(Create),
    /// List the backups, and how far each reaches
    Ls(List),
    /// Read every byte of a backup and name what is damaged
    #[command(after_help = "Exit codes: 0 whole, 1 damaged, 2 wrong use.")]
    Verify(Verify),
    /// Remove a backup, and what only that one needed once it is a day old
    Rm(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The data directory of a node that does not run
    #[arg(long, value_name = "DIR", requires = "to")]
    data: Option<PathBuf>,
    /// The store that the backup goes to
    #[arg(long, value_name = "URL", requires = "data")]
    to: Option<String>,
}

/// `client` gives one of the cluster that is named.
pub(crate) async fn run(
    backup: Backup,
    client: impl FnOnce() -> anyhow::Result<(Client, Waiting)>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    match backup {
        Backup::Create(Create { data: Some(data), to: Some(to) }) => make::run(data, &to, output).await?,
        Backup::Create(_) => ask::run(client()?, output).await?,
        Backup::Ls(list) => list::run(list, output).await?,
        Backup::Verify(verify) => return list::verify(verify, output).await,
        Backup::Rm(remove) => list::remove(remove, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}
