//! A machine takes an append.

use zue_core::{Offset, ProducerId, Refusal, Reply, RoleView, Tail};

use super::Append;
use crate::breaks::Break;
use crate::message::Caller;
use crate::node::process::{Waiting, WaitingFor};
use crate::world::World;

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
