//! The block of a fixed length that a segment begins with and that the meta file is: magic, version, flags, fields, CRC.

use crate::format::fault::Fault;
use crate::num::Cursor;

/// The length of the block that a segment begins with.
pub(crate) const BLOCK_BYTES: usize = 128;
const CRC_BYTES: usize = 4;
const VERSION: u32 = 1;
const VERSION_END: usize = 12;
const FIELDS_AT: usize = 16;

/// A block with the given fields, which follow magic, version and flags and leave room for the CRC.
pub(crate) fn encode<const N: usize>(magic: [u8; 8], flags: u32, fields: &[u8]) -> [u8; N] {
    assert!(FIELDS_AT + fields.len() + CRC_BYTES <= N, "the fields of a block do not fit it");
    let mut out = [0; N];
    let head = magic.into_iter().chain(VERSION.to_le_bytes()).chain(flags.to_le_bytes());
    let (body, crc) = out.split_at_mut(N - CRC_BYTES);
    for (place, byte) in body.iter_mut().zip(head.chain(fields.iter().copied())) {
        *place = byte;
    }
    crc.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    debug_assert!(decode::<N>(&out, magic, flags).is_ok(), "a block that no reader takes");
    out
}

/// The flags and the fields of a block.
pub(crate) fn decode<const N: usize>(
    bytes: &[u8],
    magic: [u8; 8],
    known_flags: u32,
) -> Result<(u32, Cursor<'_>), HeaderFault> {
    let mut cursor = Cursor(bytes);
    if cursor.array() != Some(magic) {
        return Err(if bytes.len() < magic.len() { HeaderFault::Short } else { HeaderFault::Magic });
    }
    let version = cursor.u32().ok_or(HeaderFault::Short)?;
    // What lies behind may be laid out in another way in a later one, its length and its CRC, too.
    let with_ours = || {
        let mut block = *bytes.first_chunk::<N>()?;
        block.get_mut(magic.len()..VERSION_END)?.copy_from_slice(&VERSION.to_le_bytes());
        Some(has_crc(&block))
    };
    if is_later(version, VERSION, || with_ours().unwrap_or_default()) {
        return Err(HeaderFault::Later(Later::Version(version)));
    }
    let (block, _) = bytes.split_first_chunk::<N>().ok_or(HeaderFault::Short)?;
    if version != VERSION || !has_crc(block) {
        return Err(HeaderFault::Crc);
    }
    let flags = cursor.u32().ok_or(HeaderFault::Short)?;
    if flags & !known_flags != 0 {
        return Err(HeaderFault::Later(Later::Flags(flags)));
    }
    let fields = block.get(FIELDS_AT..N - CRC_BYTES).ok_or(HeaderFault::Short)?;
    Ok((flags, Cursor(fields)))
}

/// Returns whether the version is a later one than ours. It is not where a single bit of ours was flipped: all else is as we write it then.
pub(crate) fn is_later(version: u32, ours: u32, is_whole_with_ours: impl FnOnce() -> bool) -> bool {
    version > ours && !((version ^ ours).is_power_of_two() && is_whole_with_ours())
}

fn has_crc<const N: usize>(block: &[u8; N]) -> bool {
    let (body, crc) = block.split_at(N - CRC_BYTES);
    crc32fast::hash(body).to_le_bytes() == crc
}

/// Marks that only a later version of Zue writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Later {
    /// A version of the format.
    #[error("version {0} of the format")]
    Version(u32),
    /// Flags of a file.
    #[error("flags {0:#x}")]
    Flags(u32),
    /// A frame whose CRC is right.
    #[error("{fault} at byte {position}")]
    Frame {
        /// The position at which it begins in the file.
        position: u64,
        /// Its unknown part.
        fault: Fault,
    },
}

/// The fault in the fixed part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderFault {
    /// It is too short.
    #[error("it is too short")]
    Short,
    /// It is not a file of this kind.
    #[error("its first bytes are not those of such a file")]
    Magic,
    /// A later version has written it.
    #[error("it was written by a later version of Zue, with {0}")]
    Later(Later),
    /// Its CRC does not match.
    #[error("its CRC does not match")]
    Crc,
    /// Its name and its content contradict each other.
    #[error("its name does not match its content")]
    Name,
}
