//! Pipelined appends: records in, acknowledgements out, both in order, with a bound on what lies between.

mod driver;
mod queue;
mod window;

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;
use zue_proto::v1::NewRecord;

use self::queue::{Bounds, queue};
use crate::error::AppendError;
use crate::{AppendId, Appended, Client};

/// Takes records. Dropping it sends what is left and ends the acknowledgements.
#[derive(Debug)]
pub struct Appender(queue::Entrance);

/// The acknowledgements: one a batch, in the order of the records. Must be taken while records are pushed. After an error nothing
/// more comes, and nothing more is sent.
#[derive(Debug)]
pub struct Acks(mpsc::Receiver<Result<Appended, AppendError>>);

/// The appender has failed; its [`Acks`] say why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the appender has failed")]
pub struct Closed;

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
        self.0.push(record).await
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

pub(crate) fn start(client: Client, again: Option<AppendId>) -> (Appender, Acks) {
    let config = client.config();
    let (entrance, exit) = queue(Bounds { bytes_max: config.batch_bytes_max, records_max: config.batch_records_max });
    let (acks, acked) = mpsc::channel(config.in_flight_max);
    tokio::spawn(driver::run(client, again, exit, acks));
    (Appender(entrance), Acks(acked))
}
