//! `zue restore`: from a store to a directory that a node opens.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use zue_backup::{RestoreOptions, choose, is_unfinished};
use zue_core::ReplicaId;
use zue_log::{OsDisk, holds_log};

use super::{Restore, show, time};
use crate::args::Output;

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
