//! The batches of an appender that are not acknowledged yet: which sequences they have, what must be sent again, and what may be in
//! the log unheard. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use zue_proto::v1::{AppendRequest, AppendResponse, NewRecord};

use crate::find::AppendSearch;
use crate::{AppendId, Appended};

/// A batch under way.
#[derive(Clone, Debug)]
struct Batch {
    request: Arc<AppendRequest>,
    /// When it was first sent.
    since: Instant,
    /// When it was sent over this connection, if it was.
    sent: Option<Instant>,
    /// True if an earlier try may have succeeded unheard.
    is_unknown: bool,
}

/// The appends under way, oldest first. Sequences follow each other without a gap.
#[derive(Debug)]
pub(super) struct Window {
    producer: Option<[u8; 16]>,
    next_sequence: u64,
    batches: VecDeque<Batch>,
    batches_max: usize,
    /// True if what comes may be in the log since an earlier try of another appender.
    is_in_doubt: bool,
    /// Behind all that the producer is known to have appended.
    known_end: u64,
}

fn bytes_of(producer: Option<[u8; 16]>) -> Bytes {
    producer.map(|id| Bytes::copy_from_slice(&id)).unwrap_or_default()
}

fn count(request: &AppendRequest) -> u64 {
    u64::try_from(request.records.len()).unwrap_or(u64::MAX)
}

impl Window {
    /// Of a producer that is still to be opened, or of one of whose appends the rest is to come again.
    pub(super) fn new(batches_max: usize, again: Option<AppendId>) -> Self {
        let (producer, next_sequence) = (again.map(|id| id.producer), again.map_or(0, |id| id.sequence));
        let is_in_doubt = again.is_some();
        Self { producer, next_sequence, batches: VecDeque::new(), batches_max, is_in_doubt, known_end: 0 }
    }

    /// Returns whether what comes next may be in the log since an earlier try, put together in another way.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// The oldest append that is not acknowledged, or the next.
    pub(super) fn id(&self) -> Option<AppendId> {
        let sequence = self.batches.front().map_or(self.next_sequence, |batch| batch.request.sequence);
        self.producer.map(|producer| AppendId { producer, sequence })
    }

    /// Up to which sequence all was acknowledged to this appender, if anything was.
    pub(super) fn acknowledged_before(&self) -> Option<u64> {
        self.id().filter(|_| self.known_end > 0).map(|id| id.sequence)
    }

    /// The appends to look for in the log if its producer is forgotten; none while nothing of it may be there.
    pub(super) fn wanted(&self) -> Option<AppendSearch> {
        let producer = self.producer.filter(|_| self.is_unknown())?;
        let append =
            |batch: &Batch| (batch.request.sequence, u32::try_from(batch.request.records.len()).unwrap_or(u32::MAX));
        let mut records = self.batches.iter().flat_map(|batch| &batch.request.records);
        let have_keys = records.any(|record| record.key.is_some());
        let appends = self.batches.iter().map(append).collect();
        Some(AppendSearch::since_opened(producer, appends, have_keys).not_before(self.known_end))
    }

    /// So many of the oldest batches were found in the log, and no others.
    pub(super) fn found(&mut self, found: &[Appended]) {
        self.batches.drain(..found.len().min(self.batches.len()));
        for batch in &mut self.batches {
            (batch.sent, batch.is_unknown) = (None, false);
        }
        if let Some(last) = found.last() {
            self.known_end = last.base_offset.saturating_add(u64::from(last.count));
        }
        self.is_in_doubt &= self.batches.is_empty();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.batches.len() < self.batches_max
    }

    pub(super) fn has_producer(&self) -> bool {
        self.producer.is_some()
    }

    /// Since when the oldest batch is under way.
    pub(super) fn oldest_since(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.since)
    }

    /// When the oldest batch was sent over this connection.
    pub(super) fn oldest_sent(&self) -> Option<Instant> {
        self.batches.front().and_then(|batch| batch.sent)
    }

    /// Takes a batch in. It is sent by the next [`Window::next_unsent`].
    pub(super) fn push(&mut self, records: Vec<NewRecord>, now: Instant) {
        assert!(self.has_room(), "the window is full");
        assert!(!records.is_empty(), "a batch has records");
        let (producer_id, sequence) = (bytes_of(self.producer), self.next_sequence);
        let request = AppendRequest { log: String::new(), producer_id, sequence, records, within_ms: 0 };
        self.next_sequence += count(&request);
        let request = Arc::new(request);
        self.batches.push_back(Batch { request, since: now, sent: None, is_unknown: self.is_in_doubt });
    }

    /// The oldest batch that this connection has not carried yet.
    pub(super) fn next_unsent(&mut self, now: Instant) -> Option<Arc<AppendRequest>> {
        let batch = self.batches.iter_mut().find(|batch| batch.sent.is_none())?;
        batch.sent = Some(now);
        Some(Arc::clone(&batch.request))
    }

    /// The oldest batch is acknowledged; none where the answer does not fit it.
    pub(super) fn acknowledged(&mut self, answer: &AppendResponse) -> Option<Appended> {
        let fits = |batch: &Batch| batch.sent.is_some() && count(&batch.request) == u64::from(answer.count);
        let id = self.id()?;
        self.batches.pop_front().filter(fits)?;
        let AppendResponse { base_offset, count, epoch, duplicate } = *answer;
        self.known_end = base_offset.saturating_add(u64::from(count));
        self.is_in_doubt &= duplicate;
        Some(Appended { base_offset, count, epoch, duplicate, id })
    }

    /// The oldest batch was refused, and is not in the log by this try. Those behind it were refused with it, by their gap,
    /// unless an earlier try of it may have succeeded.
    pub(super) fn refused(&mut self) {
        if let Some(batch) = self.batches.front_mut().filter(|batch| !batch.is_unknown) {
            batch.sent = None;
            self.batches.iter_mut().for_each(|batch| batch.sent = None);
        }
        self.disconnected();
    }

    /// The connection is gone: what it carried and was not answered may be in the log, and is sent again.
    pub(super) fn disconnected(&mut self) {
        for batch in &mut self.batches {
            batch.is_unknown |= batch.sent.take().is_some();
        }
    }

    /// Returns whether anything under way may be in the log. Then it must never go under another producer.
    pub(super) fn is_unknown(&self) -> bool {
        self.batches.iter().any(|batch| batch.is_unknown || batch.sent.is_some())
    }

    /// Gives all that is under way, none of which is in the log, to a new producer, or to one that is still to be opened.
    pub(super) fn renew(&mut self, producer: Option<[u8; 16]>) {
        assert!(!self.is_unknown(), "what may be in the log stays with its producer");
        (self.producer, self.next_sequence, self.known_end) = (producer, 0, 0);
        for batch in &mut self.batches {
            let request = Arc::make_mut(&mut batch.request);
            (request.producer_id, request.sequence) = (bytes_of(producer), self.next_sequence);
            self.next_sequence += count(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(batches: &[usize]) -> Window {
        let mut window = Window::new(4, None);
        window.renew(Some([1; 16]));
        for records in batches {
            window.push(vec![NewRecord::default(); *records], Instant::now());
        }
        window
    }

    fn send_all(window: &mut Window) -> Vec<u64> {
        std::iter::from_fn(|| window.next_unsent(Instant::now())).map(|request| request.sequence).collect()
    }

    fn ack(count: u32) -> AppendResponse {
        AppendResponse { count, ..Default::default() }
    }

    #[test]
    fn sequences_follow_each_other() {
        let mut window = window(&[3, 1, 2]);
        assert_eq!(send_all(&mut window), [0, 3, 4]);
        assert_eq!(send_all(&mut window), []);
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_with_the_same_sequences() {
        let mut window = window(&[3, 1, 2]);
        send_all(&mut window);
        assert!(window.acknowledged(&ack(3)).is_some());
        window.disconnected();
        assert_eq!(send_all(&mut window), [3, 4]);
    }

    #[test]
    fn what_a_broken_connection_carried_may_be_in_the_log() {
        let mut window = window(&[1, 1]);
        assert!(!window.is_unknown());
        window.next_unsent(Instant::now());
        window.disconnected();
        assert!(window.is_unknown());
    }

    #[test]
    fn a_refusal_at_the_first_try_settles_that_nothing_is_in_the_log() {
        let mut window = window(&[1, 1]);
        send_all(&mut window);
        window.refused();
        assert!(!window.is_unknown());
        window.renew(Some([2; 16]));
        assert_eq!(send_all(&mut window), [0, 1]);
    }

    #[test]
    fn a_refusal_after_an_unheard_try_settles_nothing() {
        let mut window = window(&[1, 1]);
        send_all(&mut window);
        window.disconnected();
        send_all(&mut window);
        window.refused();
        assert!(window.is_unknown());
    }

    #[test]
    fn an_answer_that_counts_other_records_does_not_fit() {
        let mut window = window(&[2]);
        send_all(&mut window);
        assert_eq!(window.acknowledged(&ack(1)), None);
    }

    #[test]
    fn what_comes_again_is_in_doubt_until_something_is_new() {
        let mut window = Window::new(4, Some(AppendId { producer: [1; 16], sequence: 7 }));
        for _ in 0..3 {
            window.push(vec![NewRecord::default()], Instant::now());
        }
        assert_eq!(send_all(&mut window), [7, 8, 9]);
        let known = window.acknowledged(&AppendResponse { duplicate: true, ..ack(1) }).unwrap();
        assert_eq!((known.duplicate, known.id.sequence), (true, 7));
        assert!(window.is_in_doubt() && window.is_unknown());
        window.acknowledged(&ack(1)).unwrap();
        assert!(!window.is_in_doubt(), "what is behind a new one is new");
    }

    #[test]
    fn of_batches_in_doubt_those_that_are_not_found_in_the_log_go_to_another_producer() {
        let mut window = window(&[2, 1, 3]);
        send_all(&mut window);
        window.disconnected();
        let wanted = window.wanted().unwrap();
        assert_eq!(wanted.appends, [(0, 2), (2, 1), (3, 3)]);
        let id = AppendId { producer: [1; 16], sequence: 0 };
        window.found(&[Appended { base_offset: 70, count: 2, epoch: 1, duplicate: true, id }]);
        window.renew(Some([2; 16]));
        assert_eq!(send_all(&mut window), [0, 1]);
    }
}
