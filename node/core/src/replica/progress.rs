//! A leader's view of its followers: what is committed, who is in sync, who is in reach. Decides nothing about epochs.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::quorum::{majority, reached_by};
use crate::replica::backlog::Backlog;
use crate::replica::state::LogState;
use crate::replica::waiting::Reads;
use crate::replica::waiting::Trims;
use crate::types::history::EpochStart;
use crate::types::incarnations::Lineage;
use crate::types::io::{Millis, RequestId, Session};
use crate::types::recovered::SyncLimits;
use crate::types::{Offset, ReplicaId, Tail};

/// The time that a follower's disk may take over the first of a stream: with it goes what the leader does not have, and that may be much.
const JOINT_MS_MAX: u64 = 5000;

/// A follower, as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// True if it counts for commits.
    pub voter: bool,
    /// The stream it is fed on, once it has answered.
    pub session: Option<Session>,
    /// The starts of its disk, once it has said so.
    pub lineage: Option<Lineage>,
    /// True if that start of its disk is durably known here: before, it does not count for commits.
    pub counts: bool,
    /// The tail that it has acknowledged as durable in this epoch.
    pub durable: Tail,
    /// The offset at which its log durably starts.
    pub log_start: Offset,
    /// The last round of questions that it has answered as a follower in this epoch.
    pub round: u64,
    /// The last time that its wall clock showed, if it says so.
    pub clock_ms: Option<u64>,
    /// When it last had all that the leader then had; none while it never had.
    pub caught_up: Option<Millis>,
    /// In sync, as of the last look.
    pub in_sync: bool,
    /// The number of bytes of records that it lacked, as of the last look; where it lacks very many, perhaps more.
    pub lag_bytes: u64,
    pace: Pace,
}

/// The moments by which a follower's progress is judged.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pace {
    /// When it was last heard from.
    heard: Millis,
    /// When its last stream in this leadership began, once it has answered.
    begun: Option<Millis>,
    /// The durable end with which that stream began; none once more is durable.
    joint: Option<Tail>,
    /// When it last said that more is durable, or had all.
    advanced: Millis,
    /// The tail of the leader's log when the follower was last compared with it, and when.
    mark: (Tail, Millis),
}

/// A planned hand-over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HandOver {
    /// The caller that waits for the answer; none once it is given.
    pub(crate) request: Option<RequestId>,
    pub(crate) to: ReplicaId,
    pub(crate) until: Millis,
}

/// A leader's knowledge of its own means.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Own {
    /// The progress of its disk behind what is committed.
    disk: Progress,
    /// When enough voters could write last, or when it began to lead.
    quorum_seen: Millis,
    /// The commit end as of the last look, and when that last was all there is, or more than before.
    committed: (Offset, Millis),
}

/// The state of a leadership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leader {
    pub(crate) start: EpochStart,
    pub(crate) followers: BTreeMap<ReplicaId, Progress>,
    own: Box<Own>,
    /// True if its epoch's start is durable. It feeds nobody before.
    pub(crate) begun: bool,
    /// The sizes of what it has appended.
    pub(crate) backlog: Box<Backlog>,
    /// True if the epoch's start is committed.
    pub(crate) settled: bool,
    pub(crate) hand_over: Option<HandOver>,
    pub(crate) reads: Box<Reads>,
    pub(crate) trims: Trims,
}

/// The number of times the set of voters in sync shrank and grew, counted in voters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IsrCounts {
    /// Voters that left.
    pub shrinks: u64,
    /// Voters that came.
    pub expands: u64,
}

impl Leader {
    /// A leadership that begins. Voters count as in sync until they are late, so that an election alone shrinks nothing.
    pub(crate) fn new(start: EpochStart, now: Millis, limits: SyncLimits) -> Self {
        let electorate = start.electorates().flatten();
        let log = Tail { epoch: start.epoch, end: start.start };
        let progress = |id: &ReplicaId| (*id, Progress::new(start.voters.contains(id), log, now));
        let mut followers: BTreeMap<_, _> = electorate.map(progress).collect();
        followers.remove(&start.leader);
        let own = Box::new(Own { disk: Progress::new(true, log, now), quorum_seen: now, committed: (Offset(0), now) });
        let backlog = Box::new(Backlog::new(start.start, limits.lag_bytes_max));
        let (reads, trims) = (Box::default(), Trims::default());
        Self { start, followers, own, begun: false, backlog, settled: false, hand_over: None, reads, trims }
    }

    /// Holds the invariants of a leadership over that log. Followers have said nothing yet of later rounds than the last.
    pub(crate) fn check(&self, log: &LogState, round: u64) {
        assert!(!self.followers.contains_key(&self.start.leader), "a leader feeds itself");
        assert!(self.trims.told <= log.tail.end, "a follower's log starts behind the end of its leader's");
        let trim_end = self.trims.waiting.last().map_or(Offset(0), |(before, _)| *before);
        assert!(trim_end <= log.commit_end, "a trim waits that takes what is not committed");
        debug_assert_eq!(self.start.check(), Ok(()), "the terms of an epoch are impossible");
        let is_fed = |id: &ReplicaId| *id == self.start.leader || self.followers.contains_key(id);
        debug_assert!(self.start.electorates().flatten().all(is_fed), "a voter is not fed");
        for (id, follower) in &self.followers {
            debug_assert_eq!(follower.voter, self.start.voters.contains(id), "a vote is counted wrongly");
            debug_assert!(follower.durable <= log.tail, "a follower holds more than its leader");
            debug_assert!(follower.round <= round, "a follower has answered a round that was never asked");
            debug_assert!(follower.log_start <= log.tail.end, "a follower's log starts behind the end of its leader's");
            debug_assert!(!follower.counts || follower.lineage.is_some(), "a disk counts whose starts are not known");
        }
        debug_assert_eq!(self.backlog.end(), log.tail.end, "an append is not counted, or one that is not in the log");
        self.reads.check(round, self.settled);
    }

    /// Nobody is late before it is fed: until then all clocks begin with every step.
    pub(crate) fn start_clocks(&mut self, now: Millis) {
        self.followers.values_mut().chain([&mut self.own.disk]).for_each(|progress| progress.start_clocks(now));
        (self.own.quorum_seen, self.own.committed.1) = (now, now);
    }

    /// Returns whether it is fed for its vote, be it one of before the change that is under way.
    pub(crate) fn elects(&self, id: ReplicaId) -> bool {
        self.start.elects(id)
    }

    /// Feeds these learners and no others. They count as in sync only once they are.
    pub(crate) fn teach(&mut self, learners: &[ReplicaId], log: Tail, now: Millis) {
        let electorate: Vec<ReplicaId> = self.followers.keys().copied().filter(|id| self.elects(*id)).collect();
        self.followers.retain(|id, _| electorate.contains(id) || learners.contains(id));
        for id in learners.iter().filter(|id| **id != self.start.leader) {
            self.followers.entry(*id).or_insert_with(|| Progress::new(false, log, now));
        }
        debug_assert!(electorate.iter().all(|id| self.followers.contains_key(id)), "a voter is not fed any more");
    }

    /// The highest offset that is committed, if this epoch has committed anything: held durably by `quorum` voters, and by a
    /// majority of the old ones while a change is unsettled, counting only replicas that hold this epoch's start.
    pub(crate) fn committed(&self, own: Tail) -> Option<Offset> {
        let reached = |id: &ReplicaId| {
            let follower =
                || self.followers.get(id).filter(|follower| follower.counts).map(|follower| follower.durable);
            let durable = if *id == self.start.leader { Some(own) } else { follower() };
            durable.filter(|tail| tail.epoch == self.start.epoch).map(|tail| tail.end)
        };
        self.reached(self.quorum(), reached)
    }

    /// The number of voters that commit.
    pub(crate) fn quorum(&self) -> usize {
        usize::try_from(self.start.quorum).unwrap_or(usize::MAX)
    }

    /// The greatest value that so many of the voters have reached, and a majority of the old ones while a change is unsettled.
    pub(crate) fn reached<T: Ord + Copy>(&self, count: usize, value: impl Fn(&ReplicaId) -> Option<T>) -> Option<T> {
        debug_assert!(count >= majority(self.start.voters.len()), "two quorums need not meet");
        let new = reached_by(self.start.voters.iter().map(&value), count)?;
        match &self.start.old_voters {
            Some(old) if !self.settled => Some(new.min(reached_by(old.iter().map(&value), majority(old.len()))?)),
            _ => Some(new),
        }
    }

    /// The number of voters that are in reach, this one included; and those that are still being connected to.
    pub(crate) fn in_reach(&self, voters: &[ReplicaId], now: Millis, limits: SyncLimits) -> usize {
        self.count(voters, |follower| follower.may_be_in_reach(now, limits))
            + usize::from(voters.contains(&self.start.leader))
    }

    /// The number of voters that can write, by all that is known: they answer, and their disks get on. This one is included.
    pub(crate) fn writing(&self, voters: &[ReplicaId], log_end: Offset, now: Millis, limits: SyncLimits) -> usize {
        self.count(voters, |follower| follower.can_write(log_end, now, limits))
            + usize::from(voters.contains(&self.start.leader))
    }

    /// Returns whether enough voters can write for an append to have a chance.
    pub(crate) fn has_quorum(&self, log_end: Offset, now: Millis, limits: SyncLimits) -> bool {
        self.is_enough(|voters| self.writing(voters, log_end, now, limits))
    }

    /// Returns whether enough voters may write in a moment: those that do, and those that are being connected to and not late.
    pub(crate) fn is_connecting(&self, log_end: Offset, now: Millis, limits: SyncLimits) -> bool {
        let may_write = |follower: &Progress| {
            follower.can_write(log_end, now, limits)
                || (follower.pace.begun.is_none() && follower.is_alive(now, limits))
        };
        self.is_enough(|voters| self.count(voters, may_write) + usize::from(voters.contains(&self.start.leader)))
    }

    /// Returns whether too few voters could write for as long as a follower may be silent. Then what waits for them waits no longer.
    pub(crate) fn has_lost_quorum(&mut self, log_end: Offset, now: Millis, limits: SyncLimits) -> bool {
        if self.has_quorum(log_end, now, limits) {
            self.own.quorum_seen = now;
        }
        now.since(self.own.quorum_seen) >= limits.lag_ms_max
    }

    /// Returns whether its own disk has fallen behind what the others commit without it, as far as would put a follower out of sync, and
    /// they are enough to go on.
    pub(crate) fn is_outrun(&mut self, durable: Tail, commit_end: Offset, now: Millis, limits: SyncLimits) -> bool {
        let committed = Tail { epoch: self.start.epoch, end: commit_end };
        let own = &mut self.own.disk;
        own.note(durable, committed, now);
        own.lag_bytes = self.backlog.between(durable.end, commit_end);
        let keeps_up = own.is_close(committed, now, limits) || own.was_caught_up(now, limits);
        !keeps_up && self.can_spare_it()
    }

    /// Returns whether it has committed no more for as long as a follower may lag, though there is more and enough voters are in reach.
    pub(crate) fn is_held_up(&mut self, log_end: Offset, commit_end: Offset, now: Millis, limits: SyncLimits) -> bool {
        let (committed, since) = self.own.committed;
        let waits = self.settled && commit_end == committed && commit_end < log_end;
        if !waits || !self.is_enough(|voters| self.in_reach(voters, now, limits)) {
            self.own.committed = (commit_end, now);
            return false;
        }
        now.since(since) >= limits.lag_ms_max
    }

    /// Returns whether the others that are in sync are enough to commit without it.
    pub(crate) fn can_spare_it(&self) -> bool {
        self.is_enough(|voters| self.count(voters, |follower| follower.session.is_some() && follower.in_sync))
    }

    fn count(&self, voters: &[ReplicaId], is_in: impl Fn(&Progress) -> bool) -> usize {
        voters.iter().filter_map(|id| self.followers.get(id)).filter(|follower| is_in(follower)).count()
    }

    /// Returns whether so many of the voters, and of the old ones while the change is unsettled, can commit.
    fn is_enough(&self, count: impl Fn(&[ReplicaId]) -> usize) -> bool {
        let old = self.start.old_voters.as_ref().filter(|_| !self.settled);
        count(&self.start.voters) >= self.quorum() && old.is_none_or(|old| count(old) >= majority(old.len()))
    }

    /// Looks at every follower again and counts who came and went.
    pub(crate) fn refresh_isr(&mut self, log: Tail, now: Millis, limits: SyncLimits, counts: &mut IsrCounts) {
        for progress in self.followers.values_mut() {
            progress.lag_bytes = self.backlog.between(progress.durable.end, log.end);
            let in_sync = progress.is_in_sync(log, now, limits);
            if progress.voter && progress.in_sync != in_sync {
                let count = if in_sync { &mut counts.expands } else { &mut counts.shrinks };
                *count = count.saturating_add(1);
            }
            progress.in_sync = in_sync;
        }
    }

    /// Those of these that are in sync, this one included.
    pub(crate) fn in_sync_of(&self, voters: &[ReplicaId]) -> Vec<ReplicaId> {
        let in_sync = |id: &&ReplicaId| {
            **id == self.start.leader || self.followers.get(id).is_some_and(|progress| progress.in_sync)
        };
        voters.iter().filter(in_sync).copied().collect()
    }
}

impl Progress {
    fn new(voter: bool, log: Tail, now: Millis) -> Self {
        Self {
            voter,
            session: None,
            lineage: None,
            counts: false,
            durable: Tail::default(),
            log_start: Offset(0),
            round: 0,
            clock_ms: None,
            caught_up: voter.then_some(now),
            in_sync: voter,
            lag_bytes: 0,
            pace: Pace { heard: now, begun: None, joint: None, advanced: now, mark: (log, now) },
        }
    }

    fn start_clocks(&mut self, now: Millis) {
        (self.pace.heard, self.pace.mark.1, self.pace.advanced) = (now, now, now);
        self.caught_up = self.caught_up.and(Some(now));
    }

    /// Takes note of which start of its disk speaks. What an earlier one has acknowledged, this one may have forgotten.
    pub(crate) fn meet(&mut self, lineage: Lineage) {
        if self.lineage.as_ref().is_some_and(|known| known.run() != lineage.run()) {
            (self.durable, self.log_start, self.caught_up) = (Tail::default(), Offset(0), None);
        }
        self.lineage = Some(lineage);
    }

    /// Takes note of what the follower holds, at a time when the leader's log had this tail. One that ends as far without the epoch's
    /// start has not caught up.
    pub(crate) fn note(&mut self, durable: Tail, log: Tail, now: Millis) {
        debug_assert!(self.pace.heard <= now, "the monotonic clock went back");
        self.pace.heard = now;
        self.pace.joint.take_if(|joint| durable > *joint);
        if durable > self.durable || self.durable.end >= log.end {
            self.pace.advanced = now;
        }
        self.durable = self.durable.max(durable);
        let (marked, marked_at) = self.pace.mark;
        if self.durable >= log {
            self.caught_up = Some(now);
        } else if self.durable >= marked {
            self.caught_up = self.caught_up.max(Some(marked_at));
        } else {
            return;
        }
        self.pace.mark = (log, now);
    }

    /// The number of records that it lacks.
    pub fn lag_records(&self, log_end: Offset) -> u64 {
        log_end.since(self.durable.end)
    }

    /// A stream begins, of a follower with that much durable. Its disk has done all that was asked of it before; what it is to forget
    /// of its log goes with the first frames.
    pub(crate) fn begin(&mut self, session: Session, durable: Tail, log: Tail, now: Millis) {
        self.session = self.session.max(Some(session));
        self.pace.begun = Some(now);
        self.pace.advanced = now;
        self.pace.joint = Some(durable).filter(|durable| *durable < log);
    }

    /// Returns whether it may still be at what goes of its log with the first frames.
    fn is_joining(&self, now: Millis) -> bool {
        self.pace.joint.and(self.pace.begun).is_some_and(|begun| now.since(begun) <= JOINT_MS_MAX)
    }

    pub(crate) fn is_alive(&self, now: Millis, limits: SyncLimits) -> bool {
        now.since(self.pace.heard) <= limits.lag_ms_max
    }

    /// Returns whether it answers, and its disk gets on.
    fn can_write(&self, log_end: Offset, now: Millis, limits: SyncLimits) -> bool {
        let answers = self.session.is_some() && self.is_alive(now, limits);
        answers && (self.gets_on(log_end, now, limits) || self.is_joining(now))
    }

    /// Returns whether it answers, or is still being connected to and not late.
    fn may_be_in_reach(&self, now: Millis, limits: SyncLimits) -> bool {
        (self.session.is_some() || self.pace.begun.is_none()) && self.is_alive(now, limits)
    }

    /// Returns whether it holds all, or holds more than a while ago.
    fn gets_on(&self, log_end: Offset, now: Millis, limits: SyncLimits) -> bool {
        self.durable.end >= log_end || now.since(self.pace.advanced) <= limits.lag_ms_max
    }

    fn is_close(&self, log: Tail, now: Millis, limits: SyncLimits) -> bool {
        let is_near = self.lag_records(log.end) <= limits.lag_records_max && self.lag_bytes <= limits.lag_bytes_max;
        is_near && self.durable.epoch == log.epoch && self.gets_on(log.end, now, limits)
    }

    fn was_caught_up(&self, now: Millis, limits: SyncLimits) -> bool {
        self.caught_up.is_some_and(|caught_up| now.since(caught_up) <= limits.lag_ms_max)
    }

    fn is_in_sync(&self, log: Tail, now: Millis, limits: SyncLimits) -> bool {
        let is_close = self.session.is_some() && self.is_close(log, now, limits);
        self.is_alive(now, limits) && (is_close || self.was_caught_up(now, limits))
    }
}
