//! A simulated disk: in memory, deterministic, and as forgetful as a real one may be. A crash keeps, tears or loses each write
//! and each change of the directory that was not synced, in any order. It knows nothing of the log.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::num::{length, wide};

/// A simulated machine's disk. Clones are the same disk, and it outlives any log on it.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<World>>);

/// A file of the simulated disk. After a crash it only gives errors.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: usize,
    boot: u64,
}

/// Holds the simulated directory.
#[derive(Debug)]
pub struct SimLock {
    disk: SimDisk,
    boot: u64,
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    /// The directory as it is seen, and as it is on the disk.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced: Vec<Rename>,
    random: u64,
    boot: u64,
    locked: bool,
    /// How many operations have changed, or tried to change, anything.
    operations: u64,
    fail_at: Option<(u64, io::ErrorKind)>,
    stop_at: Option<u64>,
    /// How many bytes can still be reserved; any number if none is said.
    room: Option<usize>,
}

/// Names become files, at once, and `from` ceases to be a name.
#[derive(Debug)]
struct Rename {
    from: Option<String>,
    to: Vec<(String, usize)>,
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since the last sync: position and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl SimDisk {
    /// An empty disk. Equal seeds and equal operations give equal disks.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World { random: seed, ..World::default() })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations there were that change the disk: writes, syncs, creations, renames, removals, reservations.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Lets the operation of that number fail, counted from 0. A failed write has written a part.
    pub fn fail_at(&self, operation: u64, kind: io::ErrorKind) {
        self.world().fail_at = Some((operation, kind));
    }

    /// How many bytes can still be reserved; any number for `None`.
    pub fn set_room(&self, room: Option<usize>) {
        self.world().room = room;
    }

    /// Lets the machine stop before the operation of that number: that and all later ones fail, until the crash.
    pub fn stop_at(&self, operation: u64) {
        self.world().stop_at = Some(operation);
    }

    /// Whether the machine has stopped, as it was told to.
    pub fn has_stopped(&self) -> bool {
        let world = self.world();
        world.stop_at.is_some_and(|stop| world.operations > stop)
    }

    /// The machine stops and starts again. Of what was not synced, chance keeps, tears or loses each piece on its own.
    pub fn crash(&self, seed: u64) {
        let world = &mut *self.world();
        world.random ^= seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = world.random;
        for change in world.unsynced.drain(..) {
            if next(&mut random).is_multiple_of(2) {
                change.apply(&mut world.durable_names);
            }
        }
        world.names = world.durable_names.clone();
        for inode in &mut world.inodes {
            for (position, bytes) in inode.unsynced.drain(..) {
                let kept = keep(&bytes, &mut random);
                let lies = position.saturating_add(kept.start);
                put(&mut inode.durable, lies, bytes.get(kept).unwrap_or_default());
            }
            // The length is of the directory's kind: reserved room may be there or not.
            let longer = inode.bytes.len() > inode.durable.len() && next(&mut random).is_multiple_of(2);
            if longer {
                inode.durable.resize(inode.bytes.len(), 0);
            }
            inode.bytes.clone_from(&inode.durable);
        }
        (world.random, world.boot, world.locked) = (random, world.boot + 1, false);
        (world.fail_at, world.stop_at) = (None, None);
    }

    /// The process stops, the machine does not: nothing is lost, but the log did not close.
    pub fn kill(&self) {
        let world = &mut *self.world();
        (world.locked, world.fail_at, world.stop_at) = (false, None, None);
    }

    /// The content of a file, if there is one of that name.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.world();
        world.names.get(name).and_then(|inode| world.inodes.get(*inode)).map(|inode| inode.bytes.clone())
    }

    /// Replaces a file's content, durably, as a fault of the disk would.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let world = &mut *self.world();
        let inode = world.names.get(name).copied().and_then(|inode| world.inodes.get_mut(inode));
        if let Some(inode) = inode {
            change(&mut inode.bytes);
            inode.durable.clone_from(&inode.bytes);
            inode.unsynced.clear();
        }
    }
}

/// Which part of an unsynced write the disk holds after a crash: all, nothing, or any range of it.
fn keep(bytes: &[u8], random: &mut u64) -> Range<usize> {
    let mut any = || length(next(random) % (wide(bytes.len()) + 1));
    let (a, b) = (any(), any());
    match next(random) % 3 {
        0 => 0..bytes.len(),
        1 => 0..0,
        _ => a.min(b)..a.max(b),
    }
}

fn put(file: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position.saturating_add(bytes.len());
    if bytes.is_empty() {
        return;
    }
    if file.len() < end {
        file.resize(end, 0);
    }
    if let Some(place) = file.get_mut(position..end) {
        place.copy_from_slice(bytes);
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rename {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        names.extend(self.to.iter().cloned());
    }
}

impl World {
    /// Counts an operation, and fails it if that was asked for.
    fn operation(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.stop_at.is_some_and(|stop| number >= stop) {
            return Err(io::Error::other("the machine has stopped"));
        }
        match self.fail_at {
            Some((at, kind)) if at == number => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn rename(&mut self, change: Rename) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn lock(&self) -> io::Result<SimLock> {
        let mut world = self.world();
        if world.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        world.locked = true;
        Ok(SimLock { disk: self.clone(), boot: world.boot })
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut world = self.world();
        world.operation()?;
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.rename(Rename { from: None, to: vec![(name.to_owned(), inode)] });
        Ok(SimFile { disk: self.clone(), inode, boot: world.boot })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let world = self.world();
        Ok(SimFile { disk: self.clone(), inode: world.inode(name)?, boot: world.boot })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.operation()?;
        let inode = world.inode(from)?;
        world.rename(Rename { from: Some(from.to_owned()), to: vec![(to.to_owned(), inode)] });
        Ok(())
    }

    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        let mut world = self.world();
        world.operation()?;
        let to = vec![(a.to_owned(), world.inode(b)?), (b.to_owned(), world.inode(a)?)];
        world.rename(Rename { from: None, to });
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.operation()?;
        let inode = world.inode(from)?;
        world.rename(Rename { from: None, to: vec![(to.to_owned(), inode)] });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.operation()?;
        let inode = world.inode(name)?;
        let freed = world.inodes.get(inode).map_or(0, |inode| inode.bytes.len());
        world.room = world.room.map(|room| room.saturating_add(freed));
        world.rename(Rename { from: Some(name.to_owned()), to: vec![] });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world().names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let world = &mut *self.world();
        world.operation()?;
        world.durable_names.clone_from(&world.names);
        world.unsynced.clear();
        Ok(())
    }

    fn entropy(&self) -> io::Result<u64> {
        Ok(next(&mut self.world().random))
    }

    fn boot_id(&self) -> io::Result<u128> {
        Ok(self.world().boot.into())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("sim").join(name)
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        if world.boot == self.boot {
            world.locked = false;
        }
    }
}

impl SimFile {
    fn with<T>(&self, counted: bool, act: impl FnOnce(&mut Inode) -> io::Result<T>) -> io::Result<T> {
        let world = &mut *self.disk.world();
        if world.boot != self.boot {
            return Err(io::Error::other("the machine has stopped since the file was opened"));
        }
        if counted {
            world.operation()?;
        }
        act(world.inodes.get_mut(self.inode).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let write = |bytes: &[u8]| {
            self.with(false, |inode| {
                put(&mut inode.bytes, length(position), bytes);
                inode.unsynced.push((length(position), bytes.to_vec()));
                Ok(())
            })
        };
        let failed = self.with(true, |_| Ok(()));
        match failed {
            Ok(()) => write(bytes),
            Err(error) => {
                write(bytes.get(..bytes.len() / 2).unwrap_or_default())?;
                Err(error)
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(true, |inode| {
            inode.durable.clone_from(&inode.bytes);
            inode.unsynced.clear();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(false, |inode| Ok(wide(inode.bytes.len())))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = length(bytes);
        let more = self.with(true, |inode| Ok(bytes.saturating_sub(inode.bytes.len())))?;
        {
            let mut world = self.disk.world();
            if let Some(room) = world.room {
                world.room = Some(room.checked_sub(more).ok_or(io::ErrorKind::StorageFull)?);
            }
        }
        self.with(false, |inode| {
            inode.bytes.resize(inode.bytes.len().max(bytes), 0);
            Ok(())
        })
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.view(range)
    }

    fn view(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.with(false, |inode| {
            let bytes = inode.bytes.get(length(range.start)..length(range.end));
            bytes.map(Bytes::copy_from_slice).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }

    fn settle(&self) -> io::Result<()> {
        self.sync_data()
    }
}
