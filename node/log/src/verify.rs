//! Checking every byte of a log, a piece at a time, while it is used.

use std::sync::Arc;

use zue_core::ProducerLimits;

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Damage, Operation, ReadError};
use crate::frame::Fault;
use crate::index::Spacing;
use crate::num::wide;
use crate::scan::State;
use crate::view::{Part, View};

/// Goes over a log as it was when it began, from the first segment to the last, and names what is damaged.
#[derive(Debug)]
pub struct Verifier<D: Disk> {
    parts: std::vec::IntoIter<Part<D>>,
    now: Option<Place<D>>,
}

/// A place in a segment.
#[derive(Debug)]
struct Place<D: Disk> {
    part: Part<D>,
    position: u64,
    state: State,
}

/// What a step has checked.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// How many bytes.
    pub bytes: u64,
    /// What is damaged there. The rest of its segment is not checked.
    pub damage: Option<Damage>,
}

impl<D: Disk> Verifier<D> {
    pub(crate) fn new(view: &Arc<View<D>>) -> Self {
        let parts: Vec<_> = view.sealed.iter().cloned().chain([view.active_part()]).collect();
        Self { parts: parts.into_iter(), now: None }
    }

    /// Checks about as many bytes further; `None` once all are checked.
    ///
    /// # Errors
    /// When the disk refuses. The next step goes on with the next segment.
    pub fn step(&mut self, bytes_max: usize) -> Result<Option<Verified>, ReadError> {
        let step = match self.now.take() {
            Some(place) => place.step(bytes_max),
            None => match self.parts.next() {
                Some(part) => Place::at_start(part),
                None => return Ok(None),
            },
        };
        match step {
            Ok((verified, now)) => {
                self.now = now;
                Ok(Some(verified))
            }
            Err(ReadError::Damaged(damage)) => Ok(Some(Verified { bytes: 0, damage: Some(damage) })),
            Err(error) => Err(error),
        }
    }
}

impl<D: Disk> Place<D> {
    fn at_start(part: Part<D>) -> Result<(Verified, Option<Self>), ReadError> {
        let (snapshot, position) = part.segment.snapshot()?;
        // Producers are not compared: what a cut has taken back is forgotten, not undone.
        let state = State::at_start(snapshot, ProducerLimits::default());
        let state = state.map_err(|fault| part.damage(position, part.segment.base(), fault))?;
        Ok((Verified { bytes: position, damage: None }, Some(Self { part, position, state })))
    }

    fn step(mut self, bytes_max: usize) -> Result<(Verified, Option<Self>), ReadError> {
        let Part { segment, bytes_end, end } = &self.part;
        let rest = bytes_end.saturating_sub(self.position);
        let mut take = rest.min(wide(bytes_max).max(1));
        let found = loop {
            let bytes = segment.file.view(self.position..self.position + take);
            let bytes = bytes.context(Operation::Read, || segment.path.clone())?;
            let mut spacing = Spacing::new(u32::MAX, self.position);
            let found = self.state.scan(&bytes, segment.mask, self.position, &mut spacing);
            if found.bytes > 0 || take == rest {
                break found;
            }
            // One append is longer.
            take = rest.min(take.saturating_mul(2));
        };
        self.position += wide(found.bytes);
        let tail = self.state.order.tail.end;
        let damage = match found.fault {
            // The piece ends inside a frame or an append.
            Some(Fault::Truncated { .. } | Fault::Unfinished(_)) if take < rest => None,
            Some(fault) => Some(fault),
            None if self.position == *bytes_end && tail != *end => Some(Fault::Offset { expected: *end, found: tail }),
            None => None,
        };
        let damage = damage.map(|fault| self.part.damage(self.position, tail, fault));
        let verified = Verified { bytes: wide(found.bytes), damage };
        let more = verified.damage.is_none() && self.position < *bytes_end;
        Ok((verified, more.then_some(self)))
    }
}
