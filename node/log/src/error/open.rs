//! Why a log does not open.

use std::io;
use std::path::PathBuf;

use super::{Damage, DiskError};
use zue_core::{Epoch, Offset, ReplicaId};

use crate::config::ConfigError;
use crate::disk::Disk;
use crate::format::block::{HeaderFault, Later};
use crate::format::fault::Fault;

/// The remedy for a log that does not open.
const REMEDY: &str = "Put the files back as they were, or move the directory away and start the replica with an empty one: it is a new \
                      replica then, and copies the log from the others";

/// The way on without the files.
const REPLACE: &str = "move the directory away and start the replica with an empty one: it is a new replica then, and copies the log \
                       from the others";
const COPY: &str = "Put back a copy that was made while the node was stopped, or move the directory away and start the replica with an \
                    empty one: it is a new replica then, and copies the log from the others";

/// A log that does not open. Nothing was removed or changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting out of its bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process has it open.
    #[error("{} is held by another process{}", dir.display(), holder.as_deref().map(|who| format!(" ({who})")).unwrap_or_default())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process, if that is known: its number and name.
        holder: Option<String>,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There are segments but no meta file: whose they are, and what was promised, is not known.
    #[error("{} holds {segment} but no meta file. {REMEDY}", dir.display())]
    NoMeta {
        /// The directory.
        dir: PathBuf,
        /// One of the segments.
        segment: String,
    },
    /// The meta file is of a log that was in use, and there is no segment.
    #[error("{} was in use and holds no segment. {REMEDY}", dir.display())]
    NoSegments {
        /// The directory.
        dir: PathBuf,
    },
    /// A later version of Zue has written here: what it means is not known, and so nothing is touched.
    #[error(
        "{} was written by a later version of Zue: it has {what}, which this version does not know. Run that version on it, or a \
         later one; nothing was changed. If no later version ever ran here, the file is damaged: then {REPLACE}", path.display()
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// The unknown part.
        what: Later,
    },
    /// The meta file and the segments are not of the same moment.
    #[error("{} contradicts itself: {what}. It was copied while its node ran, or a part of it was put back. {COPY}", dir.display())]
    Disagrees {
        /// The directory.
        dir: PathBuf,
        /// In what.
        what: Disagreement,
    },
    /// A segment that was copied is not what was written.
    #[error("{} is not a whole copy of a segment", path.display())]
    BadCopy {
        /// The file.
        path: PathBuf,
        /// The fault.
        #[source]
        what: BadCopy,
    },
    /// A file's fixed part is not what was written.
    #[error("{} is damaged: {what}. {REMEDY}", path.display())]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// The fault.
        what: HeaderFault,
    },
    /// A segment names one before it that is not there.
    #[error("{} follows a segment at {missing} that is not there. {REMEDY}", path.display())]
    MissingSegment {
        /// The segment that names it.
        path: PathBuf,
        /// The base of the missing one.
        missing: Offset,
    },
    /// The segment that was made last is not there.
    #[error(
        "{} lacks its newest segment: one of sequence {known} was in use, the newest found is of {found}. {REMEDY}", dir.display()
    )]
    NewestGone {
        /// The directory.
        dir: PathBuf,
        /// The greatest sequence of a segment that is there.
        found: u64,
        /// That of the segment that was in use.
        known: u64,
    },
    /// The head of a segment is damaged.
    #[error("{0}. {REMEDY}")]
    Damaged(Damage),
    /// An epoch may have started where committed records are damaged.
    #[error("{0}. An epoch may have started there, and without its start the log cannot be used. {REMEDY}")]
    HistoryGap(Damage),
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl OpenError {
    /// The error of [`Disk::lock`] when another process holds the directory.
    pub fn locked(disk: &impl Disk, error: &io::Error) -> Self {
        Self::Locked { dir: disk.path(""), holder: error.get_ref().map(ToString::to_string) }
    }
}

impl HeaderFault {
    /// The error for that file.
    pub(crate) fn of(self, path: PathBuf) -> OpenError {
        match self {
            Self::Later(what) => OpenError::Later { path, what },
            what => OpenError::BadHeader { path, what },
        }
    }
}

/// The contradictions between the meta file and the segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Disagreement {
    /// An epoch is accepted after it was promised, never before.
    #[error("its segments are of epoch {found}, and its meta file promises no more than epoch {promised}")]
    AbovePromise {
        /// The greatest epoch of which the segments tell.
        found: Epoch,
        /// The epoch that is promised.
        promised: Epoch,
    },
    /// An epoch has one leader.
    #[error("its segments have epoch {epoch} led by {found}, and its meta file promises it to {promised}")]
    OtherLeader {
        /// The epoch.
        epoch: Epoch,
        /// Its leader by the segments.
        found: ReplicaId,
        /// Its leader by the meta file.
        promised: ReplicaId,
    },
    /// The log ends before it starts.
    #[error("its meta file has the log start at {log_start}, and its segments end at {end}")]
    StartBehindEnd {
        /// The log's start by the meta file.
        log_start: Offset,
        /// The log's end by the segments.
        end: Offset,
    },
}

/// Why bytes are no copy of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCopy {
    /// The block that a segment begins with is not one.
    #[error("byte 0: {0}")]
    Header(HeaderFault),
    /// A frame is not what was written.
    #[error("byte {position}: {fault}")]
    Frame {
        /// The position at which it begins.
        position: u64,
        /// Its fault.
        fault: Fault,
    },
}
