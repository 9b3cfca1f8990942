//! `zue backup` and `zue restore`: what can be typed, and which store and backup is meant by it.

mod ask;
mod list;
mod make;
mod restore;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use zue_backup::{BackupError, BackupId, Store};
use zue_client::Client;
use zue_core::{ClusterId, Offset};
use zue_log::Until;

use crate::Usage;
use crate::args::Output;
use crate::output::Out;
use crate::times;
use crate::waiting::Waiting;

pub(crate) use restore::run as restore;

const STORE: &str = "\
URL is s3://BUCKET/PREFIX or file:///DIRECTORY. A bucket is reached by the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION, AWS_ENDPOINT_URL of a store that is not Amazon's, AWS_ALLOW_HTTP=true for one without TLS, AWS_CA_BUNDLE for one whose
certificate is of an authority of its own; or by the identity that the pod or machine has.";
pub(crate) const RESTORE_HELP: &str = "\
The log is of a new replica and of no cluster: the first node that is started on it begins a new cluster, with what was restored. The
old cluster is not touched. Without --backup the first one is taken that reaches --until, or the newest.

URL is s3://BUCKET/PREFIX or file:///DIRECTORY; `zue backup --help` has how a bucket is reached.";
const DAMAGED: u8 = 1;

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
    /// Where to
    #[arg(long, value_name = "URL", requires = "data")]
    to: Option<String>,
}

/// Which store, and which cluster's backups in it.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// The store
    #[arg(long, value_name = "URL")]
    from: String,
    /// Whose backups, if there are several clusters'
    #[arg(long, value_name = "ID", value_parser = cluster)]
    cluster: Option<ClusterId>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    of: Of,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    of: Of,
    /// Which, by the beginning of its name [default: the newest]
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Which, by the beginning of its name
    #[arg(value_name = "ID")]
    backup: String,
    #[command(flatten)]
    of: Of,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The directory to be made; empty, if it is there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    of: Of,
    /// Which, by the beginning of its name
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// How far: an offset, up to before that record; or a moment such as 2026-11-28T12:00:00+02:00, up to and with its millisecond
    #[arg(long, value_name = "OFFSET|MOMENT", value_parser = until)]
    until: Option<Until>,
    /// Restore only if this file exists and the directory has no log yet; otherwise do nothing, and succeed
    #[arg(long, value_name = "FILE")]
    once: Option<PathBuf>,
}

/// A number is an offset.
fn until(text: &str) -> Result<Until, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(|offset| Until::Offset(Offset(offset))).map_err(|error| error.to_string());
    }
    times::moment(text).map(Until::Time).map_err(|error| format!("{error}; or an offset such as 1200"))
}

fn cluster(text: &str) -> Result<ClusterId, String> {
    let id = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    id.map(ClusterId).ok_or_else(|| "a cluster is 32 hexadecimal digits, as `zue backup ls` names it".to_owned())
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
        Backup::Ls(List { of }) => list::run(of, output).await?,
        Backup::Verify(verify) => return list::verify(verify, output).await,
        Backup::Rm(remove) => list::remove(remove, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The time of day, ms since the Unix epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn open(url: &str) -> anyhow::Result<Store> {
    Store::open(url).map_err(|error| match error {
        BackupError::Url { .. } => Usage(error.to_string()).into(),
        error => error.into(),
    })
}

impl Of {
    /// The store, and the clusters in it that are meant.
    async fn open(&self) -> anyhow::Result<(Store, Vec<ClusterId>)> {
        let store = open(&self.from)?;
        let clusters = match self.cluster {
            Some(cluster) => vec![cluster],
            None => store.clusters().await?,
        };
        Ok((store, clusters))
    }

    /// The store, and the one cluster in it that is meant.
    async fn one(&self) -> anyhow::Result<(Store, ClusterId)> {
        let (store, clusters) = self.open().await?;
        match clusters.as_slice() {
            [cluster] => Ok((store, *cluster)),
            [] => Err(Usage(format!("there is no backup in {}", self.from)).into()),
            _ => Err(BackupError::SeveralClusters { url: self.from.clone(), clusters }.into()),
        }
    }

    /// The backup whose name begins so.
    async fn named(&self, store: &Store, cluster: ClusterId, start: &str) -> anyhow::Result<BackupId> {
        let mut ids = store.backups(cluster).await?;
        ids.retain(|id| id.to_string().starts_with(start));
        match ids.as_slice() {
            [id] => Ok(id.clone()),
            [] => Err(BackupError::NoSuchBackup { id: start.to_owned(), url: self.from.clone() }.into()),
            ids => Err(BackupError::Several { id: start.to_owned(), count: ids.len() }.into()),
        }
    }
}

/// Prints a report: as an object, or as lines for people.
fn show(output: Output, json: &serde_json::Value, lines: &[String]) -> anyhow::Result<()> {
    let mut out = Out::new();
    match output {
        Output::Json => out.json(json)?,
        Output::Table => lines.iter().try_for_each(|line| out.line(line.as_bytes()))?,
    }
    out.flush()
}

/// A moment as a person reads it.
fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_string())
}
