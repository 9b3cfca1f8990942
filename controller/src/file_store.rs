//! The record of a controller in one small file: replaced as a whole, synced, locked against a second controller, and for its
//! owner alone.
//!
//! ```text
//! zue-control 1
//! epoch 7
//! leader 8c6f…
//! cluster 51d0…
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zue_core::control::Recorded;
use zue_core::{ClusterId, Epoch, ReplicaId};

use super::Store;

const FIRST_LINE: &str = "zue-control 1";
/// No controller writes more.
const BYTES_MAX: u64 = 4096;
/// Of every file that is made.
const MODE: u32 = 0o600;

/// A [`Store`] in a file.
#[derive(Debug)]
pub struct FileStore {
    path: Arc<PathBuf>,
    /// Held while a swap reads, compares and writes.
    writing: Arc<Mutex<()>>,
    /// Locked as long as the store lives.
    _lock: File,
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileStoreError {
    /// Another controller has it.
    #[error("{} is in use by another controller", .0.display())]
    InUse(PathBuf),
    /// Reading or writing failed.
    #[error("{}: {why}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        why: io::Error,
    },
    /// Its content is not what a controller writes.
    #[error("{}: line {line} is not valid controller state", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The runtime is shutting down.
    #[error("the program is ending")]
    Ending,
}

impl FileStore {
    /// Opens the file, which need not exist yet, and locks it (by a file beside it that ends in `.lock`).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileStoreError> {
        let path = path.into();
        let mut lock_path = path.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let io = |why| FileStoreError::Io { path: lock_path.clone(), why };
        let lock = open(&lock_path, File::options().create(true).append(true)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileStoreError::InUse(path)),
            Err(TryLockError::Error(why)) => return Err(io(why)),
        }
        read(&path)?;
        Ok(Self { path: Arc::new(path), writing: Arc::default(), _lock: lock })
    }
}

impl Store for FileStore {
    type Error = FileStoreError;

    async fn load(&self) -> Result<Recorded, FileStoreError> {
        read(&self.path)
    }

    async fn swap(&self, from: &Recorded, to: &Recorded) -> Result<bool, FileStoreError> {
        let (path, writing) = (Arc::clone(&self.path), Arc::clone(&self.writing));
        let (from, to) = (from.clone(), to.clone());
        let swap = move || {
            let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            if read(&path)? != from {
                return Ok(false);
            }
            write(&path, &to).map_err(|why| FileStoreError::Io { path: path.to_path_buf(), why })?;
            Ok(true)
        };
        tokio::task::spawn_blocking(swap).await.unwrap_or(Err(FileStoreError::Ending))
    }
}

/// Opens a file, unless something else is in its place: a pipe would be waited for, a device may never end.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file: choose another place"))
        }
        _ => options.mode(MODE).open(path),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path, File::options().read(true))?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() > usize::try_from(BYTES_MAX).unwrap_or(usize::MAX) {
        let what = format!("it has more than {BYTES_MAX} bytes: it is not what a controller writes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

fn read(path: &Path) -> Result<Recorded, FileStoreError> {
    match read_text(path) {
        Ok(text) => parse(&text).map_err(|line| FileStoreError::Malformed { path: path.to_owned(), line }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Recorded::default()),
        Err(why) => Err(FileStoreError::Io { path: path.to_owned(), why }),
    }
}

/// Parses the record, or gives the first line that is wrong.
fn parse(text: &str) -> Result<Recorded, usize> {
    let mut recorded = Recorded::default();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    if lines.next() != Some((1, FIRST_LINE)) {
        return Err(1);
    }
    for (number, line) in lines {
        let (key, value) = line.split_once(' ').ok_or(number)?;
        let id = || u128::from_str_radix(value, 16).ok().filter(|id| *id != 0).ok_or(number);
        match key {
            "epoch" => recorded.epoch = Epoch(value.parse().map_err(|_| number)?),
            "leader" => recorded.leader = Some(ReplicaId(id()?)),
            "cluster" => recorded.cluster = Some(ClusterId(id()?)),
            _ => return Err(number),
        }
    }
    Ok(recorded)
}

fn print(recorded: &Recorded) -> String {
    let Recorded { epoch, leader, cluster } = recorded;
    let leader = leader.map(|leader| format!("leader {leader}\n")).unwrap_or_default();
    let cluster = cluster.map(|cluster| format!("cluster {cluster}\n")).unwrap_or_default();
    format!("{FIRST_LINE}\nepoch {epoch}\n{leader}{cluster}")
}

/// The new file stands whole beside the old one before it takes its name, and the directory is synced before anyone is told.
fn write(path: &Path, recorded: &Recorded) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(MODE).open(&beside)?;
    file.write_all(print(recorded).as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(epoch: u64) -> Recorded {
        Recorded { epoch: Epoch(epoch), leader: Some(ReplicaId(0xab)), cluster: Some(ClusterId(0xcd)) }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for recorded in [Recorded::default(), recorded(7), Recorded { leader: None, ..recorded(u64::MAX) }] {
            assert_eq!(parse(&print(&recorded)), Ok(recorded));
        }
    }

    #[test]
    fn a_file_that_no_controller_wrote_is_refused_by_its_line() {
        let texts = [
            "",
            "zue-control 2\n",
            "zue-control 1\nepoch x\n",
            "zue-control 1\nepoch 1\nleader 0\n",
            "zue-control 1\nzue\n",
        ];
        assert_eq!(texts.map(|text| parse(text).unwrap_err()), [1, 1, 2, 3, 2]);
    }

    #[tokio::test]
    async fn what_is_made_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path().join("control")).unwrap();
        assert!(store.swap(&Recorded::default(), &recorded(1)).await.unwrap());
        for entry in fs::read_dir(directory.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }

    #[test]
    fn what_is_no_small_file_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let pipe = |path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        pipe(&path);
        let error = FileStore::open(&path).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(12 << 30).unwrap();
        let error = FileStore::open(&path).unwrap_err().to_string();
        assert!(error.contains("more than 4096 bytes"), "{error}");
        pipe(&directory.path().join("other.lock"));
        let error = FileStore::open(directory.path().join("other")).unwrap_err().to_string();
        assert!(error.contains("other.lock") && error.contains("no regular file"), "{error}");
    }

    #[tokio::test]
    async fn a_swap_from_what_is_no_longer_there_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path().join("control")).unwrap();
        assert!(store.swap(&Recorded::default(), &recorded(1)).await.unwrap());
        assert!(!store.swap(&Recorded::default(), &recorded(2)).await.unwrap());
        assert_eq!(store.load().await.unwrap(), recorded(1));
    }

    #[tokio::test]
    async fn a_second_controller_is_kept_out_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        let first = FileStore::open(&path).unwrap();
        assert!(matches!(FileStore::open(&path), Err(FileStoreError::InUse(_))));
        assert!(first.swap(&Recorded::default(), &recorded(1)).await.unwrap());
        drop(first);
        assert_eq!(FileStore::open(&path).unwrap().load().await.unwrap(), recorded(1));
    }
}
