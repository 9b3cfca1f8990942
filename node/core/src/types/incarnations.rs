//! Starts of replicas: each word of one is from one start. A disk that was restored from a copy has forgotten promises and
//! acknowledgements, and nothing on it says so: what others remember of the replica's starts tells it from one that only restarted.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::types::ReplicaId;
use crate::types::history::VOTERS_MAX;

/// The number of its starts that a disk tells apart.
pub const LINEAGE_MAX: usize = 16;
/// The greatest distance of a start above those that a disk has seen, or others know of it, to be believed: a disk is not restored from a
/// copy from so many starts ago.
pub(crate) const STARTS_AHEAD_MAX: u64 = 1 << 20;
/// The number of replicas whose starts are remembered: voters, old ones and learners.
pub const RUNS_MAX: usize = 20;
const _: () = assert!(RUNS_MAX > 2 * VOTERS_MAX + 1, "there is no room for the starts of all voters and learners");

/// A start of a replica, as others remember it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// The number of times its disk had been opened, this time included.
    pub starts: u64,
    /// Drawn at random by each start: a disk that is restored counts to the same number again.
    pub nonce: u64,
}

/// The starts that a disk has seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineage {
    /// The number.
    pub starts: u64,
    /// The nonces of the last ones, newest first.
    pub nonces: Vec<u64>,
}

impl Lineage {
    /// The start that runs.
    pub fn run(&self) -> Run {
        Run { starts: self.starts, nonce: self.nonces.first().copied().unwrap_or_default() }
    }

    /// Returns whether the disk has seen that start. One that has not is a copy from before it. Of a start that lies too far back only the
    /// number is known. One that no disk can have reached since is nonsense, and says nothing.
    pub fn has(&self, run: Run) -> bool {
        if run.starts.saturating_sub(self.starts) > STARTS_AHEAD_MAX {
            return true;
        }
        let ago = self.starts.checked_sub(run.starts).map(|ago| usize::try_from(ago).unwrap_or(usize::MAX));
        ago.is_some_and(|ago| self.nonces.get(ago).is_none_or(|nonce| *nonce == run.nonce))
    }
}

/// The newest start that is known of each replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Runs(BTreeMap<ReplicaId, Run>);

impl Runs {
    /// The newest start that is known of a replica.
    pub fn get(&self, replica: ReplicaId) -> Option<Run> {
        self.0.get(&replica).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, Run)> + '_ {
        self.0.iter().map(|(replica, run)| (*replica, *run))
    }

    /// Takes a start in if it is newer than the known one; of two that lie too far apart the lower one is believed. Beyond the greatest
    /// number of replicas, one that `stays` does not name is forgotten for it.
    pub fn learn(&mut self, replica: ReplicaId, run: Run, stays: impl Fn(ReplicaId) -> bool) {
        if let Some(known) = self.get(replica) {
            let ahead = run.starts.saturating_sub(known.starts);
            let is_nonsense = known.starts.saturating_sub(run.starts) > STARTS_AHEAD_MAX;
            if (ahead == 0 && !is_nonsense) || ahead > STARTS_AHEAD_MAX {
                return;
            }
        }
        self.0.insert(replica, run);
        while self.0.len() > RUNS_MAX {
            let gone = self.0.keys().copied().find(|id| *id != replica && !stays(*id)).unwrap_or(replica);
            self.0.remove(&gone);
        }
        assert!(self.0.len() <= RUNS_MAX, "too many replicas' starts are remembered");
    }

    /// Takes this start for the newest one of a replica.
    pub(crate) fn set(&mut self, replica: ReplicaId, run: Run) {
        self.0.insert(replica, run);
    }

    /// Forgets what is known of a replica.
    pub(crate) fn forget(&mut self, replica: ReplicaId) {
        self.0.remove(&replica);
    }

    /// Replaces what is known of a replica, whatever it is.
    pub(crate) fn correct(&mut self, replica: ReplicaId, run: Run) {
        if let Some(known) = self.0.get_mut(&replica) {
            *known = run;
        }
    }
}

impl FromIterator<(ReplicaId, Run)> for Runs {
    fn from_iter<I: IntoIterator<Item = (ReplicaId, Run)>>(all: I) -> Self {
        let mut runs = Self::default();
        all.into_iter().for_each(|(replica, run)| runs.learn(replica, run, |_| true));
        runs
    }
}

/// The starts that a replica finds written down when it starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnownStarts {
    /// Those of its disk, this one included.
    pub lineage: Lineage,
    /// The newest ones of other replicas.
    pub runs: Runs,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn lineage(starts: u64, nonces: &[u64]) -> Lineage {
        Lineage { starts, nonces: nonces.to_vec() }
    }

    #[test]
    fn a_disk_that_went_on_has_seen_all_its_starts() {
        let disk = lineage(3, &[33, 22, 11]);
        for (starts, nonce) in [(3, 33), (2, 22), (1, 11)] {
            assert!(disk.has(Run { starts, nonce }));
        }
        assert_eq!(disk.run(), Run { starts: 3, nonce: 33 });
    }

    #[test]
    fn a_restored_disk_has_not_seen_the_starts_since_the_copy_however_often_it_starts_again() {
        // Copied after its first start; others know of the second and the third.
        for restored in [lineage(2, &[99, 11]), lineage(3, &[98, 99, 11]), lineage(4, &[97, 98, 99, 11])] {
            assert!(restored.has(Run { starts: 1, nonce: 11 }));
            assert!(!restored.has(Run { starts: 3, nonce: 33 }), "{restored:?}");
        }
        assert!(!lineage(2, &[99, 11]).has(Run { starts: 2, nonce: 22 }));
    }

    #[test]
    fn a_start_that_no_disk_can_have_reached_says_nothing() {
        let disk = lineage(3, &[33, 22, 11]);
        for starts in [4 + STARTS_AHEAD_MAX, 1 << 60, u64::MAX] {
            let nonsense = Run { starts, nonce: 7 };
            assert!(disk.has(nonsense));
            let mut runs = Runs::from_iter([(ReplicaId(1), disk.run())]);
            runs.learn(ReplicaId(1), nonsense, |_| true);
            assert_eq!(runs.get(ReplicaId(1)), Some(disk.run()));
            let mut runs = Runs::from_iter([(ReplicaId(1), nonsense)]);
            runs.learn(ReplicaId(1), disk.run(), |_| true);
            assert_eq!(runs.get(ReplicaId(1)), Some(disk.run()), "it does not keep the true one out");
        }
        assert!(!disk.has(Run { starts: 3 + STARTS_AHEAD_MAX, nonce: 7 }));
    }

    #[test]
    fn only_a_newer_start_is_learned_and_their_number_is_bounded() {
        let (mut runs, run) = (Runs::default(), |starts, nonce| Run { starts, nonce });
        for (starts, nonce) in [(2, 22), (1, 11), (2, 99)] {
            runs.learn(ReplicaId(1), run(starts, nonce), |_| true);
        }
        assert_eq!(runs.get(ReplicaId(1)), Some(run(2, 22)));
        (2..40).for_each(|id| runs.learn(ReplicaId(id), run(1, 1), |id| id == ReplicaId(1)));
        let known: Vec<u128> = runs.iter().map(|(id, _)| id.0).collect();
        assert_eq!((known.len(), known[0], known.last()), (RUNS_MAX, 1, Some(&39)), "{known:?}");
        assert_eq!(Runs::from_iter(vec![(ReplicaId(4), run(1, 5))]).get(ReplicaId(4)), Some(run(1, 5)));
    }
}
