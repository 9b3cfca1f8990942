//! Controllers, their store and nodes that stand by, as a run has them.

use zue_core::control::machine::{Backoff, StandbyTimes};

use crate::dice::{Dice, per_mille};

#[derive(Clone, Debug)]
pub(crate) struct ControlParams {
    pub(crate) controllers: usize,
    /// The number of replicas that all but the first of them wish for, if they are of another mind.
    pub(crate) disagree: Option<usize>,
    pub(crate) turn_ms: (u64, u64),
    pub(crate) call_timeout_ms: u64,
    pub(crate) seal_grace_ms: u64,
    pub(crate) hand_over_ms: u64,
    /// A controller elects although nothing asks for it.
    pub(crate) whim: f64,
    /// A controller stops before a step.
    pub(crate) stop: f64,
    pub(crate) store: StoreParams,
    /// The nodes elect by themselves where no controller does, and when.
    pub(crate) stands_by: bool,
    /// When the controllers are gone, until all is put right.
    pub(crate) gone_after_ms: Option<u64>,
    pub(crate) standby: StandbyTimes,
}

/// The store of the record, and how well it answers.
#[derive(Clone, Debug)]
pub(crate) struct StoreParams {
    pub(crate) stale_read: f64,
    pub(crate) refused_write: f64,
    pub(crate) lost_answer: f64,
    pub(crate) answer_ms: (u64, u64),
}

impl ControlParams {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let rough = dice.chance(0.6);
        let up_to = |dice: &mut Dice, max: u64| if rough { per_mille(dice.between((0, max))) } else { 0.0 };
        Self {
            controllers: dice.pick(&[1, 1, 2, 2, 3]),
            disagree: None,
            turn_ms: (10, dice.between((30, 200))),
            call_timeout_ms: dice.between((40, 300)),
            seal_grace_ms: dice.between((0, 50)),
            hand_over_ms: dice.between((50, 500)),
            whim: up_to(dice, 80),
            stop: up_to(dice, 100),
            store: StoreParams {
                stale_read: up_to(dice, 300),
                refused_write: up_to(dice, 100),
                lost_answer: up_to(dice, 100),
                answer_ms: (0, dice.between((1, 40))),
            },
            stands_by: dice.chance(0.6),
            gone_after_ms: dice.chance(0.6).then(|| dice.between((200, 4000))),
            standby: StandbyTimes {
                after_ms: dice.between((10, 300)),
                stagger_ms: dice.pick(&[1, 30, 150]),
                leaving_ms: 50,
                vain: Backoff { min_ms: 200, max_ms: 3000 },
            },
        }
    }
}

impl ControlParams {
    /// Those behind the first are of another mind, in some runs: they wish for at least so many replicas.
    pub(super) fn disagree(&mut self, dice: &mut Dice, machines: usize, least: usize) {
        if self.controllers > 1 && dice.chance(0.2) {
            self.disagree = Some(least.max(dice.index(machines) + 1));
        }
    }
}

impl StoreParams {
    /// It answers all, and with what it holds.
    pub(crate) fn be_well(&mut self) {
        (self.stale_read, self.refused_write, self.lost_answer) = (0.0, 0.0, 0.0);
    }
}

/// The replicas cannot reach one another for long, while voters change and few answers decide: epoch starts stay where they were
/// written.
impl ControlParams {
    pub(super) fn split(&mut self, dice: &mut Dice) {
        (self.controllers, self.turn_ms, self.seal_grace_ms) = (2, (10, dice.between((40, 200))), 0);
        (self.whim, self.stop) = (0.5, 0.0);
        self.store.be_well();
    }
}
