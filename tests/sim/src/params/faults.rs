//! The likelihood of each fault, relative to the others, and its length.

use crate::dice::{Dice, per_mille};

#[derive(Clone, Debug)]
pub(crate) struct FaultParams {
    pub(crate) pause_ms: (u64, u64),
    pub(crate) lasts_ms: (u64, u64),
    pub(crate) processes: ProcessFaults,
    pub(crate) partitions: Partitions,
    pub(crate) disks: DiskFaults,
    pub(crate) clocks: ClockFaults,
    pub(crate) store: StoreFaults,
    pub(crate) scale: u64,
    pub(crate) moments: Moments,
}

/// Faults of processes.
#[derive(Clone, Debug)]
pub(crate) struct ProcessFaults {
    pub(crate) crash: u64,
    pub(crate) crash_all: u64,
    pub(crate) pause: u64,
    pub(crate) pause_controller: u64,
}

/// Faults of the network.
#[derive(Clone, Debug)]
pub(crate) struct Partitions {
    pub(crate) any: u64,
    /// A partition keeps only replicas from one another: everybody else reaches them all.
    pub(crate) of_replicas: f64,
    /// Another keeps a leader from all but its clients.
    pub(crate) of_leader: f64,
}

/// Faults of what disks hold, and of their room.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskFaults {
    pub(crate) wipe: u64,
    pub(crate) restore: u64,
    pub(crate) flip: u64,
    pub(crate) fill: u64,
}

/// Clocks that are set, and that jump.
#[derive(Clone, Debug)]
pub(crate) struct ClockFaults {
    pub(crate) wall: u64,
    pub(crate) monotonic: u64,
}

/// Faults of the store that the record is in.
#[derive(Clone, Debug)]
pub(crate) struct StoreFaults {
    pub(crate) restore: u64,
    pub(crate) silence: u64,
    pub(crate) raise: u64,
}

/// Faults at the worst moment.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    /// A leader crashes as it begins to lead.
    pub(crate) crash_leading: f64,
    /// A leader is cut off as it begins to lead, and one that promised its epoch forgets that.
    pub(crate) forget_promise: f64,
    /// A leader crashes as a trim is answered; and once a follower has begun anew.
    pub(crate) crash_trimmed: f64,
}

impl FaultParams {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let mut weight = |max| if dice.chance(0.6) { dice.between((1, max)) } else { 0 };
        let (crash, crash_all, pause, partition) = (weight(10), weight(2), weight(5), weight(8));
        let (wipe, restore_store, scale) = (weight(2), weight(2), weight(4));
        let (pause_controller, flip, fill, wall, monotonic) = (weight(3), weight(4), weight(4), weight(2), weight(2));
        let restore = weight(6);
        let (silence, raise) = (weight(3), weight(1));
        Self {
            pause_ms: (20, dice.between((60, 500))),
            lasts_ms: (10, dice.between((50, 1200))),
            processes: ProcessFaults { crash: crash.max(1), crash_all, pause, pause_controller },
            partitions: Partitions { any: partition, of_replicas: 0.2, of_leader: 0.3 },
            disks: DiskFaults { wipe, restore, flip, fill },
            clocks: ClockFaults { wall, monotonic },
            store: StoreFaults { restore: restore_store, silence, raise },
            scale,
            moments: Moments {
                crash_leading: if dice.chance(0.3) { per_mille(dice.between((0, 400))) } else { 0.0 },
                forget_promise: 0.0,
                crash_trimmed: 0.0,
            },
        }
    }

    /// Nothing goes wrong but that clocks jump.
    #[cfg(test)]
    pub(crate) fn clocks_alone() -> Self {
        Self {
            pause_ms: (100, 200),
            lasts_ms: (10, 100),
            processes: ProcessFaults { crash: 0, crash_all: 0, pause: 0, pause_controller: 0 },
            partitions: Partitions { any: 0, of_replicas: 0.0, of_leader: 0.0 },
            disks: DiskFaults::default(),
            clocks: ClockFaults { wall: 0, monotonic: 1 },
            store: StoreFaults { restore: 0, silence: 0, raise: 0 },
            scale: 0,
            moments: Moments { crash_leading: 0.0, forget_promise: 0.0, crash_trimmed: 0.0 },
        }
    }

    pub(super) fn split(&mut self, dice: &mut Dice) {
        (self.lasts_ms, self.pause_ms) = ((200, dice.between((500, 2000))), (100, 600));
        (self.moments.crash_leading, self.scale) = (0.0, 0);
        (self.disks.wipe, self.disks.flip, self.disks.fill) = (0, 0, 0);
        (self.partitions.any, self.partitions.of_replicas) = (8, 1.0);
        let processes = &mut self.processes;
        (processes.crash, processes.crash_all, processes.pause) = (dice.between((0, 4)), 0, 0);
    }
}
