//! Why work waits for the disk: the next file cannot be made. It is tried again until it can.

use std::fmt;
use std::sync::Arc;

use zue_engine::room::full;
use zue_log::{DiskError, Shortage};
use zue_proto::v1::Reason;

/// Why work waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stalled {
    shortage: Shortage,
    why: Arc<str>,
}

impl Stalled {
    pub(super) fn new(error: &DiskError) -> Self {
        Self { shortage: error.shortage(), why: full(error).into() }
    }

    #[cfg(test)]
    pub(crate) fn full_disk() -> Self {
        Self { shortage: Shortage::Room, why: "No space left on device".into() }
    }

    /// The words for clients.
    pub(crate) fn reason(&self) -> Reason {
        match self.shortage {
            Shortage::Room => Reason::DiskFull,
            Shortage::Files => Reason::TooManyFiles,
            Shortage::Other => Reason::StorageRefused,
        }
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shortage, why } = self;
        let what = match shortage {
            Shortage::Room => "the disk is full: appends wait for room",
            Shortage::Files => "too many files are open: appends wait until another may be",
            Shortage::Other => "the next file cannot be made: appends wait until it can",
        };
        write!(f, "{what}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use zue_log::Operation;

    use super::*;

    #[test]
    fn what_is_short_is_told_as_the_system_said_it() {
        let stalled = |number| {
            let source = io::Error::from_raw_os_error(number);
            Stalled::new(&DiskError { operation: Operation::Create, path: "/data/x".into(), source })
        };
        for (number, reason, said) in [
            (28, Reason::DiskFull, "the disk is full: appends wait for room: cannot create /data/x: No space left"),
            (24, Reason::TooManyFiles, "too many files are open: appends wait until another may be: cannot create"),
            (23, Reason::TooManyFiles, "too many files are open: appends wait until another may be: cannot create"),
            (
                13,
                Reason::StorageRefused,
                "cannot be made: appends wait until it can: cannot create /data/x: Permission denied",
            ),
            (30, Reason::StorageRefused, "cannot create /data/x: Read-only file system"),
        ] {
            let stalled = stalled(number);
            assert!(stalled.reason() == reason && stalled.to_string().contains(said), "{stalled}");
        }
    }
}
