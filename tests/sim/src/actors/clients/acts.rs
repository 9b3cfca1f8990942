//! Clients append, read, trim, and hear answers.

use zue_core::{Offset, Refusal, Reply};

use super::{Pending, Producer};
use crate::event::Event;
use crate::message::{Address, Answer, Call, Caller, Message};
use crate::world::World;

impl World {
    pub(crate) fn produce(&mut self, producer: usize) {
        let pipeline_max = self.params.clients.pipeline_max;
        let records_max = self.params.clients.records_max;
        if self.healed {
            return;
        }
        let busy = self.clients.producers.get(producer).is_none_or(|p| p.pending.len() >= pipeline_max);
        if !busy {
            // An application that starts again opens a producer where the log ends now, and knows no leader.
            let is_quiet = self.clients.producers.get(producer).is_some_and(|p| p.pending.is_empty());
            if is_quiet && self.dice.chance(self.params.clients.reopen) {
                self.replace_producer(producer);
                let anywhere = self.dice.index(self.machines.len());
                self.clients.producers.get_mut(producer).into_iter().for_each(|p| p.target = anywhere);
            }
            let count = u32::try_from(self.dice.between((1, records_max))).unwrap_or(1);
            self.append_new(producer, count);
        }
        self.after(self.params.clients.pause_ms, Event::Produce { producer });
    }

    pub(crate) fn append_new(&mut self, producer: usize, count: u32) {
        let Some(at) = self.clients.producers.get_mut(producer) else { return };
        let sequence = at.next_sequence;
        at.next_sequence += u64::from(count);
        let value = self.clients.numbers.get(&at.id.nonce).copied().unwrap_or(u32::MAX);
        for _ in 0..count {
            self.clients.history.begin(value);
        }
        at.pending.insert(sequence, Pending { count, attempt: 0, refused: false });
        self.try_append(producer, sequence);
    }

    fn try_append(&mut self, producer: usize, sequence: u64) {
        let attempt = self.next_id();
        let Some(at) = self.clients.producers.get_mut(producer) else { return };
        let Some(pending) = at.pending.get_mut(&sequence) else { return };
        (pending.attempt, pending.refused) = (attempt, false);
        let call = Call::Append { producer: at.id, sequence, count: pending.count };
        let nonce = at.id.nonce;
        let (to, caller) = (Address::Machine(at.target), Caller::Producer { producer, nonce, sequence, attempt });
        self.send(Address::Clients, to, Message::Call { caller, target: None, call });
        let timeout_ms = self.params.clients.timeout_ms;
        self.after((timeout_ms, timeout_ms), Event::AppendTimeout { producer, sequence, attempt });
    }

    /// No answer, or one that says to try again.
    pub(crate) fn append_again(&mut self, producer: usize, sequence: u64, attempt: u64) {
        let elsewhere = self.dice.index(self.machines.len());
        let Some(at) = self.clients.producers.get_mut(producer) else { return };
        if at.pending.get(&sequence).is_some_and(|pending| pending.attempt == attempt) {
            at.target = elsewhere;
            self.try_append(producer, sequence);
        }
    }

    pub(crate) fn client_answer(&mut self, from: Address, caller: Caller, answer: Answer) {
        let (producer, nonce, sequence, attempt) = match (caller, &answer) {
            (Caller::Producer { producer, nonce, sequence, attempt }, _) => (producer, nonce, sequence, attempt),
            (_, Answer::Records { from, end, records }) => {
                self.clients.read("a read", records);
                if from < end {
                    self.clients.history.committed(end.0);
                }
                self.clients.known_end = self.clients.known_end.max(*end);
                return;
            }
            (Caller::Asker { floor }, Answer::Reply(Reply::ReadConfirmed { commit_end })) => {
                self.clients.history.linearizable(floor, commit_end.0);
                return;
            }
            _ => return,
        };
        let Some(at) = self.clients.producers.get_mut(producer).filter(|at| at.id.nonce == nonce) else { return };
        let Some(pending) = at.pending.get(&sequence).copied() else { return };
        match answer {
            // An answer to an earlier attempt is as good.
            Answer::Reply(Reply::Appended { base, count, duplicate, .. }) => {
                self.counts.from_backup.known += u64::from(duplicate && self.check.was_left(base));
                let same = count == pending.count;
                at.pending.remove(&sequence);
                for k in 0..u64::from(count) {
                    let value = self.clients.value(nonce, sequence + k);
                    self.clients.history.acked(value, base.0 + k);
                }
                let Some(at) = self.clients.producers.get_mut(producer) else { return };
                if let Address::Machine(machine) = from {
                    at.target = machine;
                }
                let next = at.pending.first_key_value().filter(|(_, next)| next.refused).map(|(next, _)| *next);
                self.clients.known_end = self.clients.known_end.max(base.plus(count.into()));
                if let Some(next) = next {
                    self.try_append(producer, next);
                }
                if !same {
                    self.check.violated(format!("an append of {} records is answered with {count}", pending.count));
                }
            }
            // It is committed, so long ago that nobody knows where.
            Answer::Reply(Reply::Refused(Refusal::Duplicate(_))) => {
                at.pending.remove(&sequence);
            }
            Answer::Reply(Reply::Refused(Refusal::UnknownProducer)) => self.replace_producer(producer),
            Answer::Reply(Reply::Refused(Refusal::Overlap { .. })) => {
                self.check.violated(format!("append {sequence} of {:?} is taken for another one", at.id));
            }
            _ => {
                let timeout_ms = self.params.clients.timeout_ms;
                let pause_ms = (timeout_ms / 8, timeout_ms);
                if pending.attempt == attempt {
                    at.pending.entry(sequence).and_modify(|pending| pending.refused = true);
                    self.after(pause_ms, Event::AppendTimeout { producer, sequence, attempt });
                }
            }
        }
    }

    /// A producer begins anew; what it waits for stays unknown.
    fn replace_producer(&mut self, producer: usize) {
        let fresh = self.clients.fresh(&mut self.dice);
        if let Some(at) = self.clients.producers.get_mut(producer) {
            *at = Producer { target: at.target, ..fresh };
        }
    }

    pub(crate) fn read_somewhere(&mut self) {
        let machine = self.dice.index(self.machines.len());
        let end = self.check.committed_end().0;
        let from = Offset(self.dice.between((end.saturating_sub(30), end)));
        let call = Call::Read { from, records_max: 20 };
        let message = Message::Call { caller: Caller::Reader, target: None, call };
        self.send(Address::Clients, Address::Machine(machine), message);
        // Somebody else asks where the log ends now.
        let floor = self.clients.history.floor();
        let (to, caller) = (self.dice.index(self.machines.len()), Caller::Asker { floor });
        let message = Message::Call { caller, target: None, call: Call::End };
        self.send(Address::Clients, Address::Machine(to), message);
        self.after(self.params.clients.read_ms, Event::Read);
    }
}
