//! News of the disk, as its threads tell the driver.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::mpsc;
use zue_core::{Offset, Ticket};

use super::stalled::Stalled;

/// News of the disk.
#[derive(Debug)]
pub(crate) enum DiskFact {
    /// All work up to this ticket is durable.
    Persisted(Ticket),
    /// The promise of this ticket is durable, while work before it waits for room.
    Promised(Ticket),
    /// Work waits for the disk, for this reason; or waits no more.
    Full(Option<Stalled>),
    /// Records are damaged, as it says; or none is any more.
    Damaged(Option<Arc<str>>),
    /// Records before this offset are older, or more, than is to be kept.
    Expired(Offset),
    /// Nothing repairs, compacts or retains the log any more.
    Neglected(Arc<str>),
    /// A write or sync failed: nothing more will be persisted.
    Failed(Arc<str>),
}

/// A share of what is bounded; given back when it is dropped.
pub(crate) type Share = Box<dyn Any + Send>;

/// Tells the driver. Nobody listens any more once it has ended: then the work is done for its own sake.
pub(super) fn tell(facts: &mpsc::Sender<DiskFact>, fact: DiskFact) {
    let _ = facts.blocking_send(fact);
}
