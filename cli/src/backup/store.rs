//! The store, cluster and backup that are meant; how a report about it is printed.

use std::time::{Duration, SystemTime};

use clap::Args;
use zue_backup::{BackupError, BackupId, Store};
use zue_core::ClusterId;

use crate::Usage;
use crate::terminal::output::{Out, Output};

/// A store, and the cluster whose backups are meant.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// The store
    #[arg(long, value_name = "URL")]
    pub(super) from: String,
    /// The cluster, if the store holds backups of several
    #[arg(long, value_name = "ID", value_parser = cluster)]
    cluster: Option<ClusterId>,
}

fn cluster(text: &str) -> Result<ClusterId, String> {
    let id = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    id.map(ClusterId).ok_or_else(|| "a cluster is 32 hexadecimal digits, as `zue backup ls` names it".to_owned())
}

/// The time of day, ms since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn open(url: &str) -> anyhow::Result<Store> {
    Store::open(url).map_err(|error| match error {
        BackupError::Url { .. } => Usage(error.to_string()).into(),
        error => error.into(),
    })
}

impl Of {
    /// The store, and the clusters in it that are meant.
    pub(super) async fn open(&self) -> anyhow::Result<(Store, Vec<ClusterId>)> {
        let store = open(&self.from)?;
        let clusters = match self.cluster {
            Some(cluster) => vec![cluster],
            None => store.clusters().await?,
        };
        Ok((store, clusters))
    }

    /// The store, and the one cluster in it that is meant.
    pub(super) async fn one(&self) -> anyhow::Result<(Store, ClusterId)> {
        let (store, clusters) = self.open().await?;
        match clusters.as_slice() {
            [cluster] => Ok((store, *cluster)),
            [] => Err(Usage(format!("there is no backup in {}", self.from)).into()),
            _ => Err(BackupError::SeveralClusters { url: self.from.clone(), clusters }.into()),
        }
    }

    /// The backup whose name begins so.
    pub(super) async fn named(&self, store: &Store, cluster: ClusterId, start: &str) -> anyhow::Result<BackupId> {
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
pub(super) fn show(output: Output, json: &serde_json::Value, lines: &[String]) -> anyhow::Result<()> {
    let mut out = Out::new();
    match output {
        Output::Json => out.json(json)?,
        Output::Table => lines.iter().try_for_each(|line| out.line(line.as_bytes()))?,
    }
    out.flush()
}

/// A moment as a person reads it.
pub(super) fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_string())
}
