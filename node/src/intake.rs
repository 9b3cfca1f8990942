//! How much of the appends is in memory while they are received. A message is received only once there is room for all of it: one
//! call is refused when there is none, a stream waits.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, StdError, http};
use tonic::server::NamedService;
use zue_proto::status_of;
use zue_proto::v1::Reason;

use crate::append::WhenFull;
use crate::errors::{error, shutting_down};
use crate::num::length;

/// What stands in front of a message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Room for messages that are received.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    room: Arc<Semaphore>,
    bytes_max: u32,
}

impl Intake {
    pub(crate) fn new(bytes_max: u32) -> Self {
        Self { room: Arc::new(Semaphore::new(length(bytes_max))), bytes_max }
    }

    async fn take(&self, bytes: u32, when_full: WhenFull) -> Result<OwnedSemaphorePermit, Status> {
        let (room, bytes) = (Arc::clone(&self.room), bytes.min(self.bytes_max));
        match when_full {
            WhenFull::Wait => room.acquire_many_owned(bytes).await.map_err(|_| status_of(shutting_down())),
            WhenFull::Refuse => room.try_acquire_many_owned(bytes).map_err(|_| {
                let max = self.bytes_max;
                status_of(error(
                    Reason::Overloaded,
                    format!("{max} bytes of appends are being received, the most that may be"),
                ))
            }),
        }
    }
}

/// Where the messages of a body begin and end.
#[derive(Debug, Default)]
struct Messages {
    prefix: Vec<u8>,
    /// Of the message under way.
    left: usize,
}

impl Messages {
    fn is_between(&self) -> bool {
        self.prefix.is_empty()
    }

    /// Cuts the next piece off; the length of the message if its prefix ends here. A piece lies within one message.
    fn piece(&mut self, bytes: &mut Bytes) -> (Bytes, Option<u32>) {
        let missing = PREFIX_BYTES.saturating_sub(self.prefix.len());
        let piece = bytes.split_to(bytes.len().min(if missing > 0 { missing } else { self.left }));
        let mut begun = None;
        if missing > 0 {
            self.prefix.extend_from_slice(&piece);
            if let [_, a, b, c, d] = *self.prefix {
                let message = u32::from_be_bytes([a, b, c, d]);
                (self.left, begun) = (length(message), Some(message));
            }
        } else {
            self.left -= piece.len();
        }
        if self.left == 0 && self.prefix.len() == PREFIX_BYTES {
            self.prefix.clear();
        }
        (piece, begun)
    }
}

/// A body whose messages take room while they are received and until the next is asked for.
struct Received<S> {
    body: S,
    bytes: Bytes,
    messages: Messages,
    intake: Intake,
    when_full: WhenFull,
    held: Option<OwnedSemaphorePermit>,
}

impl<S, E> Received<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<StdError>,
{
    async fn next(&mut self) -> Option<Result<Bytes, StdError>> {
        if self.messages.is_between() {
            self.held = None;
        }
        while self.bytes.is_empty() {
            match self.body.next().await? {
                Ok(bytes) => self.bytes = bytes,
                Err(error) => return Some(Err(error.into())),
            }
        }
        let (piece, begun) = self.messages.piece(&mut self.bytes);
        if let Some(bytes) = begun {
            match self.intake.take(bytes, self.when_full).await {
                // Nothing is held by now: who waits keeps nobody from going on.
                Ok(permit) => self.held = Some(permit),
                Err(status) => return Some(Err(status.into())),
            }
        }
        Some(Ok(piece))
    }
}

/// A service whose appends take room.
#[derive(Clone, Debug)]
pub(crate) struct Metered<S> {
    pub(crate) service: S,
    pub(crate) intake: Intake,
}

impl<S: NamedService> NamedService for Metered<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Metered<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let when_full = match request.uri().path().rsplit('/').next() {
            Some("Append") => WhenFull::Refuse,
            Some("AppendStream") => WhenFull::Wait,
            _ => return self.service.call(request),
        };
        let intake = self.intake.clone();
        self.service.call(request.map(|body| metered(body, intake, when_full)))
    }
}

fn metered(body: Body, intake: Intake, when_full: WhenFull) -> Body {
    let body = axum::body::Body::new(body).into_data_stream();
    let (bytes, messages) = (Bytes::new(), Messages::default());
    let received = Received { body, bytes, messages, intake, when_full, held: None };
    let pieces = futures::stream::unfold(received, |mut received| async move {
        let piece = pin!(received.next()).await?;
        Some((piece, received))
    });
    Body::new(axum::body::Body::from_stream(pieces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: u8) -> Vec<u8> {
        let mut message = vec![0, 0, 0, 0, bytes];
        message.extend(vec![7; usize::from(bytes)]);
        message
    }

    #[test]
    fn a_piece_lies_within_one_message_however_they_are_cut() {
        let all: Vec<u8> = [3, 0, 9, 1].into_iter().flat_map(message).collect();
        for size in 1..=all.len() {
            let (mut messages, mut out, mut begun) = (Messages::default(), Vec::new(), Vec::new());
            for chunk in all.chunks(size) {
                let mut bytes = Bytes::copy_from_slice(chunk);
                while !bytes.is_empty() {
                    let (piece, message) = messages.piece(&mut bytes);
                    assert!(!piece.is_empty());
                    out.extend_from_slice(&piece);
                    begun.extend(message);
                }
            }
            assert_eq!((out, begun, messages.is_between()), (all.clone(), vec![3, 0, 9, 1], true), "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_message_holds_its_room_until_the_next_is_asked_for() {
        let intake = Intake::new(10);
        let received = |when_full| Received {
            body: futures::stream::iter([message(6), message(6)].map(|bytes| Ok::<_, Status>(Bytes::from(bytes)))),
            bytes: Bytes::new(),
            messages: Messages::default(),
            intake: intake.clone(),
            when_full,
            held: None,
        };
        let mut first = received(WhenFull::Wait);
        first.next().await.unwrap().unwrap();
        first.next().await.unwrap().unwrap();
        assert_eq!(intake.room.available_permits(), 4);
        let refused = received(WhenFull::Refuse).next().await.unwrap().unwrap_err();
        assert_eq!(refused.downcast::<Status>().unwrap().code(), tonic::Code::ResourceExhausted);
        let mut second = received(WhenFull::Wait);
        let mut waiting = Box::pin(async move {
            second.next().await.unwrap().unwrap();
            second
        });
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        // Its next message comes after those who wait.
        let mut again = pin!(first.next());
        assert!(futures::poll!(again.as_mut()).is_pending());
        drop(waiting.await);
        again.await.unwrap().unwrap();
    }
}
