//! Parameters that differ from run to run, so that rare things happen in some of them.

mod control;
mod rare;

use zue_core::control::{Policy, Wish};
use zue_core::{Limits, ProducerLimits, SyncLimits};
use zue_engine::sender::Pace;
use zue_log::CompactionConfig;

use crate::batch::Shape;
use crate::dice::Dice;
use crate::node::ages::ClockParams;
pub(crate) use control::ControlParams;

/// The shape of a run. Times are in virtual milliseconds, probabilities within 0 and 1.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    pub(crate) machines: usize,
    pub(crate) wish: Wish,
    pub(crate) limits: Limits,
    pub(crate) producer_limits: ProducerLimits,
    pub(crate) net: NetParams,
    pub(crate) disk: DiskParams,
    pub(crate) control: ControlParams,
    pub(crate) clients: ClientParams,
    pub(crate) faults: FaultParams,
    /// The one machine whose acknowledgements do not wait for its disk.
    pub(crate) lazy: Option<usize>,
    pub(crate) tick_ms: u64,
    /// The time for which a stream may be silent.
    pub(crate) stream_timeout_ms: u64,
    /// The number of bytes of frames that a leader keeps in memory for its followers.
    pub(crate) memory_bytes: usize,
    /// The amount that goes to a follower at once.
    pub(crate) pace: Pace,
    /// The time between two words of a stranger to a replica, if one speaks.
    pub(crate) stranger: Option<(u64, u64)>,
    /// True if what is trimmed stays on the disks for a while.
    pub(crate) keeps_trimmed: bool,
    /// Logs are looked after while they are used.
    pub(crate) upkeep: Option<UpkeepParams>,
    pub(crate) clocks: ClockParams,
}

#[derive(Clone, Debug)]
pub(crate) struct UpkeepParams {
    pub(crate) turn_ms: u64,
    /// The delay that it may have.
    pub(crate) late_ms: u64,
    /// The number of bytes that are read, or written, at once.
    pub(crate) piece_bytes: usize,
    /// The number of bytes of records that are given for a repair at once, and the time that they are waited for.
    pub(crate) answer_bytes: usize,
    pub(crate) answer_ms: u64,
    /// The time for which until damage is looked at again.
    pub(crate) retry_ms: u64,
    /// The bytes that repairs and compactions may take.
    pub(crate) bytes_per_second: u64,
    /// The time for which what is trimmed stays, where it does.
    pub(crate) trim_delay_ms: u64,
    pub(crate) compaction: Option<CompactionConfig>,
    /// Records go once they are so old.
    pub(crate) retention_ms: Option<u64>,
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

#[derive(Clone, Debug)]
pub(crate) struct FaultParams {
    pub(crate) pause_ms: (u64, u64),
    pub(crate) lasts_ms: (u64, u64),
    /// The likelihood of each fault, relative to the others; see `faults`.
    pub(crate) crash: u64,
    pub(crate) crash_all: u64,
    pub(crate) pause: u64,
    pub(crate) pause_controller: u64,
    pub(crate) partition: u64,
    pub(crate) wipe: u64,
    pub(crate) restore_disk: u64,
    pub(crate) flip: u64,
    pub(crate) fill: u64,
    pub(crate) wall_clock: u64,
    pub(crate) clock: u64,
    pub(crate) restore_store: u64,
    pub(crate) silence_store: u64,
    pub(crate) raise_record: u64,
    pub(crate) scale: u64,
    /// A partition keeps only replicas from one another: everybody else reaches them all.
    pub(crate) partition_replicas: f64,
    /// Another keeps a leader from all but its clients.
    pub(crate) partition_leader: f64,
    /// A leader crashes as it begins to lead.
    pub(crate) crash_leading: f64,
    /// A leader is cut off as it begins to lead, and one that promised its epoch forgets that.
    pub(crate) forget_promise: f64,
    /// A leader crashes as a trim is answered; and once a follower has begun anew.
    pub(crate) crash_trimmed: f64,
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
            (faults.wipe, faults.flip, faults.crash_all, faults.restore_disk) = (0, 0, 0, 0);
        }
        if machines > 4 && dice.chance(0.2) {
            control.split(dice);
            faults.split(dice);
            (net.delay_ms, net.drop, net.long_delay) = ((0, 5), 0.0, 0.0);
        }
        let mut clients = ClientParams::draw(dice);
        if dice.chance(0.5) {
            clients.trim(dice);
            faults.wipe = faults.wipe.max(dice.between((0, 8)));
            faults.lasts_ms.1 = faults.lasts_ms.1.max(dice.between((100, 2000)));
        }
        control.disagree(dice, machines, if policy == Policy::Static { ordinal + 1 } else { 1 });
        let upkeep = dice.chance(0.7).then(|| UpkeepParams::draw(dice));
        if upkeep.is_some() {
            faults.flip = faults.flip.max(dice.between((0, 16)));
            if dice.chance(0.1) {
                // Hardly anything but bits that flip, and opening what they have damaged.
                (faults.flip, faults.wipe, faults.restore_disk, faults.scale) = (100, 0, 0, 0);
            }
        }
        if upkeep.as_ref().is_some_and(|upkeep| upkeep.compaction.is_some()) {
            clients.compact(dice);
        }
        let clocks = ClockParams::draw(dice, machines, upkeep.as_ref(), &mut clients, &mut faults);
        let lazy = lazy(dice, machines, &mut faults, (&mut control, &mut net));
        let producers_max = dice.pick(&[2, 5, 65_536]);
        Self {
            machines,
            wish: Wish {
                replicas: machines,
                policy,
                ordinal,
                detection_ms: dice.between((150, 600)),
                quorum,
                ..Wish::default()
            },
            limits: limits(dice, lag_ms_max),
            producer_limits: ProducerLimits {
                producers_max,
                appends_max: dice.pick(&[3, 8, 64]),
                all_appends_max: producers_max * dice.pick(&[1, 2, 16, 64]),
            },
            net,
            disk: DiskParams::draw(dice),
            control,
            clients,
            faults,
            lazy,
            tick_ms,
            stream_timeout_ms: 2 * tick_ms + dice.between((50, 400)),
            memory_bytes: dice.pick(&[0, 2000, 1 << 20]),
            pace: pace(dice),
            upkeep,
            clocks,
            stranger: dice.chance(0.4).then(|| (20, dice.between((50, 800)))),
            keeps_trimmed: dice.chance(0.4),
        }
    }
}

fn pace(dice: &mut Dice) -> Pace {
    Pace {
        window_bytes: dice.pick(&[1, 2000, 1 << 20]),
        batch_bytes: dice.pick(&[1, 300, 4000]),
        near_records: dice.pick(&[0, 10, 10_000]),
    }
}

/// The patience of a leader, and what it takes on.
fn limits(dice: &mut Dice, lag_ms_max: u64) -> Limits {
    let (lag_records_max, lag_bytes_max) = (dice.between((1, 60)), dice.pick(&[3, 20, 1 << 20]));
    let sync = SyncLimits { lag_records_max, lag_bytes_max, lag_ms_max };
    Limits { sync, waiting_max: dice.pick(&[4, 64, 1024]), reads_max: 64 }
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
        (faults.wipe, faults.flip, faults.restore_disk, faults.scale) = (0, 0, 0, 0);
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

impl FaultParams {
    fn split(&mut self, dice: &mut Dice) {
        (self.lasts_ms, self.pause_ms, self.crash_leading) = ((200, dice.between((500, 2000))), (100, 600), 0.0);
        (self.crash_all, self.pause, self.wipe, self.flip, self.fill, self.scale) = (0, 0, 0, 0, 0, 0);
        (self.partition, self.partition_replicas, self.crash) = (8, 1.0, dice.between((0, 4)));
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

impl UpkeepParams {
    fn draw(dice: &mut Dice) -> Self {
        let compaction = dice.chance(0.6).then(|| CompactionConfig {
            tombstone_retention_ms: dice.pick(&[0, 500, 20_000, 1 << 40]),
            dirty_percent: dice.pick(&[1, 50]),
        });
        Self {
            turn_ms: dice.between((5, 60)),
            late_ms: dice.between((5, 60)),
            piece_bytes: dice.pick(&[100, 5000, 1 << 20]),
            answer_bytes: dice.pick(&[1, 3000, 1 << 20]),
            answer_ms: dice.between((20, 200)),
            retry_ms: dice.between((20, 300)),
            bytes_per_second: dice.pick(&[100_000, 1 << 20, 1 << 30]),
            trim_delay_ms: dice.pick(&[0, 200, 2000, 1 << 40]),
            compaction,
            retention_ms: dice.chance(0.4).then(|| dice.pick(&[300, 3000, 20_000, 1 << 40])),
        }
    }
}

impl FaultParams {
    fn draw(dice: &mut Dice) -> Self {
        let mut weight = |max| if dice.chance(0.6) { dice.between((1, max)) } else { 0 };
        let (crash, crash_all, pause, partition) = (weight(10), weight(2), weight(5), weight(8));
        let (wipe, restore_store, scale) = (weight(2), weight(2), weight(4));
        let (pause_controller, flip, fill, wall_clock, clock) = (weight(3), weight(4), weight(4), weight(2), weight(2));
        let restore_disk = weight(6);
        let (silence_store, raise_record) = (weight(3), weight(1));
        Self {
            pause_ms: (20, dice.between((60, 500))),
            lasts_ms: (10, dice.between((50, 1200))),
            crash: crash.max(1),
            crash_all,
            pause,
            partition,
            wipe,
            restore_disk,
            pause_controller,
            flip,
            fill,
            wall_clock,
            clock,
            restore_store,
            silence_store,
            raise_record,
            scale,
            partition_replicas: 0.2,
            partition_leader: 0.3,
            crash_leading: if dice.chance(0.3) { per_mille(dice.between((0, 400))) } else { 0.0 },
            forget_promise: 0.0,
            crash_trimmed: 0.0,
        }
    }
}

fn per_mille(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX)) / 1000.0
}
