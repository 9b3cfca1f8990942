//! Bits that flip on a disk.

use zue_log::Disk as _;

use super::{Flip, Harm, Storage};

/// After that many syncs with work of their own, what was synced before is marked as such on the disk.
const FLIP_SYNCS: u32 = 3;

/// The bytes that a segment begins with.
const HEADER_BYTES: usize = 128;

impl Storage {
    /// Lets a bit of what is on the disk now flip a little later.
    pub(crate) fn flip_later(&mut self, random: u64) {
        let names = self.disk.list().unwrap_or_default();
        let part = |of: usize| usize::try_from(random >> 8).unwrap_or(0) % of.max(1);
        let segments: Vec<_> = names.iter().filter(|name| name.contains(".log")).collect();
        // Often the last one: of it all is read when the log is opened.
        let chosen = match random % 8 {
            0 => names.iter().find(|name| *name == "meta"),
            1..4 => segments.get(part(segments.len())).copied(),
            _ => segments.last().copied(),
        };
        self.flip = chosen.and_then(|name| {
            let content = self.disk.content(name)?;
            let used = content.iter().rposition(|byte| *byte != 0)?;
            // Mostly behind the header, where the records are.
            let behind = if random % 7 < 5 && used > HEADER_BYTES { HEADER_BYTES } else { 0 };
            let position = behind + part(used - behind);
            // In a file that was used before, what is behind the log's end is not zero. Nothing flips once that was written over: of
            // those syncs none has told where it ended.
            let (name, head) = ((*name).clone(), content.get(..=position)?.to_vec());
            Some(Flip { name, head, position, mask: 1 << (random % 8), syncs: FLIP_SYNCS })
        });
    }

    /// Returns whether the bit may flip now.
    pub(crate) fn flip_is_due(&self) -> bool {
        self.flip.as_ref().is_some_and(|flip| flip.syncs == 0)
    }

    /// Flips the bit; the file's name, if there was one to flip.
    pub(crate) fn flip(&mut self) -> Option<String> {
        let Flip { name, head, position, mask, .. } = self.flip.take()?;
        if !self.disk.content(&name)?.starts_with(&head) && name != "meta" {
            return None;
        }
        self.disk.damage(&name, |bytes| {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= mask;
            }
        });
        self.harm = Harm { any: true, in_meta: self.harm.in_meta || name == "meta", known: false };
        Some(name)
    }

    /// Returns whether a bit was flipped.
    pub(crate) fn is_damaged(&self) -> bool {
        self.harm.any
    }
}
