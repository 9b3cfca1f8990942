//! Standing by: a node that acts where no controller does. It begins no cluster, changes no members, and keeps to the policy.

use super::pause::{Backoff, Random, Retry};
use crate::control::{Blocked, Reason, ReplicaRole, ReplicaStatus, Step};
use crate::quorum::majority;
use crate::types::{ClusterId, Epoch, Millis};

/// When a standby acts; milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StandbyTimes {
    /// The time in which nobody else has acted: no promise rose.
    pub after_ms: u64,
    /// The delay by which each further node acts, so that they don't outbid each other; twice as much at most at random.
    pub stagger_ms: u64,
    /// The time that a leader that wants to lead no more waits for a controller.
    pub leaving_ms: u64,
    /// The pause after three tries that nobody was elected by.
    pub vain: Backoff,
}

impl Default for StandbyTimes {
    fn default() -> Self {
        let vain = Backoff { min_ms: 10_000, max_ms: 300_000 };
        Self { after_ms: 1000, stagger_ms: 150, leaving_ms: 300, vain }
    }
}

/// The number of times in a row it tries before it pauses.
const TRIES_MAX: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct Standby {
    /// Its node.
    own: usize,
    times: StandbyTimes,
    /// The need for a step, since when nobody has met it, and for how long that has to be so.
    need: Option<(Need, Millis, u64)>,
    /// The greatest promise that it has seen.
    promised: Epoch,
    tries: u32,
    vain: Retry,
}

/// Nobody acts as long as the greatest promise stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Need {
    promised: Epoch,
    hands_over: bool,
}

impl Standby {
    pub(super) fn new(own: usize, times: StandbyTimes) -> Self {
        Self { own, times, need: None, promised: Epoch(0), tries: 0, vain: Retry::default() }
    }

    /// The part of the plan that a standby does now.
    pub(super) fn filter(
        &mut self,
        now: Millis,
        step: Step,
        seen: &[Option<ReplicaStatus>],
        random: &mut Random,
    ) -> Step {
        let hands_over = match &step {
            Step::HandOver { .. } => true,
            Step::Elect { change: None, reason, .. } if is_failover(*reason) => false,
            Step::Nothing => {
                // Somebody leads, or is waited for.
                (self.need, self.tries, self.vain) = (None, 0, Retry::default());
                return step;
            }
            Step::Elect { .. } | Step::Feed { .. } => {
                self.need = None;
                return Step::Nothing;
            }
            Step::Blocked(blocked) => {
                self.need = None;
                return Step::Blocked(of_established(blocked.clone()));
            }
        };
        let promised = seen.iter().flatten().map(|seen| seen.promised).max().unwrap_or_default();
        self.promised = self.promised.max(promised);
        let need = Need { promised: self.promised, hands_over };
        let (since, wait_ms) = match self.need {
            Some((known, since, wait_ms)) if known == need => (since, wait_ms),
            _ => {
                let wait_ms = self.wait_ms(hands_over, seen, random);
                self.need = Some((need, now, wait_ms));
                (now, wait_ms)
            }
        };
        debug_assert!(since <= now, "the need for a step is to come");
        debug_assert!(self.tries < TRIES_MAX, "more tries in a row than may be");
        if now.since(since) < wait_ms || !self.vain.is_due(now) { Step::Nothing } else { step }
    }

    /// It does what it was to do.
    pub(super) fn acts(&mut self, now: Millis, random: &mut Random) {
        debug_assert!(self.need.is_some(), "it acts without a need");
        debug_assert!(self.vain.is_due(now), "it acts in a pause");
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            self.vain.failed(now, self.times.vain, random);
            self.tries = 0;
        }
        self.need = None;
    }

    /// The cluster that its own replica is part of.
    pub(super) fn cluster(&self, seen: &[Option<ReplicaStatus>]) -> Option<ClusterId> {
        seen.get(self.own)?.as_ref()?.cluster
    }

    fn wait_ms(&self, hands_over: bool, seen: &[Option<ReplicaStatus>], random: &mut Random) -> u64 {
        let StandbyTimes { after_ms, stagger_ms, leaving_ms, .. } = self.times;
        let own = seen.get(self.own).and_then(Option::as_ref);
        let leads = own.is_some_and(|own| matches!(own.role, ReplicaRole::Leader { .. }));
        if hands_over && leads {
            return leaving_ms;
        }
        let place = u64::try_from(self.own).unwrap_or(u64::MAX);
        let staggered = stagger_ms.saturating_mul(place).saturating_add(random.next() % stagger_ms.max(1));
        after_ms.saturating_add(staggered)
    }
}

/// The obstacle, where the cluster began long ago: nobody is told by what to stand by before that. Where none of those that
/// answer is part of it, those that are have to come back.
fn of_established(blocked: Blocked) -> Blocked {
    match blocked {
        Blocked::WaitingForReplicas { reachable: answered, replicas: voters } => {
            Blocked::NoMajority { answered, voters, needed: majority(voters) }
        }
        blocked => blocked,
    }
}

/// Returns whether an epoch begins so that somebody leads whom a majority hears.
const fn is_failover(reason: Reason) -> bool {
    match reason {
        Reason::NoLeader | Reason::LeaderLost | Reason::QuorumLost | Reason::HigherPromise | Reason::FarPromise => true,
        Reason::Bootstrap | Reason::HandOver | Reason::VotersChange | Reason::VotersSettled | Reason::QuorumChange => {
            false
        }
    }
}
