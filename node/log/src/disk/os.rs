//! A directory of the operating system, read through memory maps.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::disk::files_limit::{may_hold_another, name_limit};
use crate::disk::lock_holder::holder_of;
use crate::disk::mmap::MappedFile;
use crate::disk::regular::{self, DIR_MODE};
use crate::disk::{Disk, DiskFile};
use crate::num::length;

const LOCK_FILE: &str = "lock";

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct OsDisk {
    dir: Arc<Path>,
    open: Arc<Open>,
    read_only: bool,
}

/// Files that are opened once: where no further file can be opened, the log goes on.
#[derive(Debug)]
struct Open {
    dir: File,
    random: File,
}

/// A file of the operating system. It is mapped as long as it is at its first view.
#[derive(Debug)]
pub struct OsFile {
    file: File,
    map: OnceLock<MappedFile>,
    /// The map that is used when a page of the first could not be read.
    other: Mutex<Option<MappedFile>>,
    faulted: AtomicBool,
    /// Every map of the file holds it, and slices of one keep it.
    maps: Arc<()>,
}

impl OsDisk {
    /// The directory, made for its owner alone if it is not there.
    pub fn new(dir: impl AsRef<Path>) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(&dir)?;
        Self::open_dir(dir.as_ref(), false)
    }

    /// The directory, only to be looked at: nothing in it is made or changed, and it needs no right to write. While it is locked, no
    /// one can write a log in it, and others can look at it.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn read_only(dir: impl AsRef<Path>) -> io::Result<Self> {
        fs::read_dir(&dir)?;
        Self::open_dir(dir.as_ref(), true)
    }

    fn open_dir(dir: &Path, read_only: bool) -> io::Result<Self> {
        let open = Open { dir: File::open(dir)?, random: File::open("/dev/urandom")? };
        Ok(Self { dir: dir.into(), open: Arc::new(open), read_only })
    }
}

impl OsFile {
    fn new(file: File) -> Self {
        Self {
            file,
            map: OnceLock::new(),
            other: Mutex::default(),
            faulted: AtomicBool::new(false),
            maps: Arc::default(),
        }
    }

    fn slice(map: &MappedFile, range: Range<u64>) -> io::Result<Bytes> {
        let (start, end) = (length(range.start), length(range.end));
        debug_assert!(start <= end, "a range ends before it begins");
        if end > map.bytes.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(map.bytes.slice(start..end)) }
    }

    /// A map that shows no zeroes yet where there are none: a page may be readable again.
    fn another(&self, bytes: usize) -> io::Result<MappedFile> {
        self.faulted.store(true, Ordering::Release);
        let mut other = self.other.lock().unwrap_or_else(PoisonError::into_inner);
        match &*other {
            Some(map) if !map.has_faulted() && map.bytes.len() >= bytes => Ok(map.clone()),
            _ => Ok(other.insert(MappedFile::new(&self.file, &self.maps)?).clone()),
        }
    }
}

impl Disk for OsDisk {
    type File = OsFile;
    type Lock = File;

    fn lock(&self) -> io::Result<File> {
        let name = |error: io::Error| io::Error::new(error.kind(), format!("{LOCK_FILE}: {error}"));
        let open_lock = |options: &mut _| regular::open(&self.path(LOCK_FILE), options).map_err(name);
        let (file, locked) = if self.read_only {
            let file = match open_lock(File::options().read(true)) {
                // Nobody has ever locked it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(&self.dir)?,
                file => file?,
            };
            let locked = file.try_lock_shared();
            (file, locked)
        } else {
            let file = open_lock(File::options().create(true).truncate(false).write(true))?;
            let locked = file.try_lock();
            (file, locked)
        };
        match locked {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let kind = io::ErrorKind::WouldBlock;
                Err(holder_of(&file).map_or_else(|| kind.into(), |holder| io::Error::new(kind, holder)))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<OsFile> {
        let path = self.path(name);
        loop {
            match regular::open(&path, File::options().read(true).write(true).create_new(true)) {
                // It may be mapped: it gives up its name, and keeps its bytes.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
                file => return file.map(OsFile::new).map_err(name_limit),
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        let file = regular::open(&self.path(name), File::options().read(true).write(!self.read_only));
        file.map(OsFile::new).map_err(name_limit)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        let (a, b, flags) = (self.path(a), self.path(b), rustix::fs::RenameFlags::EXCHANGE);
        Ok(rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, flags)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        match fs::remove_file(self.path(to)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::hard_link(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        fs::read_dir(&self.dir)?.filter_map(|entry| name(entry).transpose()).collect()
    }

    fn may_hold_another(&self) -> io::Result<()> {
        may_hold_another(&self.open.dir)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.open.dir.sync_all()
    }

    fn entropy(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        (&self.open.random).read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn boot_id(&self) -> io::Result<u128> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        u128::from_str_radix(&text.trim().replace('-', ""), 16).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl DiskFile for OsFile {
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        debug_assert!(range.start <= range.end, "a range ends before it begins");
        let mut bytes = vec![0; length(range.end.saturating_sub(range.start))];
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    fn view(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let map = if let Some(map) = self.map.get() {
            map
        } else {
            let map = MappedFile::new(&self.file, &self.maps).map_err(name_limit)?;
            // Another reader may have been faster; either map shows the same file.
            self.map.get_or_init(|| map)
        };
        if map.has_faulted() { Self::slice(&self.another(length(range.end))?, range) } else { Self::slice(map, range) }
    }

    fn has_faulted(&self) -> bool {
        self.faulted.load(Ordering::Acquire) || self.map.get().is_some_and(MappedFile::has_faulted)
    }

    fn reclaim(&mut self) -> bool {
        (self.map, self.other) = (OnceLock::new(), Mutex::default());
        // A file with another name is somebody's copy.
        Arc::get_mut(&mut self.maps).is_some() && self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 1)
    }

    fn will_write(&self, range: Range<u64>) {
        let bytes = NonZero::new(range.end.saturating_sub(range.start));
        // Only time is lost if the hint is.
        let _ = rustix::fs::fadvise(&self.file, range.start, bytes, rustix::fs::Advice::WillNeed);
    }

    fn settle(&self) -> io::Result<()> {
        self.file.sync_data()?;
        Ok(rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed)?)
    }
}
