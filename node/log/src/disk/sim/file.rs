//! The files of the simulated disk.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::disk::sim::chance::Random;
use crate::disk::sim::{Inode, SimFile, put};
use crate::num::{length, wide};

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

impl SimFile {
    /// Takes of the room for what is written behind the end.
    fn grow(&self, bytes: usize) -> io::Result<()> {
        let more = self.with(false, |inode| Ok(bytes.saturating_sub(inode.bytes.len())))?;
        let mut world = self.disk.world();
        if let Some(growth) = world.faults.growth {
            world.faults.growth = Some(growth.checked_sub(more).ok_or(io::ErrorKind::StorageFull)?);
        }
        Ok(())
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
        let grown = length(position).saturating_add(bytes.len());
        match failed {
            Ok(()) => {
                self.grow(grown)?;
                write(bytes)
            }
            Err(error) => {
                write(bytes.get(..bytes.len() / 2).unwrap_or_default())?;
                Err(error)
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let lies = self.disk.world().faults.lies;
        let failed = self.with(true, |_| Ok(()));
        if lies || self.disk.has_stopped() {
            return failed;
        }
        let mut random = Random(self.disk.operations());
        self.with(false, |inode| {
            match &failed {
                Ok(()) => inode.sync(),
                // What is lost is shown as before, and no later sync writes it.
                Err(_) => inode.settle(&mut random),
            }
            failed
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.world().call()?;
        self.with(false, |inode| Ok(wide(inode.bytes.len())))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = length(bytes);
        let more = self.with(true, |inode| Ok(bytes.saturating_sub(inode.bytes.len())))?;
        {
            let mut world = self.disk.world();
            if let Some(room) = world.faults.room {
                world.faults.room = Some(room.checked_sub(more).ok_or(io::ErrorKind::StorageFull)?);
            }
        }
        self.with(false, |inode| {
            inode.bytes.resize(inode.bytes.len().max(bytes), 0);
            Ok(())
        })
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        debug_assert!(range.start <= range.end, "a range ends before it begins");
        self.disk.world().call()?;
        self.with(false, |inode| {
            let bytes = inode.bytes.get(length(range.start)..length(range.end));
            bytes.map(Bytes::copy_from_slice).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }

    /// Views are copies.
    fn reclaim(&mut self) -> bool {
        true
    }

    fn view(&self, range: Range<u64>) -> io::Result<Bytes> {
        let (start, bytes) = (length(range.start), self.read(range)?);
        self.with(false, |inode| {
            if inode.unreadable.is_empty() {
                return Ok(bytes);
            }
            let is_readable = |at: &usize| !inode.unreadable.contains(at);
            let shown = bytes.iter().zip(start..).map(|(byte, at)| if is_readable(&at) { *byte } else { 0 });
            Ok(shown.collect())
        })
    }

    fn has_faulted(&self) -> bool {
        self.with(false, |inode| Ok(inode.has_faulted)).unwrap_or_default()
    }

    fn settle(&self) -> io::Result<()> {
        self.sync_data()?;
        self.with(false, |inode| {
            if inode.unsynced.is_empty() {
                inode.bytes.clone_from(&inode.durable);
            }
            Ok(())
        })
    }
}
