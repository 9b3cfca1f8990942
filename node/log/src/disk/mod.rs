//! What the log asks of a disk: one directory of files. The real one is `os`, the simulated one `sim`.

pub(crate) mod files_limit;
pub(crate) mod lock_holder;
pub(crate) mod mmap;
pub(crate) mod os;
pub(crate) mod overlay;
pub(crate) mod regular;
#[cfg(feature = "sim")]
pub mod sim;

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;

/// One directory. Clones are handles to the same one.
pub trait Disk: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// A file of the directory.
    type File: DiskFile;
    /// Holds the directory for this process until it is dropped.
    type Lock: std::fmt::Debug + Send + Sync + 'static;

    /// Takes the directory; fails with [`io::ErrorKind::WouldBlock`] when another process holds it, and names it if it can.
    fn lock(&self) -> io::Result<Self::Lock>;
    /// Makes an empty file, replacing any of that name; what is open or mapped of that stays.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Renames a file, replacing any of the new name. Atomic; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Lets two files exchange their names. Atomic; durable after [`Disk::sync_dir`].
    fn exchange(&self, a: &str, b: &str) -> io::Result<()>;
    /// Gives a file a further name, replacing any of that name. Durable after [`Disk::sync_dir`].
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; what is open or mapped of it stays.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Whether the log may grow by a file that stays open; some are left to others.
    fn may_hold_another(&self) -> io::Result<()> {
        Ok(())
    }
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// 64 random bits.
    fn entropy(&self) -> io::Result<u64>;
    /// Names the machine's current boot: a new one may have lost what was not synced.
    fn boot_id(&self) -> io::Result<u128>;
    /// What a person calls the file, for messages; of the directory itself for an empty name.
    fn path(&self, name: &str) -> PathBuf;
}

/// One file.
pub trait DiskFile: std::fmt::Debug + Send + Sync + 'static {
    /// Writes all the bytes at the position.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable, and the length with it.
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reserves room up to `bytes`, filled with zeroes, and makes the file that long.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// A copy of the bytes of the range.
    fn read(&self, range: Range<u64>) -> io::Result<Bytes>;
    /// The bytes of the range. They must not be written again while the view lives: it may be the file itself.
    fn view(&self, range: Range<u64>) -> io::Result<Bytes>;
    /// Whether bytes of a view could not be read: it shows zeroes there. Reading them by [`DiskFile::read`] tells why.
    fn has_faulted(&self) -> bool {
        false
    }
    /// Gives up what it holds of the file for its views; whether none that it gave is left, and nothing else has the file: then it
    /// can be written over.
    fn reclaim(&mut self) -> bool {
        false
    }
    /// Hints that what was written there before is to be written over soon, in parts of pages.
    fn will_write(&self, _range: Range<u64>) {}
    /// Syncs the file, then forgets what the memory holds of it, so that views show what the disk holds: after a failed sync
    /// the system may show bytes that it never wrote. To be called before the first view.
    fn settle(&self) -> io::Result<()>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|bytes| bytes == 0)
    }
}
