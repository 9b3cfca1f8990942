//! The status that a new one is compared with before it is written: what the resource shows, not only what was written last.
//! Pure: it is told the time.

use std::time::{Duration, Instant};

use crate::crd::ZueClusterStatus;

/// A watch is behind by less than this. What it shows earlier may be from before what was written.
const BEHIND_FOR: Duration = Duration::from_secs(2);

/// A status as the resource has it, by all that is known.
#[derive(Debug)]
pub struct KnownStatus {
    status: ZueClusterStatus,
    /// The version that the watch had when it was written.
    before: Option<String>,
    written_at: Instant,
}

impl KnownStatus {
    /// As it was found.
    pub fn new(status: ZueClusterStatus, now: Instant) -> Self {
        Self { status, before: None, written_at: now }
    }

    /// Takes over what the watch shows: whoever else has written there is corrected.
    pub fn see(&mut self, version: Option<&str>, status: &ZueClusterStatus, now: Instant) {
        let may_be_old = self.before.as_deref() == version || now < self.written_at + BEHIND_FOR;
        if !may_be_old && self.status != *status {
            self.status = status.clone();
        }
    }

    /// It was written, while the watch showed that version.
    pub fn wrote(&mut self, status: ZueClusterStatus, version: Option<&str>, now: Instant) {
        *self = Self { status, before: version.map(str::to_owned), written_at: now };
    }

    /// The status.
    pub fn status(&self) -> &ZueClusterStatus {
        &self.status
    }

    /// The time since it was written.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.written_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(leader: &str) -> ZueClusterStatus {
        ZueClusterStatus { leader: Some(leader.to_owned()), ..ZueClusterStatus::default() }
    }

    #[test]
    fn what_somebody_else_wrote_is_noticed_and_what_the_watch_has_not_seen_yet_is_not_taken_for_it() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut known = KnownStatus::new(of("a"), at(0));
        known.wrote(of("b"), Some("7"), at(10));
        // It still shows what was there before, however long that takes.
        known.see(Some("7"), &of("a"), at(99));
        assert_eq!(known.status(), &of("b"));
        // A version between the two, right behind the write.
        known.see(Some("8"), &of("a"), at(11));
        assert_eq!(known.status(), &of("b"));
        known.see(Some("9"), &of("wrong"), at(13));
        assert_eq!(known.status(), &of("wrong"));
    }
}
