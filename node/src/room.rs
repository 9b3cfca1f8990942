//! Room in memory that many share. Nobody gets more of it than is left for others, so that whoever is new always finds some; and
//! one at a time may go beyond, so that messages that have all begun do not wait for each other for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    by: BTreeMap<u64, usize>,
}

/// The room.
#[derive(Debug)]
pub(crate) struct Room {
    max: usize,
    used: Mutex<Used>,
    freed: Notify,
    /// Who has it takes what it needs.
    beyond: Arc<Semaphore>,
}

/// Room that one connection has; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    room: Arc<Room>,
    connection: u64,
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
    pub(crate) fn hold(self: &Arc<Self>, connection: u64) -> Held {
        Held { room: Arc::clone(self), connection, bytes: 0, beyond: None }
    }
}

impl Held {
    /// Takes more, if there is some.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        if self.beyond.is_some() {
            return true;
        }
        {
            let mut used = self.room.used();
            let own = used.by.get(&self.connection).copied().unwrap_or(0);
            if own + bytes <= self.room.max.saturating_sub(used.bytes + bytes) {
                used.bytes += bytes;
                *used.by.entry(self.connection).or_default() += bytes;
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

impl Drop for Held {
    fn drop(&mut self) {
        self.beyond = None;
        let mut used = self.room.used();
        used.bytes -= self.bytes;
        if let Some(own) = used.by.get_mut(&self.connection) {
            *own -= self.bytes;
            if *own == 0 {
                used.by.remove(&self.connection);
            }
        }
        drop(used);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_is_left_for_others() {
        let room = Room::new(100);
        let lane = Arc::clone(&room.beyond).try_acquire_owned().unwrap();
        let mut held: Vec<Held> = (0..10).map(|connection| room.hold(connection)).collect();
        for greedy in &mut held {
            while greedy.try_grow(1) {}
        }
        let taken: Vec<usize> = held.iter().map(|held| held.bytes).collect();
        assert_eq!(taken, [50, 25, 12, 6, 3, 2, 1, 0, 0, 0]);
        // A second message of the same connection counts with the first.
        assert!(!room.hold(0).try_grow(1));
        drop((held, lane));
        let used = room.used();
        assert_eq!((used.bytes, used.by.len()), (0, 0));
    }

    #[tokio::test]
    async fn one_at_a_time_goes_beyond_and_the_others_wait_for_it_or_for_room() {
        let room = Room::new(10);
        let (mut first, mut second, mut third) = (room.hold(1), room.hold(2), room.hold(3));
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
