//! The starts of logs: clients with snapshots, what the disk is asked to forget, and followers that begin anew.

use zue_core::{Offset, Origin, Producers, ReplicaId, Start};

use crate::batch::Held;
use crate::breaks::Break;
use crate::event::{Event, ProcessEvent};
use crate::message::{Address, Call, Caller, Message};
use crate::world::World;

impl World {
    /// A client needs nothing any more that lies before its snapshot, and sometimes believes that there is more than is committed.
    pub(crate) fn take_snapshot(&mut self) {
        if self.healed {
            return;
        }
        let known = self.clients.known_end;
        let kept = self.dice.between((0, self.params.clients.trim_keeps));
        let before = if self.dice.chance(0.1) {
            known.plus(self.dice.between((1, 20)))
        } else {
            Offset(known.0.saturating_sub(kept))
        };
        let anywhere = self.dice.index(self.machines.len());
        let machine = if self.dice.chance(0.3) { anywhere } else { self.clients.believed_leader() };
        let message = Message::Call { caller: Caller::Snapshotter, target: None, call: Call::Trim { before } };
        self.send(Address::Clients, Address::Machine(machine), message);
        self.after(self.params.clients.trim_ms, Event::Trim);
    }

    pub(crate) fn trimmed_before(&mut self, machine: usize, before: Offset) -> Offset {
        let written = self.machine(machine).storage.tail().end;
        let before = if self.broken_by(Break::TrimAboveCommit) { before.max(written) } else { before };
        self.trace.say(self.now, format_args!("{machine} trims what is before {before}"));
        before
    }

    pub(crate) fn note_reset(&mut self, machine: usize, origin: &Origin) {
        self.trace.say(self.now, format_args!("{machine} begins anew after {}", origin.tail()));
        self.counts.done.resets += 1;
        if let Some(process) = self.machines.get_mut(machine).and_then(|at| at.process.as_mut()) {
            process.records = Held::at(origin.at);
            self.check.began_anew(process);
        }
        self.crash_trimmed((20, 400));
    }

    /// Perhaps the leader crashes: what it knows of the trims, another has to know.
    pub(crate) fn crash_trimmed(&mut self, delay_ms: (u64, u64)) {
        if self.dice.chance(self.params.faults.moments.crash_trimmed)
            && let Some(leader) = self.feeding()
        {
            self.after_of(leader, delay_ms, ProcessEvent::Crash);
        }
    }

    /// Breaks a rule: what it has said to one leader, it does not say to the next.
    pub(crate) fn is_untold(&mut self, machine: usize, log_start: Offset) -> bool {
        let id = self.machine(machine).storage.id();
        self.broken_by(Break::TrimUntold) && self.check.has_said_trimmed(id, log_start)
    }

    /// A leader's handshake on a stream; none if it cannot say where a follower may begin anew.
    pub(crate) fn handshake(&mut self, machine: usize, follower: ReplicaId) -> Option<Start> {
        let (limits, forgets) = (self.params.node.producer_limits, self.broken_by(Break::ResetForgetsProducers));
        let at = self.machine(machine);
        let process = at.process.as_ref()?;
        let mut origin = None;
        if process.feeds.get(&follower)?.with_origin {
            let read = at.storage.origin(limits).ok()?;
            let producers = if forgets { Producers::new(limits) } else { read.producers.clone() };
            origin = Some(Origin { producers, ..read });
        }
        let (history, oldest) = at.storage.held();
        let replica = process.replica();
        Some(Start {
            cluster: replica.cluster()?,
            leader: replica.id(),
            epoch: replica.history().last_epoch(),
            history,
            log: replica.log(),
            commit_end: replica.commit_end(),
            oldest: origin.as_ref().map_or(oldest, |origin| origin.at),
            origin,
            runs: replica.runs().clone(),
        })
    }
}
