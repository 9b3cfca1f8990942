//! Why a log does not open.

use std::io;
use std::path::PathBuf;

use zue_core::Offset;

use super::{Damage, DiskError};
use crate::agree::Disagreement;
use crate::config::ConfigError;
use crate::copy::BadCopy;
use crate::disk::Disk;
use crate::fault::Fault;

/// What is to be done about a log that does not open.
const REMEDY: &str = "Put the files back as they were, or move the directory away and start the replica with an empty one: it is a new \
                      replica then, and copies the log from the others";

/// How to go on without the files.
const REPLACE: &str = "move the directory away and start the replica with an empty one: it is a new replica then, and copies the log \
                       from the others";
const COPY: &str = "Put back a copy that was made while the node was stopped, or move the directory away and start the replica with an \
                    empty one: it is a new replica then, and copies the log from the others";

/// What only a later version of Zue writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Later {
    /// A version of the format.
    #[error("version {0} of the format")]
    Version(u32),
    /// Flags of a file.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// A frame whose CRC is right.
    #[error("{fault} at byte {position}")]
    Frame {
        /// Where it begins in the file.
        position: u64,
        /// What is not known of it.
        fault: Fault,
    },
}

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
        /// Which one, if that is known: its number and name.
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
         later one; nothing was changed. Should none ever have run here, the file is damaged: then {REPLACE}", path.display()
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// What is not known.
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
    #[error("{} is no whole copy of a segment", path.display())]
    BadCopy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        what: BadCopy,
    },
    /// A file's fixed part is not what was written.
    #[error("{} is damaged: {what}. {REMEDY}", path.display())]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: HeaderFault,
    },
    /// A segment names one before it that is not there.
    #[error("{} follows a segment at {missing} that is not there. {REMEDY}", path.display())]
    Gap {
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
    /// What a segment rests on is damaged.
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
    /// What [`Disk::lock`] says when another process holds the directory.
    pub fn locked(disk: &impl Disk, error: &io::Error) -> Self {
        Self::Locked { dir: disk.path(""), holder: error.get_ref().map(ToString::to_string) }
    }
}

/// What is wrong with the fixed part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderFault {
    /// It is too short.
    #[error("it is too short")]
    Short,
    /// It is not a file of this kind.
    #[error("it does not begin as a file of this kind does")]
    Magic,
    /// A later version has written it.
    #[error("it was written by a later version of Zue, with {0}")]
    Later(Later),
    /// Its CRC does not match.
    #[error("its CRC does not match")]
    Crc,
    /// Its name and its content contradict each other.
    #[error("its name is not that of its content")]
    Name,
}

impl HeaderFault {
    /// What it says of the file.
    pub(crate) fn of(self, path: PathBuf) -> OpenError {
        match self {
            Self::Later(what) => OpenError::Later { path, what },
            what => OpenError::BadHeader { path, what },
        }
    }
}
