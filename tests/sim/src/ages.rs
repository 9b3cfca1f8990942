//! How old records are, where some go because of that: by monotonic clocks and by wall clocks that are ahead, behind and set.

use zue_core::{Aged, Ages, Millis, Offset, RoleView};

use crate::breaks::Break;
use crate::check::Judge;
use crate::coverage::Fault;
use crate::dice::Dice;
use crate::params::{ClientParams, FaultParams, UpkeepParams};
use crate::process::Process;
use crate::world::World;

/// How long a process may do without a look at the log, and still know what came meanwhile.
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
    /// What is added to the virtual time by one that is right.
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

    /// What a wall clock is set to: right, ahead, or anything.
    pub(crate) fn draw_wall(dice: &mut Dice) -> u64 {
        match dice.index(3) {
            0 => Self::RIGHT_MS,
            1 => Self::RIGHT_MS + dice.between((0, 40_000_000)),
            _ => dice.between(Self::WALL_MS),
        }
    }
}

/// What clocks are like.
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
        upkeep: Option<&UpkeepParams>,
        clients: &mut ClientParams,
        faults: &mut FaultParams,
    ) -> Self {
        if upkeep.is_some_and(|upkeep| upkeep.retention_ms.is_some()) {
            // Large records: segments are soon full, and grow old.
            clients.shape.bytes = clients.shape.bytes.max(dice.pick(&[3000, 30_000]));
        }
        let wild = dice.chance(0.4);
        let liar = (!wild && machines > 1).then(|| dice.index(machines));
        let steady = dice.chance(0.5);
        if !wild {
            faults.wall_clock = faults.wall_clock.max(dice.between((0, 8)));
        }
        if steady {
            faults.clock = 0;
        }
        Self { wild, liar, steady }
    }
}

/// What a process has seen of the ages of records, with regard to one age.
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

impl Process {
    fn aging(&mut self, which: Which) -> Option<&mut Aging> {
        match which {
            Which::Retention => self.upkeep.as_mut()?.retention.as_mut(),
            Which::Deletes => self.upkeep.as_mut()?.deletes.as_mut(),
        }
    }
}

impl World {
    /// A wall clock is set, forwards or backwards.
    pub(crate) fn jump_wall_clock(&mut self) {
        let ClockParams { wild, liar, .. } = self.params.clocks;
        let Some(machine) = (if wild { Some(self.dice.index(self.machines.len())) } else { liar }) else { return };
        let to = Clock::draw_wall(&mut self.dice);
        self.machine(machine).clock.wall_ms = to;
        self.counts.faults.count(Fault::WallClockJumped);
    }

    /// A monotonic clock goes on from a later time, as one does that also runs while the machine sleeps.
    pub(crate) fn jump_clock(&mut self) {
        let (machine, by) = (self.dice.index(self.machines.len()), self.dice.between((1, 20_000)));
        self.machine(machine).clock.ahead_ms += by;
        self.counts.faults.count(Fault::ClockJumped);
    }

    /// What a machine's wall clock shows.
    pub(crate) fn wall(&mut self, machine: usize) -> u64 {
        self.now + self.machine(machine).clock.wall_ms
    }

    /// The time that is agreed on, as far as a machine knows.
    pub(crate) fn agreed_ms(&mut self, machine: usize) -> Option<u64> {
        let (now, own_ms) = (self.clock(machine), self.wall(machine));
        self.process(machine)?.replica().agreed_ms(now, own_ms)
    }

    /// Whether fewer than a majority of the clocks that decide what time it is for this machine are wrong.
    pub(crate) fn is_borne_out(&mut self, machine: usize) -> bool {
        let liar = self.params.clocks.liar;
        let is_wild = self.params.clocks.wild;
        let Some(process) = self.process(machine) else { return false };
        let leads = matches!(process.replica().role(Millis(0)), RoleView::Leader { .. });
        let alone = process.replica().history().last().is_none_or(|start| start.voters.len() < 2);
        let decides_alone = leads && alone && liar == Some(machine);
        !is_wild && !decides_alone
    }

    /// How old records are, as far as a machine knows; and how far that has to be right.
    pub(crate) fn aged(&mut self, machine: usize, which: Which) -> Option<(Aged, Judge)> {
        let (now, clock, own_ms) = (self.now, self.clock(machine), self.wall(machine));
        let alone = self.broken_by(Break::LeadersClockDeletes);
        let stamps = self.broken_by(Break::TimestampsAlone);
        let agreed_ms = if alone { Some(own_ms) } else { self.agreed_ms(machine) };
        let (by_clocks, by_sight) = (self.is_borne_out(machine), self.params.clocks.steady);
        let process = self.process(machine)?;
        let (commit_end, told_end) = (process.replica().commit_end(), process.replica().told_end());
        let aging = process.aging(which)?;
        let (agreed_ms, told_end) = agreed_ms.zip(told_end)?;
        let mut aged = aging.look((now, clock), agreed_ms, commit_end, told_end);
        if stamps {
            aged = Aged::by_timestamps(agreed_ms);
        }
        let seen_from = aging.since.filter(|_| by_sight).map(|(_, told_end)| told_end);
        // A monotonic clock that jumps takes for an age what was none.
        let by_clocks = by_clocks.then_some(if by_sight { Offset(0) } else { aged.old_before });
        Some((aged, Judge { now, age_ms: aging.age_ms, by_clocks, seen_from }))
    }
}
