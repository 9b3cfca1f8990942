//! The time, as far as several wall clocks agree. No wall clock of one node decides what is deleted, nor how far the log's
//! time goes ahead. Times are milliseconds since the Unix epoch.

use crate::quorum::majority;
use crate::replica::progress::Leader;
use crate::replica::state::{Replica, Role};
use crate::types::io::{ClockReading, Millis};
use crate::types::recovered::SyncLimits;
use crate::types::{Offset, ReplicaId};

/// The greatest lead of a leader's timestamps over the agreed time.
pub const CLOCK_TOLERANCE_MS: u64 = 10_000;

impl Leader {
    /// The time that the clocks of a majority of the voters have reached, and of the old ones while a change is unsettled. A clock
    /// counts as it was last shown, by a follower in reach: what was shown is not made to go on, so that only clocks make it later.
    fn agreed_ms(&self, own_ms: u64, now: Millis, limits: SyncLimits) -> Option<u64> {
        let clock = |id: &ReplicaId| {
            if *id == self.start.leader {
                return Some(own_ms);
            }
            let in_reach = |follower: &&crate::Progress| follower.session.is_some() && follower.is_alive(now, limits);
            self.followers.get(id).filter(in_reach)?.clock_ms
        };
        self.reached(majority(self.start.voters.len()), clock)
    }
}

impl Replica {
    pub(crate) fn hear_clock(&mut self, shown: ClockReading) {
        match (&mut self.role, shown) {
            (Role::Leader(leader), ClockReading::Follower { from, clock_ms }) => {
                if let Some(follower) = leader.followers.get_mut(&from) {
                    follower.clock_ms = Some(clock_ms);
                }
            }
            (Role::Follower(following), ClockReading::Agreed { session, agreed_ms })
                if following.session == Some(session) =>
            {
                following.agreed_ms = agreed_ms;
            }
            _ => {}
        }
    }

    /// The time that a majority of the voters' clocks have reached, as far as this replica knows; `own_ms` is what its own clock
    /// shows. A single voter knows its own alone. A follower takes its leader's word, and no more than its own clock shows. None
    /// while too few are heard of, or too few say what their clocks show: then nothing may go because of its age.
    pub fn agreed_ms(&self, now: Millis, own_ms: u64) -> Option<u64> {
        let told_ms = self.told_ms(now, own_ms)?;
        Some(if let Role::Follower(_) = self.role { told_ms.min(own_ms) } else { told_ms })
    }

    /// As [`Replica::agreed_ms`], to compare the own clock with: a follower's leader's word alone.
    pub fn told_ms(&self, now: Millis, own_ms: u64) -> Option<u64> {
        match &self.role {
            // Before, it does not know what is committed, either.
            Role::Leader(leader) if leader.settled => leader.agreed_ms(own_ms, now, self.limits.sync),
            Role::Follower(following) => following.session.and(following.agreed_ms),
            _ => None,
        }
    }

    /// The timestamp of a record that a leader appends now: its own clock's, as far as the others bear it out. Those of the log never
    /// fall: the caller gives the last one again where this one is lower.
    pub fn timestamp_ms(&self, now: Millis, own_ms: u64) -> u64 {
        let Role::Leader(leader) = &self.role else { return own_ms };
        match leader.agreed_ms(own_ms, now, self.limits.sync) {
            Some(agreed) => own_ms.clamp(agreed, agreed.saturating_add(CLOCK_TOLERANCE_MS)),
            None => own_ms,
        }
    }

    /// The end of what its leader, or itself, knows to be committed, while it has one: what lies beyond is committed later.
    pub fn told_end(&self) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) if leader.settled => Some(self.log.commit_end),
            Role::Follower(following) => following.session.map(|_| following.commit_end.max(self.log.commit_end)),
            _ => None,
        }
    }
}
