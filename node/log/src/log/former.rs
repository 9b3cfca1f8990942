//! The files of a log that was begun anew: they stay beside the new one's for a while, so that a person can put them back. The log
//! knows nothing of what is in them.

use std::collections::BTreeMap;

use zue_core::Offset;

use crate::disk::{Disk, DiskFile as _};
use crate::error::{Context, LogError, Operation};
use crate::log::Log;
use crate::meta::{META_FILE, Meta, Synced};
use crate::segment::header::segment_name;

/// Numbers the times that the log was begun anew; rises.
pub(crate) type Number = u64;

const FORMER: &str = ".former";

/// The name of a file of the log once that is a former one: all of one have its number.
fn former_name(name: &str, number: Number) -> String {
    format!("{}-{number}{FORMER}", name.trim_end_matches(".log"))
}

fn number_of(name: &str) -> Option<Number> {
    name.strip_suffix(FORMER)?.rsplit_once('-')?.1.parse().ok()
}

/// The newest former log among the names.
pub(crate) fn newest(names: &[String]) -> Option<Number> {
    names.iter().filter_map(|name| number_of(name)).max()
}

impl<D: Disk> Log<D> {
    /// The newest former log whose files are there.
    pub fn former(&self) -> Option<u64> {
        self.beside.former
    }

    /// The former logs whose files are there, the oldest first, and how many bytes these have.
    pub fn former_logs(&self) -> Vec<(u64, u64)> {
        let mut found = BTreeMap::new();
        for name in self.disk.list().unwrap_or_default() {
            if let Some(number) = number_of(&name) {
                let bytes = self.disk.open(&name).and_then(|file| file.len()).unwrap_or_default();
                let of = found.entry(number).or_insert(0_u64);
                *of = of.saturating_add(bytes);
            }
        }
        found.into_iter().collect()
    }

    /// Removes files of former logs up to that one, so many at most; gives how many.
    pub fn drop_former(&mut self, upto: u64, files_max: usize) -> usize {
        let dropped = self.drop_former_if(files_max, |number| number <= upto);
        if dropped > 0 {
            self.keep_reserve();
        }
        dropped
    }

    fn drop_former_if(&mut self, files_max: usize, is_dead: impl Fn(Number) -> bool) -> usize {
        let (dead, mut kept): (Vec<_>, Vec<_>) =
            self.disk.list().unwrap_or_default().into_iter().partition(|name| number_of(name).is_some_and(&is_dead));
        let (now, later) = dead.split_at(dead.len().min(files_max));
        kept.extend_from_slice(later);
        self.beside.former = newest(&kept);
        // What cannot be removed is found by the next open.
        now.iter().filter(|name| self.disk.remove(name).is_ok()).count()
    }

    /// Gives the files of the log a further name each, with what else it takes to open them; whether that was done. Not of a log in
    /// which no epoch has begun. The names are durable on return.
    ///
    /// # Errors
    /// When the directory cannot be synced.
    pub(crate) fn keep_former(&mut self) -> Result<bool, LogError> {
        if self.view.history.is_empty() {
            return Ok(false);
        }
        let number = self.writer.sequence;
        let link = |base: Offset| {
            let name = segment_name(base);
            self.disk.link(&name, &former_name(&name, number)).is_ok()
        };
        let kept = self.copy_meta(number) && self.view.parts().iter().all(|part| link(part.segment.base()));
        self.beside.former = Some(number);
        if !kept {
            // Without room for names there is none to keep them.
            self.drop_former_if(usize::MAX, |of| of == number);
            return Ok(false);
        }
        let synced = self.disk.sync_dir().context(Operation::Sync, || self.disk.path(""));
        self.disk_result(synced).map(|()| true)
    }

    fn copy_meta(&self, number: Number) -> bool {
        let synced = Synced { sequence: self.writer.sequence, tail: self.ends.synced };
        let commit_end = self.meta.commit_end.max(self.ends.commit_end.min(synced.tail.end));
        let bytes = Meta { commit_end, synced, ..self.meta }.encode();
        let copy = self.disk.create(&former_name(META_FILE, number));
        copy.and_then(|file| file.write_at(0, &bytes).and_then(|()| file.sync_data())).is_ok()
    }
}
