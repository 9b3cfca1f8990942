//! News of replicas that left and joined those in sync, by what the operator itself sees. Pure: it is told the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time within which one that comes and goes is not told of: after a failover a leader takes a while to reach its followers.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// The replicas in sync as last seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IsrTracker {
    isr: Vec<String>,
    /// The replicas in sync by what was told.
    told: Vec<String>,
    has_begun: bool,
    /// The time since when each pod differs from its last report.
    since: BTreeMap<String, Instant>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IsrChange {
    /// Pods that are no longer in sync.
    pub left: Vec<String>,
    /// Pods that are now.
    pub joined: Vec<String>,
}

impl IsrTracker {
    /// Begins with who was in sync when the operator last wrote it down.
    pub fn new(isr: Vec<String>) -> Self {
        Self { told: isr.clone(), has_begun: !isr.is_empty(), isr, since: BTreeMap::new() }
    }

    /// The replicas that were in sync when last seen.
    pub fn isr(&self) -> &[String] {
        &self.isr
    }

    /// Takes note of who is in sync now, and says who has left or joined for a while. Before anyone was, nobody joins: the cluster
    /// begins.
    pub fn see(&mut self, isr: Vec<String>, now: Instant) -> IsrChange {
        self.isr = isr;
        if !self.has_begun {
            self.has_begun = !self.isr.is_empty();
            self.told.clone_from(&self.isr);
            return IsrChange::default();
        }
        let (isr, told) = (&self.isr, &self.told);
        self.since.retain(|pod, _| isr.contains(pod) != told.contains(pod));
        for pod in isr.iter().chain(told).filter(|pod| isr.contains(pod) != told.contains(pod)) {
            self.since.entry(pod.clone()).or_insert(now);
        }
        let has_settled = |pod: &&String| {
            self.since.get(*pod).is_some_and(|since| now.saturating_duration_since(*since) >= SETTLED_AFTER)
        };
        let left: Vec<String> = told.iter().filter(|pod| !isr.contains(pod)).filter(has_settled).cloned().collect();
        let joined: Vec<String> = isr.iter().filter(|pod| !told.contains(pod)).filter(has_settled).cloned().collect();
        self.since.retain(|pod, _| !left.contains(pod) && !joined.contains(pod));
        self.told.retain(|pod| !left.contains(pod));
        self.told.extend(joined.iter().cloned());
        IsrChange { left, joined }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The news at each second, by the replicas in sync then.
    fn told(before: &[&str], seen: &[(u64, &[&str])]) -> Vec<IsrChange> {
        let (mut tracker, begun) = (IsrTracker::new(pods(before)), Instant::now());
        let see = |(second, isr): &(u64, &[&str])| tracker.see(pods(isr), begun + Duration::from_secs(*second));
        seen.iter().map(see).filter(|change| *change != IsrChange::default()).collect()
    }

    fn left(names: &[&str]) -> IsrChange {
        IsrChange { left: pods(names), ..IsrChange::default() }
    }

    fn joined(names: &[&str]) -> IsrChange {
        IsrChange { joined: pods(names), ..IsrChange::default() }
    }

    #[test]
    fn a_cluster_that_begins_expands_nothing_but_one_that_was_lost_does() {
        let seen: [(u64, &[&str]); 7] =
            [(0, &[]), (9, &["a", "b"]), (20, &[]), (24, &[]), (30, &[]), (40, &["a", "b"]), (44, &["a", "b"])];
        assert_eq!(told(&[], &seen), [left(&["a", "b"]), joined(&["a", "b"])]);
    }

    #[test]
    fn who_left_and_who_joined_is_told_each_time() {
        let all: &[&str] = &["a", "b", "c"];
        let seen: [(u64, &[&str]); 6] =
            [(0, all), (10, &["a"]), (13, &["a"]), (20, &["a", "c"]), (23, &["a", "c"]), (30, all)];
        assert_eq!(told(all, &seen), [left(&["b", "c"]), joined(&["c"])]);
        assert_eq!(told(all, &[(0, &["b"]), (3, &["b"])]), [left(&["a", "c"])]);
    }

    #[test]
    fn a_new_leader_that_reaches_its_followers_one_by_one_is_no_news() {
        let all: &[&str] = &["a", "b", "c"];
        let seen: [(u64, &[&str]); 5] = [(0, all), (10, &["b"]), (11, &["b", "c"]), (12, all), (60, all)];
        assert_eq!(told(all, &seen), []);
    }
}
