//! `zue restore`: from a store to a directory that a node opens.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use zue_backup::{RestoreOptions, choose, is_unfinished};
use zue_core::{Offset, ReplicaId};
use zue_log::{OsDisk, Until, holds_log};

use super::store::{Of, show, time};
use crate::terminal::output::Output;
use crate::terminal::times;

pub(crate) const RESTORE_HELP: &str = "\
The log is of a new replica and of no cluster: the first node that is started on it begins a new cluster, with what was restored. The
old cluster is not touched. Without --backup the first one is taken that reaches --until, or the newest.

URL is s3://BUCKET/PREFIX or file:///DIRECTORY; `zue backup --help` has how a bucket is reached.";

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
    /// Point up to which to restore: an offset, up to before that record; or a moment such as 2026-11-28T12:00:00+02:00, up to and with its
    /// millisecond
    #[arg(long, value_name = "OFFSET|MOMENT", value_parser = until)]
    until: Option<Until>,
    /// Restore only if this file exists and the directory has no log yet; otherwise do nothing, and succeed
    #[arg(long, value_name = "FILE")]
    once: Option<PathBuf>,
}

pub(crate) async fn run(restore: Restore, output: Output) -> anyhow::Result<()> {
    let Restore { dir, of, backup, until, once } = restore;
    if let Some(order) = once
        && let Some(why) = not_now(&order, &dir)?
    {
        return show(output, &json!({ "skipped": why }), &[format!("nothing restored: {why}")]);
    }
    let (store, cluster) = of.one().await?;
    let id = if let Some(start) = backup {
        of.named(&store, cluster, &start).await?
    } else {
        let (backups, bad) = store.manifests(cluster).await?;
        for error in bad {
            zue_telemetry::say(format!("zue: left out: {:#}", anyhow::Error::from(error)));
        }
        choose(&backups, until)?.clone()
    };
    // Never 0, which stands for none.
    let replica = ReplicaId(rand::random::<u128>().max(1));
    let options = RestoreOptions { replica, until };
    let restored = zue_backup::restore(&store, (cluster, &id), &dir, options).await?;
    let (start, end, bytes) = (restored.log_start.0, restored.tail.end.0, restored.bytes);
    let json = json!({
        "id": id.to_string(), "replica": replica.to_string(), "log_start": start, "end": end, "epoch": restored.tail.epoch.0,
        "last_ms": restored.last_ms, "bytes": bytes, "compacted": restored.compacted.map(|compacted| compacted.0),
    });
    let last = if restored.last_ms == 0 { String::new() } else { format!(", the last of {}", time(restored.last_ms)) };
    let mut lines =
        vec![format!("{}: records {start} to {end}{last}, of backup {id}; {bytes} bytes downloaded", dir.display())];
    if let Some(compacted) = restored.compacted {
        lines.push(format!(
            "the backup was compacted up to {compacted}: of keys that were written again behind {end}, earlier records may be missing"
        ));
    }
    show(output, &json, &lines)
}

/// The reason for which an order to restore once is not obeyed, if there is one.
fn not_now(order: &Path, dir: &Path) -> anyhow::Result<Option<String>> {
    if !order.try_exists().with_context(|| format!("cannot look for {}", order.display()))? {
        return Ok(Some(format!("there is no {}", order.display())));
    }
    let has_log = dir.try_exists()? && !is_unfinished(dir) && holds_log(&OsDisk::new(dir)?)?;
    Ok(has_log.then(|| format!("{} has a log", dir.display())))
}

/// A number is an offset.
fn until(text: &str) -> Result<Until, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(|offset| Until::Offset(Offset(offset))).map_err(|error| error.to_string());
    }
    times::moment(text).map(Until::Time).map_err(|error| format!("{error}; or an offset such as 1200"))
}
