//! Runs in which hardly anything happens but what else is rare. Which runs those are is drawn for itself: the others stay as they are.

use zue_core::ProducerLimits;
use zue_core::control::Policy;

use super::Params;
use super::faults::DiskFaults;
use crate::dice::Dice;

/// The share of runs that forget promises.
const FORGETFUL: f64 = 0.06;
/// The share of runs that trim their logs and lose the leaders that did.
const TRIMMED: f64 = 0.06;
/// In how many only clients reach the leader, who do not know that it leads no more.
const DEPOSED: f64 = 0.05;
/// In how many hardly anything but bits flips, of what many producers have appended.
const DAMAGED: f64 = 0.05;
/// In how many disks are put back while the leader fails and another was away.
const RESTORED: f64 = 0.06;
/// In how many of those that let old records go these wait for backups.
const HELD_BACK: f64 = 0.5;

impl Params {
    /// Perhaps makes a run of something that is rare otherwise.
    pub(crate) fn make_rare(&mut self, dice: &mut Dice) {
        if dice.chance(FORGETFUL) {
            self.forget_promises(dice);
        } else if dice.chance(TRIMMED) {
            self.trim_and_fail(dice);
        } else if dice.chance(DEPOSED) {
            self.depose(dice);
        } else if dice.chance(DAMAGED) {
            self.damage(dice);
        } else if dice.chance(RESTORED) {
            self.restore(dice);
        }
    }

    /// Lets records that go because of their age perhaps wait until they are in a backup.
    pub(crate) fn hold_back(&mut self, dice: &mut Dice) {
        if let Some(maintenance) = &mut self.node.maintenance {
            let holds = maintenance.retention_ms.is_some() && dice.chance(HELD_BACK);
            maintenance.backup_ms = holds.then(|| (50, dice.between((100, 3000))));
        }
    }

    /// Leaders fail, nodes elect, and disks forget a promise. Nothing else is wrong that would let two lead: no controller is careless,
    /// no record is put back, nobody raises promises out of reach.
    fn forget_promises(&mut self, dice: &mut Dice) {
        self.machines = dice.pick(&[3, 3, 3, 5]);
        (self.wish.replicas, self.wish.policy, self.wish.quorum) = (self.machines, Policy::Automatic, None);
        (self.lazy, self.stranger, self.node.maintenance) = (None, None, None);
        self.clocks.liar = self.clocks.liar.filter(|liar| *liar < self.machines);
        let c = &mut self.control;
        (c.controllers, c.disagree, c.whim) = (1, None, 0.0);
        (c.stands_by, c.gone_after_ms) = (true, None);
        c.standby.after_ms = dice.between((10, 100));
        let f = &mut self.faults;
        (f.moments.forget_promise, f.moments.crash_leading) = (dice.pick(&[0.3, 0.6]), 0.0);
        (f.processes.crash, f.partitions.any, f.lasts_ms) = (20, 4, (10, dice.between((50, 600))));
        (f.processes.crash_all, f.disks, f.scale) = (0, DiskFaults::default(), 0);
        (f.store.restore, f.store.raise) = (0, 0);
        (self.disk.fail, self.disk.stop) = (0.0, 0.0);
    }

    /// Trims come often, followers are away for long, and leaders crash as a trim is answered, and once a follower has begun anew.
    fn trim_and_fail(&mut self, dice: &mut Dice) {
        self.machines = 3;
        (self.wish.replicas, self.wish.policy, self.wish.quorum) = (self.machines, Policy::Automatic, None);
        (self.lazy, self.stranger, self.node.maintenance) = (None, None, None);
        self.clocks.liar = self.clocks.liar.filter(|liar| *liar < self.machines);
        (self.net.wild_streams, self.keeps_trimmed) = (false, dice.chance(0.2));
        (self.control.disagree, self.control.whim) = (None, 0.0);
        self.clients.trim(dice);
        self.clients.trim_keeps = dice.pick(&[0, 3]);
        let f = &mut self.faults;
        (f.moments.crash_trimmed, f.moments.crash_leading) = (dice.pick(&[0.05, 0.2, 0.5]), 0.0);
        (f.processes.crash, f.partitions.any, f.disks.wipe) = (10, 4, dice.between((0, 4)));
        (f.processes.crash_all, f.disks.flip, f.disks.fill, f.scale, f.disks.restore) = (0, 0, 0, 0, 0);
        f.lasts_ms = (10, dice.between((300, 2000)));
    }

    /// Leaders are cut off for long from all but their clients, while another leads. Producers begin anew all the time, anywhere.
    fn depose(&mut self, dice: &mut Dice) {
        (self.wish.policy, self.wish.quorum) = (Policy::Automatic, None);
        (self.lazy, self.stranger) = (None, None);
        (self.control.disagree, self.control.whim, self.control.stop) = (None, 0.0, 0.0);
        let f = &mut self.faults;
        (f.partitions.any, f.partitions.of_leader, f.partitions.of_replicas) = (10, 0.9, 0.0);
        (f.processes.crash, f.processes.crash_all, f.processes.pause) = (1, 0, 0);
        (f.disks, f.scale) = (DiskFaults::default(), 0);
        (f.pause_ms, f.lasts_ms) = ((200, 800), (500, dice.between((800, 3000))));
        let c = &mut self.clients;
        (c.producers, c.pipeline_max, c.reopen) = (dice.pick(&[4, 16]), 1, 0.3);
        c.pause_ms = (0, c.pause_ms.1.max(20));
    }

    /// All machines vote, and nobody is strange, whimsical or lazy; only the faults that are asked for happen.
    pub(crate) fn calm(&mut self) {
        (self.wish.replicas, self.wish.policy, self.wish.quorum) = (self.machines, Policy::Automatic, None);
        (self.lazy, self.stranger, self.node.maintenance) = (None, None, None);
        self.clocks.liar = self.clocks.liar.filter(|liar| *liar < self.machines);
        (self.control.disagree, self.control.whim, self.net.wild_streams) = (None, 0.0, false);
        (self.disk.fail, self.disk.stop) = (0.0, 0.0);
    }

    /// Bits flip in what producers appended last that came and went, and those that held it lead.
    fn damage(&mut self, dice: &mut Dice) {
        self.machines = dice.pick(&[3, 3, 5]);
        self.calm();
        let f = &mut self.faults;
        (f.processes.crash, f.partitions.any, f.lasts_ms) = (10, 2, (10, dice.between((50, 400))));
        f.disks = DiskFaults { flip: 60, ..DiskFaults::default() };
        (f.processes.crash_all, f.processes.pause, f.scale) = (0, 0, 0);
        let c = &mut self.clients;
        (c.producers, c.pipeline_max, c.reopen, c.trim_ms) = (16, 1, 0.3, (0, 0));
        self.node.producer_limits = ProducerLimits { producers_max: 65_536, appends_max: 64, all_appends_max: 1 << 20 };
    }

    /// Disks are put back to older copies, and who led then fails, while others were away for a while.
    fn restore(&mut self, dice: &mut Dice) {
        self.machines = dice.pick(&[3, 3, 3, 5]);
        self.calm();
        let f = &mut self.faults;
        (f.processes.crash, f.partitions.any, f.partitions.of_replicas) = (15, 20, 0.8);
        f.disks = DiskFaults { restore: 30, ..DiskFaults::default() };
        (f.processes.crash_all, f.processes.pause, f.scale) = (0, 0, 0);
        (f.pause_ms, f.lasts_ms) = ((20, 150), (10, dice.between((100, 800))));
        (self.clients.producers, self.clients.pause_ms, self.clients.trim_ms) = (2, (0, 60), (0, 0));
    }

    /// A cluster that leaves a log: it works, and keeps all that it commits.
    pub(crate) fn leave(&mut self, next: &Self, dice: &mut Dice) {
        self.machines = dice.pick(&[1, 3, 3, 5]);
        self.calm();
        let f = &mut self.faults;
        (f.disks, f.scale, f.moments.forget_promise) = (DiskFaults::default(), 0, 0.0);
        (self.node.producer_limits, self.clients.shape) = (next.node.producer_limits, next.clients.shape);
    }

    /// A restored log is there, and at the beginning much goes wrong; but the disks keep what they have.
    pub(crate) fn begin_restored(&mut self, dice: &mut Dice) {
        let (policy, ordinal) = (self.wish.policy, self.wish.ordinal);
        self.machines = dice.pick(&[1, 3, 3, 3, 4, 5]);
        self.calm();
        (self.wish.policy, self.wish.ordinal) = (policy, ordinal.min(self.machines - 1));
        let f = &mut self.faults;
        (f.disks, f.scale, f.moments.forget_promise) = (DiskFaults::default(), 0, 0.0);
        (f.processes.crash, f.moments.crash_leading) = (20, dice.pick(&[0.0, 0.3, 0.7]));
        self.disk.stop = dice.pick(&[0.0, 0.005, 0.02]);
        let c = &mut self.control;
        (c.store.lost_answer, c.whim) = (dice.pick(&[0.0, 0.1, 0.3]), dice.pick(&[0.0, 0.0, 0.3]));
        if c.controllers > 1 && self.wish.policy == Policy::Automatic && dice.chance(0.5) {
            c.disagree = Some(dice.index(self.machines) + 1);
        }
    }
}
