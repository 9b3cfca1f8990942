//! The block of a fixed length that a segment begins with and that the meta file is: magic, version, flags, fields, CRC.

use crate::error::HeaderFault;
use crate::num::Cursor;

/// The length of the block that a segment begins with.
pub(crate) const BLOCK_BYTES: usize = 128;
const CRC_BYTES: usize = 4;
const VERSION: u32 = 1;

/// A block with the given fields, which follow magic, version and flags and leave room for the CRC.
pub(crate) fn encode<const N: usize>(magic: [u8; 8], flags: u32, fields: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let head = magic.into_iter().chain(VERSION.to_le_bytes()).chain(flags.to_le_bytes());
    let (body, crc) = out.split_at_mut(N - CRC_BYTES);
    for (place, byte) in body.iter_mut().zip(head.chain(fields.iter().copied())) {
        *place = byte;
    }
    crc.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    out
}

/// The flags and the fields of a block.
pub(crate) fn decode<const N: usize>(
    bytes: &[u8],
    magic: [u8; 8],
    known_flags: u32,
) -> Result<(u32, Cursor<'_>), HeaderFault> {
    let (block, _) = bytes.split_first_chunk::<N>().ok_or(HeaderFault::Short)?;
    let (body, crc) = block.split_at(N - CRC_BYTES);
    let mut cursor = Cursor(body);
    if cursor.array() != Some(magic) {
        return Err(HeaderFault::Magic);
    }
    if crc32fast::hash(body).to_le_bytes() != crc {
        return Err(HeaderFault::Crc);
    }
    let (version, flags) = (cursor.u32().ok_or(HeaderFault::Short)?, cursor.u32().ok_or(HeaderFault::Short)?);
    if version != VERSION {
        return Err(HeaderFault::Version(version));
    }
    if flags & !known_flags != 0 {
        return Err(HeaderFault::Flags(flags));
    }
    Ok((flags, cursor))
}
