//! `zue backup create`: of the log in a directory whose node does not run. The directory is only looked at.

use std::path::PathBuf;

use serde_json::json;
use zue_backup::{Kind, Pace, Source, make};
use zue_log::{Disk as _, Overlay};

use super::store::{now_ms, open, show};
use crate::Usage;
use crate::log::damage::{closed_by, directory};
use crate::terminal::output::Output;

pub(super) async fn run(data: PathBuf, to: &str, output: Output) -> anyhow::Result<()> {
    let store = open(to)?;
    let disk = directory(&data)?;
    // Held meanwhile, by who may only read: a node cannot start, and others can look.
    let lock = disk.lock();
    if let Err(error) = &lock
        && error.kind() == std::io::ErrorKind::WouldBlock
    {
        closed_by(zue_log::OpenError::locked(&disk, error))?;
    }
    let lock = lock.map_err(|error| Usage(format!("cannot lock {}: {error}", data.display())))?;
    let (log, _) = match zue_log::repair(Overlay::new(disk.clone())) {
        Ok(opened) => opened,
        Err(error) => return Err(Usage(closed_by(error)?.what).into()),
    };
    let meta = *log.meta();
    let Some(cluster) = meta.cluster else {
        let what = format!("the log in {} is of no cluster yet: there is nothing to back up", data.display());
        return Err(Usage(what).into());
    };
    let (replica, commit_end) = (meta.replica, meta.commit_end.min(log.durable().end));
    let source = Source { reader: log.reader(), cluster, replica, commit_end, compacted: meta.compacted() };
    let after = store.backups(cluster).await?.pop();
    let made = make(&store, &source, (Kind::OnDemand, after, now_ms()), &mut Pace::new(None)).await?;
    drop(lock);
    let (start, end, uploaded) = (made.manifest.log_start, made.manifest.end, made.uploaded);
    let json = json!({
        "id": made.id.to_string(), "cluster": cluster.to_string(), "log_start": start, "end": end,
        "bytes": made.manifest.bytes(), "uploaded": uploaded,
    });
    let tail = log.tail().end;
    let mut lines = vec![format!("{}: records {start} to {end}, {uploaded} bytes uploaded", made.id)];
    if tail.0 > end {
        lines.push(format!(
            "the last {} records of the log are not in it: they are not known to be committed here",
            tail.0 - end
        ));
    }
    show(output, &json, &lines)
}
