//! The answer of a call on its way from the service to the connection: a bounded number of bytes at a time, and known to be taken or not.
//! A call whose client takes nothing for a time ends, and what it holds is given back.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::Frame;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use zue_proto::v1::Error;
use zue_settings::fixed::{UNTAKEN_BYTES_MAX, UNTAKEN_END_BYTES_MAX};

use crate::rarely::Rarely;
use crate::server::slots::Slot;
use crate::tls::CallRight;

/// The most bytes that are handed to the connection in one piece.
const PIECE_BYTES: usize = 16 << 10;

tokio::task_local! {
    /// The call that a task serves.
    static CALL: Arc<Call>;
}

/// One call, and what it holds.
#[derive(Debug)]
pub(crate) struct Call {
    /// None where there was no place for it.
    slot: Option<Slot>,
    flow: Arc<Flow>,
    holds: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Call {
    pub(crate) fn new(slot: Option<Slot>) -> Arc<Self> {
        Arc::new(Self { slot, flow: Arc::new(Flow::default()), holds: Mutex::default() })
    }

    /// Its place, if there was one for it.
    pub(crate) fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref()
    }

    /// The call that this task serves.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CALL.try_with(Arc::clone).ok()
    }

    /// Keeps something until the call has ended and its answer is taken.
    pub(crate) fn keep(&self, thing: impl Any + Send) {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(thing));
    }

    async fn makes_way(&self) {
        match &self.slot {
            Some(slot) => slot.occupant.leaves.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Serves a stream of HTTP/2 that this call is, until it is done, has to make way, or its client has taken nothing for so long.
    pub(crate) async fn serve(self: Arc<Self>, stream: impl Future<Output = ()>, stall_max: Duration) {
        let call = Arc::clone(&self);
        let mut ends = Rarely::new(async move {
            tokio::select! {
                () = call.makes_way() => tracing::debug!("a call made way for others"),
                () = call.flow.stands_still(stall_max) => tracing::debug!("a call ended: its client takes nothing"),
            }
        });
        tokio::select! {
            biased;
            () = CALL.scope(self, stream) => {}
            () = &mut ends => {}
        }
    }
}

/// The part of a call that is with the connection.
#[derive(Debug, Default)]
struct Flow {
    untaken: AtomicUsize,
    /// The number of pieces that were taken.
    taken: AtomicUsize,
    waker: AtomicWaker,
}

impl Flow {
    fn untaken(&self) -> usize {
        self.untaken.load(Ordering::Acquire)
    }

    /// Ends when something has waited for so long, while nothing was taken.
    async fn stands_still(&self, stall_max: Duration) {
        let look = (stall_max / 4).max(Duration::from_millis(1));
        let (mut taken, mut since) = (0, Instant::now());
        loop {
            tokio::time::sleep(look).await;
            let now_taken = self.taken.load(Ordering::Acquire);
            if self.untaken() == 0 || now_taken != taken {
                (taken, since) = (now_taken, Instant::now());
            } else if since.elapsed() >= stall_max {
                return;
            }
        }
    }
}

/// The work that is done at the end of an answer.
pub(crate) type Explain = Box<dyn Fn(&mut HeaderMap) + Send>;

/// Bytes that are with the connection.
struct Piece {
    bytes: Bytes,
    flow: Arc<Flow>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.flow.untaken.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        self.flow.taken.fetch_add(1, Ordering::AcqRel);
        self.flow.waker.wake();
    }
}

/// The body of an answer, as it goes out.
pub(crate) struct Outflow {
    body: Body,
    flow: Arc<Flow>,
    /// The bytes that were not handed on yet.
    left: Bytes,
    /// The end of the service's answer, once it has come to it.
    has_ended: bool,
    trailers: Option<HeaderMap>,
    /// Sees the end on its way.
    explain: Explain,
    /// Ends when the caller has lost the right to the rest.
    lost: Option<Rarely<Error>>,
}

impl Outflow {
    /// The outflow of a call, with the right by which it goes on, if that can be lost.
    pub(crate) fn new(body: Body, call: &Call, explain: Explain, call_right: Option<CallRight>) -> Self {
        let lost = call_right.map(|call_right| Rarely::new(call_right.lost()));
        Self { body, flow: Arc::clone(&call.flow), left: Bytes::new(), has_ended: false, trailers: None, explain, lost }
    }

    /// Ends it if it may not go on. What has gone out of a message is not taken back: the client sees its end before the message's.
    fn end_if_lost(&mut self, cx: &mut Context<'_>) {
        let Some(Poll::Ready(why)) = self.lost.as_mut().map(|lost| Pin::new(lost).poll(cx)) else { return };
        self.lost = None;
        if self.has_ended {
            return;
        }
        let mut trailers = HeaderMap::new();
        if let Err(status) = crate::services::errors::status(why).add_header(&mut trailers) {
            tracing::error!(%status, "the end of a call cannot be explained");
        }
        (self.left, self.has_ended, self.trailers) = (Bytes::new(), true, Some(trailers));
    }

    fn piece(&mut self) -> Frame<Bytes> {
        // A copy: a piece that is not taken must not keep the whole message.
        let piece = self.left.split_to(self.left.len().min(PIECE_BYTES));
        let bytes = Bytes::copy_from_slice(&piece);
        self.flow.untaken.fetch_add(bytes.len(), Ordering::AcqRel);
        Frame::data(Bytes::from_owner(Piece { bytes, flow: Arc::clone(&self.flow) }))
    }
}

impl http_body::Body for Outflow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.flow.waker.register(cx.waker());
        self.end_if_lost(cx);
        loop {
            if !self.left.is_empty() {
                if self.flow.untaken() >= UNTAKEN_BYTES_MAX {
                    return Poll::Pending;
                }
                return Poll::Ready(Some(Ok(self.piece())));
            }
            if self.has_ended {
                if self.flow.untaken() > UNTAKEN_END_BYTES_MAX {
                    return Poll::Pending;
                }
                return Poll::Ready(self.trailers.take().map(Frame::trailers).map(Ok));
            }
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.has_ended = true,
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.left = data,
                    Err(frame) => {
                        let mut trailers = frame.into_trailers().unwrap_or_default();
                        (self.explain)(&mut trailers);
                        (self.has_ended, self.trailers) = (true, Some(trailers));
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.trailers.is_none() && (self.has_ended || self.body.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::StreamExt as _;
    use http_body::Body as _;

    use super::*;

    async fn next(body: &mut Outflow) -> Option<Frame<Bytes>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.map(Result::unwrap)
    }

    fn body(chunks: &[usize], call: &Call) -> Outflow {
        let chunks: Vec<_> = chunks.iter().map(|bytes| Ok::<_, Status>(Bytes::from(vec![7; *bytes]))).collect();
        let stream = futures::stream::iter(chunks).chain(futures::stream::empty());
        Outflow::new(Body::new(axum::body::Body::from_stream(stream)), call, Box::new(|_| {}), None)
    }

    #[tokio::test]
    async fn no_more_is_with_the_connection_than_may_be_and_the_end_waits_until_it_is_taken() {
        let call = Call::new(None);
        let mut body = body(&[100_000, 50_000], &call);
        let mut with_connection = VecDeque::new();
        let mut total = 0;
        loop {
            let frame = tokio::select! {
                biased;
                frame = next(&mut body) => frame,
                () = std::future::ready(()) => {
                    assert!(call.flow.untaken() <= UNTAKEN_BYTES_MAX + PIECE_BYTES);
                    assert!(with_connection.pop_front().is_some(), "it waits though all is taken");
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            let data = frame.into_data().unwrap();
            total += data.len();
            with_connection.push_back(data);
        }
        assert_eq!(total, 150_000);
        assert!(call.flow.untaken() <= UNTAKEN_END_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_call_ends_when_nothing_of_it_is_taken_and_not_while_its_service_has_nothing_to_say() {
        let begun = Instant::now();
        let stall_max = Duration::from_millis(100);
        let call = Call::new(None);
        let silent = Arc::clone(&call).serve(tokio::time::sleep(Duration::from_secs(1)), stall_max);
        silent.await;
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let mut body = body(&[20_000], &call);
        let piece = next(&mut body).await;
        // It ends, though its service would go on.
        Arc::clone(&call).serve(std::future::pending(), stall_max).await;
        drop(piece);
    }
}
