//! Whoever is at the other end of a connection: whose share it takes, and what it has shown of itself.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::server::owner::Owner;
use crate::server::places::{Place, Places, Seat};
use crate::tls::{Shown, Token};

/// Whoever is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) owner: Owner,
    pub(crate) seat: Arc<Seat>,
    /// The identity that it has shown with the connection, and with its calls.
    pub(crate) shown: Shown,
    tokens: Mutex<Vec<Token>>,
    /// It is to send nothing new on this connection, which ends soon.
    pub(crate) ends: CancellationToken,
    pub(super) port: Arc<Places>,
    place: Weak<Place>,
    greeted: Notify,
}

impl Caller {
    /// One that has no connection, for tests.
    #[cfg(test)]
    pub(crate) fn of_test(owner: Owner, port: &Arc<Places>, shown: Shown) -> Arc<Self> {
        let place = Arc::new(port.take(owner).expect("there is a place"));
        Self::new(owner, (&place.seat, port), shown, &place)
    }

    pub(super) fn new(
        owner: Owner,
        (seat, port): (&Arc<Seat>, &Arc<Places>),
        shown: Shown,
        place: &Arc<Place>,
    ) -> Arc<Self> {
        Arc::new(Self {
            owner,
            seat: Arc::clone(seat),
            shown,
            tokens: Mutex::default(),
            ends: CancellationToken::new(),
            port: Arc::clone(port),
            place: Arc::downgrade(place),
            greeted: Notify::new(),
        })
    }

    /// It has said hello, all of it.
    pub(super) fn has_greeted(&self) {
        self.seat.greeted.store(true, Ordering::Relaxed);
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

    /// It has shown that it belongs here: the places that its port keeps for such are for its host.
    pub(crate) fn belongs_here(&self) {
        self.port.know(self.owner.host);
    }

    /// The tokens that were believed of its calls.
    pub(crate) fn tokens(&self) -> MutexGuard<'_, Vec<Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its connection is the client's of that name, who has shown so.
    pub(crate) fn is_of(&self, name: &str) {
        if let Some(place) = self.place.upgrade() {
            place.is_of(self.owner.named(name));
        }
    }
}

/// A call that keeps a connection busy, until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Caller>);

impl Busy {
    pub(crate) fn new(caller: &Arc<Caller>) -> Self {
        caller.seat.calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(caller))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.seat.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
