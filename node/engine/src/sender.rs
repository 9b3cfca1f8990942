//! The next message to a follower on its stream: news of the leader first, then frames, from memory where the follower is near and from
//! the disk where it is not, never more under way than the window; and what is committed, where there are no frames to say so.

use std::collections::VecDeque;
use std::sync::Arc;

use zue_core::{Offset, Runs, Tail};
use zue_log::Batch;

use crate::standby::{Standby, Telling};

/// The time for which a follower may be left without word of commits: the next frames carry it, too.
pub const COMMIT_NEWS_WITHIN_MS: u64 = 2;

/// The limits of sending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// No more frames are sent while so many bytes of them are under way. The last ones may go beyond.
    pub window_bytes: usize,
    /// The bytes of frames that go together, where one append is not longer.
    pub batch_bytes: usize,
    /// A follower that lacks no more records is fed from memory.
    pub near_records: u64,
}

/// News of a leader.
#[derive(Debug)]
pub struct News<'a, T> {
    /// The end of its log.
    pub log: Tail,
    /// The end of what it knows to be committed.
    pub commit_end: Offset,
    /// The newest round.
    pub round: u64,
    /// The start of its log.
    pub log_start: Offset,
    /// The starts of disks that it knows.
    pub runs: &'a Runs,
    /// The terms by which to stand by.
    pub standby: Option<&'a Arc<T>>,
}

/// The head of a message with frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct With {
    /// The tail that they follow.
    pub prev: Tail,
    /// The commit end.
    pub commit_end: Offset,
    /// The newest round.
    pub round: u64,
}

/// The next step. `B` is a batch of frames, with whatever goes with it.
#[derive(Debug)]
pub enum Next<T, B> {
    /// Tell of the starts of disks.
    Runs(Runs),
    /// Tell by what to stand by.
    Standby(Arc<T>),
    /// Send those together.
    Frames(Vec<B>, With),
    /// Read the frames that follow, up to there, and come back with them: [`Sender::read`].
    Read {
        /// The tail that they follow.
        from: Tail,
        /// The end of the log.
        upto: Tail,
        /// The bytes that go together.
        bytes_max: usize,
    },
    /// Say where the leader is.
    Heartbeat {
        /// The commit end.
        commit_end: Offset,
        /// The end of the log.
        log_end: Offset,
        /// The newest round.
        round: u64,
        /// The start of the log.
        log_start: Offset,
    },
    /// Nothing now, but a heartbeat within [`COMMIT_NEWS_WITHIN_MS`], unless frames or another one go before.
    Later,
    /// Nothing.
    Nothing,
}

/// The leader's end of one stream.
#[derive(Debug)]
pub struct Sender<T> {
    pace: Pace,
    /// The tail of what has been sent.
    sent: Tail,
    commit_sent: Offset,
    log_start_sent: Offset,
    round_sent: u64,
    runs_sent: Runs,
    telling: Telling<T>,
    heartbeat_due: bool,
    /// Messages under way: the tail after each, and its bytes.
    window: VecDeque<(Tail, usize)>,
    window_bytes: usize,
    /// Not near the end: fed from the disk.
    repairing: bool,
}

impl<T: Standby> Sender<T> {
    /// The sender to a follower whose log ends at `follower`. The leader's ends at `log`; `in_memory` says whether what lies between is in
    /// memory.
    pub fn new(pace: Pace, follower: Tail, (log, in_memory): (Tail, bool), can_stand_by: bool) -> Self {
        let lag = log.end.since(follower.end);
        Self {
            pace,
            sent: follower,
            commit_sent: Offset::default(),
            log_start_sent: Offset::default(),
            round_sent: 0,
            runs_sent: Runs::default(),
            telling: Telling::to(can_stand_by),
            heartbeat_due: true,
            window: VecDeque::new(),
            window_bytes: 0,
            repairing: lag > 0 && (lag > pace.near_records || !in_memory),
        }
    }

    /// Tells whether it is fed from the disk.
    pub fn is_repairing(&self) -> bool {
        self.repairing
    }

    /// A heartbeat is due: the follower is to hear from the leader, even if nothing is new.
    pub fn heartbeat_due(&mut self) {
        self.heartbeat_due = true;
    }

    /// The follower has all up to there.
    pub fn acked(&mut self, durable: Tail) {
        while let Some((_, bytes)) = self.window.pop_front_if(|(tail, _)| *tail <= durable) {
            self.window_bytes = self.window_bytes.saturating_sub(bytes);
        }
    }

    /// The next step. `memory` gives what follows a tail, of about so many bytes.
    pub fn next<B: AsRef<Batch>>(
        &mut self,
        news: &News<'_, T>,
        memory: impl FnOnce(Tail, usize) -> Option<Vec<B>>,
    ) -> Next<T, B> {
        let News { log, commit_end, round, log_start, runs, standby } = *news;
        if self.runs_sent != *runs {
            self.runs_sent.clone_from(runs);
            return Next::Runs(runs.clone());
        }
        if let Some(standby) = self.telling.news(standby) {
            return Next::Standby(standby);
        }
        let (from, bytes_max) = (self.sent, self.pace.batch_bytes);
        if from < log && self.window_bytes < self.pace.window_bytes {
            let found = if self.repairing { None } else { memory(from, bytes_max) };
            if let Some(found) = found.filter(|found| !found.is_empty()) {
                let with = self.sends(&found, news);
                return Next::Frames(found, with);
            }
            self.repairing = true;
            return Next::Read { from, upto: log, bytes_max };
        }
        let is_news = round > self.round_sent || log_start > self.log_start_sent;
        if self.heartbeat_due || is_news {
            self.heartbeat_due = false;
            (self.commit_sent, self.round_sent, self.log_start_sent) = (commit_end, round, log_start);
            return Next::Heartbeat { commit_end, log_end: log.end, round, log_start };
        }
        if commit_end > self.commit_sent { Next::Later } else { Next::Nothing }
    }

    /// Frames were read that are sent now.
    pub fn read(&mut self, batch: &Batch, news: &News<'_, T>) -> With {
        let with = self.sends(&[batch], news);
        self.repairing = news.log.end.since(self.sent.end) > self.pace.near_records;
        with
    }

    fn sends<B: AsRef<Batch>>(&mut self, batches: &[B], news: &News<'_, T>) -> With {
        let tail = batches.last().map_or(self.sent, |last| last.as_ref().tail());
        debug_assert!(batches.iter().all(|batch| batch.as_ref().prev() >= self.sent), "frames are sent twice");
        debug_assert!(self.sent <= tail && tail <= news.log, "frames lead back, or behind the leader's log");
        let bytes = batches.iter().map(|batch| batch.as_ref().bytes().len()).sum();
        self.window.push_back((tail, bytes));
        self.window_bytes += bytes;
        debug_assert!(self.window.iter().is_sorted_by(|(a, _), (b, _)| a < b), "messages under way are out of order");
        (self.commit_sent, self.round_sent) = (news.commit_end, news.round);
        let prev = std::mem::replace(&mut self.sent, tail);
        With { prev, commit_end: news.commit_end, round: news.round }
    }
}

#[cfg(test)]
mod tests {
    use zue_core::control::Policy;
    use zue_core::{Epoch, ReplicaId, Run};

    use super::*;
    use crate::made::{batch, tail};

    #[derive(PartialEq, Debug)]
    struct Terms;

    impl Standby for Terms {
        fn policy(&self) -> Policy {
            Policy::Automatic
        }

        fn preferred(&self) -> usize {
            0
        }

        fn detection_ms(&self) -> u64 {
            1
        }

        fn members(&self) -> impl Iterator<Item = ReplicaId> {
            std::iter::empty()
        }

        fn epoch(&self) -> Epoch {
            Epoch(1)
        }

        fn told_in(self, _: Epoch) -> Self {
            self
        }
    }

    /// Of a window of two records, which go one by one.
    fn sender(follower: u64, log: u64, in_memory: bool) -> Sender<Terms> {
        let bytes = batch(0).bytes().len();
        let pace = Pace { window_bytes: 2 * bytes, batch_bytes: bytes, near_records: 5 };
        Sender::new(pace, tail(follower), (tail(log), in_memory), true)
    }

    fn at(log: u64, commit_end: u64, runs: &Runs) -> News<'_, Terms> {
        News { log: tail(log), commit_end: Offset(commit_end), round: 0, log_start: Offset(0), runs, standby: None }
    }

    /// The next step, in short, where the memory holds all of the log.
    fn next(sender: &mut Sender<Terms>, news: &News<'_, Terms>) -> String {
        told(sender.next(news, |prev, _| Some(vec![batch(prev.end.0)])))
    }

    fn told(next: Next<Terms, Batch>) -> String {
        match next {
            Next::Runs(runs) => format!("{} runs", runs.iter().count()),
            Next::Standby(_) => "standby".to_owned(),
            Next::Frames(found, With { prev, commit_end, .. }) => {
                assert!(found.iter().all(|batch| batch.prev() == prev));
                format!("frames after {}, {commit_end} committed", prev.end)
            }
            Next::Read { from, upto, .. } => format!("read {} to {}", from.end, upto.end),
            Next::Heartbeat { commit_end, log_end, .. } => format!("{commit_end} of {log_end}"),
            Next::Later => "later".to_owned(),
            Next::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn no_more_is_under_way_than_the_window_and_what_is_acknowledged_makes_room() {
        let (runs, mut sender) = (Runs::default(), sender(0, 4, true));
        assert_eq!(next(&mut sender, &at(4, 0, &runs)), "frames after 0, 0 committed");
        assert_eq!(next(&mut sender, &at(4, 0, &runs)), "frames after 1, 0 committed");
        assert_eq!(next(&mut sender, &at(4, 0, &runs)), "0 of 4", "there is no room");
        assert_eq!(next(&mut sender, &at(4, 0, &runs)), "nothing");
        sender.acked(tail(1));
        assert_eq!(next(&mut sender, &at(4, 1, &runs)), "frames after 2, 1 committed");
        assert_eq!(next(&mut sender, &at(4, 1, &runs)), "nothing");
        sender.acked(tail(3));
        assert_eq!(next(&mut sender, &at(4, 1, &runs)), "frames after 3, 1 committed");
    }

    #[test]
    fn a_follower_is_fed_from_the_disk_until_it_is_near_and_what_follows_is_in_memory() {
        let (runs, mut far) = (Runs::default(), sender(0, 6, true));
        assert!(far.is_repairing());
        assert_eq!(next(&mut far, &at(6, 0, &runs)), "read 0 to 6");
        assert_eq!(next(&mut far, &at(6, 0, &runs)), "read 0 to 6", "it was not on the disk yet");
        assert_eq!(far.read(&batch(0), &at(7, 2, &runs)).commit_end, Offset(2));
        assert_eq!(next(&mut far, &at(7, 2, &runs)), "read 1 to 7", "it is as far away as before");
        far.read(&batch(1), &at(7, 2, &runs));
        far.acked(tail(2));
        assert_eq!(next(&mut far, &at(7, 2, &runs)), "frames after 2, 2 committed");
        assert_eq!(told(far.next(&at(7, 2, &runs), |_, _| None)), "read 3 to 7", "it has left the memory");
        assert!(!sender(1, 6, true).is_repairing());
        assert!(sender(1, 6, false).is_repairing());
        assert!(!sender(6, 6, false).is_repairing());
    }

    #[test]
    fn news_goes_ahead_of_frames_and_once() {
        let (none, standby, mut sender) = (Runs::default(), Arc::new(Terms), sender(0, 1, true));
        let runs: Runs = [(ReplicaId(1), Run { starts: 2, nonce: 3 })].into_iter().collect();
        let news = News { standby: Some(&standby), ..at(1, 0, &runs) };
        for expected in ["1 runs", "standby", "frames after 0, 0 committed", "0 of 1", "nothing"] {
            assert_eq!(next(&mut sender, &news), expected);
        }
        assert_eq!(next(&mut sender, &at(1, 0, &none)), "0 runs");
    }

    #[test]
    fn what_is_committed_is_told_a_little_later_and_rounds_and_trims_at_once() {
        let (runs, mut sender) = (Runs::default(), sender(1, 1, true));
        for (commit_end, is_due, expected) in
            [(0, false, "0 of 1"), (1, false, "later"), (1, false, "later"), (1, true, "1 of 1"), (1, false, "nothing")]
        {
            if is_due {
                sender.heartbeat_due();
            }
            assert_eq!(next(&mut sender, &at(1, commit_end, &runs)), expected);
        }
        for news in [News { round: 1, ..at(1, 1, &runs) }, News { round: 1, log_start: Offset(1), ..at(1, 1, &runs) }] {
            assert_eq!(next(&mut sender, &news), "1 of 1");
            assert_eq!(next(&mut sender, &news), "nothing");
        }
    }
}
