//! Appends that come during a hand-over, or while a new leader connects to its followers: held back in their order, and tried again.

use zue_core::{Refusal, Reply};

use crate::driver::Driver;
use crate::inbox::Append;

/// How many appends are held back.
const HELD_MAX: usize = 4096;

impl Driver {
    pub(crate) fn hold(&mut self, append: Append) {
        if self.held.len() < HELD_MAX {
            self.held.push_back(append);
        } else {
            let _ = append.reply.send(Reply::Refused(Refusal::Overloaded(HELD_MAX)));
        }
    }

    /// Tries the held appends again; they are held again if what holds them goes on.
    pub(crate) fn release_held(&mut self) {
        for _ in 0..self.held.len() {
            let Some(append) = self.held.pop_front() else { break };
            let held_before = self.held.len();
            self.append(append);
            if self.held.len() > held_before {
                // The first is held again, behind the others: put it back in front, and leave the rest.
                self.held.rotate_right(1);
                break;
            }
        }
    }
}
