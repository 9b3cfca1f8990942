//! The choice of the operator that acts: the one that holds a Lease. It only keeps them from outbidding each other; two that act at once do
//! no harm, since the replicas' promises guard the log.
//!
//! No clocks are compared. Who waits measures by its own clock how long the Lease has not changed; what times it names is for people.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::kubernetes::{CALL_MAX, Error, FIELD_MANAGER, within};

/// A Lease that has not changed for so long may be taken, where the API server is quick.
const EXPIRES_MIN: Duration = Duration::from_secs(3);
/// The same where it is slow. No holder is waited for any longer, whatever its Lease says.
const EXPIRES_MAX: Duration = Duration::from_secs(15);
/// A Lease holds so many times as long as the API server takes to renew it. Held for less, it would go from operator to operator, and
/// none would come to the end of anything.
const EXPIRES_PER_CALL: u32 = 6;
/// The interval at which one that waits looks at it: it knows by so much too late that it was renewed.
const LOOK_INTERVAL: Duration = Duration::from_millis(350);
/// The API server may take so long for a look, or twice as long as lately: then it is asked on another connection, at whose other end a
/// server may live.
const LOOK_MAX: Duration = Duration::from_millis(900);
/// The pause of a holder after a try that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The next step with the Lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// It is this operator's: say so again.
    Renew,
    /// It is nobody's, or its holder is gone.
    Take,
    /// Another holds it.
    Wait,
}

/// The time for which a Lease is to hold, by how long the API server takes.
#[derive(Debug, Default)]
struct Pace {
    slowest: Duration,
}

impl Pace {
    /// It took so long. What was slower before counts less and less.
    fn took(&mut self, time: Duration) {
        self.slowest = time.max(self.slowest * 7 / 8);
    }

    /// It took longer than that.
    fn took_longer(&mut self, time: Duration) {
        self.took(time * 2);
    }

    /// The time for which a Lease is to hold that is written now: whole seconds.
    fn lasts(&self) -> Duration {
        let wanted = self.slowest * EXPIRES_PER_CALL;
        let seconds = wanted.as_secs() + u64::from(wanted.subsec_nanos() > 0);
        Duration::from_secs(seconds).clamp(EXPIRES_MIN, EXPIRES_MAX)
    }

    /// The time that a look may take.
    fn look_max(&self) -> Duration {
        (self.slowest * 2).clamp(LOOK_MAX, CALL_MAX)
    }
}

/// After how long a Lease that holds for so long is renewed.
fn renewed_after(lasts: Duration) -> Duration {
    lasts * 7 / 30
}

/// A holder that could not renew a Lease for so long stops acting, before another begins.
fn lost_after(lasts: Duration) -> Duration {
    lasts * 11 / 15
}

/// The time for which a Lease holds by its own word.
fn expires_after(lease: &LeaseSpec) -> Duration {
    let said = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    said.map_or(EXPIRES_MAX, Duration::from_secs).clamp(EXPIRES_MIN, EXPIRES_MAX)
}

/// One operator's view of the Lease. Knows no clock: it is told the time.
#[derive(Debug)]
pub struct Observer {
    me: String,
    /// The Lease as it was when it last changed, and when that was seen.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Observer {
    /// An operator of this name, which no other bears.
    pub fn new(me: String) -> Self {
        Self { me, seen: None }
    }

    /// Looks at the Lease as it is now; none where there is none.
    pub fn look(&mut self, lease: Option<&LeaseSpec>, now: Instant) -> Move {
        let holder = lease.and_then(|lease| lease.holder_identity.as_deref()).unwrap_or_default();
        let Some(lease) = lease.filter(|_| !holder.is_empty()) else { return Move::Take };
        if holder == self.me {
            return Move::Renew;
        }
        let since = match &self.seen {
            Some((seen, since)) if seen == lease => *since,
            _ => self.seen.insert((lease.clone(), now)).1,
        };
        if now.saturating_duration_since(since) >= expires_after(lease) { Move::Take } else { Move::Wait }
    }

    /// The pause before the next look: no longer than until the Lease of another expires.
    fn pause(&self, now: Instant) -> Duration {
        let expires = |(lease, since): &(LeaseSpec, Instant)| *since + expires_after(lease);
        let left = self.seen.as_ref().map(|seen| expires(seen).saturating_duration_since(now));
        // What has expired, and could not be taken, is looked at no more often for that.
        left.filter(|left| !left.is_zero()).unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL)
    }

    /// The Lease as this operator holds it from now on, for so long.
    fn held(&self, before: Option<LeaseSpec>, lasts: Duration, time: Timestamp) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let is_mine = before.holder_identity.as_ref() == Some(&self.me);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(lasts.as_secs()).ok(),
            acquire_time: if is_mine { before.acquire_time } else { Some(MicroTime(time)) },
            renew_time: Some(MicroTime(time)),
            lease_transitions: Some(if is_mine { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

/// The Lease of one installation.
#[derive(Debug)]
pub struct LeaseHolder {
    api: Api<Lease>,
    name: String,
    observer: Observer,
    pace: Pace,
    /// The Lease as this operator wrote it last, if nothing was tried since.
    known: Option<Lease>,
    /// When this operator has to stop acting, and when it is to renew the Lease.
    until: Instant,
    renew_at: Instant,
}

impl LeaseHolder {
    /// The Lease of this name, in the operator's own namespace.
    pub fn new(client: Client, name: String, me: String) -> Self {
        let (api, now) = (Api::default_namespaced(client), Instant::now());
        Self { api, name, observer: Observer::new(me), pace: Pace::default(), known: None, until: now, renew_at: now }
    }

    /// Waits until this operator holds the Lease. `standing_by` is called whenever another holds it.
    pub async fn take(&mut self, standing_by: impl Fn()) {
        let mut told = None;
        loop {
            let look_max = self.pace.look_max();
            match timeout(look_max, self.turn()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => standing_by(),
                Ok(Err(error)) => {
                    let why = error.to_string();
                    if told.as_ref() != Some(&why) {
                        warn!(lease = self.name, "{why}");
                        told = Some(why);
                    }
                }
                Err(_) => self.pace.took_longer(look_max),
            }
            sleep(self.observer.pause(Instant::now())).await;
        }
    }

    /// Renews the Lease until it is lost.
    pub async fn keep(&mut self) {
        let mut renew_at = self.renew_at;
        loop {
            sleep_until(renew_at.min(self.until).into()).await;
            let begun = Instant::now();
            let left = self.until.saturating_duration_since(begun);
            renew_at = match timeout(left, self.turn()).await {
                Ok(Ok(true)) => self.renew_at,
                Ok(Ok(false)) => return warn!(lease = self.name, "another operator has taken the Lease"),
                Ok(Err(error)) => {
                    warn!(lease = self.name, "{error}");
                    Instant::now() + RETRY_PAUSE
                }
                Err(_) => {
                    self.pace.took_longer(left);
                    begun
                }
            };
            if Instant::now() >= self.until {
                return warn!(lease = self.name, "the Lease could not be renewed: another operator may take it");
            }
        }
    }

    /// Gives it up, so that another need not wait; whether it held it.
    pub async fn leave(&mut self) -> bool {
        let Ok(Some(mut lease)) = self.get().await else { return false };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.observer.me))
        else {
            return false;
        };
        spec.holder_identity = Some(String::new());
        match self.replace(&lease).await {
            Ok(_) => info!(lease = self.name, "the Lease is given up"),
            Err(error) => warn!(lease = self.name, "{error}"),
        }
        true
    }

    /// Tells whether another holds it, or may: where that is not known, too.
    pub async fn is_taken(&self) -> bool {
        let Ok(found) = self.get().await else { return true };
        let holder = found.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        !holder.is_empty() && holder != self.observer.me
    }

    /// Looks, and writes if it is time to; whether this operator holds the Lease.
    async fn turn(&mut self) -> Result<bool, Error> {
        let begun = Instant::now();
        // What this one wrote last is read again only if somebody else has written since.
        if let Some(lease) = self.known.take() {
            match self.look_at(begun, Some(lease)).await {
                Err(error) if error.code() == Some(409) => {}
                looked => return looked,
            }
        }
        let found = self.get().await?;
        match self.look_at(begun, found).await {
            // Somebody was quicker.
            Err(error) if error.code() == Some(409) => Ok(false),
            looked => looked,
        }
    }

    /// Writes the Lease that was found, or makes one, if it is time to.
    async fn look_at(&mut self, begun: Instant, found: Option<Lease>) -> Result<bool, Error> {
        let spec = found.as_ref().and_then(|lease| lease.spec.clone());
        if self.observer.look(spec.as_ref(), Instant::now()) == Move::Wait {
            self.pace.took(begun.elapsed());
            return Ok(false);
        }
        let lasts = self.pace.lasts();
        let spec = self.observer.held(spec, lasts, Timestamp::now());
        // Others may see it as soon as it is sent, and then it holds no longer than it says, whether or not an answer comes.
        let until = begun + lost_after(lasts);
        self.until = self.until.min(until);
        let written = match found {
            Some(lease) => self.replace(&Lease { spec: Some(spec), ..lease }).await?,
            None => self.create(spec).await?,
        };
        self.pace.took(begun.elapsed());
        (self.known, self.until, self.renew_at) = (Some(written), until, begun + renewed_after(lasts));
        Ok(true)
    }

    async fn get(&self) -> Result<Option<Lease>, Error> {
        within("read the Lease", self.api.get_opt(&self.name)).await
    }

    /// Fails with a conflict if it was changed since it was read.
    async fn replace(&self, lease: &Lease) -> Result<Lease, Error> {
        within("write the Lease", self.api.replace(&self.name, &params(), lease)).await
    }

    async fn create(&self, spec: LeaseSpec) -> Result<Lease, Error> {
        let mut lease = Lease { spec: Some(spec), ..Lease::default() };
        lease.metadata.name = Some(self.name.clone());
        within("create the Lease", self.api.create(&params(), &lease)).await
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewals: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewals).unwrap())),
            lease_duration_seconds: Some(3),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_that_is_nobodys_is_taken_and_ones_own_is_renewed() {
        let (mut observer, now) = (Observer::new("a".to_owned()), Instant::now());
        assert_eq!(observer.look(None, now), Move::Take);
        assert_eq!(observer.look(Some(&LeaseSpec::default()), now), Move::Take);
        assert_eq!(observer.look(Some(&lease("", 7)), now), Move::Take);
        assert_eq!(observer.look(Some(&lease("a", 7)), now), Move::Renew);
    }

    #[test]
    fn anothers_lease_is_taken_only_once_it_was_seen_unchanged_for_long_enough() {
        let (mut observer, begun) = (Observer::new("b".to_owned()), Instant::now());
        let mut at = |seconds: u64, lease: &LeaseSpec| observer.look(Some(lease), begun + Duration::from_secs(seconds));
        // What time it names does not matter: the holder's clock may be years behind.
        assert_eq!(at(0, &lease("a", -1_000_000)), Move::Wait);
        assert_eq!(at(2, &lease("a", -1_000_000)), Move::Wait);
        assert_eq!(at(3, &lease("a", -999_999)), Move::Wait);
        assert_eq!(at(5, &lease("a", -999_999)), Move::Wait);
        assert_eq!(at(6, &lease("a", -999_999)), Move::Take);
        // A third one was quicker.
        assert_eq!(at(6, &lease("c", 0)), Move::Wait);
    }

    #[test]
    fn one_that_waits_looks_again_at_the_very_moment_when_the_lease_expires() {
        let (mut observer, begun) = (Observer::new("b".to_owned()), Instant::now());
        assert_eq!(observer.pause(begun), LOOK_INTERVAL, "it knows of none");
        observer.look(Some(&lease("a", 7)), begun);
        let (mut now, mut looks) = (begun, 0);
        while observer.look(Some(&lease("a", 7)), now) == Move::Wait {
            now += observer.pause(now);
            looks += 1;
        }
        assert_eq!((now - begun, looks), (EXPIRES_MIN, 9));
        assert_eq!(observer.pause(now), LOOK_INTERVAL, "it could not be taken");
    }

    #[test]
    fn a_transition_is_counted_when_the_holder_changes() {
        let (observer, time) = (Observer::new("b".to_owned()), Timestamp::from_second(9).unwrap());
        let taken = observer.held(Some(lease("a", 7)), EXPIRES_MIN, time);
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(4)));
        assert_eq!(taken.acquire_time, Some(MicroTime(time)));
        let renewed = observer.held(Some(taken.clone()), EXPIRES_MIN, Timestamp::from_second(10).unwrap());
        assert_eq!((renewed.lease_transitions, renewed.acquire_time), (Some(4), taken.acquire_time));
        assert!(renewed.renew_time > taken.renew_time);
    }

    #[test]
    fn a_holder_that_cannot_renew_stops_before_another_may_begin() {
        for lasts in [EXPIRES_MIN, EXPIRES_MAX] {
            assert!(lost_after(lasts) + renewed_after(lasts) < lasts);
        }
    }

    #[test]
    fn a_slow_api_server_makes_the_lease_hold_longer_until_it_is_quick_again() {
        let mut pace = Pace::default();
        assert_eq!((pace.lasts(), pace.look_max()), (EXPIRES_MIN, LOOK_MAX));
        pace.took(Duration::from_millis(1100));
        assert_eq!((pace.lasts(), pace.look_max()), (Duration::from_secs(7), Duration::from_millis(2200)));
        // What was not answered in time would not be answered in the same time again.
        pace.took_longer(pace.look_max());
        assert_eq!((pace.lasts(), pace.look_max()), (EXPIRES_MAX, CALL_MAX));
        let quick = Duration::from_millis(20);
        let renewals = std::iter::repeat_with(|| pace.took(quick)).take(20).count();
        assert_eq!((renewals, pace.lasts()), (20, EXPIRES_MIN));
    }

    #[test]
    fn a_lease_is_waited_for_as_long_as_it_says_and_no_longer_than_the_longest() {
        let of = |lease_duration_seconds| LeaseSpec { lease_duration_seconds, ..lease("a", 7) };
        for (said, seconds) in [(Some(7), 7), (Some(3), 3), (Some(0), 3), (Some(-1), 15), (Some(3600), 15), (None, 15)]
        {
            let (mut observer, begun) = (Observer::new("b".to_owned()), Instant::now());
            let mut at = |millis| observer.look(Some(&of(said)), begun + Duration::from_millis(millis));
            assert_eq!(at(0), Move::Wait);
            assert_eq!((at(seconds * 1000 - 1), at(seconds * 1000)), (Move::Wait, Move::Take), "{said:?}");
        }
    }
}
