//! Pipelined appends: records in, acknowledgements out, both in order, with a bound on what lies between.

mod driver;
mod window;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use zue_proto::v1::NewRecord;

use crate::error::AppendError;
use crate::{AppendId, Appended, Client};

/// Takes records. Dropping it sends what is left and ends the acknowledgements.
#[derive(Debug)]
pub struct Appender {
    queue: mpsc::Sender<Queued>,
    /// Bytes that may wait beside what is under way.
    room: Arc<Semaphore>,
    room_max: u32,
}

/// The acknowledgements: one a batch, in the order of the records. Must be taken while records are pushed. After an error nothing
/// more comes, and nothing more is sent.
#[derive(Debug)]
pub struct Acks(mpsc::Receiver<Result<Appended, AppendError>>);

/// The appender has failed; its [`Acks`] say why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the appender has failed")]
pub struct Closed;

/// A record that waits, with the room it takes.
#[derive(Debug)]
pub(crate) struct Queued {
    record: NewRecord,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

impl Client {
    /// Many appends in a row: what is pushed into the one is answered, in order, by the other. Must be called inside a tokio
    /// runtime.
    pub fn appender(&self) -> (Appender, Acks) {
        start(self.clone(), None)
    }

    /// As [`Client::appender`], for records of which the first may be in the log since an earlier try that ended with
    /// [`AppendError::id`], or was interrupted behind what its acknowledgements tell: they are kept once. Until one is found that is
    /// not in the log each goes alone, however they were put together before.
    pub fn appender_again(&self, id: AppendId) -> (Appender, Acks) {
        start(self.clone(), Some(id))
    }
}

impl Appender {
    /// Appends a record after those before it. Waits while too much is under way; no record waits for others to fill a batch.
    pub async fn push(&self, record: NewRecord) -> Result<(), Closed> {
        let bytes = bytes_of(&record);
        let room = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_max);
        let room = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| Closed)?;
        self.queue.send(Queued { record, bytes, _room: room }).await.map_err(|_| Closed)
    }
}

impl Acks {
    /// The next acknowledgement; none when all records are acknowledged or the appender has failed.
    pub async fn next(&mut self) -> Option<Result<Appended, AppendError>> {
        self.0.recv().await
    }
}

impl Stream for Acks {
    type Item = Result<Appended, AppendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// About what a record takes on its way.
fn bytes_of(record: &NewRecord) -> usize {
    let headers: usize = record.headers.iter().map(|header| header.name.len() + header.value.len() + 16).sum();
    record.value.len() + record.key.as_ref().map_or(0, bytes::Bytes::len) + headers + 32
}

pub(crate) fn start(client: Client, again: Option<AppendId>) -> (Appender, Acks) {
    let config = client.config();
    let room_max = u32::try_from(config.batch_bytes_max).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(config.batch_bytes_max));
    let (queue, queued) = mpsc::channel(config.batch_records_max);
    let (acks, acked) = mpsc::channel(config.in_flight_max);
    tokio::spawn(driver::run(client, again, queued, acks));
    (Appender { queue, room, room_max }, Acks(acked))
}
