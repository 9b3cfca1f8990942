//! Reads that must see whatever was committed before they came. The leader notes what is committed when such a read comes, and only
//! then asks its followers, by the number of a new round on their streams; it answers once a majority of the voters has repeated
//! that number or a higher one. They had promised no later leader then, so nobody had committed more when the read came.

use alloc::vec::Vec;

use crate::quorum::{majority, reached_by};
use crate::replica::progress::Leader;
use crate::replica::state::{Replica, Role};
use crate::types::ReplicaId;
use crate::types::io::{Millis, RequestId};
use crate::types::output::{Output, Reply};
use crate::types::recovered::SyncLimits;
use crate::types::refusal::Refusal;

impl Leader {
    /// Refuses the reads that wait, as it leads no more.
    pub(crate) fn abandon_reads(&mut self, out: &mut Vec<Output>) {
        core::mem::take(&mut self.reads).refuse(&Refusal::SteppedDown, out);
    }

    /// The last round that a majority of the voters has confirmed; this one has confirmed its `own`. Nothing is asked before this
    /// epoch has committed something, and from then on no leader is elected without the voters that did.
    fn confirmed(&self, own: u64) -> Option<u64> {
        let voters = &self.start.voters;
        let round =
            |id: &ReplicaId| if *id == self.start.leader { Some(own) } else { self.followers.get(id).map(|f| f.round) };
        reached_by(voters.iter().map(round), majority(voters.len()))
    }

    /// Returns whether a majority of the voters is in reach.
    fn reaches_majority(&self, now: Millis, limits: SyncLimits) -> Result<(), Refusal> {
        let voters = &self.start.voters;
        let (in_reach, quorum) = (self.in_reach(voters, now, limits), majority(voters.len()));
        if in_reach >= quorum {
            return Ok(());
        }
        let quorum = u32::try_from(quorum).unwrap_or(u32::MAX);
        Err(Refusal::NoQuorum { in_reach, voters: voters.len(), quorum })
    }
}

impl Replica {
    /// The newest round of questions to the followers; never falls while this replica lives.
    pub fn round(&self) -> u64 {
        self.counts.round
    }

    pub(crate) fn confirm_read(&mut self, now: Millis, request: RequestId, out: &mut Vec<Output>) {
        let (limits, commit_end) = (self.limits, self.log.commit_end);
        let refusal = match &mut self.role {
            Role::Failed => Refusal::Failed,
            Role::Idle | Role::Follower(_) => Refusal::NotLeader,
            Role::Leader(leader) if leader.reads.len() >= limits.reads_max => Refusal::TooManyReads(limits.reads_max),
            Role::Leader(leader) => match leader.reaches_majority(now, limits.sync) {
                Err(refusal) => refusal,
                Ok(()) if !leader.settled => return leader.reads.early.push(request),
                Ok(()) => {
                    debug_assert!(commit_end >= leader.start.start, "a read is to see less than was committed before");
                    self.counts.round = self.counts.round.saturating_add(1);
                    leader.reads.waiting.push_back((self.counts.round, request, commit_end));
                    return self.answer_reads(out);
                }
            },
        };
        out.push(Output::Reply(request, Reply::Refused(refusal)));
    }

    /// An append of a producer that was opened where more was committed than is here. If this replica leads that was another log,
    /// and the producer is unknown in this one. A deposed leader cannot tell, so the followers are asked.
    pub(crate) fn ask_about_producer(&mut self, now: Millis, request: RequestId, out: &mut Vec<Output>) {
        let limits = self.limits;
        match &mut self.role {
            Role::Leader(leader)
                if leader.settled
                    && leader.reads.strangers.len() < limits.reads_max
                    && leader.reaches_majority(now, limits.sync).is_ok() =>
            {
                self.counts.round = self.counts.round.saturating_add(1);
                leader.reads.strangers.push_back((self.counts.round, request));
                self.answer_reads(out);
            }
            _ => out.push(Output::Reply(request, Reply::Refused(Refusal::NotLeader))),
        }
    }

    /// Asks for the reads that came before this epoch had committed anything, now that it has.
    pub(crate) fn ask_for_early_reads(&mut self, out: &mut Vec<Output>) {
        let commit_end = self.log.commit_end;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.reads.early.is_empty() {
            return;
        }
        self.counts.round = self.counts.round.saturating_add(1);
        let round = self.counts.round;
        debug_assert!(leader.settled, "a read is asked for before anything is committed");
        let asked = leader.reads.early.drain(..).map(|request| (round, request, commit_end));
        leader.reads.waiting.extend(asked);
        self.answer_reads(out);
    }

    /// Answers the reads whose round is confirmed.
    pub(crate) fn answer_reads(&mut self, out: &mut Vec<Output>) {
        let (own, commit_end) = (self.counts.round, self.log.commit_end);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(confirmed) = leader.confirmed(own) else { return };
        assert!(confirmed <= own, "a round is confirmed that was never asked");
        while let Some((_, request, end)) = leader.reads.waiting.pop_front_if(|(round, ..)| *round <= confirmed) {
            debug_assert!(end <= commit_end, "a read is told more than is committed");
            out.push(Output::Reply(request, Reply::ReadConfirmed { commit_end: end }));
        }
        while let Some((_, request)) = leader.reads.strangers.pop_front_if(|(round, _)| *round <= confirmed) {
            out.push(Output::Reply(request, Reply::Refused(Refusal::UnknownProducer)));
        }
    }

    /// Refuses the reads that wait while too few voters are in reach to ever answer them.
    pub(crate) fn give_up_reads(&mut self, now: Millis, out: &mut Vec<Output>) {
        let limits = self.limits.sync;
        let Role::Leader(leader) = &mut self.role else { return };
        if let Err(refusal) = leader.reaches_majority(now, limits) {
            core::mem::take(&mut leader.reads).refuse(&refusal, out);
        }
    }
}
