//! A disk as it was before a promise, for one that forgets it.

use zue_core::{Epoch, Promise};

use super::Unpromised;
use crate::disk::{Storage, Work};

impl Storage {
    /// Keeps what is on the disk before a promise is written, and forgets that before anything else is.
    pub(crate) fn note_unpromised(&mut self, work: &Work) {
        self.former.unpromised = match work {
            Work::Promise { leader: None, .. } if self.former.keeps_unpromised && self.must.synced == self.tail() => {
                Some(Unpromised { disk: self.disk.fork(), promise: self.must.promise })
            }
            _ => None,
        };
    }

    /// The promise before this one, if the disk can forget this one.
    pub(crate) fn promise_before(&self, epoch: Epoch) -> Option<Promise> {
        let is_last = self.must.promise == Promise { epoch, leader: None };
        self.former.unpromised.as_ref().filter(|_| is_last).map(|before| before.promise)
    }

    /// Puts the disk of the machine, which is stopped, back.
    pub(crate) fn forget_promise(&mut self, seed: u64) {
        let Some(Unpromised { disk, promise }) = self.former.unpromised.take() else { return };
        disk.crash(seed);
        (self.disk, self.must.promise) = (disk, promise);
    }
}
