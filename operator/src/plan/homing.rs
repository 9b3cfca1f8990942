//! A leader that is to be in one zone: which replica wins ties, and when one that is well hands over to another there. Pure: it is told
//! the time.

use std::time::{Duration, Instant};

use crate::crd::status::MemberRole;
use crate::observe::pods::Zones;
use crate::observe::view::{ClusterView, Replica};

/// So long a cluster must have been whole under its leader before that one is asked to hand over.
const STEADY_FOR: Duration = Duration::from_secs(30);
/// The time for which a hand-over is asked for.
const ASKED_FOR: Duration = Duration::from_secs(30);
/// The pause after a hand-over that was asked for, by this or by a person, at first and at most: it doubles each time.
const PAUSE: (Duration, Duration) = (Duration::from_mins(10), Duration::from_hours(6));
/// A leader that has been at home for so long has the next one begin with the first pause again.
const SETTLED_FOR: Duration = Duration::from_hours(1);

/// When a leader was asked to go home, and how that went.
#[derive(Debug, Default)]
pub struct Homing {
    /// Under which leader the cluster is whole, or is at home, and since when.
    steady: Option<(String, Instant)>,
    /// The replica that is to take over, and since when.
    to: Option<(usize, Instant)>,
    /// When one was to last, and how often without a time of peace between.
    asked: Option<(Instant, u32)>,
}

/// The winner of ties: a replica of that zone, the one that would win anyway if it is there. However late it is: it wins only among equals.
pub fn winner(pods: &[String], zones: &Zones, wanted: Option<&str>, ordinal: usize) -> usize {
    let Some(wanted) = wanted else { return ordinal };
    let is_home = |pod: &String| zones.get(pod).is_some_and(|zone| zone == wanted);
    if pods.get(ordinal).is_some_and(is_home) {
        return ordinal;
    }
    pods.iter().position(is_home).unwrap_or(ordinal)
}

impl Homing {
    /// The replica that is to take over, by what was seen last.
    pub fn to(&self) -> Option<usize> {
        self.to.map(|(to, _)| to)
    }

    /// The replica that is to take over from a leader that is well, by ordinal. Not while something else is under way (`is_busy`).
    pub fn look(
        &mut self,
        view: &ClusterView,
        zones: &Zones,
        wanted: Option<&str>,
        is_busy: bool,
        now: Instant,
    ) -> Option<usize> {
        let (Some(wanted), Some(leader)) = (wanted, &view.leader) else {
            (self.steady, self.to) = (None, None);
            return None;
        };
        let is_home = |pod: &String| zones.get(pod).is_some_and(|zone| zone == wanted);
        let since = |time: Instant| now.saturating_duration_since(time);
        if is_busy {
            // Whom a person has asked to lead does so for a while.
            let tries = self.asked.map_or(0, |(_, tries)| tries);
            (self.steady, self.to, self.asked) = (None, None, Some((now, tries)));
            return None;
        }
        let known = self.steady.take().filter(|(of, _)| of == leader && view.can_spare_one());
        let (_, begun) = known.unwrap_or_else(|| (leader.clone(), now));
        self.steady = view.can_spare_one().then(|| (leader.clone(), begun));
        if is_home(leader) {
            self.to = None;
            self.asked = self.asked.filter(|_| since(begun) < SETTLED_FOR);
            return None;
        }
        let candidates =
            || view.replicas.iter().enumerate().filter(|(_, replica)| is_fit(replica) && is_home(&replica.pod));
        if let Some((to, asked)) = self.to.filter(|(_, asked)| since(*asked) < ASKED_FOR) {
            self.to = candidates().any(|(ordinal, _)| ordinal == to).then_some((to, asked));
            return self.to.map(|(to, _)| to);
        }
        self.to = None;
        let pause = |tries: u32| PAUSE.0.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1))).min(PAUSE.1);
        let is_due = self.asked.is_none_or(|(asked, tries)| since(asked) >= pause(tries));
        if !is_due || self.steady.is_none() || since(begun) < STEADY_FOR {
            return None;
        }
        let (to, _) = candidates().min_by_key(|(_, replica)| replica.lag_records.unwrap_or(u64::MAX))?;
        let tries = self.asked.map_or(0, |(_, tries)| tries);
        (self.to, self.asked) = (Some((to, now)), Some((now, tries.saturating_add(1))));
        Some(to)
    }
}

fn is_fit(replica: &Replica) -> bool {
    replica.in_sync && replica.pod_state.ready && replica.role == MemberRole::Follower
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::view::tests::healthy;

    fn zones() -> Zones {
        let of = |(pod, zone): (&str, &str)| (pod.to_owned(), zone.to_owned());
        [("orders-0", "a"), ("orders-1", "b"), ("orders-2", "b")].map(of).into()
    }

    fn led_by(ordinal: usize) -> ClusterView {
        let mut view = healthy();
        for (at, replica) in view.replicas.iter_mut().enumerate() {
            replica.role = if at == ordinal { MemberRole::Leader } else { MemberRole::Follower };
        }
        view.leader = Some(format!("orders-{ordinal}"));
        view
    }

    #[test]
    fn ties_go_to_the_zone_and_to_the_one_that_is_named_there() {
        let pods: Vec<String> = (0..3).map(|n| format!("orders-{n}")).collect();
        let of = |wanted, ordinal| winner(&pods, &zones(), wanted, ordinal);
        assert_eq!(
            [of(None, 0), of(Some("b"), 0), of(Some("b"), 2), of(Some("a"), 2), of(Some("c"), 1)],
            [0, 1, 2, 0, 1]
        );
    }

    #[test]
    fn a_leader_goes_home_once_all_has_been_well_for_a_while_and_to_one_that_lacks_least() {
        let (mut homing, begun) = (Homing::default(), Instant::now());
        let mut view = led_by(0);
        view.replicas[1].lag_records = Some(5);
        let mut at = |second, view: &ClusterView| {
            homing.look(view, &zones(), Some("b"), false, begun + Duration::from_secs(second))
        };
        assert_eq!([at(0, &view), at(29, &view), at(30, &view), at(59, &view)], [None, None, Some(2), Some(2)]);
        // In vain: it is not asked for all the time.
        assert_eq!([at(60, &view), at(629, &view), at(630, &view)], [None, None, Some(2)]);
        assert_eq!(at(631, &led_by(2)), None, "it is at home");
    }

    #[test]
    fn nobody_hands_over_without_need_or_to_one_that_is_not_fit() {
        let long = |view: &ClusterView, zones: &Zones, wanted: Option<&str>, is_busy: bool| {
            let (mut homing, begun) = (Homing::default(), Instant::now());
            (0..500).find_map(|n| homing.look(view, zones, wanted, is_busy, begun + Duration::from_secs(n)))
        };
        assert_eq!(long(&led_by(0), &zones(), Some("b"), false), Some(1));
        assert_eq!(long(&led_by(0), &zones(), Some("a"), false), None, "it is at home");
        assert_eq!(long(&led_by(0), &zones(), Some("c"), false), None, "nobody is there");
        assert_eq!(long(&led_by(0), &zones(), None, false), None, "nobody asks");
        assert_eq!(long(&led_by(0), &Zones::new(), Some("b"), false), None, "nothing is known");
        assert_eq!(long(&led_by(0), &zones(), Some("b"), true), None, "something else is under way");
        let mut late = led_by(0);
        late.replicas[2].in_sync = false;
        assert_eq!(long(&late, &zones(), Some("b"), false), None, "not all are in sync");
        let mut headless = led_by(0);
        headless.leader = None;
        assert_eq!(long(&headless, &zones(), Some("b"), false), None);
        let mut starting = led_by(0);
        starting.replicas[1].pod_state.ready = false;
        assert_eq!(long(&starting, &zones(), Some("b"), false), Some(2));
    }

    #[test]
    fn a_leader_that_does_not_stay_at_home_is_asked_less_and_less_often_and_a_person_is_obeyed() {
        let (mut homing, begun) = (Homing::default(), Instant::now());
        let (mut asked, mut leader) = (Vec::new(), 0);
        for second in 0..86_400_u64 {
            let now = begun + Duration::from_secs(second);
            if let Some(to) = homing.look(&led_by(leader), &zones(), Some("b"), false, now) {
                leader = to;
                asked.push(second);
            } else if asked.last().is_some_and(|last| second == last + 120) {
                leader = 0; // Something takes it back after two minutes.
            }
        }
        assert!(asked.len() < 10, "{asked:?}");
        let gaps: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.windows(2).all(|pair| pair[0] <= pair[1] + 1), "{gaps:?}");

        let mut homing = Homing::default();
        let mut at = |second, is_busy| {
            let now = begun + Duration::from_secs(second);
            homing.look(&led_by(0), &zones(), Some("b"), is_busy, now)
        };
        assert_eq!([at(0, true), at(40, false), at(599, false), at(600, false)], [None, None, None, Some(1)]);
    }
}
