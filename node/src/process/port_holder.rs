//! The process that listens where another wants to, as far as this process may know.

use std::fs;
use std::net::SocketAddr;

/// The state of a socket that listens, as the table has it.
const LISTENS: &str = "0A";

/// The process that listens on the port, such as ` (4711, zue-node)`; empty where the system does not tell: those of other users and of
/// other containers cannot be seen.
pub fn port_holder(address: SocketAddr) -> String {
    let listening = |table| sockets(&fs::read_to_string(table).unwrap_or_default(), address.port());
    let sockets = [listening("/proc/net/tcp"), listening("/proc/net/tcp6")].concat();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holder = pids.filter(|_| !sockets.is_empty()).find(|pid| has_one(*pid, &sockets));
    let Some(pid) = holder else { return String::new() };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!(" ({pid}, {})", name.trim())
}

/// Names of the files of processes that are the sockets which listen on that port, by a table of this form:
///
/// ```text
///   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
///    0: 0100007F:24E0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41107 1 …
/// ```
fn sockets(table: &str, port: u16) -> Vec<String> {
    let port = format!("{port:04X}");
    let listens = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, state, inode) = (words.next()?, words.nth(1)?, words.nth(5)?);
        (state == LISTENS && local.rsplit(':').next() == Some(&port)).then(|| format!("socket:[{inode}]"))
    };
    table.lines().filter_map(listens).collect()
}

fn has_one(pid: u32, sockets: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| sockets.iter().any(|one| target.as_os_str() == one.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found_and_who_is_connected_is_not() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:24E0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41107 1\n   \
                     1: 0100007F:24E0 0100007F:9000 01 00000000:00000000 00:00000000 00000000     0        0 41108 1\n   \
                     2: 0100007F:24E1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41109 1\n";
        assert_eq!(sockets(table, 9440), ["socket:[41107]"]);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let told = port_holder(listener.local_addr().unwrap());
        assert!(told.starts_with(&format!(" ({}, ", std::process::id())), "{told:?}");
    }
}
