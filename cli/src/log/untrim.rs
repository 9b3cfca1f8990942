//! `zue log untrim`: lets the log begin again with the oldest record whose segment is still there.

use std::path::Path;

use serde::Serialize;
use zue_log::OsDisk;

use super::damage::closed_by;
use crate::Usage;
use crate::terminal::output::{Out, Output};

/// The start of the log.
#[derive(Serialize)]
struct Report {
    before: u64,
    now: u64,
}

/// Returns whether it was done.
pub(super) fn run(dir: &Path, output: Output) -> anyhow::Result<bool> {
    let disk = OsDisk::new(dir).map_err(|error| Usage(format!("cannot open {}: {error}", dir.display())))?;
    let mut out = Out::new();
    let mut log = match zue_log::repair(disk) {
        Ok((log, _)) => log,
        Err(error) => {
            let finding = closed_by(error)?;
            out.line(format!("no trim can be taken back: {}", finding.what).as_bytes())?;
            out.flush()?;
            return Ok(false);
        }
    };
    let before = log.log_start();
    let now = log.take_back_trims()?;
    log.close()?;
    match output {
        Output::Json => out.json(&Report { before: before.0, now: now.0 })?,
        Output::Table if now < before => {
            out.line(format!("the log begins at {now} again, not at {before}").as_bytes())?;
        }
        Output::Table => {
            out.line(format!("the log begins at {now}: what lies before is not there any more").as_bytes())?;
        }
    }
    out.flush()?;
    Ok(true)
}
