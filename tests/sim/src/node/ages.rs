//! Ages of records, where some go because of them: by monotonic clocks and by wall clocks that are ahead, behind and set.

mod acts;

use zue_core::{Aged, Ages, Millis, Offset};

use crate::dice::Dice;
use crate::params::{ClientParams, FaultParams, MaintenanceParams};

/// The time for which a process may do without a look at the log, and still know what came meanwhile.
const LAPSE_MS: u64 = 1500;

/// A machine's clocks: how fast the monotonic one goes, how far it has jumped, and how far the wall clock is off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) percent: u64,
    pub(crate) ahead_ms: u64,
    pub(crate) wall_ms: u64,
}

impl Clock {
    /// A wall clock that may fall without reaching 1970.
    const WALL_MS: (u64, u64) = (0, 100_000_000);
    /// The amount that a right clock adds to the virtual time.
    pub(crate) const RIGHT_MS: u64 = 50_000_000;

    pub(crate) fn draw(dice: &mut Dice, params: &ClockParams, machine: usize) -> Self {
        Self {
            percent: if params.steady { 100 } else { dice.pick(&[100, 100, 100, 50, 90, 120, 200]) },
            ahead_ms: dice.between((0, 1_000_000)),
            wall_ms: match params.liar {
                _ if params.wild => dice.between(Self::WALL_MS),
                Some(liar) if liar == machine => Self::draw_wall(dice),
                _ => Self::RIGHT_MS + dice.between((0, 30)),
            },
        }
    }

    /// The setting of a wall clock: right, ahead, or anything.
    pub(crate) fn draw_wall(dice: &mut Dice) -> u64 {
        match dice.index(3) {
            0 => Self::RIGHT_MS,
            1 => Self::RIGHT_MS + dice.between((0, 40_000_000)),
            _ => dice.between(Self::WALL_MS),
        }
    }
}

/// The behaviour of clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockParams {
    /// Wall clocks show anything. Otherwise all are right, but for one machine's.
    pub(crate) wild: bool,
    pub(crate) liar: Option<usize>,
    /// Monotonic clocks go as they should.
    pub(crate) steady: bool,
}

impl ClockParams {
    pub(crate) fn draw(
        dice: &mut Dice,
        machines: usize,
        maintenance: Option<&MaintenanceParams>,
        clients: &mut ClientParams,
        faults: &mut FaultParams,
    ) -> Self {
        if maintenance.is_some_and(|maintenance| maintenance.retention_ms.is_some()) {
            // Large records: segments are soon full, and grow old.
            clients.shape.bytes = clients.shape.bytes.max(dice.pick(&[3000, 30_000]));
        }
        let wild = dice.chance(0.4);
        let liar = (!wild && machines > 1).then(|| dice.index(machines));
        let steady = dice.chance(0.5);
        if !wild {
            faults.clocks.wall = faults.clocks.wall.max(dice.between((0, 8)));
        }
        if steady {
            faults.clocks.monotonic = 0;
        }
        Self { wild, liar, steady }
    }
}

/// A process's view of the ages of records, with regard to one age.
#[derive(Debug)]
pub(crate) struct Aging {
    pub(crate) age_ms: u64,
    ages: Ages,
    /// When it began to look without a lapse, and the end of what was committed then; and when it looked last.
    since: Option<(u64, Offset)>,
    last: u64,
}

impl Aging {
    pub(crate) fn new(age_ms: u64) -> Self {
        Self { age_ms, ages: Ages::new(age_ms), since: None, last: 0 }
    }

    fn look(&mut self, (now, clock): (u64, Millis), agreed_ms: u64, commit_end: Offset, told_end: Offset) -> Aged {
        if now - self.last > LAPSE_MS || self.since.is_none() {
            self.since = Some((now, told_end));
        }
        self.last = now;
        self.ages.look(clock, agreed_ms, commit_end, told_end)
    }
}

/// Whose ages are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Retention,
    Deletes,
}
