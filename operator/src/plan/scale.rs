//! The number of pods that the StatefulSet is to have: as many as are asked for, and the last ones beyond that until their replicas have no say.
//! Only reconciliations write it. Pure: it is told the time.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;

/// The age beyond which a look takes no pod away: a call to the API server may have lasted.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// The time after a reconciliation was asked for until the next one is.
const ASKED_PAUSE: Duration = Duration::from_secs(2);

/// The number of pods of a set, counted from ordinal 0 to its last one: one that runs a single replica of many may begin later.
pub fn pods_of(set: &StatefulSet) -> Option<i32> {
    let spec = set.spec.as_ref()?;
    let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
    Some(spec.replicas?.saturating_add(first))
}

/// Pods that nothing depends on any more, by a task's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spare {
    /// The number that there were.
    pub of: i32,
    /// The number that have to run, the first ones.
    pub needed: i32,
    /// When that was seen.
    pub seen_at: Instant,
}

impl Spare {
    /// The pods of so many that are not needed, if any.
    pub fn seen(known: Option<i32>, needed: usize, seen_at: Instant) -> Option<Self> {
        let (of, needed) = (known?, i32::try_from(needed).ok()?);
        (needed < of).then_some(Self { of, needed, seen_at })
    }

    /// The number of pods that a set keeps which has so many: fewer only by a fresh word on just as many.
    pub fn keeps(spare: Option<Self>, has: i32, now: Instant) -> i32 {
        let is_fresh = |spare: &Self| now.saturating_duration_since(spare.seen_at) < FRESH_FOR;
        spare.filter(|spare| spare.of == has && is_fresh(spare)).map_or(has, |spare| spare.needed.clamp(1, has))
    }
}

/// When a reconciliation was asked for last.
#[derive(Debug, Default)]
pub struct Asking(Option<Instant>);

impl Asking {
    /// Tells whether one is to be asked for now, where there is something to be done.
    pub fn is_due(&mut self, is_needed: bool, now: Instant) -> bool {
        let is_due = is_needed && self.0.is_none_or(|asked| now.saturating_duration_since(asked) >= ASKED_PAUSE);
        self.0 = if is_due { Some(now) } else { self.0.filter(|_| is_needed) };
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_loses_pods_only_by_a_fresh_word_on_just_as_many() {
        let now = Instant::now();
        let spare = |known, needed| Spare::seen(known, needed, now);
        assert_eq!([spare(Some(5), 5), spare(Some(5), 6), spare(None, 3)], [None; 3]);
        let keeps = |spare, has, after| Spare::keeps(spare, has, now + Duration::from_secs(after));
        assert_eq!(keeps(spare(Some(5), 3), 5, 1), 3);
        assert_eq!(keeps(spare(Some(5), 3), 5, 5), 5, "it was seen long ago");
        assert_eq!(keeps(spare(Some(5), 3), 4, 1), 4, "it is of another number of pods");
        assert_eq!(keeps(None, 5, 0), 5);
        assert_eq!(keeps(spare(Some(3), 0), 3, 0), 1, "one stays");
    }

    #[test]
    fn a_set_that_begins_later_has_all_pods_up_to_its_last_one() {
        let set = |spec| serde_json::from_value::<StatefulSet>(serde_json::json!({ "spec": spec })).unwrap();
        let spec = |spec: serde_json::Value| {
            let mut whole = serde_json::json!({ "selector": {}, "template": {} });
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            pods_of(&set(whole))
        };
        assert_eq!(spec(serde_json::json!({ "replicas": 3 })), Some(3));
        assert_eq!(spec(serde_json::json!({ "replicas": 1, "ordinals": { "start": 4 } })), Some(5));
        assert_eq!(spec(serde_json::json!({})), None);
    }

    #[test]
    fn a_reconciliation_is_asked_for_again_while_pods_are_spare_and_not_all_the_time() {
        let (mut asking, begun) = (Asking::default(), Instant::now());
        let mut at = |ms: u64, needed: usize| {
            let now = begun + Duration::from_millis(ms);
            asking.is_due(Spare::seen(Some(5), needed, now).is_some(), now)
        };
        let asked = [at(0, 5), at(100, 3), at(200, 3), at(2100, 3), at(2200, 3), at(2300, 5), at(2400, 3)];
        assert_eq!(asked, [false, true, false, true, false, false, true]);
    }
}
