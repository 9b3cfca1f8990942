//! How many files this process may have open: each segment of a log is one, and so is each connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewer than these may be too few.
const ENOUGH: u64 = 65_536;

/// Lets this process have as many files open as it may at most; how many that is, unless there is no limit.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, ?maximum, "the limit of open files cannot be raised");
        return current;
    }
    maximum
}

/// The same, and warns if those are few.
pub fn raise_and_check_open_files() {
    if let Some(files) = raise_open_files().filter(|files| *files < ENOUGH) {
        tracing::warn!(
            files,
            "few files may be open, and each segment of a log is one, and each connection: raise `ulimit -n` to {ENOUGH}, or \
             log.segmentBytesMax"
        );
    }
}
