//! The leader's side of replication: one task a follower. Connects, says where the leader's log is, and keeps it connected until
//! the leadership ends. What one follower does costs the others nothing.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use zue_core::ProducerLimits;
use zue_log::{OsDisk, Reader};
use zue_settings::ReplicationSettings;
use zue_tls::Renewal;

use crate::driver::handle::Handle;
use crate::driver::member::Member;
use crate::driver::state::Leadership;
use crate::metrics::Metrics;
use crate::replication::address_book::AddressBook;
use crate::replication::cache::TailCache;
use crate::replication::ended::Ended;
use crate::replication::sender::FollowerStream;

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// The time until a newer stream is tried again that could not be opened.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// The parts that all peer tasks of a node share.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) reader: Reader<OsDisk>,
    pub(crate) cache: Arc<TailCache>,
    pub(crate) settings: ReplicationSettings,
    pub(crate) producers: ProducerLimits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address_book: AddressBook,
}

/// Why the last stream to a follower ended, if none is open.
#[derive(Debug, Default)]
pub(crate) struct PeerNote(Mutex<Option<String>>);

impl PeerNote {
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

impl Peers {
    /// Feeds a follower until it is stopped.
    pub(crate) fn spawn(
        &self,
        leadership: &Arc<Leadership>,
        member: Member,
        handle: Handle,
        stop: CancellationToken,
    ) -> Arc<PeerNote> {
        let note = Arc::new(PeerNote::default());
        self.metrics.feeds(&member.name);
        let peer =
            Peer { shared: self.clone(), leadership: Arc::clone(leadership), member, handle, note: Arc::clone(&note) };
        tokio::spawn(async move { stop.run_until_cancelled(peer.run_whatever_happens()).await });
        note
    }
}

/// A follower, and what it takes to feed it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) shared: Peers,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) member: Member,
    pub(crate) handle: Handle,
    note: Arc<PeerNote>,
}

impl Peer {
    /// A fault of the program in one stream must not leave the follower unfed for as long as this replica leads.
    async fn run_whatever_happens(self) {
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            let problem = "the stream to it panicked, a fault of this program: see its log".to_owned();
            tracing::error!(follower = self.member.name, "{problem}");
            self.note.set(Some(problem));
            self.shared.metrics.peer_is(&self.member.name, Some("PANIC"));
            tokio::time::sleep(BACKOFF_MAX).await;
        }
    }

    async fn run(&self) {
        let (mut backoff, mut with_origin, mut is_fruitless) = (BACKOFF_MIN, false, false);
        let mut told = None;
        loop {
            let renewal = self.shared.address_book.renewal();
            let opened = FollowerStream::open(self, with_origin).await;
            with_origin = matches!(opened, Err(Ended::NeedsOrigin(_)));
            let ended = match opened {
                Ok(session) => {
                    self.note.set(None);
                    self.shared.metrics.peer_is(&self.member.name, None);
                    if !is_fruitless {
                        tracing::info!(follower = self.member.name, "feeding a follower");
                    }
                    let (ended, has_helped) = self.feed(session, renewal).await;
                    is_fruitless = !has_helped;
                    if has_helped {
                        (backoff, told) = (BACKOFF_MIN, None);
                    }
                    ended
                }
                Err(ended) => {
                    is_fruitless = false;
                    ended
                }
            };
            let problem = Some(ended.to_string());
            self.note.set(problem.clone());
            self.shared.metrics.peer_is(&self.member.name, Some(ended.name()));
            if told != problem {
                told = problem;
                tracing::warn!(follower = self.member.name, address = self.member.peer_address, problem = %ended,
                    "the stream to a follower ended");
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Feeds the follower on one stream after the other: when there is something newer to show to it, the next one is there before the
    /// last one goes, so that the follower never counts its leader as lost.
    async fn feed<'a>(&'a self, first: FollowerStream<'a>, mut renewal: Renewal) -> (Ended, bool) {
        let mut feeding = Box::pin(first.feed());
        let mut has_failed = false;
        loop {
            tokio::select! {
                ended = &mut feeding => return ended,
                () = renewal.due() => {}
                () = tokio::time::sleep(RENEW_AGAIN), if has_failed => {}
            }
            let mut opening = Box::pin(FollowerStream::open(self, false));
            let (opened, ended) = tokio::select! {
                biased;
                opened = &mut opening => (opened, None),
                // The follower may have taken the new one on already.
                ended = &mut feeding => (opening.await, Some(ended)),
            };
            has_failed = opened.is_err();
            match (opened, ended) {
                (Ok(newer), _) => feeding = Box::pin(newer.feed()),
                // Who is not believed any more is told nothing more, on the old stream either.
                (Err(problem), None) if problem.is_distrusted() => return (problem, false),
                (Err(_), Some(ended)) => return ended,
                (Err(problem), None) => {
                    tracing::warn!(follower = self.member.name, %problem, "cannot open a newer stream: the current one stays in use");
                }
            }
        }
    }
}
