//! Regular files only. Whoever opens a pipe waits for its other end, a device may never end, and a link leads somewhere else: what
//! stands in the place of a file is named instead. Files that are read whole have a bound.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use crate::num::wide;

/// The mode of a directory that is made: nobody else looks into it.
pub(crate) const DIR_MODE: u32 = 0o700;
/// The mode of a file that is made.
const FILE_MODE: u32 = 0o600;

/// Opens a regular file that is no link. One that is made is for its owner alone.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    only_regular(path, options, OFlags::NOFOLLOW)
}

/// Reads a text file whole, which may be a link to one: a file of settings, or of state.
///
/// # Errors
/// When it cannot be read, is no regular file, has more than `bytes_max` bytes, or is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let file = only_regular(path, OpenOptions::new().read(true), OFlags::empty())?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if wide(bytes.len()) > bytes_max {
        let what = format!("it has more than {bytes_max} bytes, so it is not what is expected there");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

fn only_regular(path: &Path, options: &mut OpenOptions, links: OFlags) -> io::Result<File> {
    // Nobody is waited for at the other end of a pipe.
    let flags = i32::try_from((links | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let opened = options.mode(FILE_MODE).custom_flags(flags).open(path);
    let found = match &opened {
        Ok(file) => file.metadata(),
        Err(_) if links.contains(OFlags::NOFOLLOW) => fs::symlink_metadata(path),
        Err(_) => fs::metadata(path),
    };
    match found {
        Ok(found) if !found.is_file() => {
            let what = format!("there is {} where a regular file belongs", name_of(found.file_type()));
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
        _ => opened,
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}
