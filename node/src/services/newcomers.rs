//! Limits on new producers from one connection and from one address. The log remembers up to 16 times `limits.producersMax`
//! of all, and forgets those that appended longest ago for new ones: without shares one stranger could make it forget everybody.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zue_proto::v1::{self, Reason};

use crate::server::owner::{Host, Owner};
use crate::services::errors::error;

/// The time until the share of a connection is renewed, and the least that it is.
const OF_CONNECTION: (Duration, u32) = (Duration::from_mins(1), 64);
/// The same of all connections from one address.
const OF_ADDRESS: (Duration, u32) = (Duration::from_mins(10), 1024);
/// The number of connections and addresses that are kept because they have used some of their share. A share that is renewed is not kept.
const KEPT_MAX: usize = 16_384;

/// So many at once, and as many again in the time of `renewed`.
#[derive(Clone, Copy, Debug)]
struct Share {
    producers: u32,
    renewed: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Whose {
    Connection(Owner),
    Host(Host),
}

/// The connections and addresses that have brought in new producers of late.
#[derive(Debug)]
pub(crate) struct Newcomers {
    of_connection: Share,
    of_address: Share,
    /// When each share will be whole again.
    whole_at: Mutex<HashMap<Whose, Instant>>,
}

impl Share {
    fn of(producers: u32, (renewed, min): (Duration, u32)) -> Self {
        Self { producers: producers.max(min), renewed }
    }

    /// When it will be whole again once one more is taken, and how long to wait before that may be.
    fn take(self, whole_at: Option<Instant>, now: Instant) -> (Instant, Duration) {
        let each = self.renewed / self.producers;
        let whole_at = whole_at.unwrap_or(now).max(now) + each;
        (whole_at, whole_at.duration_since(now).saturating_sub(self.renewed))
    }
}

impl Newcomers {
    pub(crate) fn new(producers_max: u32) -> Self {
        let of_connection = Share::of(producers_max, OF_CONNECTION);
        let of_address = Share::of(producers_max.saturating_mul(8), OF_ADDRESS);
        Self { of_connection, of_address, whole_at: Mutex::default() }
    }

    /// Takes one of the shares of that connection and of its address. Gives how long the append has to wait, if it is not longer than
    /// `patience`.
    pub(crate) fn admit(&self, owner: Owner, now: Instant, patience: Duration) -> Result<Duration, v1::Error> {
        let mut kept = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = |whose, share: Share| (whose, share.take(kept.get(&whose).copied(), now));
        let connection = taken(Whose::Connection(owner), self.of_connection);
        let address = taken(Whose::Host(owner.host), self.of_address);
        for ((_, (_, wait)), share, what) in
            [(connection, self.of_connection, "this connection"), (address, self.of_address, "your address")]
        {
            if wait > patience {
                return Err(refused(share, what));
            }
        }
        if kept.len() + 2 > KEPT_MAX {
            kept.retain(|_, whole_at| *whole_at > now);
        }
        for (whose, (whole_at, _)) in [address, connection] {
            // Where so many have used some of theirs, it is those that have used most that count: they are here.
            if kept.len() < KEPT_MAX || kept.contains_key(&whose) {
                kept.insert(whose, whole_at);
            }
        }
        Ok(connection.1.1.max(address.1.1))
    }
}

fn refused(share: Share, what: &str) -> v1::Error {
    let Share { producers, renewed } = share;
    error(
        Reason::Overloaded,
        format!(
            "{what} has brought in {producers} new producers within {} s, its share of limits.producersMax: append with \
             producers that have appended before, or wait",
            renewed.as_secs()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::server::owner::tests::owner as from;

    const AT_ONCE: Duration = Duration::ZERO;

    fn admitted(newcomers: &Newcomers, owner: Owner, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| newcomers.admit(owner, now, AT_ONCE).is_ok()).count()
    }

    #[test]
    fn a_connection_brings_in_its_share_and_as_many_again_in_time() {
        let (newcomers, begun) = (Newcomers::new(4096), Instant::now());
        assert_eq!(admitted(&newcomers, from(1, 1), begun, 9000), 4096);
        assert_eq!(admitted(&newcomers, from(1, 2), begun, 10), 10, "another has a share of its own");
        let refused = newcomers.admit(from(1, 1), begun, AT_ONCE).unwrap_err();
        assert_eq!((refused.reason(), refused.outcome()), (Reason::Overloaded, v1::Outcome::NotAppended));
        assert!(refused.message.contains("4096 new producers within 60 s"), "{}", refused.message);
        let later = begun + Duration::from_secs(30);
        assert_eq!(admitted(&newcomers, from(1, 1), later, 9000), 2048);
    }

    #[test]
    fn however_many_connections_an_address_has_half_of_all_are_left_to_others() {
        let (newcomers, begun) = (Newcomers::new(4096), Instant::now());
        let all: usize = (1..100).map(|port| admitted(&newcomers, from(1, port), begun, 5000)).sum();
        assert_eq!(all, 32_768);
        assert_eq!(admitted(&newcomers, from(2, 1), begun, 10), 10);
        let six = |last| Owner::new(Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, last).into(), last.into());
        let all: usize = (1..100).map(|last| admitted(&newcomers, six(last), begun, 5000)).sum();
        assert_eq!(all, 32_768, "a host of IPv6 has many addresses");
    }

    #[test]
    fn who_can_wait_a_moment_is_told_how_long() {
        let (newcomers, begun) = (Newcomers::new(4096), Instant::now());
        assert_eq!(admitted(&newcomers, from(1, 1), begun, 5000), 4096);
        let second = Duration::from_secs(1);
        let waits: Vec<Duration> = std::iter::from_fn(|| newcomers.admit(from(1, 1), begun, second).ok()).collect();
        assert_eq!(waits.len(), 68);
        assert!(waits.is_sorted() && waits.last().is_some_and(|last| *last <= second), "{waits:?}");
    }

    #[test]
    fn what_is_kept_of_who_came_is_bounded() {
        let newcomers = Newcomers::new(4096);
        let begun = Instant::now();
        for connection in 0..40_000_u16 {
            let [high, low] = (connection / 50).to_be_bytes();
            let address = Owner::new(Ipv4Addr::new(10, 0, high, low).into(), connection.into());
            newcomers.admit(address, begun, AT_ONCE).unwrap();
        }
        assert!(newcomers.whole_at.lock().unwrap().len() <= KEPT_MAX);
        newcomers.admit(from(1, 1), begun + Duration::from_mins(1), AT_ONCE).unwrap();
        assert!(newcomers.whole_at.lock().unwrap().len() <= 2, "shares that are whole are not kept");
    }
}
