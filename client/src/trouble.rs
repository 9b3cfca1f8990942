//! The calls that a client retries, for whoever wants to say so to people. Decides nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::Error;

/// A call that is retried.
#[derive(Clone, PartialEq, Debug)]
pub struct Trouble {
    /// Since when every try has failed.
    pub since: Instant,
    /// The failure of the last one.
    pub last: Error,
}

/// The trouble of a client, if it has any.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<Option<Trouble>>);

impl Troubles {
    fn state(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Option<Trouble> {
        self.state().clone()
    }

    /// A try has failed, and there will be another.
    pub(crate) fn failed(&self, last: Error) {
        let mut state = self.state();
        let since = state.take().map_or_else(Instant::now, |trouble| trouble.since);
        *state = Some(Trouble { since, last });
    }

    /// Something has succeeded, or failed for good.
    pub(crate) fn over(&self) {
        *self.state() = None;
    }
}
