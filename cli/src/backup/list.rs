//! `zue backup ls`, `verify` and `rm`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use zue_backup::{BackupId, Keep, Kind, Manifest};
use zue_core::ClusterId;

use super::store::{Of, now_ms, show, time};
use crate::Usage;
use crate::terminal::output::{Out, Output, table};

const DAMAGED: u8 = 1;

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

pub(super) async fn run(List { of }: List, output: Output) -> anyhow::Result<()> {
    let (store, clusters) = of.open().await?;
    let (mut out, now) = (Out::new(), now_ms());
    let columns = ["BACKUP", "CLUSTER", "RECORDS", "LAST RECORD", "AGE", "BYTES", "KIND", "AFTER"];
    let mut rows = vec![columns.map(str::to_owned).to_vec()];
    for cluster in clusters {
        let (backups, bad) = store.manifests(cluster).await?;
        for error in bad {
            zue_telemetry::say(format!("zue: {:#}", anyhow::Error::from(error)));
        }
        for (id, manifest) in &backups {
            match output {
                Output::Json => out.json(&json_of(cluster, id, manifest, now))?,
                Output::Table => rows.push(row(cluster, id, manifest, now)),
            }
        }
    }
    if output == Output::Table {
        table(&rows).iter().try_for_each(|line| out.line(line.as_bytes()))?;
    }
    out.flush()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Continuous => "continuous",
        Kind::OnDemand => "on-demand",
    }
}

fn row(cluster: ClusterId, id: &BackupId, manifest: &Manifest, now: u64) -> Vec<String> {
    let age = Duration::from_secs(now.saturating_sub(manifest.made_ms) / 1_000);
    vec![
        id.to_string(),
        cluster.to_string(),
        format!("{}..{}", manifest.log_start, manifest.end),
        if manifest.last_ms == 0 { "-".to_owned() } else { time(manifest.last_ms) },
        humantime::format_duration(age).to_string(),
        manifest.bytes().to_string(),
        kind(manifest.kind).to_owned(),
        manifest.after.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn json_of(cluster: ClusterId, id: &BackupId, manifest: &Manifest, now: u64) -> serde_json::Value {
    json!({
        "id": id.to_string(), "cluster": cluster.to_string(), "replica": manifest.replica, "log_start": manifest.log_start,
        "end": manifest.end, "last_ms": manifest.last_ms, "made_ms": manifest.made_ms,
        "age_ms": now.saturating_sub(manifest.made_ms), "bytes": manifest.bytes(), "kind": kind(manifest.kind),
        "after": manifest.after, "segments": manifest.segments.len(), "objects": manifest.objects().count(),
    })
}

pub(super) async fn verify(verify: Verify, output: Output) -> anyhow::Result<ExitCode> {
    let Verify { of, backup } = verify;
    let (store, cluster) = of.one().await?;
    let id = if let Some(start) = backup {
        of.named(&store, cluster, &start).await?
    } else {
        let newest = store.backups(cluster).await?.pop();
        newest.ok_or_else(|| Usage(format!("there is no backup of cluster {cluster} in {}", of.from)))?
    };
    let verified = zue_backup::verify(&store, cluster, &id).await?;
    let is_whole = verified.bad.is_empty();
    let bad: Vec<_> =
        verified.bad.iter().map(|bad| json!({"object": bad.object, "what": bad.fault.to_string()})).collect();
    let json = json!({"id": id.to_string(), "whole": is_whole, "bytes": verified.bytes, "bad": bad});
    let mut lines: Vec<String> = verified.bad.iter().map(|bad| format!("{}: {}", bad.object, bad.fault)).collect();
    lines.push(format!("{}: {id}, {} bytes", if is_whole { "whole" } else { "damaged" }, verified.bytes));
    show(output, &json, &lines)?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) })
}

pub(super) async fn remove(remove: Remove, output: Output) -> anyhow::Result<()> {
    let Remove { backup, of } = remove;
    let (store, cluster) = of.one().await?;
    let id = of.named(&store, cluster, &backup).await?;
    store.remove(&[id.object(cluster)]).await?;
    let (_, objects) = store.tidy(cluster, Keep::default(), now_ms()).await?;
    let json = json!({"id": id.to_string(), "objects_removed": objects});
    show(output, &json, &[format!("{id} is removed, and {objects} objects that no backup needs")])
}
