//! `zue log detach`: a log leaves its cluster, a majority of which is gone for good. Without the cluster's id it only says what that would
//! mean.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use zue_core::{ClusterId, ReplicaId};
use zue_log::{Disk, Log, Meta, OsDisk, Overlay};

use super::damage::{closed_by, directory};
use crate::Usage;
use crate::terminal::output::{Out, Output};

/// The arguments of the command.
#[derive(Debug, Args)]
pub(crate) struct LogDetach {
    /// The node's data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The cluster that it leaves; without it, the log only says which that is, and how far it reaches
    #[arg(long, value_name = "ID", value_parser = id)]
    cluster: Option<u128>,
    /// The replica that it is of
    #[arg(long, value_name = "ID", value_parser = id)]
    replica: Option<u128>,
    /// Do nothing, and succeed, where the log is of another cluster or replica, or there is none
    #[arg(long, requires = "cluster")]
    once: bool,
}

/// The 32 digits of an id.
fn id(text: &str) -> Result<u128, String> {
    let id = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    id.filter(|id| *id != 0)
        .ok_or_else(|| "an id has 32 hexadecimal digits, as in 0123456789abcdef0123456789abcdef".to_owned())
}

/// The outcome for the log, real or supposed.
#[derive(Serialize)]
struct Report {
    done: bool,
    cluster: Option<String>,
    replica: String,
    /// The records before this one are there.
    end: u64,
    epoch: u64,
    /// The records before this one are known to be committed.
    commit_end: u64,
}

impl Report {
    fn of<D: Disk>(log: &Log<D>) -> Self {
        let (meta, tail) = (log.meta(), log.tail());
        Self {
            done: false,
            cluster: meta.cluster.map(|cluster| cluster.to_string()),
            replica: meta.replica.to_string(),
            end: tail.end.0,
            epoch: tail.epoch.0,
            commit_end: meta.commit_end.0,
        }
    }
}

/// Runs the command; returns whether it was done, or had not to be.
pub(super) fn run(detach: &LogDetach, output: Output) -> anyhow::Result<bool> {
    let dir = &detach.dir;
    if detach.once && !holds_log(dir)? {
        return say(output, None, &[format!("{} holds no log: there is nothing to detach", dir.display())]);
    }
    let read_only = directory(dir)?;
    let Some(cluster) = detach.cluster.map(ClusterId) else {
        // Nothing is changed, not even repaired.
        let Some(log) = open(Overlay::new(read_only), output)? else { return Ok(false) };
        let report = Report::of(&log);
        return say(output, Some(&report), &meaning(&report));
    };
    let disk = OsDisk::new(dir).map_err(|error| Usage(format!("cannot open {}: {error}", dir.display())))?;
    let Some(log) = open(disk, output)? else { return Ok(false) };
    let (meta, mut report) = (*log.meta(), Report::of(&log));
    if let Some(why) = refusal(&meta, cluster, detach.replica.map(ReplicaId)) {
        log.close()?;
        say(output, Some(&report), &[format!("nothing detached: {why}")])?;
        return Ok(detach.once);
    }
    if let Some(damage) = log.damaged().first() {
        let line = format!("nothing detached: {damage}. A new cluster begins with a whole log only: restore a backup");
        say(output, Some(&report), &[line])?;
        log.close()?;
        return Ok(false);
    }
    begin_anew(dir, log).with_context(|| format!("cannot detach the log in {}", dir.display()))?;
    report.done = true;
    let line = format!(
        "{}: the log, which ends at {}, is of no cluster any more. The node that is started on it begins a new one",
        dir.display(),
        report.end
    );
    say(output, Some(&report), &[line])
}

/// The log, unless it is damaged so that it does not open: then that is said.
fn open<D: Disk>(disk: D, output: Output) -> anyhow::Result<Option<Log<D>>> {
    match zue_log::repair(disk) {
        Ok((log, _)) => Ok(Some(log)),
        Err(error) => {
            let finding = closed_by(error)?;
            say(output, None, &[format!("the log cannot be detached: {}", finding.what)])?;
            Ok(None)
        }
    }
}

fn holds_log(dir: &Path) -> anyhow::Result<bool> {
    let cannot = |error: io::Error| Usage(format!("cannot read {}: {error}", dir.display()));
    if !dir.try_exists().map_err(cannot)? {
        return Ok(false);
    }
    Ok(zue_log::holds_log(&OsDisk::read_only(dir).map_err(cannot)?).map_err(cannot)?)
}

/// Why the log stays as it is, if it does.
fn refusal(meta: &Meta, cluster: ClusterId, replica: Option<ReplicaId>) -> Option<String> {
    match meta.cluster {
        None => Some("the log is of no cluster".to_owned()),
        Some(other) if other != cluster => Some(format!("the log is of cluster {other}, not of {cluster}")),
        Some(_) => replica
            .filter(|replica| *replica != meta.replica)
            .map(|replica| format!("the log is of replica {}, not of {replica}", meta.replica)),
    }
}

fn meaning(report: &Report) -> Vec<String> {
    let Some(cluster) = &report.cluster else { return vec!["the log is of no cluster".to_owned()] };
    vec![
        format!("the log is of cluster {cluster}, replica {}", report.replica),
        format!(
            "it holds the records before {}, of which those before {} are known to be committed",
            report.end, report.commit_end
        ),
        format!("whatever else the cluster acknowledged, from {} on, would be lost", report.end),
        format!("the other replicas must never run again. To go on: zue log detach --cluster {cluster} DIR"),
    ]
}

/// Detaches the log. The terms of standing by are deleted first: they name replicas of the old cluster.
fn begin_anew(dir: &Path, log: Log<OsDisk>) -> anyhow::Result<()> {
    match fs::remove_file(dir.join(zue_node::STANDBY_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => File::open(dir)?.sync_all()?,
    }
    log.detach(ReplicaId(rand::random::<u128>().max(1)))?;
    Ok(())
}

fn say(output: Output, report: Option<&Report>, lines: &[String]) -> anyhow::Result<bool> {
    let mut out = Out::new();
    match (output, report) {
        (Output::Json, Some(report)) => out.json(report)?,
        _ => lines.iter().try_for_each(|line| out.line(line.as_bytes()))?,
    }
    out.flush()?;
    Ok(true)
}
