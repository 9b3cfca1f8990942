//! Pods that do not start, told of once. Pure: it is told the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::observe::view::ClusterView;
use crate::plan::event::ClusterEvent;

/// Volumes are made and images pulled meanwhile: what is over by then is no news.
const TOLD_AFTER: Duration = Duration::from_secs(10);

/// The pods that do not start: since when, and whether that was told.
#[derive(Debug, Default)]
pub struct Stuck(BTreeMap<String, (Instant, bool)>);

impl Stuck {
    /// News to tell: of each pod once, until it is ready again.
    pub fn see(&mut self, view: &ClusterView, now: Instant) -> Vec<ClusterEvent> {
        let is_over = |pod: &String| view.replicas.iter().all(|replica| replica.pod != *pod || replica.pod_state.ready);
        self.0.retain(|pod, _| !is_over(pod));
        let mut events = Vec::new();
        for (pod, why) in
            view.replicas.iter().filter_map(|replica| Some((&replica.pod, replica.pod_state.stuck.as_ref()?)))
        {
            let (since, is_told) = self.0.entry(pod.clone()).or_insert((now, false));
            if !*is_told && now.saturating_duration_since(*since) >= TOLD_AFTER {
                *is_told = true;
                events.push(ClusterEvent::warning("PodStuck", format!("{pod} does not start: {why}")).about(pod));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::view::tests::healthy;

    #[test]
    fn a_pod_that_does_not_start_is_told_of_once_until_it_is_ready_again() {
        let begun = Instant::now();
        let mut stuck = Stuck::default();
        let mut see = |second: u64, why: Option<&str>, ready: bool| {
            let mut view = healthy();
            (view.replicas[2].pod_state.stuck, view.replicas[2].pod_state.ready) = (why.map(str::to_owned), ready);
            let told = stuck.see(&view, begun + Duration::from_secs(second));
            told.into_iter().map(|event| event.note).collect::<Vec<_>>()
        };
        assert_eq!(see(0, Some("ErrImagePull"), false), [""; 0]);
        assert_eq!(see(10, Some("ImagePullBackOff"), false), ["orders-2 does not start: ImagePullBackOff"]);
        // It starts again and again, and comes to nothing.
        assert_eq!(see(20, None, false), [""; 0]);
        assert_eq!(see(40, Some("ErrImagePull"), false), [""; 0]);
        assert_eq!(see(50, None, true), [""; 0]);
        assert_eq!(see(60, Some("Unschedulable"), false), [""; 0]);
        assert_eq!(see(71, Some("Unschedulable"), false).len(), 1);
    }
}
