//! `zue log dump`: what a log's files hold, frame by frame.

use std::ops::ControlFlow;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zue_core::{EpochStart, Offset};
use zue_log::{Disk as _, DumpItem, Dumped, Meta, OpenError, OsDisk, RecordView};

use super::damage::closed_by;
use crate::Usage;
use crate::terminal::output::{Out, Output, text_of};

/// Returns whether everything that was printed is sound.
pub(super) fn run(disk: &OsDisk, from: u64, max: Option<u64>, output: Output) -> anyhow::Result<bool> {
    let _lock = match disk.lock() {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            closed_by(OpenError::locked(disk, &error))?;
            return Ok(false);
        }
        lock => lock.map_err(|error| Usage(format!("cannot lock {}: {error}", disk.path("").display())))?,
    };
    let (mut out, mut left, mut is_sound, mut shown) = (Out::new(), max.unwrap_or(u64::MAX), true, Ok(()));
    let dumped = zue_log::dump(disk, Offset(from), |dumped| {
        if let DumpItem::Record(_) = dumped.item {
            let Some(less) = left.checked_sub(1) else { return ControlFlow::Break(()) };
            left = less;
        }
        is_sound &= !matches!(dumped.item, DumpItem::Bad(_) | DumpItem::BadMeta(_));
        shown = match output {
            Output::Json => out.json(&json_of(dumped)),
            Output::Table => out.line(line_of(dumped).as_bytes()),
        };
        if shown.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    shown?;
    out.flush()?;
    if let Err(error) = dumped {
        zue_telemetry::say(format!("zue: {}", closed_by(error)?.what));
        return Ok(false);
    }
    Ok(is_sound)
}

/// File, position, kind, and what is in it.
fn line_of(dumped: &Dumped<'_>) -> String {
    let Dumped { path, position, item, .. } = dumped;
    let what = match item {
        DumpItem::Meta(meta) => meta_line(meta),
        DumpItem::BadMeta(fault) => format!("bad: {fault}"),
        DumpItem::Segment { sequence, generation, base, prev } => {
            let prev = prev.map_or_else(|| "nothing".to_owned(), |prev| prev.to_string());
            format!("segment\tsequence {sequence}, generation {generation}, base {base}, after {prev}")
        }
        DumpItem::Snapshot { timestamp_ms, starts, producers_bytes } => {
            format!("snapshot\t{} epoch starts, {producers_bytes} bytes of producers, {timestamp_ms} ms", starts.len())
        }
        DumpItem::Record(record) => record_line(record),
        DumpItem::Compacted(epoch, from, end) => format!("gap\t{from} to {end}, epoch {epoch}"),
        DumpItem::EpochStart(start) => {
            let EpochStart { epoch, start, leader, voters, quorum, old_voters } = start;
            let old = old_voters.as_ref().map_or_else(String::new, |old| format!(", old voters {old:?}"));
            format!("epoch-start\tepoch {epoch} at {start}, leader {leader}, quorum {quorum} of {voters:?}{old}")
        }
        DumpItem::SyncMark { position, tail } => format!("sync-mark\tbyte {position}, {tail}"),
        DumpItem::Bad(fault) => format!("bad\t{} bytes: {fault}", dumped.bytes),
    };
    format!("{}\t{position}\t{what}", name(path))
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn meta_line(meta: &Meta) -> String {
    let Meta { replica, cluster, starts, promise, commit_end, log_start, suspect, .. } = meta;
    let cluster = cluster.map_or_else(|| "none".to_owned(), |cluster| cluster.to_string());
    let leader = promise.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
    let suspect = suspect.map_or_else(String::new, |suspect| format!(", suspect {suspect}"));
    format!(
        "meta\treplica {replica}, cluster {cluster}, opened {} times, promised epoch {} to {leader}, log start {log_start}, \
         committed {commit_end}{suspect}",
        starts.count, promise.epoch
    )
}

fn record_line(record: &RecordView<'_>) -> String {
    let RecordView { offset, epoch, timestamp_ms, more, producer, key, value, .. } = *record;
    let key = key.map_or_else(|| "-".to_owned(), text_of);
    let header = |(name, value): (&str, &[u8])| format!("\t{}={}", text_of(name.as_bytes()), text_of(value));
    let headers: String = record.headers().map(header).collect();
    let producer =
        producer.map_or_else(String::new, |producer| format!(", producer {:032x} {}", producer.id, producer.sequence));
    let more = if more { ", append goes on" } else { "" };
    format!("record\t{offset}, epoch {epoch}, {timestamp_ms} ms{producer}{more}\t{key}\t{}{headers}", text_of(value))
}

fn json_of(dumped: &Dumped<'_>) -> Value {
    let Dumped { path, position, bytes, item } = dumped;
    let mut object = match item {
        DumpItem::Meta(meta) => json!({
            "kind": "meta", "replica": meta.replica.to_string(), "starts": meta.starts.count,
            "cluster": meta.cluster.map(|cluster| cluster.to_string()),
            "promised_epoch": meta.promise.epoch.0, "commit_end": meta.commit_end.0,
            "log_start": meta.log_start.0,
            "promised_leader": meta.promise.leader.map(|leader| leader.to_string()),
            "suspect_end": meta.suspect.map(|suspect| suspect.end.0),
        }),
        DumpItem::BadMeta(fault) => json!({"kind": "bad", "what": fault.to_string()}),
        DumpItem::Segment { sequence, generation, base, prev } => json!({
            "kind": "segment", "sequence": sequence, "generation": generation, "base": base.0,
            "prev": prev.map(|prev| prev.0),
        }),
        DumpItem::Snapshot { timestamp_ms, starts, producers_bytes } => json!({
            "kind": "snapshot", "timestamp_ms": timestamp_ms, "producers_bytes": producers_bytes,
            "epoch_starts": starts.iter().map(start_json).collect::<Vec<_>>(),
        }),
        DumpItem::Record(record) => record_json(record),
        DumpItem::Compacted(epoch, from, end) => {
            json!({"kind": "gap", "from": from.0, "to": end.0, "epoch": epoch.0})
        }
        DumpItem::EpochStart(start) => start_json(start),
        DumpItem::SyncMark { position, tail } => {
            json!({"kind": "sync-mark", "synced": position, "epoch": tail.epoch.0, "end": tail.end.0})
        }
        DumpItem::Bad(fault) => json!({"kind": "bad", "what": fault.to_string()}),
    };
    if let Some(object) = object.as_object_mut() {
        object.insert("file".to_owned(), name(path).into());
        object.insert("position".to_owned(), (*position).into());
        object.insert("bytes".to_owned(), (*bytes).into());
    }
    object
}

fn start_json(start: &EpochStart) -> Value {
    let ids = |ids: &[zue_core::ReplicaId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "kind": "epoch-start", "epoch": start.epoch.0, "start": start.start.0, "leader": start.leader.to_string(),
        "quorum": start.quorum, "voters": ids(&start.voters), "old_voters": start.old_voters.as_deref().map(ids),
    })
}

fn record_json(record: &RecordView<'_>) -> Value {
    let headers: Vec<Value> =
        record.headers().map(|(name, value)| json!({"name": name, "value": STANDARD.encode(value)})).collect();
    json!({
        "kind": "record", "offset": record.offset.0, "epoch": record.epoch.0, "timestamp_ms": record.timestamp_ms,
        "more": record.more, "key": record.key.map(|key| STANDARD.encode(key)), "value": STANDARD.encode(record.value),
        "headers": headers, "producer": record.producer.map(|producer| format!("{:032x}", producer.id)),
        "sequence": record.producer.map(|producer| producer.sequence),
    })
}
