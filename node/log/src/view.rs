//! A view: one prefix of the log as its segments. Only the newest grows; an older one goes on showing what it showed, whatever
//! is appended or cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use zue_core::{History, Offset, Tail};

use crate::body::Segment;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Damage, Operation, ReadError};
use crate::frame::{Fault, KIND_RECORD, Peek, parse, peek};
use crate::num::wide;

/// A segment, and how much of it is in the log.
#[derive(Debug)]
pub(crate) struct Part<D: Disk> {
    pub(crate) segment: Arc<Segment<D>>,
    /// The position at which its frames in the log end.
    pub(crate) bytes_end: u64,
    /// The offset at which its records in the log end.
    pub(crate) end: Offset,
}

impl<D: Disk> Clone for Part<D> {
    fn clone(&self) -> Self {
        Self { segment: Arc::clone(&self.segment), bytes_end: self.bytes_end, end: self.end }
    }
}

/// One prefix of the log.
#[derive(Debug)]
pub(crate) struct View<D: Disk> {
    pub(crate) sealed: Arc<[Part<D>]>,
    pub(crate) active: Arc<Segment<D>>,
    pub(crate) history: Arc<History>,
    bytes_end: AtomicU64,
    end: AtomicU64,
}

impl<D: Disk> View<D> {
    pub(crate) fn new(sealed: Arc<[Part<D>]>, active: Part<D>, history: Arc<History>) -> Self {
        let Part { segment, bytes_end, end } = active;
        Self { sealed, active: segment, history, bytes_end: AtomicU64::new(bytes_end), end: AtomicU64::new(end.0) }
    }

    pub(crate) fn tail(&self) -> Tail {
        Tail { epoch: self.history.last_epoch(), end: Offset(self.end.load(Ordering::Acquire)) }
    }

    pub(crate) fn log_start(&self) -> Offset {
        self.sealed.first().map_or(self.active.base(), |first| first.segment.base())
    }

    /// Shows further bytes that have been written; `end` is the end of an append.
    pub(crate) fn grow(&self, bytes_end: u64, end: Offset) {
        // In this order: who sees the end sees the bytes in front of it.
        self.bytes_end.store(bytes_end, Ordering::Release);
        self.end.store(end.0, Ordering::Release);
    }

    /// The active segment as far as it is in the log.
    pub(crate) fn active_part(&self) -> Part<D> {
        let end = self.tail().end;
        Part { segment: Arc::clone(&self.active), bytes_end: self.bytes_end.load(Ordering::Acquire), end }
    }

    /// The part that holds the record, if the log does.
    pub(crate) fn part(&self, offset: Offset) -> Option<Part<D>> {
        let active = self.active_part();
        if offset >= active.end {
            return None;
        }
        if offset >= active.segment.base() {
            return Some(active);
        }
        let after = self.sealed.partition_point(|part| part.segment.base() <= offset);
        self.sealed.get(after.checked_sub(1)?).cloned()
    }
}

impl<D: Disk> Part<D> {
    /// The bytes from the position to the end of the part.
    pub(crate) fn bytes(&self, from: u64) -> Result<Bytes, ReadError> {
        let Segment { file, path, .. } = &*self.segment;
        Ok(file.view(from..self.bytes_end.max(from)).context(Operation::Read, || path.clone())?)
    }

    /// Walks from the nearest indexed frame to the record. Gives its position and the bytes from there to the end of the part.
    /// The frames it walks past are not checked beyond their place.
    pub(crate) fn find(&self, offset: Offset) -> Result<(u64, Bytes), ReadError> {
        let near = self.segment.body(self.bytes_end)?.near(offset);
        let bytes = self.bytes(near)?;
        let mut walk = Walk::new(&bytes);
        let fault = loop {
            let Some(peek) = walk.frame() else { break walk.fault(self.segment.mask) };
            if peek.kind == KIND_RECORD && peek.first_word >= offset.0 {
                if peek.first_word == offset.0 {
                    return Ok((near.saturating_add(wide(walk.at)), bytes.slice(walk.at..)));
                }
                break Fault::Offset { expected: offset, found: Offset(peek.first_word) };
            }
            walk.pass(peek);
        };
        Err(self.damage(near.saturating_add(wide(walk.at)), offset, fault).into())
    }

    pub(crate) fn damage(&self, position: u64, from: Offset, fault: Fault) -> Damage {
        self.segment.damage(position, from..self.end, fault)
    }
}

/// A walk over frames that does not check their CRCs.
pub(crate) struct Walk<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where the frame that is next begins.
    pub(crate) at: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn frame(&self) -> Option<Peek> {
        peek(self.rest())
    }

    pub(crate) fn pass(&mut self, peek: Peek) {
        self.at += peek.bytes;
    }

    /// Why there is no frame where the walk has stopped.
    pub(crate) fn fault(&self, mask: u32) -> Fault {
        parse(self.rest(), mask).err().unwrap_or(Fault::Layout)
    }
}
