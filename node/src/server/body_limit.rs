//! Limits on a call's request. Room is taken by what has come, not by what is announced; what is begun has to come in time; and what is
//! over a limit is refused before it is decoded, as soon as that shows.

use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;
use zue_proto::shape::{Counter, Fields, Tally};
use zue_proto::status_of;
use zue_proto::v1::{self, Reason};
use zue_settings::fixed::PART_BYTES;

use crate::num::{length, narrow, wide};
use crate::rarely::Rarely;
use crate::server::owner::Owner;
use crate::server::room::{HeldRoom, Room};
use crate::services::append::WhenFull;
use crate::services::errors::{error, invalid, status};
use crate::tls::CallRight;

/// The prefix of a message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Announced bytes for which a message may take a second longer.
const BYTES_PER_SECOND: u64 = 512 << 10;

/// The limits of one call.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Of one message.
    pub(crate) bytes_max: usize,
    /// The setting that the limit comes from, if any.
    pub(crate) bytes_from: &'static str,
    pub(crate) fields: &'static Fields,
    pub(crate) records_max: u64,
    pub(crate) record_headers_max: u64,
    pub(crate) parts_max: u64,
    pub(crate) room: Arc<Room>,
    pub(crate) when_full: WhenFull,
    /// True if messages follow each other, as long as anybody likes.
    pub(crate) is_stream: bool,
    /// True if there is one message and no more.
    pub(crate) is_single: bool,
    /// True for an append, which has a fate.
    pub(crate) appends: bool,
    pub(crate) receive_within: Duration,
}

/// The room and the refusal of the message that the service has just received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parcel(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    room: Option<HeldRoom>,
    refused: Option<v1::Error>,
    /// The length of the message that is under way.
    announced: u32,
}

/// The time by which a message of so many bytes may take longer than usual.
pub(crate) fn longer(bytes: u64) -> Duration {
    Duration::from_secs(bytes / BYTES_PER_SECOND)
}

impl Parcel {
    /// The parcel of a request.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, room: Option<HeldRoom>, refused: Option<v1::Error>) {
        *self.contents() = Contents { room, refused, announced: 0 };
    }

    /// The time by which the message under way may take longer than usual; no time if none is under way.
    pub(crate) fn longer(&self) -> Duration {
        longer(self.contents().announced.into())
    }

    /// The room that the message takes, to be kept as long as it is; or why it was refused and is empty.
    pub(crate) fn open(&self) -> Result<Option<HeldRoom>, v1::Error> {
        let Contents { room, refused, announced: _ } = std::mem::take(&mut *self.contents());
        refused.map_or(Ok(room), Err)
    }
}

/// The bounds of a body's messages.
#[derive(Debug, Default)]
struct Messages {
    prefix: Vec<u8>,
    /// The bytes that are left of the message under way.
    left: usize,
}

/// A message begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct MessageStart {
    compressed: u8,
    bytes: u32,
}

impl Messages {
    fn is_between(&self) -> bool {
        self.prefix.is_empty()
    }

    /// Cuts the next piece off; what begins if a prefix ends here. A piece lies within one message.
    fn piece(&mut self, bytes: &mut Bytes) -> (Bytes, Option<MessageStart>) {
        let missing = PREFIX_BYTES.saturating_sub(self.prefix.len());
        let piece = bytes.split_to(bytes.len().min(if missing > 0 { missing } else { self.left }));
        let mut begun = None;
        if missing > 0 {
            self.prefix.extend_from_slice(&piece);
            if let [compressed, a, b, c, d] = *self.prefix {
                let bytes = u32::from_be_bytes([a, b, c, d]);
                (self.left, begun) = (length(bytes), Some(MessageStart { compressed, bytes }));
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

/// A message on its way.
#[derive(Debug)]
struct Message {
    counter: Counter,
    room: HeldRoom,
    /// The memory that it takes beside its bytes, as counted so far.
    parts: usize,
    /// It was refused: what is left of it is passed over.
    is_refused: bool,
}

/// The work that is due when the first message has come.
pub(crate) type AtFirst = Box<dyn FnOnce() + Send>;

/// The body of a call while it is received.
struct Received<S> {
    body: S,
    bytes: Bytes,
    messages: Messages,
    message: Option<Message>,
    /// The one message of a call that has no more has come.
    is_complete: bool,
    rules: Rules,
    parcel: Parcel,
    owner: Owner,
    /// Done when the first message has come.
    at_first: Option<AtFirst>,
    /// The deadline for the message under way.
    due: Option<Instant>,
    /// The right by which the call goes on.
    call_right: CallRight,
    /// Ends when a stream may not go on; none for other calls.
    lost: Option<Rarely<v1::Error>>,
}

impl<S, E> Received<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<StdError>,
{
    /// The next piece for the service.
    async fn next(&mut self) -> Option<Result<Bytes, StdError>> {
        loop {
            if self.messages.is_between() && self.rules.is_stream {
                self.due = None;
                self.parcel.put(None, None);
            }
            while self.bytes.is_empty() {
                match self.arrives().await {
                    Ok(Some(Ok(bytes))) => self.bytes = bytes,
                    Ok(Some(Err(error))) => return Some(Err(error.into())),
                    Ok(None) => return None,
                    Err(ended) => return Some(Err(self.rules.status(ended).into())),
                }
            }
            if self.is_complete {
                // The service has that message, or is about to: its room is not to be given back for another one.
                let more = invalid("this call takes one message, and something came after it");
                return Some(Err(self.rules.status(more).into()));
            }
            if self.due.is_none() {
                self.due = Some(Instant::now() + self.rules.receive_within);
            }
            let (piece, begun) = self.messages.piece(&mut self.bytes);
            let passed = match begun {
                Some(begun) => self.begin(begun),
                None => self.take(&piece).await,
            };
            match passed {
                Ok(()) if self.message.as_ref().is_some_and(|message| message.is_refused) => {}
                Ok(()) => {
                    if self.messages.is_between() {
                        // Whoever may not say this any more has not said it.
                        if let Err(why) = self.call_right.check() {
                            return Some(Err(self.rules.status(why).into()));
                        }
                        self.parcel.put(self.message.take().map(|message| message.room), None);
                        self.is_complete = self.rules.is_single;
                        if let Some(at_first) = self.at_first.take() {
                            at_first();
                        }
                    }
                    return Some(Ok(piece));
                }
                Err(refused) if self.rules.goes_on() && begun.is_some() => {
                    // In its place the service sees an empty one, and is told why.
                    self.parcel.put(None, Some(refused));
                    return Some(Ok(Bytes::from_static(&[0; PREFIX_BYTES])));
                }
                Err(refused) => return Some(Err(self.rules.status(refused).into())),
            }
            if self.messages.is_between() {
                self.message = None;
            }
        }
    }

    async fn arrives(&mut self) -> Result<Option<Result<Bytes, E>>, v1::Error> {
        let Self { body, due, lost, .. } = self;
        let lost = async {
            match lost {
                Some(lost) => lost.await,
                None => pending().await,
            }
        };
        let comes = async {
            match *due {
                Some(due) => timeout_at(due, body.next()).await,
                None => Ok(body.next().await),
            }
        };
        let came = tokio::select! {
            biased;
            why = lost => return Err(why),
            came = comes => came,
        };
        came.map_err(|_| {
            let within = self.rules.receive_within;
            error(
                Reason::TimedOut,
                format!(
                    "the request did not come within limits.receiveDeadline ({within:?}) and a second for each \
                     {BYTES_PER_SECOND} bytes of it"
                ),
            )
        })
    }

    fn begin(&mut self, begun: MessageStart) -> Result<(), v1::Error> {
        let MessageStart { compressed, bytes } = begun;
        self.due = self.due.map(|due| due + longer(bytes.into()));
        let counter = Counter::new(bytes.into(), self.rules.fields);
        let room = self.rules.room.hold(self.owner);
        let refused = self.check(compressed, length(bytes)).err();
        if refused.is_none() {
            self.parcel.contents().announced = bytes;
        }
        self.message = Some(Message { counter, room, parts: 0, is_refused: refused.is_some() });
        refused.map_or(Ok(()), Err)
    }

    fn check(&self, compressed: u8, bytes: usize) -> Result<(), v1::Error> {
        if compressed != 0 {
            return Err(invalid("the message is compressed, which no Zue node takes: send it as it is"));
        }
        let Rules { bytes_max, bytes_from, .. } = self.rules;
        if bytes > bytes_max {
            let message = format!("a message of {bytes} bytes is more than the limit of {bytes_max}{bytes_from}");
            return Err(error(Reason::TooLarge, message));
        }
        Ok(())
    }

    /// Counts a piece, and takes room for it.
    async fn take(&mut self, piece: &Bytes) -> Result<(), v1::Error> {
        let Some(message) = self.message.as_mut().filter(|message| !message.is_refused) else { return Ok(()) };
        message.counter.push(piece).map_err(invalid)?;
        let tally = message.counter.tally();
        self.rules.check(tally)?;
        let parts = length(narrow(tally.records + tally.headers + tally.parts)).saturating_mul(PART_BYTES);
        let bytes = piece.len() + (parts - message.parts);
        message.parts = parts;
        if message.room.try_grow(bytes) {
            return Ok(());
        }
        let full = || {
            let max = wide(self.rules.room.max());
            error(
                Reason::Overloaded,
                format!(
                    "{max} bytes of requests are being received, which is the limit, or too many by this connection or host"
                ),
            )
        };
        match (self.rules.when_full, self.due) {
            (WhenFull::Refuse, _) | (WhenFull::Wait, None) => Err(full()),
            (WhenFull::Wait, Some(due)) => timeout_at(due, message.room.grow(bytes)).await.map_err(|_| full()),
        }
    }
}

impl Rules {
    /// Tells the service of a refused message, if it goes on with the next one.
    fn goes_on(&self) -> bool {
        self.is_stream && self.appends
    }

    fn status(&self, error: v1::Error) -> Status {
        if self.appends { status_of(error) } else { status(error) }
    }

    fn check(&self, tally: Tally) -> Result<(), v1::Error> {
        let Tally { records, record_headers, parts, .. } = tally;
        let counts = [
            (records, self.records_max, "records of an append", " (limits.appendRecordsMax)"),
            (record_headers, self.record_headers_max, "headers of a record", " (limits.headersMax)"),
            (parts, self.parts_max, "parts of a message", ""),
        ];
        for (count, max, what, from) in counts {
            if count > max {
                return Err(error(
                    Reason::TooLarge,
                    format!("at least {count} {what} are more than the limit of {max}{from}"),
                ));
            }
        }
        Ok(())
    }
}

/// The body as the service receives it, and what is given beside it.
pub(crate) fn received(
    body: Body,
    (rules, call_right): (Rules, CallRight),
    owner: Owner,
    at_first: Option<AtFirst>,
) -> (Body, Parcel) {
    let body = axum::body::Body::new(body).into_data_stream();
    let parcel = Parcel::default();
    let due = (!rules.is_stream).then(|| Instant::now() + rules.receive_within);
    let lost = rules.is_stream.then(|| Rarely::new(call_right.clone().lost()));
    let received = Received {
        body,
        bytes: Bytes::new(),
        messages: Messages::default(),
        message: None,
        is_complete: false,
        rules,
        parcel: parcel.clone(),
        owner,
        at_first,
        due,
        call_right,
        lost,
    };
    let pieces = futures::stream::unfold(received, |mut received| async move {
        let piece = pin!(received.next()).await?;
        Some((piece, received))
    });
    (Body::new(axum::body::Body::from_stream(pieces)), parcel)
}
