//! A log's directory and its damage, as every command about it sees them.

use std::path::{Path, PathBuf};

use serde::Serialize;
use zue_log::{Damage, Disk, Later, Log, OpenError, OsDisk, ReadError};

use crate::Usage;

/// The number of bytes that are checked at a time.
const STEP_BYTES: usize = 4 << 20;

/// The directory, only to be looked at, if there is a log in it.
pub(crate) fn directory(dir: &Path) -> anyhow::Result<OsDisk> {
    let cannot = |error: std::io::Error| Usage(format!("cannot read {}: {error}", dir.display()));
    let disk = OsDisk::read_only(dir).map_err(cannot)?;
    if !zue_log::holds_log(&disk).map_err(cannot)? {
        return Err(Usage(format!("{} holds no log: name a node's data directory", dir.display())).into());
    }
    Ok(disk)
}

/// Something that is damaged. What is not known is absent.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(super) file: PathBuf,
    /// The first byte in the file that is not as it should be.
    pub(super) position: Option<u64>,
    /// The records that are in doubt, as offsets, the second one exclusive.
    pub(super) from: Option<u64>,
    pub(super) to: Option<u64>,
    pub(crate) what: String,
}

impl From<Damage> for Finding {
    fn from(damage: Damage) -> Self {
        let what = damage.to_string();
        let Damage { path, position, from, to, .. } = damage;
        Self { file: path, position: Some(position), from: Some(from.0), to: Some(to.0), what }
    }
}

/// The damage that keeps a log from being opened.
///
/// # Errors
/// The log cannot be looked at: a node runs on it, a later version wrote it, or the disk or the settings fail.
pub(crate) fn closed_by(error: OpenError) -> anyhow::Result<Finding> {
    let whole = |file: PathBuf, position| Finding { file, position, from: None, to: None, what: String::new() };
    let what = error.to_string();
    let finding = match error {
        OpenError::Locked { .. } => {
            return Err(Usage(format!("{what}: stop the node that runs on it, and try again")).into());
        }
        OpenError::Disk(error) => return Err(Usage(format!("{error}: {}", error.source)).into()),
        // Not damage: a repair would destroy the log.
        error @ OpenError::Later { .. } => return Err(Usage(error.to_string()).into()),
        OpenError::Config(error) => return Err(Usage(error.to_string()).into()),
        OpenError::NoMeta { dir, .. }
        | OpenError::NoSegments { dir }
        | OpenError::NewestGone { dir, .. }
        | OpenError::Disagrees { dir, .. } => whole(dir, None),
        OpenError::BadHeader { path, .. }
        | OpenError::BadCopy { path, .. }
        | OpenError::MissingSegment { path, .. } => whole(path, Some(0)),
        OpenError::Damaged(damage) | OpenError::HistoryGap(damage) => damage.into(),
    };
    Ok(Finding { what, ..finding })
}

/// Checks all that the log holds; gives what is damaged, in order, and how many bytes were checked.
pub(super) fn check<D: Disk>(log: &Log<D>) -> anyhow::Result<(Vec<Damage>, u64)> {
    let (mut verifier, mut damaged, mut bytes) = (log.reader().verifier(), Vec::new(), 0);
    let cannot = |error: ReadError| Usage(error.to_string());
    while let Some(verified) = verifier.step(STEP_BYTES).map_err(cannot)? {
        bytes += verified.bytes;
        if let Some(Damage { path, position, fault, .. }) = &verified.damage
            && fault.is_of_later_version()
        {
            let what = Later::Frame { position: *position, fault: *fault };
            return Err(Usage(OpenError::Later { path: path.clone(), what }.to_string()).into());
        }
        damaged.extend(verified.damage);
    }
    Ok((damaged, bytes))
}
