//! Room in memory that many share. No host gets more of it than is left for others, so that whoever is new always finds some; the
//! same is true of the connections of a host, within what the host may have. And one at a time may go beyond, so that messages that
//! have all begun do not wait for each other for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::server::owner::{Host, Owner};

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    by_host: BTreeMap<Host, usize>,
    by_connection: BTreeMap<Owner, usize>,
}

impl Used {
    /// The room that a connection may still take: half of what its host may have more, which is half of what nobody has.
    fn left(&self, owner: Owner, max: usize) -> usize {
        let host = self.by_host.get(&owner.host).copied().unwrap_or(0);
        let own = self.by_connection.get(&owner).copied().unwrap_or(0);
        let of_host = max.saturating_sub(self.bytes).saturating_sub(host) / 2;
        of_host.saturating_sub(own) / 2
    }

    fn take(&mut self, owner: Owner, bytes: usize) {
        self.bytes += bytes;
        *self.by_host.entry(owner.host).or_default() += bytes;
        *self.by_connection.entry(owner).or_default() += bytes;
    }

    fn give_back(&mut self, owner: Owner, bytes: usize) {
        self.bytes -= bytes;
        less(&mut self.by_host, owner.host, bytes);
        less(&mut self.by_connection, owner, bytes);
    }
}

/// Entries of nothing are not kept.
fn less<K: Ord>(used: &mut BTreeMap<K, usize>, key: K, bytes: usize) {
    if let Some(own) = used.get_mut(&key) {
        *own -= bytes;
        if *own == 0 {
            used.remove(&key);
        }
    }
}

/// The room.
#[derive(Debug)]
pub(crate) struct Room {
    max: usize,
    used: Mutex<Used>,
    freed: Notify,
    /// Takes what its holder needs.
    beyond: Arc<Semaphore>,
}

/// Room that one connection has; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct HeldRoom {
    room: Arc<Room>,
    owner: Owner,
    bytes: usize,
    beyond: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, used: Mutex::default(), freed: Notify::new(), beyond: Arc::new(Semaphore::new(1)) })
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing of it yet, for that connection.
    pub(crate) fn hold(self: &Arc<Self>, owner: Owner) -> HeldRoom {
        HeldRoom { room: Arc::clone(self), owner, bytes: 0, beyond: None }
    }
}

impl HeldRoom {
    /// Takes more, if there is some.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        if self.beyond.is_some() {
            return true;
        }
        {
            let mut used = self.room.used();
            if bytes <= used.left(self.owner, self.room.max) {
                used.take(self.owner, bytes);
                self.bytes += bytes;
                return true;
            }
        }
        self.beyond = Arc::clone(&self.room.beyond).try_acquire_owned().ok();
        self.beyond.is_some()
    }

    /// The same, when there is some.
    pub(crate) async fn grow(&mut self, bytes: usize) {
        loop {
            let room = Arc::clone(&self.room);
            let freed = room.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.try_grow(bytes) {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for HeldRoom {
    fn drop(&mut self) {
        self.beyond = None;
        self.room.used().give_back(self.owner, self.bytes);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::owner::tests::owner;

    /// The share of each that takes all that it can, one after the other.
    fn greedy(room: &Arc<Room>, owners: impl IntoIterator<Item = Owner>) -> Vec<HeldRoom> {
        let take_all = |owner| {
            let mut held = room.hold(owner);
            while held.try_grow(1) {}
            held
        };
        owners.into_iter().map(take_all).collect()
    }

    fn bytes(held: &[HeldRoom]) -> Vec<usize> {
        held.iter().map(|held| held.bytes).collect()
    }

    #[test]
    fn no_host_gets_more_than_is_left_for_others_and_no_connection_more_than_is_left_for_its_host() {
        let room = Room::new(1000);
        let lane = Arc::clone(&room.beyond).try_acquire_owned().unwrap();
        let first = greedy(&room, (0..20).map(|connection| owner(1, connection)));
        assert_eq!(bytes(&first[..6]), [250, 125, 62, 31, 16, 8]);
        assert!(
            bytes(&first).iter().sum::<usize>() <= 500,
            "half is left to other hosts, however many connections one has"
        );
        // A second message of the same connection counts with the first.
        assert!(!room.hold(owner(1, 0)).try_grow(1));
        let others = greedy(&room, (2..6).map(|host| owner(host, 0)));
        assert_eq!(bytes(&others), [125, 94, 70, 53]);
        drop((first, others, lane));
        let used = room.used();
        assert_eq!((used.bytes, used.by_host.len(), used.by_connection.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn one_at_a_time_goes_beyond_and_the_others_wait_for_it_or_for_room() {
        let room = Room::new(20);
        let (mut first, mut second, mut third) =
            (room.hold(owner(1, 1)), room.hold(owner(2, 2)), room.hold(owner(3, 3)));
        first.grow(5).await;
        first.grow(500).await;
        assert_eq!(first.bytes, 5, "what goes beyond is not counted");
        assert!(!second.try_grow(6));
        {
            let mut waiting = Box::pin(second.grow(6));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            drop(first);
            waiting.await;
        }
        third.grow(2).await;
        let mut waiting = Box::pin(third.grow(100));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(second);
        waiting.await;
    }
}
