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
    /// Told to all who push: there is room, or nobody takes any more.
    has_room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<NewRecord>,
    bytes: usize,
    is_complete: bool,
    is_closed: bool,
}

/// Both ends of a queue that holds a batch.
pub(super) fn queue(bounds: Bounds) -> (Entrance, Exit) {
    let (has_more, has_room) = (Notify::new(), Notify::new());
    let queue = Arc::new(Queue { bounds, waiting: Mutex::default(), has_more, has_room });
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
    fn try_push(&self, record: &mut Option<NewRecord>) -> Result<(), Closed> {
        let bytes = record.as_ref().map_or(0, bytes_of);
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return Err(Closed);
        }
        let count = waiting.records.len();
        let has_room = count < self.bounds.records_max && waiting.bytes.saturating_add(bytes) <= self.bounds.bytes_max;
        if count > 0 && !has_room {
            return Ok(());
        }
        waiting.records.extend(record.take());
        waiting.bytes = waiting.bytes.saturating_add(bytes);
        drop(waiting);
        if count == 0 {
            self.has_more.notify_one();
        }
        Ok(())
    }
}

impl Entrance {
    /// Puts a record behind those before it, once there is room.
    pub(super) async fn push(&self, record: NewRecord) -> Result<(), Closed> {
        // A loop of pushes leaves room to the other tasks of its thread.
        consume_budget().await;
        let mut record = Some(record);
        self.0.try_push(&mut record)?;
        while record.is_some() {
            let has_room = self.0.has_room.notified();
            self.0.try_push(&mut record)?;
            if record.is_some() {
                has_room.await;
            }
        }
        Ok(())
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
        let left = if waiting.records.len() > records_max {
            waiting.records.split_off(records_max)
        } else {
            VecDeque::with_capacity(waiting.records.len())
        };
        waiting.bytes = left.iter().map(bytes_of).sum();
        let records = std::mem::replace(&mut waiting.records, left);
        drop(waiting);
        self.0.has_room.notify_waiters();
        Some(records.into())
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        (waiting.is_closed, waiting.records) = (true, VecDeque::new());
        drop(waiting);
        self.0.has_room.notify_waiters();
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
