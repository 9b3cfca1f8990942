//! A simulated disk: in memory, deterministic, and as forgetful as a real one may be. A crash keeps, tears or loses each write
//! and each change of the directory that was not synced, in any order. It knows nothing of the log.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use chance::{Chance, Every};

use crate::disk::Disk;
use chance::Random;
use faults::Faults;

pub(crate) mod chance;
mod faults;
pub(crate) mod file;

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

#[derive(Clone, Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    /// The directory as it is seen, and as it is on the disk.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced: Vec<Rename>,
    random: u64,
    boot: u64,
    locked: bool,
    /// The number of operations that have changed, or tried to change, anything.
    operations: u64,
    /// The number of calls, reads among them.
    calls: u64,
    faults: Faults,
}

/// Names become files, at once, and `from` ceases to be a name.
#[derive(Clone, Debug)]
struct Rename {
    from: Option<String>,
    to: Vec<(String, usize)>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// The writes since the last sync: position and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Views show zeroes there.
    unreadable: Range<usize>,
    /// A view has shown, or may have shown, zeroes where there are none.
    has_faulted: bool,
}

impl SimDisk {
    /// An empty disk. Equal seeds and equal operations give equal disks.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World { random: seed, ..World::default() })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of operations that change the disk: writes, syncs, creations, renames, removals, reservations.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Lets the operation of that number fail, counted from 0. A failed write has written a part.
    pub fn fail_at(&self, operation: u64, kind: io::ErrorKind) {
        self.world().faults.fail_at = Some((operation, kind));
    }

    /// The number of bytes that can still be reserved; any number for `None`.
    pub fn set_room(&self, room: Option<usize>) {
        self.world().faults.room = room;
    }

    /// By how many bytes files can still grow as they are written; any number for `None`.
    pub fn set_growth(&self, growth: Option<usize>) {
        self.world().faults.growth = growth;
    }

    /// Lets the machine stop before the operation of that number: that and all later ones fail, until the crash.
    pub fn stop_at(&self, operation: u64) {
        self.world().faults.stop_at = Some(operation);
    }

    /// Returns whether the machine has stopped, as it was told to.
    pub fn has_stopped(&self) -> bool {
        let world = self.world();
        world.faults.stop_at.is_some_and(|stop| world.operations > stop)
    }

    /// The machine stops and starts again. Of what was not synced, chance keeps, tears or loses each piece on its own.
    pub fn crash(&self, seed: u64) {
        let state = self.world().random ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = Random(state);
        self.crash_by(&mut random);
        self.world().random = random.0;
    }

    /// As [`SimDisk::crash`], by what the given chance picks.
    pub fn crash_by(&self, chance: &mut impl Chance) {
        let world = &mut *self.world();
        // In order, as each name takes its changes in order; that those of different names come in any order, leaving some out shows.
        for change in std::mem::take(&mut world.unsynced) {
            if chance.pick(2) == 0 {
                change.apply(&mut world.durable_names);
            }
        }
        world.names = world.durable_names.clone();
        for (at, inode) in world.inodes.iter_mut().enumerate() {
            if !world.names.values().any(|named| *named == at) {
                // Nobody can find it any more.
                continue;
            }
            inode.settle(chance);
            // The length is of the directory's kind: reserved room may be there or not.
            if inode.bytes.len() > inode.durable.len() && chance.pick(2) == 0 {
                inode.durable.resize(inode.bytes.len(), 0);
            }
            inode.bytes.clone_from(&inode.durable);
        }
        (world.boot, world.locked) = (world.boot + 1, false);
        (world.faults.fail_at, world.faults.stop_at, world.faults.fail_call_at) = (None, None, None);
    }

    /// Another disk, which is now as this one is.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.world().clone())))
    }

    /// The number of calls, those that only read among them.
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Lets the call of that number fail, counted from 0, whatever it is.
    pub fn fail_call_at(&self, call: u64, kind: io::ErrorKind) {
        self.world().faults.fail_call_at = Some((call, kind));
    }

    /// Lets views of the file show zeroes in the range, as if pages of a memory map could not be read, until another range is said.
    pub fn fault(&self, name: &str, unreadable: Range<usize>) {
        let world = &mut *self.world();
        let inode = world.names.get(name).copied().and_then(|inode| world.inodes.get_mut(inode));
        if let Some(inode) = inode {
            (inode.unreadable, inode.has_faulted) = (unreadable, true);
        }
    }

    /// Makes a bad disk of it: from now on it says that it has synced, and has not.
    pub fn lie(&self) {
        self.world().faults.lies = true;
    }

    /// The process stops, the machine does not: nothing is lost, but the log did not close.
    pub fn kill(&self) {
        let world = &mut *self.world();
        (world.locked, world.faults.fail_at, world.faults.stop_at, world.faults.fail_call_at) =
            (false, None, None, None);
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

impl Inode {
    /// Makes durable what was written since the last sync.
    fn sync(&mut self) {
        for (position, bytes) in self.unsynced.drain(..) {
            put(&mut self.durable, position, &bytes);
        }
        self.durable.resize(self.bytes.len(), 0);
    }

    /// Of what was written since the last sync, lets chance keep, tear or lose each piece.
    fn settle(&mut self, chance: &mut impl Chance) {
        for (position, bytes) in self.unsynced.drain(..) {
            let kept = match chance.pick(3) {
                0 => 0..bytes.len(),
                1 => 0..0,
                _ => chance.part(bytes.len()),
            };
            let lies = position.saturating_add(kept.start);
            put(&mut self.durable, lies, bytes.get(kept).unwrap_or_default());
        }
    }
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
    /// Counts a call, and fails it if that was asked for.
    fn call(&mut self) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        match self.faults.fail_call_at {
            Some((at, kind)) if at == number => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// Counts an operation, and fails it if that was asked for.
    fn operation(&mut self) -> io::Result<()> {
        self.call()?;
        let number = self.operations;
        self.operations += 1;
        if self.faults.stop_at.is_some_and(|stop| number >= stop) {
            return Err(io::Error::other("the machine has stopped"));
        }
        match self.faults.fail_at {
            Some((at, kind)) if at == number => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn rename(&mut self, change: Rename) {
        change.apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        debug_assert!(self.names.values().all(|inode| *inode < self.inodes.len()), "a name is of no file");
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn lock(&self) -> io::Result<SimLock> {
        let mut world = self.world();
        world.call()?;
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
        let mut world = self.world();
        world.call()?;
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
        world.faults.room = world.faults.room.map(|room| room.saturating_add(freed));
        world.faults.growth = world.faults.growth.map(|growth| growth.saturating_add(freed));
        world.rename(Rename { from: Some(name.to_owned()), to: vec![] });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.call()?;
        Ok(world.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let world = &mut *self.world();
        world.operation()?;
        if !world.faults.lies {
            world.durable_names.clone_from(&world.names);
            world.unsynced.clear();
        }
        Ok(())
    }

    fn entropy(&self) -> io::Result<u64> {
        let mut world = self.world();
        world.call()?;
        let mut random = Random(world.random);
        let drawn = random.next();
        world.random = random.0;
        Ok(drawn)
    }

    fn boot_id(&self) -> io::Result<u128> {
        let mut world = self.world();
        world.call()?;
        Ok(world.boot.into())
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
