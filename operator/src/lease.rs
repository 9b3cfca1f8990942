//! Which of several operators acts: the one that holds a Lease. It only keeps them from outbidding each other; two that act at once do
//! no harm, since the replicas' promises guard the log.
//!
//! No clocks are compared. Who waits measures by its own clock how long the Lease has not changed; what times it names is for people.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::kubernetes::{CALL_MAX, Error, FIELD_MANAGER, within};

/// A Lease that has not changed for so long may be taken.
const EXPIRES_AFTER: Duration = Duration::from_secs(3);
/// How often it is renewed.
const RENEW_INTERVAL: Duration = Duration::from_millis(700);
/// A holder that could not renew it for so long stops acting, before another begins.
const LOST_AFTER: Duration = Duration::from_millis(2200);
/// How often one that waits looks at it: it knows by so much too late that it was renewed.
const LOOK_INTERVAL: Duration = Duration::from_millis(350);
/// The API server may take so long for a look: then it is asked on another connection, at whose other end a server may live. It may take
/// twice as long the next time.
const LOOK_MAX: Duration = Duration::from_millis(900);
/// The pause of a holder after a try that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What to do about the Lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// It is this operator's: say so again.
    Renew,
    /// It is nobody's, or its holder is gone.
    Take,
    /// Another holds it.
    Wait,
}

/// One operator's view of the Lease. Knows no clock: it is told the time.
#[derive(Debug)]
pub struct Observer {
    me: String,
    /// What the Lease said when it last changed, and when that was seen.
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
        if now.saturating_duration_since(since) >= EXPIRES_AFTER { Move::Take } else { Move::Wait }
    }

    /// How long to wait before the next look: no longer than until the Lease of another expires.
    fn pause(&self, now: Instant) -> Duration {
        let left = self.seen.as_ref().map(|(_, since)| (*since + EXPIRES_AFTER).saturating_duration_since(now));
        // What has expired, and could not be taken, is looked at no more often for that.
        left.filter(|left| !left.is_zero()).unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL)
    }

    /// The Lease as this operator holds it from now on.
    fn held(&self, before: Option<LeaseSpec>, time: Timestamp) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let is_mine = before.holder_identity.as_ref() == Some(&self.me);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(EXPIRES_AFTER.as_secs()).ok(),
            acquire_time: if is_mine { before.acquire_time } else { Some(MicroTime(time)) },
            renew_time: Some(MicroTime(time)),
            lease_transitions: Some(if is_mine { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

/// The Lease of one installation.
#[derive(Debug)]
pub struct Seat {
    api: Api<Lease>,
    name: String,
    observer: Observer,
}

impl Seat {
    /// The Lease of this name, in the operator's own namespace.
    pub fn new(client: Client, name: String, me: String) -> Self {
        Self { api: Api::default_namespaced(client), name, observer: Observer::new(me) }
    }

    /// Waits until this operator holds the Lease. `standing_by` is called whenever another holds it.
    pub async fn take(&mut self, standing_by: impl Fn()) {
        let (mut told, mut look_max) = (None, LOOK_MAX);
        loop {
            match timeout(look_max, self.turn()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {
                    look_max = LOOK_MAX;
                    standing_by();
                }
                Ok(Err(error)) => {
                    let why = error.to_string();
                    if told.as_ref() != Some(&why) {
                        warn!(lease = self.name, "{why}");
                        told = Some(why);
                    }
                }
                Err(_) => look_max = (look_max * 2).min(CALL_MAX),
            }
            sleep(self.observer.pause(Instant::now())).await;
        }
    }

    /// Renews the Lease until it is lost.
    pub async fn keep(&mut self) {
        let (mut renewed, mut pause) = (Instant::now(), RENEW_INTERVAL);
        loop {
            sleep(pause.min(LOST_AFTER.saturating_sub(renewed.elapsed()))).await;
            let begun = Instant::now();
            pause = match timeout(LOST_AFTER.saturating_sub(renewed.elapsed()), self.turn()).await {
                Ok(Ok(true)) => {
                    // Others may have seen it renewed as soon as that.
                    renewed = begun;
                    RENEW_INTERVAL
                }
                Ok(Ok(false)) => return warn!(lease = self.name, "another operator has taken the Lease"),
                Ok(Err(error)) => {
                    warn!(lease = self.name, "{error}");
                    RETRY_PAUSE
                }
                Err(_) => RETRY_PAUSE,
            };
            if renewed.elapsed() >= LOST_AFTER {
                return warn!(lease = self.name, "the Lease could not be renewed: another operator may take it");
            }
        }
    }

    /// Gives it up, so that another need not wait.
    pub async fn leave(&mut self) {
        let Ok(Some(mut lease)) = self.get().await else { return };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.observer.me))
        else {
            return;
        };
        spec.holder_identity = Some(String::new());
        match self.replace(&lease).await {
            Ok(()) => info!(lease = self.name, "the Lease is given up"),
            Err(error) => warn!(lease = self.name, "{error}"),
        }
    }

    /// Looks, and writes if it is time to; whether this operator holds the Lease.
    async fn turn(&mut self) -> Result<bool, Error> {
        let found = self.get().await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.clone());
        if self.observer.look(spec.as_ref(), Instant::now()) == Move::Wait {
            return Ok(false);
        }
        let spec = self.observer.held(spec, Timestamp::now());
        let written = match found {
            Some(lease) => self.replace(&Lease { spec: Some(spec), ..lease }).await,
            None => self.create(spec).await,
        };
        match written {
            Ok(()) => Ok(true),
            // Somebody was quicker.
            Err(error) if error.code() == Some(409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn get(&self) -> Result<Option<Lease>, Error> {
        within("read the Lease", self.api.get_opt(&self.name)).await
    }

    /// Fails with a conflict if it was changed since it was read.
    async fn replace(&self, lease: &Lease) -> Result<(), Error> {
        within("write the Lease", self.api.replace(&self.name, &params(), lease)).await.map(drop)
    }

    async fn create(&self, spec: LeaseSpec) -> Result<(), Error> {
        let mut lease = Lease { spec: Some(spec), ..Lease::default() };
        lease.metadata.name = Some(self.name.clone());
        within("create the Lease", self.api.create(&params(), &lease)).await.map(drop)
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
        assert_eq!((now - begun, looks), (EXPIRES_AFTER, 9));
        assert_eq!(observer.pause(now), LOOK_INTERVAL, "it could not be taken");
    }

    #[test]
    fn a_transition_is_counted_when_the_holder_changes() {
        let (observer, time) = (Observer::new("b".to_owned()), Timestamp::from_second(9).unwrap());
        let taken = observer.held(Some(lease("a", 7)), time);
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(4)));
        assert_eq!(taken.acquire_time, Some(MicroTime(time)));
        let renewed = observer.held(Some(taken.clone()), Timestamp::from_second(10).unwrap());
        assert_eq!((renewed.lease_transitions, renewed.acquire_time), (Some(4), taken.acquire_time));
        assert!(renewed.renew_time > taken.renew_time);
    }

    #[test]
    fn a_holder_that_cannot_renew_stops_before_another_may_begin() {
        assert!(LOST_AFTER + RENEW_INTERVAL < EXPIRES_AFTER);
    }
}
