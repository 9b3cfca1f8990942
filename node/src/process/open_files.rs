//! The number of files that this process may have open: each segment of a log is one, and so is each connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::num::narrow;

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

/// The least that a port takes.
const CONNECTIONS_LEAST: u64 = 4;

/// The number of connections that a port takes: as many as are configured, or its share of the files that the log leaves to connections. Clients
/// get half of them, peers a quarter, so that neither keeps the other out.
pub(crate) fn connections_max(port: &str, configured: u32) -> u32 {
    let Some(kept) = zue_log::files_kept_for_connections() else { return configured };
    let share = match port {
        "client" => kept / 2,
        "peer" => kept / 4,
        _ => kept / 8,
    };
    configured.min(narrow(share.max(CONNECTIONS_LEAST)))
}
