//! Parameters that differ from run to run, so that rare things happen in some of them.

mod control;
mod faults;
mod node;
mod rare;

use zue_core::control::{Policy, Wish};

use crate::batch::Shape;
use crate::dice::{Dice, per_mille};
use crate::node::ages::ClockParams;
pub(crate) use control::{ControlParams, StoreParams};
pub(crate) use faults::FaultParams;
pub(crate) use node::{MaintenanceParams, NodeParams};

/// The shape of a run. Times are in virtual milliseconds, probabilities within 0 and 1.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    pub(crate) machines: usize,
    pub(crate) wish: Wish,
    pub(crate) node: NodeParams,
    pub(crate) net: NetParams,
    pub(crate) disk: DiskParams,
    pub(crate) control: ControlParams,
    pub(crate) clients: ClientParams,
    pub(crate) faults: FaultParams,
    /// The one machine whose acknowledgements do not wait for its disk.
    pub(crate) lazy: Option<usize>,
    /// The time between two words of a stranger to a replica, if one speaks.
    pub(crate) stranger: Option<(u64, u64)>,
    /// True if what is trimmed stays on the disks for a while.
    pub(crate) keeps_trimmed: bool,
    pub(crate) clocks: ClockParams,
}

#[derive(Clone, Debug)]
pub(crate) struct NetParams {
    pub(crate) delay_ms: (u64, u64),
    pub(crate) long_delay: f64,
    pub(crate) long_delay_ms: (u64, u64),
    pub(crate) drop: f64,
    /// A message arrives twice; calls and their answers, and, in wild streams, theirs.
    pub(crate) duplicate: f64,
    /// Messages of a stream, too, are lost, repeated and swapped one by one.
    pub(crate) wild_streams: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct DiskParams {
    pub(crate) write_ms: (u64, u64),
    pub(crate) sync_ms: (u64, u64),
    pub(crate) slow_sync: f64,
    pub(crate) batch_max: usize,
    /// A write or sync fails.
    pub(crate) fail: f64,
    /// The machine stops within a write or sync.
    pub(crate) stop: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct ClientParams {
    pub(crate) producers: usize,
    pub(crate) pipeline_max: usize,
    pub(crate) pause_ms: (u64, u64),
    pub(crate) timeout_ms: u64,
    pub(crate) records_max: u64,
    pub(crate) read_ms: (u64, u64),
    /// A producer that waits for nothing begins anew, and knows no leader.
    pub(crate) reopen: f64,
    pub(crate) shape: Shape,
    /// The time between two trims of a client; none if 0.
    pub(crate) trim_ms: (u64, u64),
    /// The number of records that such a client leaves at most.
    pub(crate) trim_keeps: u64,
}

impl Params {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let machines = dice.pick(&[1, 3, 3, 3, 3, 4, 4, 5, 5, 5]);
        let tick_ms = dice.between((20, 120));
        let lag_ms_max = 2 * tick_ms + dice.between((50, 700));
        let policy = if dice.chance(0.7) { Policy::Automatic } else { Policy::Static };
        let majority_only = dice.chance(0.7);
        let ordinal = if dice.chance(0.8) { 0 } else { dice.index(machines) };
        let quorum = if majority_only { None } else { u32::try_from(dice.index(machines) + 1).ok() };
        let (mut control, mut faults, mut net) =
            (ControlParams::draw(dice), FaultParams::draw(dice), NetParams::draw(dice));
        if machines > 3 && dice.chance(0.4) {
            // Hardly anything but voters changes, and that all the time.
            (control.controllers, control.whim, control.stop) = (3, 0.7, 0.2);
            (faults.disks.wipe, faults.disks.flip, faults.processes.crash_all, faults.disks.restore) = (0, 0, 0, 0);
        }
        if machines > 4 && dice.chance(0.2) {
            control.split(dice);
            faults.split(dice);
            (net.delay_ms, net.drop, net.long_delay) = ((0, 5), 0.0, 0.0);
        }
        let mut clients = ClientParams::draw(dice);
        if dice.chance(0.5) {
            clients.trim(dice);
            faults.disks.wipe = faults.disks.wipe.max(dice.between((0, 8)));
            faults.lasts_ms.1 = faults.lasts_ms.1.max(dice.between((100, 2000)));
        }
        control.disagree(dice, machines, if policy == Policy::Static { ordinal + 1 } else { 1 });
        let maintenance = dice.chance(0.7).then(|| MaintenanceParams::draw(dice));
        if maintenance.is_some() {
            faults.disks.flip = faults.disks.flip.max(dice.between((0, 16)));
            if dice.chance(0.1) {
                // Hardly anything but bits that flip, and opening what they have damaged.
                (faults.disks.flip, faults.disks.wipe, faults.disks.restore, faults.scale) = (100, 0, 0, 0);
            }
        }
        if maintenance.as_ref().is_some_and(|maintenance| maintenance.compaction.is_some()) {
            clients.compact(dice);
        }
        let clocks = ClockParams::draw(dice, machines, maintenance.as_ref(), &mut clients, &mut faults);
        let lazy = lazy(dice, machines, &mut faults, (&mut control, &mut net));
        let producers_max = dice.pick(&[2, 5, 65_536]);
        let detection_ms = dice.between((150, 600));
        let wish = Wish { replicas: machines, policy, ordinal, detection_ms, quorum, ..Wish::default() };
        let (limits, producer_limits) = (node::limits(dice, lag_ms_max), node::producer_limits(dice, producers_max));
        let disk = DiskParams::draw(dice);
        let node = NodeParams {
            limits,
            producer_limits,
            tick_ms,
            stream_timeout_ms: 2 * tick_ms + dice.between((50, 400)),
            memory_bytes: dice.pick(&[0, 2000, 1 << 20]),
            pace: node::pace(dice),
            maintenance,
        };
        let stranger = dice.chance(0.4).then(|| (20, dice.between((50, 800))));
        let keeps_trimmed = dice.chance(0.4);
        Self { machines, wish, node, net, disk, control, clients, faults, lazy, stranger, keeps_trimmed, clocks }
    }
}

/// Perhaps there is a machine whose acknowledgements do not wait for its disk.
fn lazy(
    dice: &mut Dice,
    machines: usize,
    faults: &mut FaultParams,
    (control, net): (&mut ControlParams, &mut NetParams),
) -> Option<usize> {
    let lazy = (machines > 2 && dice.chance(0.08)).then(|| dice.index(machines));
    if lazy.is_some() {
        // What one forgets, a majority must have: no other loses its disk, and the voters stay. A real stream to a machine ends
        // with it, and what it carried is not repeated on the next.
        (faults.disks.wipe, faults.disks.flip, faults.disks.restore, faults.scale) = (0, 0, 0, 0);
        (control.whim, control.disagree, net.wild_streams) = (0.0, None, false);
    }
    lazy
}

impl NetParams {
    fn draw(dice: &mut Dice) -> Self {
        let calm = dice.chance(0.3);
        let up_to = |dice: &mut Dice, max: u64| if calm { 0.0 } else { per_mille(dice.between((0, max))) };
        Self {
            delay_ms: (dice.between((0, 2)), dice.between((2, 25))),
            long_delay: up_to(dice, 60),
            long_delay_ms: (30, dice.between((60, 1500))),
            drop: up_to(dice, 40),
            duplicate: if calm { 0.0 } else { dice.pick(&[0.01, 0.04, 0.04, 0.3]) },
            wild_streams: dice.chance(0.35),
        }
    }
}

impl DiskParams {
    fn draw(dice: &mut Dice) -> Self {
        Self {
            write_ms: (0, dice.between((0, 5))),
            sync_ms: (0, dice.between((1, 40))),
            slow_sync: per_mille(dice.between((0, 60))),
            batch_max: dice.pick(&[1, 3, 20]),
            fail: if dice.chance(0.25) { per_mille(dice.between((1, 8))) } else { 0.0 },
            stop: if dice.chance(0.4) { per_mille(dice.between((1, 8))) } else { 0.0 },
        }
    }
}

impl ClientParams {
    fn draw(dice: &mut Dice) -> Self {
        Self {
            producers: dice.pick(&[1, 2, 4, 16]),
            pipeline_max: dice.pick(&[1, 4, 20]),
            pause_ms: (0, dice.between((2, 60))),
            timeout_ms: dice.between((50, 400)),
            records_max: dice.pick(&[1, 3, 6]),
            read_ms: (20, 120),
            reopen: 0.04,
            shape: Shape { bytes: dice.pick(&[0, 20, 3000]), keys: 0 },
            trim_ms: (0, 0),
            trim_keeps: 0,
        }
    }
}

impl ClientParams {
    /// Trims come often, and records are large: segments are soon full, and gone.
    fn trim(&mut self, dice: &mut Dice) {
        self.trim_ms = (5, dice.between((20, 200)));
        self.trim_keeps = dice.pick(&[0, 3, 20]);
        self.shape.bytes = dice.pick(&[20, 3000, 30_000, 100_000]);
    }
}

impl ClientParams {
    /// Few keys, and large records: segments are soon full, and most of what is in them is outdated.
    fn compact(&mut self, dice: &mut Dice) {
        self.shape = Shape { bytes: dice.pick(&[3000, 10_000, 40_000]), keys: dice.pick(&[1, 3, 12]) };
        self.trim_keeps = self.trim_keeps.max(dice.pick(&[0, 30, 100]));
    }
}
