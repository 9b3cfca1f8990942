//! The number of files that this process may have open, and the share that a log leaves to others.

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// A log leaves one file in so many to others, but no more than are of use.
const KEPT_SHARE: u64 = 4;
const KEPT_MAX: u64 = 4096;

/// A log may open no further file.
#[derive(Debug, thiserror::Error)]
#[error(
    "{error}; this process may have {limit} open files, of which {kept} are reserved for connections, and each segment takes \
     one: raise `ulimit -n`, or log.segmentBytesMax for future segments"
)]
pub(crate) struct NoMoreFiles {
    error: io::Error,
    limit: u64,
    kept: u64,
}

/// The number of files that this process may have open, and a log leaves to others: what would it be worth without connections? None
/// where any number may be open.
pub fn files_kept_for_connections() -> Option<u64> {
    getrlimit(Resource::Nofile).current.map(kept_of)
}

fn kept_of(limit: u64) -> u64 {
    (limit / KEPT_SHARE).min(KEPT_MAX)
}

/// Returns whether a further file may be opened and held. The system gives each the lowest number that is free, which tells how many there
/// are, whatever they are used for.
pub(crate) fn may_hold_another(any: &File) -> io::Result<()> {
    let number = std::os::fd::AsRawFd::as_raw_fd(&any.try_clone().map_err(name_limit)?);
    match getrlimit(Resource::Nofile).current {
        Some(limit) if u64::try_from(number).unwrap_or(0) >= limit - kept_of(limit) => {
            Err(name_limit(Errno::MFILE.into()))
        }
        _ => Ok(()),
    }
}

/// Says which limit of the process an error tells of, if any, and what to do about it.
pub(crate) fn name_limit(error: io::Error) -> io::Error {
    match (Errno::from_io_error(&error), getrlimit(Resource::Nofile).current) {
        (Some(Errno::MFILE), Some(limit)) => {
            io::Error::new(error.kind(), NoMoreFiles { error, limit, kept: kept_of(limit) })
        }
        (Some(Errno::NOMEM), _) => {
            let remedy = "each segment that is read takes up to two maps: raise the sysctl vm.max_map_count, or \
                          log.segmentBytesMax for future segments";
            io::Error::new(error.kind(), format!("{error}; {remedy}"))
        }
        _ => error,
    }
}

/// Returns whether the error is that no further file may be opened, by this process or by all.
pub(crate) fn is_no_more_files(error: &io::Error) -> bool {
    let is_named = matches!(error.get_ref(), Some(inner) if inner.is::<NoMoreFiles>());
    is_named || matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_kept_but_not_more_than_are_of_use() {
        assert_eq!([64, 1024, 1 << 20].map(kept_of), [16, 256, 4096]);
    }

    #[test]
    fn a_limit_that_is_reached_is_told_with_its_remedy_and_is_known_again() {
        let error = name_limit(Errno::MFILE.into());
        assert!(is_no_more_files(&error) && error.to_string().contains("raise `ulimit -n`"), "{error}");
        assert!(is_no_more_files(&Errno::NFILE.into()));
        assert!(!is_no_more_files(&Errno::ACCESS.into()));
    }
}
