//! What a follower is sent next on its stream: news of the leader first, then frames, from memory where the follower is near and from
//! the disk where it is not, never more under way than the window; and what is committed, where there are no frames to say so.

use std::collections::VecDeque;
use std::sync::Arc;

use zue_core::{Offset, Runs, Tail};

use crate::standing::{Standby, Telling};

/// How long a follower may be left without word of what is committed: the next frames carry it, too.
pub const COMMIT_NEWS_WITHIN_MS: u64 = 2;

/// How much is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// No more frames are sent while so many bytes of them are under way. The last ones may go beyond.
    pub window_bytes: usize,
    /// How many bytes of frames go together, where one append is not longer.
    pub batch_bytes: usize,
    /// A follower that lacks no more records is fed from memory.
    pub near_records: u64,
}

/// What a leader has to tell.
#[derive(Debug)]
pub struct News<'a, T> {
    /// Where its log ends.
    pub log: Tail,
    /// What it knows to be committed.
    pub commit_end: Offset,
    /// The newest round.
    pub round: u64,
    /// Where its log begins.
    pub log_start: Offset,
    /// The starts of disks that it knows.
    pub runs: &'a Runs,
    /// By what to stand by.
    pub standby: Option<&'a Arc<T>>,
}

/// What is said with frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct With {
    /// What they follow.
    pub prev: Tail,
    /// What is committed.
    pub commit_end: Offset,
    /// The newest round.
    pub round: u64,
}

/// What to do next. `F` is frames as they are found in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next<T, F> {
    /// Tell of the starts of disks.
    Runs(Runs),
    /// Tell by what to stand by.
    Standby(Arc<T>),
    /// Send frames.
    Frames(F, With),
    /// Read the frames that follow, up to there, and come back with them: [`Sender::read`].
    Read {
        /// What they follow.
        from: Tail,
        /// Where the log ends.
        upto: Tail,
        /// How many bytes go together.
        bytes_max: usize,
    },
    /// Say where the leader is.
    Heartbeat {
        /// What is committed.
        commit_end: Offset,
        /// Where the log ends.
        log_end: Offset,
        /// The newest round.
        round: u64,
        /// Where the log begins.
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
    /// What is under way: the tail after each message, and its bytes.
    window: VecDeque<(Tail, usize)>,
    window_bytes: usize,
    /// Not near the end: fed from the disk.
    repairing: bool,
}

impl<T: Standby> Sender<T> {
    /// To a follower whose log ends there, where the leader's ends at `log` and what follows is in memory or not.
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

    /// Whether it is fed from the disk.
    pub fn is_repairing(&self) -> bool {
        self.repairing
    }

    /// It is to hear where the leader is, whatever is new.
    pub fn heartbeat_due(&mut self) {
        self.heartbeat_due = true;
    }

    /// The follower has all up to there.
    pub fn acked(&mut self, durable: Tail) {
        while let Some((_, bytes)) = self.window.pop_front_if(|(tail, _)| *tail <= durable) {
            self.window_bytes = self.window_bytes.saturating_sub(bytes);
        }
    }

    /// What to do next. `memory` gives what follows a tail, of about so many bytes, the tail after it, and how many bytes it has.
    pub fn next<F>(
        &mut self,
        news: &News<'_, T>,
        memory: impl FnOnce(Tail, usize) -> Option<(F, Tail, usize)>,
    ) -> Next<T, F> {
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
            if let Some((frames, tail, bytes)) = found {
                return Next::Frames(frames, self.sends((tail, bytes), news));
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

    /// Frames were read that are sent now: the tail after them, and how many bytes they have.
    pub fn read(&mut self, frames: (Tail, usize), news: &News<'_, T>) -> With {
        let with = self.sends(frames, news);
        self.repairing = news.log.end.since(self.sent.end) > self.pace.near_records;
        with
    }

    fn sends(&mut self, (tail, bytes): (Tail, usize), news: &News<'_, T>) -> With {
        self.window.push_back((tail, bytes));
        self.window_bytes += bytes;
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

    const PACE: Pace = Pace { window_bytes: 20, batch_bytes: 10, near_records: 5 };

    fn tail(end: u64) -> Tail {
        Tail { epoch: Epoch(1), end: Offset(end) }
    }

    fn at(log: u64, commit_end: u64, runs: &Runs) -> News<'_, Terms> {
        News { log: tail(log), commit_end: Offset(commit_end), round: 0, log_start: Offset(0), runs, standby: None }
    }

    /// Each record has ten bytes, and goes alone.
    #[expect(clippy::unnecessary_wraps, reason = "stands for a memory that may lack it")]
    fn memory(prev: Tail, _: usize) -> Option<(u64, Tail, usize)> {
        Some((prev.end.0, tail(prev.end.0 + 1), 10))
    }

    fn frames(record: u64, commit_end: u64) -> Next<Terms, u64> {
        Next::Frames(record, With { prev: tail(record), commit_end: Offset(commit_end), round: 0 })
    }

    fn heartbeat(log: u64, commit_end: u64) -> Next<Terms, u64> {
        Next::Heartbeat { commit_end: Offset(commit_end), log_end: Offset(log), round: 0, log_start: Offset(0) }
    }

    #[test]
    fn no_more_is_under_way_than_the_window_and_what_is_acknowledged_makes_room() {
        let runs = Runs::default();
        let mut sender = Sender::new(PACE, tail(0), (tail(4), true), true);
        assert_eq!(sender.next(&at(4, 0, &runs), memory), frames(0, 0));
        assert_eq!(sender.next(&at(4, 0, &runs), memory), frames(1, 0));
        assert_eq!(sender.next(&at(4, 0, &runs), memory), heartbeat(4, 0), "there is no room");
        assert_eq!(sender.next(&at(4, 0, &runs), memory), Next::Nothing);
        sender.acked(tail(1));
        assert_eq!(sender.next(&at(4, 1, &runs), memory), frames(2, 1));
        assert_eq!(sender.next(&at(4, 1, &runs), memory), Next::Nothing);
        sender.acked(tail(3));
        assert_eq!(sender.next(&at(4, 1, &runs), memory), frames(3, 1));
    }

    #[test]
    fn a_follower_is_fed_from_the_disk_until_it_is_near_and_what_follows_is_in_memory() {
        let runs = Runs::default();
        let read = |from, log| Next::Read { from: tail(from), upto: tail(log), bytes_max: 10 };
        let mut sender = Sender::new(PACE, tail(0), (tail(6), true), true);
        assert!(sender.is_repairing());
        assert_eq!(sender.next(&at(6, 0, &runs), memory), read(0, 6));
        assert_eq!(sender.next(&at(6, 0, &runs), memory), read(0, 6), "it was not on the disk yet");
        assert_eq!(sender.read((tail(1), 5), &at(7, 2, &runs)).commit_end, Offset(2));
        assert_eq!(sender.next(&at(7, 2, &runs), memory), read(1, 7), "it is as far away as before");
        sender.read((tail(2), 5), &at(7, 2, &runs));
        assert_eq!(sender.next(&at(7, 2, &runs), memory), frames(2, 2));
        assert_eq!(sender.next(&at(7, 2, &runs), |_, _| None::<(u64, _, _)>), heartbeat(7, 2), "there is no room");
        sender.acked(tail(3));
        assert_eq!(sender.next(&at(7, 2, &runs), |_, _| None::<(u64, _, _)>), read(3, 7), "it has left the memory");
        let (near, equal) = (Sender::<Terms>::new(PACE, tail(1), (tail(6), true), true), (tail(6), false));
        assert!(!near.is_repairing());
        assert!(Sender::<Terms>::new(PACE, tail(1), (tail(6), false), true).is_repairing());
        assert!(!Sender::<Terms>::new(PACE, tail(6), equal, true).is_repairing());
    }

    #[test]
    fn news_goes_ahead_of_frames_and_once() {
        let (none, standby) = (Runs::default(), Arc::new(Terms));
        let runs: Runs = [(ReplicaId(1), Run { starts: 2, nonce: 3 })].into_iter().collect();
        let mut sender = Sender::new(PACE, tail(0), (tail(1), true), true);
        let news = News { standby: Some(&standby), ..at(1, 0, &runs) };
        assert_eq!(sender.next(&news, memory), Next::Runs(runs.clone()));
        assert_eq!(sender.next(&news, memory), Next::Standby(Arc::clone(&standby)));
        assert_eq!(sender.next(&news, memory), frames(0, 0));
        assert_eq!(sender.next(&news, memory), heartbeat(1, 0));
        assert_eq!(sender.next(&news, memory), Next::Nothing);
        assert_eq!(sender.next(&at(1, 0, &none), memory), Next::Runs(none.clone()));
    }

    #[test]
    fn what_is_committed_is_told_a_little_later_and_rounds_and_trims_at_once() {
        let runs = Runs::default();
        let mut sender = Sender::new(PACE, tail(1), (tail(1), true), true);
        assert_eq!(sender.next(&at(1, 0, &runs), memory), heartbeat(1, 0), "the first words");
        assert_eq!(sender.next(&at(1, 1, &runs), memory), Next::Later);
        assert_eq!(sender.next(&at(1, 1, &runs), memory), Next::Later);
        sender.heartbeat_due();
        assert_eq!(sender.next(&at(1, 1, &runs), memory), heartbeat(1, 1));
        assert_eq!(sender.next(&at(1, 1, &runs), memory), Next::Nothing);
        for news in [News { round: 1, ..at(1, 1, &runs) }, News { round: 1, log_start: Offset(1), ..at(1, 1, &runs) }] {
            assert!(matches!(sender.next(&news, memory), Next::Heartbeat { .. }));
            assert_eq!(sender.next(&news, memory), Next::Nothing);
        }
    }
}
