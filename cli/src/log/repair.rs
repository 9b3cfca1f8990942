//! `zue log repair`: what a node does when it opens its log, or only a list of it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use zue_log::{Changes, Damage, Disk, OpenError, OsDisk, Overlay, Recovered};

use super::damage::{Finding, check, closed_by};
use crate::Usage;
use crate::terminal::output::{Out, Output};

/// The work that was done, or would be.
#[derive(Serialize)]
struct Report {
    /// True if it was done.
    done: bool,
    /// Bytes behind the last whole append, which are cut away.
    cut_bytes: u64,
    /// Segments in which the log goes on.
    segments: Vec<String>,
    /// Indexes that are made again.
    indexes: Vec<String>,
    /// Files that are kept because their bytes may be needed.
    kept: Vec<String>,
    /// Left-overs that are removed.
    removed: Vec<String>,
    /// The log may have acknowledged up to here what it does not hold.
    suspect: Option<u64>,
    /// Damage that only another replica can repair.
    damaged: Vec<Finding>,
}

/// Returns whether the log is sound now, or would be.
pub(super) fn run(dir: &Path, disk: &OsDisk, dry_run: bool, output: Output) -> anyhow::Result<bool> {
    let overlay = Overlay::new(disk.clone());
    let opened = open_and_close(overlay.clone()).and_then(|(recovered, damaged)| {
        let changes = overlay.changes().map_err(|error| Usage(format!("cannot read {}: {error}", dir.display())))?;
        Ok((recovered, damaged, changes))
    });
    let (recovered, damaged, changes) = match opened {
        Ok(opened) => opened,
        Err(error) => return refuse(error, output),
    };
    if !dry_run {
        let disk = OsDisk::new(dir).map_err(|error| Usage(format!("cannot open {}: {error}", dir.display())))?;
        open_and_close(disk)?;
    }
    let report = report(!dry_run, &recovered, damaged, &changes);
    let is_sound = report.damaged.is_empty() && report.suspect.is_none();
    let mut out = Out::new();
    match output {
        Output::Json => out.json(&report)?,
        Output::Table => report.lines().iter().try_for_each(|line| out.line(line.as_bytes()))?,
    }
    out.flush()?;
    Ok(is_sound)
}

/// Opens the log, which repairs it, checks it, and closes it.
fn open_and_close<D: Disk>(disk: D) -> anyhow::Result<(Recovered, Vec<Damage>)> {
    let (log, recovered) = zue_log::repair(disk)?;
    let (mut damaged, _) = check(&log)?;
    let end = log.tail().end;
    damaged.extend(recovered.damaged.iter().filter(|damage| damage.from >= end && damage.to > damage.from).cloned());
    log.close()?;
    Ok((recovered, damaged))
}

/// Says what keeps the log from being opened: nothing is repaired then.
fn refuse(error: anyhow::Error, output: Output) -> anyhow::Result<bool> {
    let finding = closed_by(error.downcast::<OpenError>()?)?;
    let mut out = Out::new();
    match output {
        Output::Json => out.json(&finding)?,
        Output::Table => out.line(format!("nothing can be repaired: {}", finding.what).as_bytes())?,
    }
    out.flush()?;
    Ok(false)
}

fn report(done: bool, recovered: &Recovered, damaged: Vec<Damage>, changes: &Changes) -> Report {
    let Changes { made, changed, removed } = changes;
    let ends = |name: &str, extension| PathBuf::from(name).extension().is_some_and(|found| found == extension);
    let written = |extension| -> Vec<String> {
        made.iter().chain(changed).filter(|name| ends(name, extension)).cloned().collect()
    };
    let forgotten = recovered.may_have_forgotten;
    Report {
        done,
        cut_bytes: recovered.cut_bytes,
        segments: written("log"),
        indexes: written("index"),
        kept: written("kept"),
        removed: removed.iter().cloned().collect(),
        suspect: recovered.suspect.filter(|_| !forgotten).map(|suspect| suspect.end.0),
        damaged: damaged.into_iter().map(Finding::from).collect(),
    }
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let Self { done, cut_bytes, segments, indexes, kept, removed, suspect, damaged } = self;
        let verb = |done_text: &str, would: &str| if *done { done_text.to_owned() } else { format!("would {would}") };
        let mut lines = Vec::new();
        if *cut_bytes > 0 {
            lines.push(format!("{} {cut_bytes} bytes behind the last whole append", verb("cut", "cut")));
        }
        let each =
            |names: &[String], text: String| names.iter().map(move |name| format!("{text} {name}")).collect::<Vec<_>>();
        lines.extend(each(segments, verb("went on in a new", "go on in a new")));
        lines.extend(each(indexes, verb("made again", "make again")));
        lines.extend(each(kept, verb("kept, as its bytes may be needed,", "keep, as its bytes may be needed,")));
        lines.extend(each(removed, verb("removed", "remove")));
        if lines.is_empty() {
            lines.push("there is nothing to repair here".to_owned());
        }
        lines.extend(damaged.iter().map(|damage| format!("{}: only another replica has them", damage.what)));
        if let Some(suspect) = suspect {
            lines.push(format!("up to {suspect}, records may have been acknowledged that only other replicas have"));
        }
        lines
    }
}
