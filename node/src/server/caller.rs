//! The caller at the other end of a connection: the share that it uses, and the identity that it has shown.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::server::owner::Owner;
use crate::server::slots::{Occupant, Slot, Slots};
use crate::tls::{PresentedIdentity, Token};

/// The caller at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) owner: Owner,
    pub(crate) occupant: Arc<Occupant>,
    /// The identity that it has shown with the connection, and with its calls.
    pub(crate) shown: PresentedIdentity,
    tokens: Mutex<Vec<Token>>,
    /// It is to send nothing new on this connection, which ends soon.
    pub(crate) ends: CancellationToken,
    pub(super) port: Arc<Slots>,
    slot: Weak<Slot>,
    greeted: Notify,
}

impl Caller {
    /// One that has no connection, for tests.
    #[cfg(test)]
    pub(crate) fn of_test(owner: Owner, port: &Arc<Slots>, shown: PresentedIdentity) -> Arc<Self> {
        let slot = Arc::new(port.take(owner).expect("there is a place"));
        Self::new(owner, (&slot.occupant, port), shown, &slot)
    }

    pub(super) fn new(
        owner: Owner,
        (occupant, port): (&Arc<Occupant>, &Arc<Slots>),
        shown: PresentedIdentity,
        slot: &Arc<Slot>,
    ) -> Arc<Self> {
        Arc::new(Self {
            owner,
            occupant: Arc::clone(occupant),
            shown,
            tokens: Mutex::default(),
            ends: CancellationToken::new(),
            port: Arc::clone(port),
            slot: Arc::downgrade(slot),
            greeted: Notify::new(),
        })
    }

    /// The caller has finished its greeting.
    pub(super) fn has_greeted(&self) {
        self.occupant.greeted.store(true, Ordering::Relaxed);
        self.greeted.notify_one();
    }

    /// Waits until it has said hello.
    pub(crate) async fn greeted(&self) {
        self.greeted.notified().await;
    }

    /// The sender of a request.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Option<Arc<Self>> {
        request.extensions().get::<Arc<Self>>().cloned()
    }

    /// The caller has shown that it belongs to this cluster: its host may use the slots reserved for members.
    pub(crate) fn belongs_here(&self) {
        self.port.know(self.owner.host);
    }

    /// The tokens that were believed of its calls.
    pub(crate) fn tokens(&self) -> MutexGuard<'_, Vec<Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its connection is the client's of that name, who has shown so.
    pub(crate) fn is_of(&self, name: &str) {
        if let Some(slot) = self.slot.upgrade() {
            slot.is_of(self.owner.named(name));
        }
    }
}

/// A call that keeps a connection busy, until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Caller>);

impl Busy {
    pub(crate) fn new(caller: &Arc<Caller>) -> Self {
        caller.occupant.calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(caller))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.occupant.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
