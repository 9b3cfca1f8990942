//! `zue log verify`: every byte of the meta file, the segments and the indexes.

use std::path::PathBuf;

use serde::Serialize;
use zue_log::{IndexFault, OsDisk, Overlay};

use super::damage::{Finding, check, closed_by};
use crate::Usage;
use crate::terminal::output::{Out, Output};

/// The findings, for programs.
#[derive(Serialize)]
struct Summary {
    sound: bool,
    log_start: u64,
    log_end: u64,
    epoch: u64,
    commit_end: u64,
    bytes: u64,
    /// Behind the last whole append: a crash has left them, and opening the log cuts them away.
    torn_bytes: u64,
    /// Indexes that are missing, torn or of an older file: they will be rebuilt.
    indexes: Vec<PathBuf>,
    /// The log has acknowledged, or may have, up to here what it does not hold.
    suspect: Option<u64>,
}

/// Returns whether the log is sound.
pub(super) fn run(disk: &OsDisk, output: Output) -> anyhow::Result<bool> {
    let overlay = Overlay::new(disk.clone());
    let mut out = Out::new();
    let (log, recovered) = match zue_log::repair(overlay) {
        Ok(opened) => opened,
        Err(error) => {
            show(&mut out, output, &closed_by(error)?)?;
            out.flush()?;
            return Ok(false);
        }
    };
    let (mut damaged, bytes) = check(&log)?;
    // Behind its end, the log itself does not look.
    let tail = log.tail();
    damaged.extend(recovered.damaged.into_iter().filter(|damage| damage.from >= tail.end && damage.to > damage.from));
    let indexes = zue_log::bad_indexes(&log, disk).map_err(|error| Usage(error.to_string()))?;
    // What a power failure leaves of an index is made again; one that is whole and not true would be believed.
    let (wrong, rebuilt): (Vec<_>, Vec<_>) =
        indexes.into_iter().partition(|index| matches!(index.fault, IndexFault::Wrong { .. }));
    for damage in &damaged {
        show(&mut out, output, &damage.clone().into())?;
    }
    for index in &wrong {
        let (file, what) = (index.path.clone(), format!("{index}; `zue log repair` makes it again"));
        let IndexFault::Wrong { position, .. } = index.fault else { continue };
        show(&mut out, output, &Finding { file, position: Some(position), from: None, to: None, what })?;
    }
    let forgotten = recovered.may_have_forgotten;
    let suspect = recovered.suspect.filter(|_| !forgotten).map(|suspect| suspect.end.0);
    let sound = damaged.is_empty() && wrong.is_empty() && suspect.is_none();
    let (log_start, log_end, epoch) = (log.log_start().0, tail.end.0, tail.epoch.0);
    let (commit_end, torn_bytes) = (log.meta().commit_end.0, recovered.cut_bytes);
    let indexes = rebuilt.iter().map(|index| index.path.clone()).collect();
    let summary = Summary { sound, log_start, log_end, epoch, commit_end, bytes, torn_bytes, indexes, suspect };
    match output {
        Output::Json => out.json(&summary)?,
        Output::Table => {
            let lines = rebuilt.iter().map(|index| format!("{index}; it holds nothing of its own and will be rebuilt"));
            lines.chain(summary.lines(forgotten)).try_for_each(|line| out.line(line.as_bytes()))?;
        }
    }
    out.flush()?;
    Ok(sound)
}

impl Summary {
    fn lines(&self, forgotten: bool) -> Vec<String> {
        let Self { sound, log_start, log_end, epoch, bytes, torn_bytes, suspect, .. } = self;
        let mut lines = Vec::new();
        if *torn_bytes > 0 && suspect.is_none() {
            lines.push(format!("{torn_bytes} bytes of a torn tail are behind the log: opening it cuts them away"));
        }
        if let Some(suspect) = suspect {
            lines.push(format!("up to {suspect}, records may have been acknowledged that only other replicas have"));
        }
        if forgotten {
            lines.push(
                "the machine stopped while acknowledgements did not wait for the disk: some may be forgotten".into(),
            );
        }
        let state = if *sound { "sound" } else { "damaged" };
        lines.push(format!("{state}: records {log_start} to {log_end}, epoch {epoch}, {bytes} bytes checked"));
        lines
    }
}

fn show(out: &mut Out, output: Output, finding: &Finding) -> anyhow::Result<()> {
    match output {
        Output::Json => out.json(finding),
        Output::Table => out.line(finding.what.as_bytes()),
    }
}
