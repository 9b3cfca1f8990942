//! The right by which a call that was let in goes on: the files may take it away before the call ends. Lets nobody in.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zue_proto::v1::Error;

use super::Asked;
use super::credentials::Credentials;

/// The right by which a call goes on. Clones are of the same call.
#[derive(Clone, Debug)]
pub(crate) struct CallRight(Option<Arc<Stands>>);

#[derive(Debug)]
struct Stands {
    kept: Arc<Credentials>,
    asked: Asked,
    /// Until which generation it was found to hold.
    generation: AtomicU64,
}

impl CallRight {
    /// Nothing that could be taken away.
    pub(super) fn lasting() -> Self {
        Self(None)
    }

    /// The admission, of this generation.
    pub(super) fn of(kept: &Arc<Credentials>, asked: Asked, generation: u64) -> Self {
        let (kept, generation) = (Arc::clone(kept), AtomicU64::new(generation));
        Self(Some(Arc::new(Stands { kept, asked, generation })))
    }

    /// Tells whether it may go on; costs next to nothing while nothing was replaced.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Some(stands) = &self.0 else { return Ok(()) };
        let current = stands.kept.current.load();
        if current.generation != stands.generation.load(Ordering::Relaxed) {
            stands.asked.party(stands.kept.mode(), &current)?;
            stands.generation.store(current.generation, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Ends when it may not go on any more, and why.
    pub(crate) async fn lost(self) -> Error {
        let Some(stands) = &self.0 else { return pending().await };
        // What is replaced from here on is told; what was before, is seen.
        let mut changes = stands.kept.changes.subscribe();
        loop {
            if let Err(why) = self.check() {
                return why;
            }
            if changes.changed().await.is_err() {
                return pending().await;
            }
        }
    }
}
