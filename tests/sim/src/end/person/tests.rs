//! Three replicas: one is cut off while the others commit, and what happens to those two then.

use zue_log::Disk as _;

use super::*;
use crate::disk::Harm;
use crate::message::Address;
use crate::params::{FaultParams, MaintenanceParams};

/// Longer than any run.
const FOR_EVER_MS: u64 = 1 << 40;

struct Parted {
    world: World,
    leader: usize,
    follower: usize,
    away: usize,
    /// The offset at which the log of the one that is away ends.
    end: Offset,
}

fn run_until(world: &mut World, done: impl Fn(&World) -> bool) {
    for _ in 0..500_000 {
        if done(world) {
            return;
        }
        assert!(world.turn(), "nothing happens any more");
        assert_eq!(world.check.violation(), None);
    }
    panic!("it does not come to that");
}

fn parted() -> Parted {
    let mut world = World::empty(1, None, None);
    world.params.machines = 3;
    world.params.calm();
    world.params.faults = FaultParams::clocks_alone();
    world.params.control.stands_by = false;
    let maintenance = MaintenanceParams::draw(&mut world.dice);
    world.params.node.maintenance = Some(MaintenanceParams { compaction: None, retention_ms: None, ..maintenance });
    world.params.clients.trim_ms = (0, 0);
    world.populate(None);
    run_until(&mut world, |world| world.check.committed_end() > Offset(20) && world.leader().is_some());
    let leader = world.leader().expect("one that leads");
    let (follower, away) = ((leader + 1) % 3, (leader + 2) % 3);
    cut_off(&mut world, away);
    let soon = world.now + 2000;
    run_until(&mut world, |world| world.now > soon);
    let end = world.machine(away).storage.tail().end;
    run_until(&mut world, |world| world.check.committed_end() > end.plus(60));
    Parted { world, leader, follower, away, end }
}

fn cut_off(world: &mut World, away: usize) {
    for other in (0..3).filter(|other| *other != away).map(Address::Machine) {
        world.block(other, Address::Machine(away), FOR_EVER_MS);
        world.block(Address::Machine(away), other, FOR_EVER_MS);
    }
}

impl Parted {
    /// The leader's disk damages something of what it has appended since the one is away, and nothing else.
    fn damage(&mut self) {
        let since = self.end..self.world.check.committed_end();
        let storage = &mut self.world.machine(self.leader).storage;
        let names = storage.disk.list().expect("its files");
        let places = names.iter().filter(|name| name.contains(".log")).flat_map(|name| {
            let used = storage.disk.content(name).and_then(|content| content.iter().rposition(|byte| *byte != 0));
            (0..used.unwrap_or_default()).step_by(53).map(|at| (name.clone(), at)).collect::<Vec<_>>()
        });
        let harms = |(name, at): &(String, usize)| {
            storage.disk.damage(name, |content| content[*at] ^= 1);
            let unreadable = storage.unreadable();
            let harms = !unreadable.is_empty()
                && unreadable.iter().all(|(from, to)| from < to && since.contains(from) && since.contains(to));
            if !harms {
                storage.disk.damage(name, |content| content[*at] ^= 1);
            }
            harms.then_some(unreadable)
        };
        let places: Vec<_> = places.collect();
        let unreadable = places.iter().find_map(harms).expect("a place that does");
        storage.harm = Harm { any: true, ..Harm::default() };
        let id = storage.id();
        self.world.check.impair(id);
        self.world.losses.damage(id, unreadable);
        self.world.crash(self.leader);
    }

    fn lose_followers_disk(&mut self) {
        self.world.crash(self.follower);
        self.world.replace_disk(self.follower);
    }
}

#[test]
fn behind_a_record_that_all_who_held_it_have_lost_a_person_trims_the_log_and_it_goes_on() {
    let mut parted = parted();
    parted.damage();
    parted.lose_followers_disk();
    parted.world.heal();
    assert_eq!(parted.world.conclude(), Ok(()));
    let counts = &parted.world.counts;
    assert!(counts.lossy && !counts.stuck, "{counts:?}");
    assert!(counts.trimmed_by_hand > parted.end, "{counts:?}");
}

#[test]
fn what_another_replica_holds_comes_back_without_a_person() {
    let mut parted = parted();
    parted.damage();
    parted.world.heal();
    assert_eq!(parted.world.conclude(), Ok(()));
    let counts = &parted.world.counts;
    assert_eq!((counts.trimmed_by_hand, counts.lossy, counts.stuck), (Offset(0), false, false));
    assert!(counts.maintenance.repairs > 0, "{counts:?}");
}

#[test]
fn a_person_does_not_help_where_nothing_is_lost() {
    let mut parted = parted();
    parted.lose_followers_disk();
    parted.world.heal();
    cut_off(&mut parted.world, parted.away);
    let unrest = parted.world.conclude().expect_err("one is still away");
    assert!(unrest.contains("no rest"), "{unrest}");
}
