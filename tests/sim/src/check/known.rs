//! The data of the checks: of what is committed, of epochs, of what replicas and disks did, and of what somebody asked for.

use std::collections::{BTreeMap, BTreeSet};

use zue_core::{Epoch, EpochStart, Offset, ReplicaId, Tail};

use crate::batch::Record;
use crate::left::Begun;
use crate::node::standby::Standby;

/// Every record that was ever committed.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// By offset.
    pub(super) records: Vec<Record>,
    /// The offset of each committed record of a producer, by nonce and sequence.
    pub(super) places: BTreeMap<(u64, u64), u64>,
    pub(super) keys: Keys,
}

/// The leaderships, their voters, and how far they came.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    pub(super) leaders: BTreeMap<Epoch, Leadership>,
    /// With whom each epoch began.
    pub(super) begun: BTreeMap<Epoch, EpochStart>,
    /// The commit end of each epoch's leader.
    pub(super) committed_in: BTreeMap<Epoch, Offset>,
    /// The replicas that have said that they hold the start of an epoch.
    pub(super) holds: BTreeSet<(ReplicaId, Epoch)>,
    /// The restored log that it all began with, if it did.
    pub(super) from_backup: Option<Begun>,
}

/// Words of replicas to others.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) replicas: BTreeMap<ReplicaId, ReplicaClaims>,
    /// Whom a replica follows in an epoch.
    pub(super) bound: BTreeMap<(ReplicaId, Epoch), ReplicaId>,
    /// The end up to which a replica has acknowledged an epoch whose start it held.
    pub(super) acked_in: BTreeMap<(ReplicaId, Epoch), Offset>,
}

#[derive(Debug)]
pub(super) struct Leadership {
    pub(super) replica: ReplicaId,
    pub(super) life: u64,
    pub(super) start: Offset,
}

/// Words of a replica to others, and what was seen of it.
#[derive(Debug, Default)]
pub(super) struct ReplicaClaims {
    pub(super) sealed: Epoch,
    pub(super) acked: Tail,
    /// The epoch of the streams it acknowledged on last, and how far on those.
    pub(super) acked_in: (Epoch, Tail),
    pub(super) commit_end: Offset,
    pub(super) log_start: Offset,
}

/// The records that may be compacted away.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The newest committed record of each key.
    pub(super) newest: BTreeMap<u8, Offset>,
    /// Records that delete and that a replica found old enough.
    pub(super) may_go: BTreeSet<Offset>,
}

impl Keys {
    /// Takes note of the next committed record.
    pub(super) fn note(&mut self, record: &Record) {
        if let Some(key) = record.key {
            self.newest.insert(key, record.offset);
        }
    }

    pub(super) fn may_go(&self, record: &Record) -> bool {
        let is_outdated = |key: &u8| self.newest.get(key).is_some_and(|newest| *newest > record.offset);
        record.key.as_ref().is_some_and(is_outdated) || self.may_go.contains(&record.offset)
    }
}

/// Fates of disks, and those who have to do without.
#[derive(Debug, Default)]
pub(super) struct Disks {
    /// Voters that a leader was or may be appointed with, and their quorum.
    pub(super) electorates: Vec<(Vec<ReplicaId>, usize)>,
    pub(super) lost: BTreeSet<ReplicaId>,
    pub(super) restored: BTreeSet<ReplicaId>,
}

/// The starts that logs are to have.
#[derive(Debug, Default)]
pub(super) struct Trims {
    /// The offset at which a replica has said that its log begins.
    pub(super) said: BTreeMap<ReplicaId, Offset>,
    /// Up to where anybody has asked for a trim.
    pub(super) asked: Offset,
    /// Up to where a trim was answered, by the epoch of the leader that did.
    pub(super) answered: BTreeMap<Epoch, Offset>,
    /// The end of what is in backups.
    pub(super) backed_up: Offset,
}

/// By what nodes stand by.
#[derive(Debug, Default)]
pub(super) struct StoodBy {
    /// By what controllers have told leaders to stand by.
    pub(super) terms: Vec<Standby>,
    /// The epoch of what a replica stands by, in which life.
    pub(super) stood_by: BTreeMap<ReplicaId, (u64, Epoch)>,
}
