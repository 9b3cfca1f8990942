//! Who holds the lock of a file, as far as this process may know.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

/// The processes that hold a lock of the file, such as `4711, zue-node`; none where the system does not tell: those of another
/// container cannot be seen.
pub(crate) fn holder_of(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let pids = holders(&fs::read_to_string("/proc/locks").ok()?, (major, minor, metadata.ino()));
    let told = pids.iter().map(|pid| match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{pid}, {}", name.trim()),
        Err(_) => pid.to_string(),
    });
    Some(told.collect::<Vec<_>>().join("; ")).filter(|told| !told.is_empty())
}

/// The processes with a lock of that file in a text of this form, those that wait for one left out:
///
/// ```text
/// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1311 0 EOF
/// 1: -> FLOCK  ADVISORY  WRITE 4712 fe:00:1311 0 EOF
/// ```
fn holders(locks: &str, (major, minor, inode): (u32, u32, u64)) -> Vec<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let of_file = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, pid, place) = (words.next()?, words.nth(2)?, words.next()?);
        // A holder that cannot be seen from here has the number 0.
        (kind == "FLOCK" && place == file).then(|| pid.parse().ok())?.filter(|pid| *pid > 0)
    };
    locks.lines().filter_map(of_file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_file_is_told_and_who_waits_or_holds_another_is_not() {
        let locks = "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1311 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 4712 fe:00:1311 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 4713 fe:00:1311 0 EOF\n3: FLOCK  ADVISORY  READ 4714 fe:00:1312 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 0 fe:00:1311 0 EOF\nnonsense\n";
        assert_eq!(holders(locks, (0xfe, 0, 1311)), [4711]);
    }

    #[test]
    fn ones_own_lock_is_found() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(holder_of(&file), None);
        file.lock().unwrap();
        let told = holder_of(&file).unwrap();
        assert!(told.starts_with(&format!("{}, ", std::process::id())), "{told}");
    }
}
