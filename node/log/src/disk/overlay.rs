//! A directory that is looked at and never written: what would be changed is kept in memory, and told. So what opening a log would do
//! can be seen without doing it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::num::{length, wide};

/// A disk over another one, which it only reads. Clones are the same one.
#[derive(Debug)]
pub struct Overlay<D: Disk> {
    under: D,
    names: Arc<Mutex<Names<D>>>,
}

/// The names that are not as they are below; `None` is one that is gone.
type Names<D> = BTreeMap<String, Option<Arc<Content<D>>>>;

impl<D: Disk> Clone for Overlay<D> {
    fn clone(&self) -> Self {
        Self { under: self.under.clone(), names: Arc::clone(&self.names) }
    }
}

/// What would be done to a directory, by the names of its files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Would be there.
    pub made: BTreeSet<String>,
    /// Would have other bytes.
    pub changed: BTreeSet<String>,
    /// Would be gone.
    pub removed: BTreeSet<String>,
}

/// A file of an [`Overlay`].
#[derive(Debug)]
pub struct OverlayFile<D: Disk>(Arc<Content<D>>);

/// A file of the disk below, unless it is new, and what was written over it.
#[derive(Debug)]
struct Content<D: Disk> {
    under: Option<(String, D::File)>,
    patch: Mutex<Patch>,
}

#[derive(Debug, Default)]
struct Patch {
    /// The length, once that has changed.
    bytes: Option<u64>,
    writes: Vec<(u64, Bytes)>,
}

impl<D: Disk> Overlay<D> {
    /// Over the disk.
    pub fn new(under: D) -> Self {
        Self { under, names: Arc::default() }
    }

    /// The disk below.
    pub fn under(&self) -> &D {
        &self.under
    }

    /// What was done so far, and was not.
    ///
    /// # Errors
    /// When the disk below cannot be listed.
    pub fn changes(&self) -> io::Result<Changes> {
        let below: BTreeSet<String> = self.under.list()?.into_iter().collect();
        let mut changes = Changes::default();
        for (name, content) in &*self.names() {
            let is_there = below.contains(name);
            let set = match content {
                None if is_there => &mut changes.removed,
                Some(content) if is_there && content.is_other_than(name) => &mut changes.changed,
                Some(_) if !is_there => &mut changes.made,
                _ => continue,
            };
            set.insert(name.clone());
        }
        Ok(changes)
    }

    fn names(&self) -> MutexGuard<'_, Names<D>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self, name: &str) -> io::Result<Arc<Content<D>>> {
        let mut names = self.names();
        match names.get(name) {
            Some(Some(content)) => Ok(Arc::clone(content)),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let under = Some((name.to_owned(), self.under.open(name)?));
                let content = Arc::new(Content { under, patch: Mutex::default() });
                names.insert(name.to_owned(), Some(Arc::clone(&content)));
                Ok(content)
            }
        }
    }

    fn put(&self, name: &str, content: Option<Arc<Content<D>>>) {
        self.names().insert(name.to_owned(), content);
    }
}

impl<D: Disk> Content<D> {
    fn patch(&self) -> MutexGuard<'_, Patch> {
        self.patch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is not what the disk below has under that name.
    fn is_other_than(&self, name: &str) -> bool {
        let patch = self.patch();
        let is_it = self.under.as_ref().is_some_and(|(under, _)| under == name);
        !is_it || patch.bytes.is_some() || !patch.writes.is_empty()
    }
}

impl<D: Disk> Disk for Overlay<D> {
    type File = OverlayFile<D>;
    type Lock = D::Lock;

    fn lock(&self) -> io::Result<D::Lock> {
        self.under.lock()
    }

    fn create(&self, name: &str) -> io::Result<OverlayFile<D>> {
        let patch = Mutex::new(Patch { bytes: Some(0), writes: Vec::new() });
        let content = Arc::new(Content { under: None, patch });
        self.put(name, Some(Arc::clone(&content)));
        Ok(OverlayFile(content))
    }

    fn open(&self, name: &str) -> io::Result<OverlayFile<D>> {
        self.content(name).map(OverlayFile)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let content = self.content(from)?;
        self.put(from, None);
        self.put(to, Some(content));
        Ok(())
    }

    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        let (of_a, of_b) = (self.content(a)?, self.content(b)?);
        self.put(a, Some(of_b));
        self.put(b, Some(of_a));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let content = self.content(from)?;
        self.put(to, Some(content));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.list()?.iter().any(|there| there == name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.put(name, None);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut all: BTreeSet<String> = self.under.list()?.into_iter().collect();
        for (name, content) in &*self.names() {
            if content.is_some() {
                all.insert(name.clone())
            } else {
                all.remove(name)
            };
        }
        Ok(all.into_iter().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn entropy(&self) -> io::Result<u64> {
        self.under.entropy()
    }

    fn boot_id(&self) -> io::Result<u128> {
        self.under.boot_id()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.under.path(name)
    }
}

impl<D: Disk> OverlayFile<D> {
    /// The bytes of the range, which were written over or not.
    fn patched(&self, patch: &Patch, range: Range<u64>) -> io::Result<Bytes> {
        if range.start > range.end || range.end > self.len_of(patch)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut out = vec![0; length(range.end - range.start)];
        let mut put = |position: u64, bytes: &[u8]| {
            let skipped = length(range.start.saturating_sub(position));
            let at = length(position.saturating_sub(range.start));
            let bytes = bytes.get(skipped..).unwrap_or_default();
            let place = out.get_mut(at..).unwrap_or_default();
            place.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        };
        if let Some((_, file)) = &self.0.under {
            let end = range.end.min(file.len()?);
            put(range.start, &file.read(range.start.min(end)..end)?);
        }
        patch.writes.iter().for_each(|(position, bytes)| put(*position, bytes));
        Ok(out.into())
    }

    fn len_of(&self, patch: &Patch) -> io::Result<u64> {
        let under = || self.0.under.as_ref().map_or(Ok(0), |(_, file)| file.len());
        patch.bytes.map_or_else(under, Ok)
    }

    fn read_by(
        &self,
        range: Range<u64>,
        read: impl FnOnce(&D::File, Range<u64>) -> io::Result<Bytes>,
    ) -> io::Result<Bytes> {
        let patch = self.0.patch();
        match &self.0.under {
            Some((_, file)) if patch.bytes.is_none() && patch.writes.is_empty() => read(file, range),
            _ => self.patched(&patch, range),
        }
    }
}

impl<D: Disk> DiskFile for OverlayFile<D> {
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut patch = self.0.patch();
        let end = position.saturating_add(wide(bytes.len()));
        if end > self.len_of(&patch)? {
            patch.bytes = Some(end);
        }
        if !bytes.is_empty() {
            patch.writes.push((position, Bytes::copy_from_slice(bytes)));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.len_of(&self.0.patch())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut patch = self.0.patch();
        if bytes > self.len_of(&patch)? {
            patch.bytes = Some(bytes);
        }
        Ok(())
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.read_by(range, DiskFile::read)
    }

    fn view(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.read_by(range, DiskFile::view)
    }

    fn has_faulted(&self) -> bool {
        self.0.under.as_ref().is_some_and(|(_, file)| file.has_faulted())
    }

    fn settle(&self) -> io::Result<()> {
        Ok(())
    }
}
