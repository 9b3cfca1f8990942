//! Clocks that jump, and ages as a machine knows them.

use zue_core::{Aged, Millis, Offset, RoleView};

use super::{Aging, Clock, ClockParams, Which};
use crate::breaks::Break;
use crate::check::Judge;
use crate::coverage::Fault;
use crate::node::process::Process;
use crate::world::World;

impl Process {
    fn aging(&mut self, which: Which) -> Option<&mut Aging> {
        match which {
            Which::Retention => self.maintenance.as_mut()?.retention.as_mut(),
            Which::Deletes => self.maintenance.as_mut()?.deletes.as_mut(),
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

    /// The time on a machine's wall clock.
    pub(crate) fn wall(&mut self, machine: usize) -> u64 {
        self.now + self.machine(machine).clock.wall_ms
    }

    /// The time that is agreed on, as far as a machine knows.
    pub(crate) fn agreed_ms(&mut self, machine: usize) -> Option<u64> {
        let (now, own_ms) = (self.clock(machine), self.wall(machine));
        self.process(machine)?.replica().agreed_ms(now, own_ms)
    }

    /// Returns whether fewer than a majority of the clocks that decide what time it is for this machine are wrong.
    pub(crate) fn is_borne_out(&mut self, machine: usize) -> bool {
        let liar = self.params.clocks.liar;
        let is_wild = self.params.clocks.wild;
        let Some(process) = self.process(machine) else { return false };
        let leads = matches!(process.replica().role(Millis(0)), RoleView::Leader { .. });
        let alone = process.replica().history().last().is_none_or(|start| start.voters.len() < 2);
        let decides_alone = leads && alone && liar == Some(machine);
        !is_wild && !decides_alone
    }

    /// The ages of records, as far as a machine knows; and how far that has to be right.
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
