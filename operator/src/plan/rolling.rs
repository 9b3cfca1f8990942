//! The progress of the replacement of pods, from look to look. Pure: it is told the time.

use std::time::{Duration, Instant};

use crate::observe::view::ClusterView;
use crate::plan::event::ClusterEvent;
use crate::plan::rollout::{self, PodRevision};

/// The time for which a leader that is to be replaced is waited for to hand over.
const HAND_OVER_MAX: Duration = Duration::from_secs(30);

/// The progress of the replacement of pods.
#[derive(Debug, Default)]
pub struct Rolling {
    is_under_way: bool,
    /// The replica that is to take over from the leader before its pod goes.
    to: Option<usize>,
    /// The time since when somebody was to take over.
    since: Option<Instant>,
}

impl Rolling {
    /// The replica that is to take over from the leader before its pod goes, by ordinal.
    pub fn to(&self) -> Option<usize> {
        self.to
    }

    /// Tells whether a leader was waited for long enough to hand over.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= HAND_OVER_MAX)
    }

    /// Looks at the pods, where it is not known of which revision they are to be.
    pub fn see_nothing(&mut self) {
        self.to = None;
    }

    /// Looks at the pods; gives how many are still to be replaced, and what there is to tell.
    pub fn see(
        &mut self,
        view: &ClusterView,
        wanted: &str,
        revisions: &[PodRevision],
        now: Instant,
    ) -> (usize, Option<ClusterEvent>) {
        let stale = rollout::remaining(wanted, revisions);
        self.to = rollout::successor(view, wanted, revisions);
        // However often nobody leads for a moment: it is waited for in all.
        self.since = match (self.to, stale) {
            (_, 0) => None,
            (None, _) => self.since,
            (Some(_), _) => self.since.or(Some(now)),
        };
        if stale > 0 && !self.is_under_way {
            self.is_under_way = true;
            let note = format!("{stale} pods are replaced one by one, the leader last");
            return (stale, Some(ClusterEvent::normal("RolloutStarted", note)));
        }
        if self.is_under_way && stale == 0 && view.ready() == view.size() {
            self.is_under_way = false;
            return (stale, Some(ClusterEvent::normal("RolloutCompleted", "all pods are ready and up to date")));
        }
        (stale, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::view::tests::healthy;

    #[test]
    fn it_is_told_when_it_begins_and_ends_and_a_leader_is_waited_for_in_all() {
        let (mut rolling, begun) = (Rolling::default(), Instant::now());
        let pods = |revisions: [&str; 3]| {
            let pod = |(ordinal, revision): (usize, &&str)| PodRevision {
                pod: format!("orders-{ordinal}"),
                revision: Some((*revision).to_owned()),
                leaving: false,
            };
            revisions.iter().enumerate().map(pod).collect::<Vec<_>>()
        };
        let at = |second| begun + Duration::from_secs(second);
        let mut see = |view: &ClusterView, revisions, second| {
            let (stale, told) = rolling.see(view, "b", &pods(revisions), at(second));
            (stale, told.map(|told| told.reason), rolling.to(), rolling.is_overdue(at(second)))
        };
        assert_eq!(see(&healthy(), ["b", "b", "b"], 0), (0, None, None, false));
        assert_eq!(see(&healthy(), ["a", "a", "b"], 1), (2, Some("RolloutStarted"), None, false));
        assert_eq!(see(&healthy(), ["a", "b", "b"], 2), (1, None, Some(1), false));
        let mut headless = healthy();
        headless.leader = None;
        assert_eq!(see(&headless, ["a", "b", "b"], 20), (1, None, None, false));
        assert_eq!(see(&healthy(), ["a", "b", "b"], 31), (1, None, Some(1), false));
        assert_eq!(see(&healthy(), ["a", "b", "b"], 32), (1, None, Some(1), true));
        let mut starting = healthy();
        starting.replicas[0].pod_state.ready = false;
        assert_eq!(see(&starting, ["b", "b", "b"], 33), (0, None, None, false));
        assert_eq!(see(&healthy(), ["b", "b", "b"], 34), (0, Some("RolloutCompleted"), None, false));
        assert_eq!(see(&healthy(), ["b", "b", "b"], 35), (0, None, None, false));
    }
}
