//! `zue restore`: from a store to a directory that a node opens.

use serde_json::json;
use zue_backup::{RestoreOptions, choose};
use zue_core::ReplicaId;

use super::{Restore, show, time};
use crate::args::Output;

pub(crate) async fn run(restore: Restore, output: Output) -> anyhow::Result<()> {
    let Restore { dir, of, backup, until } = restore;
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
