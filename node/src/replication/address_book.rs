//! The places of the other replicas: of each, the name that it was given, and where it answered last. So a leader reaches its followers, and
//! a node that stands by the others, while nobody resolves names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use zue_core::ReplicaId;
use zue_proto::place::Place;
use zue_tls::{Dial, Renewal};

use crate::driver::member::Member;

/// The number that is remembered: more than one cluster ever has. Beyond, all are forgotten, and found again by what their leader was told.
const REPLICAS_MAX: usize = 128;

/// Shared by all that connects to other replicas.
#[derive(Clone, Debug)]
pub(crate) struct AddressBook {
    known: Arc<Mutex<BTreeMap<ReplicaId, Place>>>,
    /// The way in which they are reached.
    dial: Dial,
}

impl AddressBook {
    pub(crate) fn by(dial: Dial) -> Self {
        Self { known: Arc::default(), dial }
    }

    /// Tells when there is something newer to show to them than there is now.
    pub(crate) fn renewal(&self) -> Renewal {
        self.dial.renewal()
    }

    /// The place of this replica. What was known under another name is forgotten.
    pub(crate) fn of(&self, member: &Member) -> Place {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REPLICAS_MAX && !known.contains_key(&member.id) {
            known.clear();
        }
        let place = known.entry(member.id).or_insert_with(|| Place::new(&member.peer_address, &self.dial));
        if place.name() != member.peer_address {
            *place = Place::new(&member.peer_address, &self.dial);
        }
        if let Some(at) = member.dial_address {
            place.told(at);
        }
        place.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_replica_answered_is_remembered_under_its_name_alone() {
        let address_book = AddressBook::by(Dial::plain());
        let member = |id: u128, name: &str, at: Option<&str>| Member {
            id: ReplicaId(id),
            name: "zue-0".to_owned(),
            peer_address: name.to_owned(),
            client_address: "c:1".to_owned(),
            dial_address: at.map(|at| at.parse().unwrap()),
            voter: true,
        };
        let known = |member: Member| address_book.of(&member).known().map(|at| at.to_string());
        assert_eq!(known(member(1, "zue-0:1", None)), None);
        assert_eq!(known(member(1, "zue-0:1", Some("10.0.0.1:1"))).as_deref(), Some("10.0.0.1:1"));
        address_book.of(&member(1, "zue-0:1", None)).worked("10.0.0.2:1".parse().unwrap());
        assert_eq!(known(member(1, "zue-0:1", Some("10.0.0.3:1"))).as_deref(), Some("10.0.0.2:1"));
        assert_eq!(known(member(2, "zue-0:1", None)), None, "another replica");
        assert_eq!(known(member(1, "zue-1:1", None)), None, "another name");
        for id in 0..1000 {
            address_book.of(&member(id, "zue-0:1", None));
        }
        assert!(address_book.known.lock().unwrap().len() <= REPLICAS_MAX);
    }
}
