//! Backups of a log: which objects there are in the store and what they are called, what of a log is new, what may go; and from there
//! back to a directory that a replica opens. `docs/backup.md` has the format.

mod error;
mod http;
mod make;
mod manifest;
mod names;
mod plan;
mod restore;
mod retention;
mod store;
mod verify;

pub use error::{BackupError, Fault};
pub use make::{Made, Source, make};
pub use manifest::{Kind, Manifest, Part, Segment};
pub use names::{BackupId, PartName};
pub use plan::{OBJECT_BYTES_MAX, Plan, Upload, Want, plan};
pub use restore::{Point, RestoreOptions, Restored, choose, is_unfinished, restore, takes};
pub use retention::{GRACE_MS, Keep, StoreContent, removable};
pub use store::{Pace, Store, StoredObject};
pub use verify::{Bad, Verified, verify};

/// The number of bytes of a SHA-256 names and manifests have: as many as it takes that no two objects have the same.
const HASH_BYTES: usize = 16;

/// The beginning of a SHA-256, as 32 hexadecimal digits.
pub(crate) fn hex(digest: &[u8]) -> String {
    let digits = digest.iter().take(HASH_BYTES).flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A length as a 64-bit number.
pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A 64-bit number as a length; one that no memory can hold becomes the greatest.
pub(crate) fn length(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
