//! Intended faults, counted by kind.

pub(crate) mod done;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Fault {
    MessageLost,
    MessageTwice,
    MessageLate,
    PartitionBothWays,
    PartitionOneWay,
    ProcessPaused,
    ControllerPaused,
    ProcessKilled,
    MachineStopped,
    StoppedInWrite,
    LeaderStopped,
    DiskLost,
    DiskRestored,
    PromiseForgotten,
    BitFlipped,
    DiskFull,
    WriteFailed,
    SyncSlow,
    WallClockJumped,
    ClockJumped,
    StoreRefused,
    StoreStale,
    StoreSilent,
    StoreRestored,
    StoreAway,
    StoreRaised,
    ControllerStopped,
    ControllerRogue,
    MembersChanged,
    AcksForgotten,
    StrangerSpoke,
}

const KINDS: [Fault; 31] = [
    Fault::MessageLost,
    Fault::MessageTwice,
    Fault::MessageLate,
    Fault::PartitionBothWays,
    Fault::PartitionOneWay,
    Fault::ProcessPaused,
    Fault::ControllerPaused,
    Fault::ProcessKilled,
    Fault::MachineStopped,
    Fault::StoppedInWrite,
    Fault::LeaderStopped,
    Fault::DiskLost,
    Fault::DiskRestored,
    Fault::PromiseForgotten,
    Fault::BitFlipped,
    Fault::DiskFull,
    Fault::WriteFailed,
    Fault::SyncSlow,
    Fault::WallClockJumped,
    Fault::ClockJumped,
    Fault::StoreRefused,
    Fault::StoreStale,
    Fault::StoreSilent,
    Fault::StoreRestored,
    Fault::StoreAway,
    Fault::StoreRaised,
    Fault::ControllerStopped,
    Fault::ControllerRogue,
    Fault::MembersChanged,
    Fault::AcksForgotten,
    Fault::StrangerSpoke,
];

impl Fault {
    /// All kinds.
    pub const ALL: [Self; KINDS.len()] = KINDS;

    /// Messages are lost and late by the thousand: they do not count as faults of a run.
    fn is_of_messages(self) -> bool {
        matches!(self, Self::MessageLost | Self::MessageTwice | Self::MessageLate | Self::SyncSlow)
    }
}

/// The number of times that each kind of fault happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coverage([u64; KINDS.len()]);

impl Coverage {
    pub(crate) fn count(&mut self, fault: Fault) {
        self.add(fault, 1);
    }

    fn add(&mut self, fault: Fault, more: u64) {
        let places = KINDS.iter().zip(&mut self.0);
        for (_, count) in places.filter(|(kind, _)| **kind == fault) {
            *count += more;
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (kind, count) in other.iter() {
            self.add(kind, count);
        }
    }

    /// Every kind and how often it happened.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        KINDS.iter().copied().zip(self.0.iter().copied())
    }

    /// The number of faults besides single messages that were lost, late or doubled and syncs that took long.
    pub fn faults(&self) -> u64 {
        self.iter().filter(|(kind, _)| !kind.is_of_messages()).map(|(_, count)| count).sum()
    }
}
