//! A limited number of slots, and the rule by which an occupant makes way when all are taken: nobody can lock the others out by
//! taking all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::server::owner::{Host, Owner};

/// The rank of a place: the lowest makes way first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Rank {
    /// It has not said what it wants.
    Stranger,
    /// It wants nothing at present.
    Idle,
    Busy,
}

/// The occupant of a slot, as the others see it.
#[derive(Debug)]
pub(crate) struct Occupant {
    /// True once it has said what it wants.
    pub(crate) greeted: AtomicBool,
    /// The calls that it has at present.
    pub(crate) calls: AtomicUsize,
    /// Told to make way.
    pub(crate) leaves: CancellationToken,
}

impl Occupant {
    fn rank(&self) -> Rank {
        match (self.greeted.load(Ordering::Relaxed), self.calls.load(Ordering::Relaxed)) {
            (false, _) => Rank::Stranger,
            (true, 0) => Rank::Idle,
            (true, _) => Rank::Busy,
        }
    }
}

#[derive(Debug, Default)]
struct TakenSlots {
    /// The occupants in the order in which they came, each with its owner.
    occupants: BTreeMap<u64, (Owner, Arc<Occupant>)>,
    next: u64,
    /// Hosts that have shown that they belong here, the last to do so last.
    known: VecDeque<Host>,
}

/// The number of hosts that are known: those that have shown it last.
const KNOWN_MAX: usize = 64;

/// The places.
#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    /// The number of them that hosts may have together that are not known.
    strangers_max: usize,
    taken: Mutex<TakenSlots>,
}

/// A place; given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    id: u64,
    pub(crate) occupant: Arc<Occupant>,
}

impl Slots {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Self::reserved(max, max)
    }

    /// Slots of which unknown hosts together may have at most `strangers_max`.
    pub(crate) fn reserved(max: usize, strangers_max: usize) -> Arc<Self> {
        Arc::new(Self { max, strangers_max, taken: Mutex::default() })
    }

    /// From now on this host is known.
    pub(crate) fn know(&self, host: Host) {
        let mut taken = self.taken();
        taken.known.retain(|known| *known != host);
        taken.known.push_back(host);
        if taken.known.len() > KNOWN_MAX {
            taken.known.pop_front();
        }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    fn taken(&self) -> MutexGuard<'_, TakenSlots> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one who is new; none if all are taken by those who need make no way for it.
    pub(crate) fn take(self: &Arc<Self>, owner: Owner) -> Option<Slot> {
        self.take_as(owner, false, CancellationToken::new())
    }

    /// A place for one who is known to want something.
    pub(crate) fn take_busy(self: &Arc<Self>, owner: Owner) -> Option<Slot> {
        self.take_as(owner, true, CancellationToken::new())
    }

    /// A place beside another: who has to leave this one leaves that one, too.
    pub(crate) fn take_beside(self: &Arc<Self>, other: &Slot, owner: Owner) -> Option<Slot> {
        self.take_as(owner, true, other.occupant.leaves.clone())
    }

    fn take_as(self: &Arc<Self>, owner: Owner, busy: bool, leaves: CancellationToken) -> Option<Slot> {
        let mut taken = self.taken();
        let is_stranger = |owner: &Owner| !taken.known.contains(&owner.host);
        let strangers = || taken.occupants.values().filter(|(owner, _)| is_stranger(owner)).count();
        let is_reserved = self.strangers_max < self.max;
        let only_strangers = is_reserved && is_stranger(&owner) && strangers() >= self.strangers_max;
        if only_strangers || taken.occupants.len() >= self.max {
            let occupants = taken.occupants.iter().map(|(id, (owner, occupant))| (*id, *owner, occupant.rank()));
            let ranked: Vec<_> = occupants.filter(|(_, owner, _)| !only_strangers || is_stranger(owner)).collect();
            let leaving = who_makes_way(&ranked, owner)?;
            if let Some((_, occupant)) = taken.occupants.remove(&leaving) {
                occupant.leaves.cancel();
            }
        }
        let (greeted, calls) = (AtomicBool::new(busy), AtomicUsize::new(usize::from(busy)));
        let occupant = Arc::new(Occupant { greeted, calls, leaves });
        let id = taken.next;
        taken.next += 1;
        taken.occupants.insert(id, (owner, Arc::clone(&occupant)));
        Some(Slot { slots: Arc::clone(self), id, occupant })
    }
}

impl Slot {
    /// Gives the slot to a new owner: the caller has shown its identity.
    pub(crate) fn is_of(&self, owner: Owner) {
        if let Some((whose, _)) = self.slots.taken().occupants.get_mut(&self.id) {
            *whose = owner;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken().occupants.remove(&self.id);
    }
}

/// Of the seats, oldest first, the one that makes way for somebody new: the oldest that has not said what it wants, else the oldest
/// that wants nothing, each only if its host has as many as that of the newcomer: a host that has most already takes from nobody
/// else. Of those that do want something only the newest of the host that has most, and only for a host that has fewer
/// even then; within one host the same is true of its connections.
fn who_makes_way(occupants: &[(u64, Owner, Rank)], newcomer: Owner) -> Option<u64> {
    let by_host = counts(occupants.iter().map(|(_, owner, _)| owner.host));
    let own = by_host.get(&newcomer.host).copied().unwrap_or(0);
    let has_as_many = |owner: &Owner| by_host.get(&owner.host).is_some_and(|count| *count >= own);
    let oldest = |rank| occupants.iter().find(|(_, owner, found)| *found == rank && has_as_many(owner));
    if let Some((id, _, _)) = oldest(Rank::Stranger).or_else(|| oldest(Rank::Idle)) {
        return Some(*id);
    }
    let (heaviest, most) = by_host.into_iter().max_by_key(|(_, count)| *count)?;
    let is_another = most > own + 1;
    let host = if is_another { heaviest } else { newcomer.host };
    let by_connection = counts(occupants.iter().map(|(_, owner, _)| *owner).filter(|owner| owner.host == host));
    let own = by_connection.get(&newcomer).copied().unwrap_or(0);
    let (heaviest, most) = by_connection.into_iter().max_by_key(|(_, count)| *count)?;
    let makes_way = is_another || most > own + 1;
    occupants.iter().rev().find(|(_, owner, _)| makes_way && *owner == heaviest).map(|(id, _, _)| *id)
}

fn counts<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use Rank::{Busy, Idle, Stranger};

    use super::*;
    use crate::server::owner::tests::owner;

    /// The seat that makes way for a newcomer: seats and it are given as host, connection and rank.
    fn way(occupants: &[(u8, u64, Rank)], (host, connection): (u8, u64)) -> Option<u64> {
        let occupants =
            (0..).zip(occupants).map(|(id, (host, connection, rank))| (id, owner(*host, *connection), *rank));
        who_makes_way(&occupants.collect::<Vec<_>>(), owner(host, connection))
    }

    #[test]
    fn who_wants_nothing_makes_way_and_who_is_busy_only_for_one_that_has_fewer() {
        assert_eq!(way(&[(1, 1, Busy), (1, 1, Idle), (2, 2, Stranger), (2, 2, Stranger)], (1, 1)), Some(2));
        assert_eq!(way(&[(1, 1, Busy), (1, 1, Idle), (2, 2, Idle)], (3, 3)), Some(1));
        let full = [(1, 1, Busy), (1, 1, Busy), (2, 2, Busy)];
        assert_eq!(way(&full, (3, 3)), Some(1), "the newest of the heaviest");
        assert_eq!(way(&full, (2, 2)), None, "it would have more than that then");
        assert_eq!(way(&full, (1, 1)), None);
        assert_eq!(way(&[(1, 1, Busy), (2, 2, Busy)], (3, 3)), None);
    }

    #[test]
    fn a_host_has_no_more_for_its_many_connections_and_shares_what_it_has_among_them() {
        let many: Vec<_> = (0..20).map(|connection| (1, connection, Busy)).collect();
        assert_eq!(way(&many, (2, 100)), Some(19), "another host gets one though each has but one");
        assert_eq!(way(&many, (1, 100)), None, "one of its own does not");
        let one_has_most = [(1, 1, Busy), (1, 1, Busy), (1, 1, Busy), (1, 2, Busy), (2, 3, Busy), (2, 3, Busy)];
        assert_eq!(way(&one_has_most, (1, 4)), Some(2), "the newest of the heaviest of its own");
        assert_eq!(way(&one_has_most, (2, 4)), Some(2), "the newest of the heaviest of the other host");
    }

    #[test]
    fn a_host_that_has_most_takes_nobody_elses_place_however_little_that_one_wants() {
        let full = |own| [(2, 1, Stranger), (3, 2, Idle), (1, 3, Busy), (1, 4, own), (1, 5, Busy)];
        assert_eq!(way(&full(Busy), (1, 100)), None);
        assert_eq!(way(&full(Idle), (1, 100)), Some(3), "it takes from itself");
        assert_eq!(way(&full(Busy), (2, 100)), Some(0));
        assert_eq!(way(&full(Busy), (4, 100)), Some(0));
    }

    #[test]
    fn strangers_leave_places_to_hosts_that_are_known_and_take_none_from_them() {
        let slots = Slots::reserved(4, 2);
        slots.know(owner(1, 0).host);
        let peer = slots.take(owner(1, 0)).unwrap();
        let strangers: Vec<_> = (2..4).map(|host| slots.take_busy(owner(host, 1)).unwrap()).collect();
        assert!(slots.take(owner(4, 0)).is_none(), "it would have to be the peer's");
        let second = slots.take(owner(1, 1)).unwrap();
        assert!(!strangers.iter().any(|stranger| stranger.occupant.leaves.is_cancelled()), "there is a place still");
        drop(strangers);
        let strangers: Vec<_> = (2..7).map(|host| slots.take(owner(host, 1)).unwrap()).collect();
        let left = |slot: &&Slot| slot.occupant.leaves.is_cancelled();
        assert_eq!(strangers.iter().filter(left).count(), 3, "they make way for each other");
        assert_eq!([&peer, &second].into_iter().filter(left).count(), 0);
        // A stranger that has shown that it belongs here counts as one no more.
        slots.know(owner(6, 1).host);
        assert!(slots.take(owner(7, 1)).is_some());
        for host in 0..200 {
            slots.know(owner(host, 0).host);
        }
        assert_eq!(slots.taken().known.len(), KNOWN_MAX);
    }

    #[test]
    fn a_place_that_made_way_is_given_to_the_newcomer_and_is_not_given_up_twice() {
        let slots = Slots::new(2);
        let (one, two) = (owner(1, 1), owner(2, 2));
        let first = slots.take_busy(one).unwrap();
        let second = slots.take_busy(one).unwrap();
        assert!(slots.take_busy(one).is_none());
        let other = slots.take_busy(two).unwrap();
        assert!(second.occupant.leaves.is_cancelled() && !first.occupant.leaves.is_cancelled());
        drop(second);
        assert!(slots.take_busy(two).is_none(), "both places are taken");
        drop((first, other));
        assert_eq!(slots.taken().occupants.len(), 0);
    }
}
