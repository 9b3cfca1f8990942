//! Records that wait to be sent. What is pushed while a batch is on its way is the next batch: so it is bounded as one, and a record costs
//! no more than a lock that is mostly free.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use zue_proto::v1::NewRecord;

use super::Closed;

/// The bounds of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    pub(super) bytes_max: usize,
    pub(super) records_max: usize,
}

/// The end at which records go in. Dropped, what waits is the last.
#[derive(Debug)]
pub(super) struct Entrance(Arc<Queue>);

/// The end at which batches come out. Dropped, nothing goes in any more.
#[derive(Debug)]
pub(super) struct Exit(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    bounds: Bounds,
    waiting: Mutex<Waiting>,
    /// Told to the one who takes: there is a first record, or there will be no more.
    has_more: Notify,
    /// Told to the one who pushes next: there is room, or nobody takes any more.
    has_room: Notify,
    /// Held by the one who pushes next, where there was no room: records go in in the order in which they were pushed.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<NewRecord>,
    bytes: usize,
    /// The number of pushes that wait for room.
    pushes: usize,
    is_complete: bool,
    is_closed: bool,
}

/// Both ends of a queue that holds a batch.
pub(super) fn queue(bounds: Bounds) -> (Entrance, Exit) {
    let (has_more, has_room) = (Notify::new(), Notify::new());
    let queue =
        Arc::new(Queue { bounds, waiting: Mutex::default(), has_more, has_room, turn: tokio::sync::Mutex::default() });
    (Entrance(Arc::clone(&queue)), Exit(queue))
}

/// About what a record takes on its way.
fn bytes_of(record: &NewRecord) -> usize {
    let headers: usize = record.headers.iter().map(|header| header.name.len() + header.value.len() + 16).sum();
    record.value.len() + record.key.as_ref().map_or(0, bytes::Bytes::len) + headers + 32
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the record in, if there is room, and takes it out of `record` then. The first fits however large it is.
    fn try_push(&self, waiting: &mut Waiting, record: &mut Option<NewRecord>) -> Result<(), Closed> {
        if waiting.is_closed {
            return Err(Closed);
        }
        let (count, bytes) = (waiting.records.len(), record.as_ref().map_or(0, bytes_of));
        let has_room = count < self.bounds.records_max && waiting.bytes.saturating_add(bytes) <= self.bounds.bytes_max;
        if count > 0 && !has_room {
            return Ok(());
        }
        waiting.records.extend(record.take());
        waiting.bytes = waiting.bytes.saturating_add(bytes);
        if count == 0 {
            self.has_more.notify_one();
        }
        Ok(())
    }
}

/// A push that waits for room: those that begin later wait behind it.
struct Push<'a>(&'a Queue);

impl Drop for Push<'_> {
    fn drop(&mut self) {
        self.0.waiting().pushes -= 1;
    }
}

impl Entrance {
    /// Puts a record behind those before it, once there is room.
    pub(super) async fn push(&self, record: NewRecord) -> Result<(), Closed> {
        // A loop of pushes leaves room to the other tasks of its thread.
        consume_budget().await;
        let Self(queue) = self;
        let mut record = Some(record);
        {
            let mut waiting = queue.waiting();
            if waiting.pushes == 0 {
                queue.try_push(&mut waiting, &mut record)?;
            }
            if record.is_none() {
                return Ok(());
            }
            waiting.pushes += 1;
        }
        let _push = Push(queue);
        let _turn = queue.turn.lock().await;
        loop {
            queue.try_push(&mut queue.waiting(), &mut record)?;
            if record.is_none() {
                return Ok(());
            }
            queue.has_room.notified().await;
        }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.waiting().is_complete = true;
        self.0.has_more.notify_one();
    }
}

impl Exit {
    /// Waits for records, and takes all there are, or the first `records_max`; none at the end. May be dropped without losing a record.
    pub(super) async fn batch(&mut self, records_max: usize) -> Option<Vec<NewRecord>> {
        loop {
            if let Some(records) = self.take(records_max) {
                return if records.is_empty() { None } else { Some(records) };
            }
            self.0.has_more.notified().await;
        }
    }

    /// Takes what there is; nothing at the end, and `None` while there may be more.
    fn take(&self, records_max: usize) -> Option<Vec<NewRecord>> {
        let mut waiting = self.0.waiting();
        if waiting.records.is_empty() {
            return waiting.is_complete.then(Vec::new);
        }
        let records: Vec<_> = if waiting.records.len() > records_max {
            let records: Vec<_> = waiting.records.drain(..records_max).collect();
            waiting.bytes = waiting.bytes.saturating_sub(records.iter().map(bytes_of).sum());
            records
        } else {
            let next = VecDeque::with_capacity(waiting.records.len());
            waiting.bytes = 0;
            std::mem::replace(&mut waiting.records, next).into()
        };
        drop(waiting);
        self.0.has_room.notify_one();
        Some(records)
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.is_closed = true;
        let records = std::mem::take(&mut waiting.records);
        drop(waiting);
        drop(records);
        // The next push hears of it, and those behind it find out when it is their turn.
        self.0.has_room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use std::pin::pin;

    use super::*;

    fn record(bytes: usize) -> NewRecord {
        NewRecord { value: vec![0; bytes - 32].into(), ..NewRecord::default() }
    }

    fn three() -> (Entrance, Exit) {
        queue(Bounds { bytes_max: 120, records_max: 3 })
    }

    #[tokio::test]
    async fn it_holds_a_batch_and_whoever_pushes_more_waits_until_that_is_taken() {
        for sizes in [&[40, 40, 32][..], &[40, 80], &[500]] {
            let (entrance, mut exit) = three();
            for bytes in sizes {
                entrance.push(record(*bytes)).await.unwrap();
            }
            let mut more = pin!(entrance.push(record(41)));
            assert!(poll!(more.as_mut()).is_pending(), "{sizes:?}");
            assert_eq!(exit.batch(usize::MAX).await.unwrap().len(), sizes.len());
            more.await.unwrap();
            assert_eq!(exit.batch(usize::MAX).await.unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn a_push_that_waits_is_overtaken_by_none_that_begins_later() {
        let (entrance, mut exit) = three();
        entrance.push(record(120)).await.unwrap();
        let mut first = pin!(entrance.push(record(100)));
        assert!(poll!(first.as_mut()).is_pending());
        assert_eq!(exit.batch(usize::MAX).await.unwrap().len(), 1);
        let mut second = pin!(entrance.push(record(33)));
        assert!(poll!(second.as_mut()).is_pending());
        first.await.unwrap();
        assert!(poll!(second.as_mut()).is_pending());
        assert_eq!(bytes_of(&exit.batch(usize::MAX).await.unwrap()[0]), 100);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_push_that_is_given_up_leaves_its_turn_to_the_next() {
        let (entrance, mut exit) = three();
        entrance.push(record(120)).await.unwrap();
        {
            let mut given_up = pin!(entrance.push(record(100)));
            assert!(poll!(given_up.as_mut()).is_pending());
            assert_eq!(exit.batch(usize::MAX).await.unwrap().len(), 1);
        }
        entrance.push(record(33)).await.unwrap();
        assert_eq!(bytes_of(&exit.batch(usize::MAX).await.unwrap()[0]), 33);
    }

    #[tokio::test]
    async fn batches_come_in_the_order_of_the_records_as_short_as_they_are_asked_for() {
        let (entrance, mut exit) = three();
        for bytes in [33, 34, 35] {
            entrance.push(record(bytes)).await.unwrap();
        }
        let lengths = |records: Vec<NewRecord>| records.iter().map(bytes_of).collect::<Vec<_>>();
        assert_eq!(lengths(exit.batch(1).await.unwrap()), [33]);
        entrance.push(record(36)).await.unwrap();
        drop(entrance);
        assert_eq!(lengths(exit.batch(2).await.unwrap()), [34, 35]);
        assert_eq!(lengths(exit.batch(2).await.unwrap()), [36]);
        assert_eq!(exit.batch(2).await, None);
    }

    #[tokio::test]
    async fn nothing_goes_in_once_nobody_takes() {
        let (entrance, exit) = three();
        entrance.push(record(120)).await.unwrap();
        let mut more = pin!(entrance.push(record(33)));
        assert!(poll!(more.as_mut()).is_pending());
        drop(exit);
        assert_eq!(more.await, Err(Closed));
        assert_eq!(entrance.push(record(33)).await, Err(Closed));
    }

    #[tokio::test]
    async fn a_batch_that_was_not_waited_for_is_there_the_next_time() {
        let (entrance, mut exit) = three();
        {
            let mut batch = pin!(exit.batch(usize::MAX));
            assert!(poll!(batch.as_mut()).is_pending());
            entrance.push(record(40)).await.unwrap();
        }
        assert_eq!(exit.batch(usize::MAX).await.unwrap().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_pushes_and_whoever_takes_on_different_threads_meet() {
        let (entrance, mut exit) = three();
        let entrance = Arc::new(entrance);
        let pushers: Vec<_> = (0..3)
            .map(|_| {
                let entrance = Arc::clone(&entrance);
                tokio::spawn(async move {
                    for _ in 0..2000 {
                        entrance.push(record(40)).await.unwrap();
                    }
                })
            })
            .collect();
        drop(entrance);
        let mut taken = 0;
        while let Some(batch) = exit.batch(usize::MAX).await {
            taken += batch.len();
        }
        assert_eq!(taken, 6000);
        for pusher in pushers {
            pusher.await.unwrap();
        }
    }
}
