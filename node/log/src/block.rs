//! The block of 128 bytes that a segment begins with and that the meta file is: magic, version, flags, fields, CRC.

use crate::error::HeaderFault;
use crate::num::Cursor;

/// The length of a block.
pub(crate) const BLOCK_BYTES: usize = 128;
const CRC_AT: usize = BLOCK_BYTES - 4;
const VERSION: u32 = 1;

/// A block with the given fields, which follow magic, version and flags and leave room for the CRC.
pub(crate) fn encode(magic: [u8; 8], flags: u32, fields: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut out = [0; BLOCK_BYTES];
    let head = magic.into_iter().chain(VERSION.to_le_bytes()).chain(flags.to_le_bytes());
    for (place, byte) in out.iter_mut().take(CRC_AT).zip(head.chain(fields.iter().copied())) {
        *place = byte;
    }
    let (body, crc) = out.split_at_mut(CRC_AT);
    crc.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    out
}

/// The flags and the fields of a block.
pub(crate) fn decode(bytes: &[u8], magic: [u8; 8], known_flags: u32) -> Result<(u32, Cursor<'_>), HeaderFault> {
    let (block, _) = bytes.split_first_chunk::<BLOCK_BYTES>().ok_or(HeaderFault::Short)?;
    let (body, crc) = block.split_at(CRC_AT);
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
