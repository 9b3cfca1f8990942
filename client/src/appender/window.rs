//! The batches of an appender that are not acknowledged yet: which sequences they have, what must be sent again, and what may be in
//! the log unheard. Pure.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;
use zue_proto::v1::{AppendRequest, AppendResponse, NewRecord};

/// A batch under way.
#[derive(Clone, Debug)]
struct Batch {
    request: AppendRequest,
    /// When it was first sent.
    since: Instant,
    /// When it was sent over this connection, if it was.
    sent: Option<Instant>,
    /// Whether an earlier try may have succeeded unheard.
    is_unknown: bool,
}

/// What is under way, oldest first. Sequences follow each other without a gap.
#[derive(Debug)]
pub(super) struct Window {
    producer: Bytes,
    next_sequence: u64,
    batches: VecDeque<Batch>,
    batches_max: usize,
}

fn count(request: &AppendRequest) -> u64 {
    u64::try_from(request.records.len()).unwrap_or(u64::MAX)
}

impl Window {
    pub(super) fn new(batches_max: usize) -> Self {
        Self { producer: Bytes::new(), next_sequence: 0, batches: VecDeque::new(), batches_max }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.batches.len() < self.batches_max
    }

    pub(super) fn has_producer(&self) -> bool {
        !self.producer.is_empty()
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
        let (producer_id, sequence) = (self.producer.clone(), self.next_sequence);
        let request = AppendRequest { log: String::new(), producer_id, sequence, records };
        self.next_sequence += count(&request);
        self.batches.push_back(Batch { request, since: now, sent: None, is_unknown: false });
    }

    /// The oldest batch that this connection has not carried yet.
    pub(super) fn next_unsent(&mut self, now: Instant) -> Option<AppendRequest> {
        let batch = self.batches.iter_mut().find(|batch| batch.sent.is_none())?;
        batch.sent = Some(now);
        Some(batch.request.clone())
    }

    /// The oldest batch is acknowledged; false where the answer does not fit it.
    pub(super) fn acknowledged(&mut self, answer: &AppendResponse) -> bool {
        let fits = |batch: &Batch| batch.sent.is_some() && count(&batch.request) == u64::from(answer.count);
        self.batches.pop_front().as_ref().is_some_and(fits)
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

    /// Whether anything under way may be in the log. Then it must never go under another producer.
    pub(super) fn is_unknown(&self) -> bool {
        self.batches.iter().any(|batch| batch.is_unknown || batch.sent.is_some())
    }

    /// Gives all that is under way, none of which is in the log, to a new producer.
    pub(super) fn renew(&mut self, producer: Bytes) {
        assert!(!self.is_unknown(), "what may be in the log stays with its producer");
        self.producer = producer;
        self.next_sequence = 0;
        for batch in &mut self.batches {
            batch.request.producer_id = self.producer.clone();
            batch.request.sequence = self.next_sequence;
            self.next_sequence += count(&batch.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(batches: &[usize]) -> Window {
        let mut window = Window::new(4);
        window.renew(Bytes::from_static(b"p"));
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
        assert!(window.acknowledged(&ack(3)));
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
        window.renew(Bytes::from_static(b"q"));
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
        assert!(!window.acknowledged(&ack(1)));
    }
}
