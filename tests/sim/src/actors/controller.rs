//! Controllers: the machine of `zue_core::control`, as the operator and `zue control` drive it, and as nodes that stand by do. Here are
//! its messages, its store and its clock; it stops anywhere, and begins again from nothing.

mod acts;

use std::cell::Cell;
use std::rc::Rc;

use zue_core::control::machine::Machine;
use zue_core::control::{ReplicaStatus, Step};
use zue_core::{ClusterId, ReplicaId, Terms};
use zue_engine::standby::Duty;

use crate::actors::mistakes::{PerhapsBroken, Whim};
use crate::event::Event;
use crate::message::Address;
use crate::node::standby::Standby;

#[derive(Debug)]
pub(crate) struct Controller {
    machine: Machine<PerhapsBroken>,
    /// The node it runs in, where it stands by, and by what it does.
    pub(crate) home: Option<usize>,
    pub(crate) duty: Option<Duty<Standby>>,
    /// No two machines have the same: what answers one is for no other.
    life: u64,
    /// The number that the timer must name to be heard.
    timer: u64,
    /// The last statuses of the nodes.
    seen: Vec<Option<ReplicaStatus>>,
    /// It goes on whatever the store says: no mistake of a controller may do harm.
    careless: bool,
    whim: Rc<Cell<Option<Whim>>>,
    /// Whom it has appointed last, and who else was sealed with that one.
    appointed: Option<Appointed>,
    /// The plan that the trace told last.
    told: Step,
    /// Events for it, in order, once it is no longer paused.
    pub(crate) held: Option<Vec<Event>>,
}

/// Of an appointment.
#[derive(Debug)]
struct Appointed {
    cluster: ClusterId,
    terms: Terms,
    others: Vec<(usize, ReplicaId)>,
}

impl Controller {
    fn address(&self, controller: usize) -> Address {
        self.home.map_or(Address::Controller(controller), Address::Machine)
    }

    /// The machine of a node that it knows.
    fn machine_of(&self, ordinal: usize) -> Option<usize> {
        self.duty.as_ref().map_or(Some(ordinal), |(standby, _)| standby.machine(ordinal))
    }

    fn machines_of(&self, places: Vec<(ReplicaId, Option<usize>)>) -> Vec<(ReplicaId, Option<usize>)> {
        places.into_iter().map(|(id, at)| (id, at.and_then(|at| self.machine_of(at)))).collect()
    }
}
