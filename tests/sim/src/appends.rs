//! Appends, as a machine's driver is given them.

use zue_core::{Offset, ProducerId, Refusal, Reply, RoleView, Tail};
use zue_log::Fault;

use crate::batch::{Batch, Shape};
use crate::breaks::Break;
use crate::message::Caller;
use crate::process::{Waiting, WaitingFor};
use crate::world::World;

/// An append, as a machine was given it.
#[derive(Debug)]
pub(crate) struct Append {
    waiter: Waiting,
    records: (ProducerId, u64, u32),
    shape: Shape,
    /// Breaks rules: it is taken for one that nobody repeats; it has this time.
    is_anonymous: bool,
    stamped: Option<u64>,
}

impl zue_engine::driver::Append for Append {
    type Batch = Batch;
    type Waiter = Waiting;
    type Share = ();

    fn producer(&self) -> Option<(ProducerId, u64)> {
        let (producer, sequence, _) = self.records;
        (!self.is_anonymous).then_some((producer, sequence))
    }

    fn count(&self) -> u32 {
        self.records.2
    }

    fn bytes(&self) -> u64 {
        self.records.2.into()
    }

    fn is_given_up(&self) -> bool {
        false
    }

    fn write(self, prev: Tail, timestamp_ms: u64) -> Result<(Batch, Waiting, ()), Fault> {
        let time = self.stamped.unwrap_or(timestamp_ms);
        Ok((Batch::append(prev, time, self.records, self.shape), self.waiter, ()))
    }

    fn into_waiter(self) -> Waiting {
        self.waiter
    }
}

impl World {
    pub(crate) fn take_append(&mut self, machine: usize, caller: Caller, records: (ProducerId, u64, u32)) {
        let (producer, sequence, count) = records;
        let waiter = Waiting { caller, of: WaitingFor::Append { producer, sequence, count } };
        let is_anonymous = self.broken_by(Break::NoDedup);
        let (shape, clock, own_ms) = (self.params.clients.shape, self.clock(machine), self.wall(machine));
        let (alone, early) = (self.broken_by(Break::LeaderStampsAlone), self.broken_by(Break::AnswerEarly));
        let unconfirmed = self.broken_by(Break::UnknownUnconfirmed);
        let Some(process) = self.process(machine) else { return };
        let before = process.replica().log().end;
        let leads = matches!(process.replica().role(clock), RoleView::Leader { .. });
        if unconfirmed && leads && producer.born > before {
            return self.reply(machine, waiter, Reply::Refused(Refusal::UnknownProducer));
        }
        let last_ms = process.records.get(Offset(before.0.saturating_sub(1))).map_or(0, |last| last.timestamp_ms);
        let stamped = alone.then(|| own_ms.max(last_ms).max(process.driver.last_timestamp_ms()));
        let append = Append { waiter, records, shape, is_anonymous, stamped };
        self.drive(machine, |driver, now, actions| driver.append(now, append, actions));
        let after = self.process(machine).map(|process| process.replica().log());
        if let Some(Tail { epoch, .. }) = after.filter(|after| early && after.end > before) {
            self.reply(machine, waiter, Reply::Appended { base: before, count, epoch, duplicate: false });
        }
    }
}
