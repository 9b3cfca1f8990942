//! The section `limits` of a node's file and of a `ZueCluster`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zue_core::ProducerLimits;

use crate::error::{ConfigError, bounded};
use crate::units::{ByteSize, GIB, KIB, MIB, Time};

/// Room beside the records of a request: a record over its limit is named in the error rather than cut off on the way.
const APPEND_SLACK_BYTES: usize = 1 << 20;

/// The limits of a node. Beyond a limit a request is refused with an error that names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitSettings {
    /// The most bytes of one record's key, value and headers together, up to 32MiB.
    pub record_bytes_max: ByteSize,
    /// The most bytes of a record's key, up to 32MiB.
    pub key_bytes_max: ByteSize,
    /// The most headers of one record.
    pub headers_max: u16,
    /// The most bytes of a header's name, up to 65535B.
    pub header_name_bytes_max: ByteSize,
    /// The most bytes of a header's value, up to 32MiB.
    pub header_value_bytes_max: ByteSize,
    /// The most records of one append.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub append_records_max: u32,
    /// The most bytes of one append as it stands in the log, from `recordBytesMax` and 4KiB up to 64MiB.
    pub append_bytes_max: ByteSize,
    /// The most appends under way at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub appends_max: u32,
    /// The most bytes of appends on their way to the disk at once, and of those being received, from `appendBytesMax` to 4GiB.
    pub appends_bytes_max: ByteSize,
    /// The most appends of one stream under way at once; no more than `producerAppendsMax` either. Further ones wait.
    #[schemars(range(min = 1, max = 100_000))]
    pub stream_appends_max: u32,
    /// The time that an append waits for its commit when the request does not say, up to 10m.
    pub append_deadline: Time,
    /// The longest time that an append waits for its commit, whatever the request says, up to 10m.
    pub append_deadline_max: Time,
    /// The number of producers for which there is room with `producerAppendsMax` appends each. Up to 16 times as many, within 2^20, are
    /// remembered while they have appended less; the one that appended longest ago is forgotten first. One connection brings in at most
    /// `producersMax` new ones within a minute, one address 8 times as many within 10 minutes. Set the same on all replicas of a cluster.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub producers_max: u32,
    /// The most appends of one producer that are remembered with their offsets, and so may be under way at once. When room is short, the
    /// producers that appended longest ago keep a sixteenth of that. Set the same on all replicas of a cluster.
    #[schemars(range(min = 1, max = 10_000))]
    pub producer_appends_max: u32,
    /// The size of one message of a read, about; a larger record comes alone. From 4KiB to 16MiB.
    pub read_bytes_max: ByteSize,
    /// The most reads at once, and the most requests that wait until a majority has confirmed the leader.
    #[schemars(range(min = 1, max = 100_000))]
    pub readers_max: u32,
    /// The most connections of each port; the peer port takes at most 128. A further connection closes the oldest one that is idle. If all
    /// are in use, the further one is closed at once.
    #[schemars(range(min = 8, max = 100_000))]
    pub connections_max: u32,
    /// The time that a node that starts waits for a process that still holds its directory or a port, up to 10m. It is alive and not
    /// ready meanwhile.
    pub start_wait_max: Time,
    /// The time that a connection may take to send its first request, and a request to arrive, which has a second more for each 512KiB.
    /// From 100ms to 10m.
    pub receive_deadline: Time,
    /// The time after which a read ends if its client takes nothing, from 100ms to 10m. Any other call ends after twice as long.
    pub stall_deadline: Time,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            record_bytes_max: ByteSize(MIB),
            key_bytes_max: ByteSize(64 * KIB),
            headers_max: 64,
            header_name_bytes_max: ByteSize(256),
            header_value_bytes_max: ByteSize(64 * KIB),
            append_records_max: 10_000,
            append_bytes_max: ByteSize(8 * MIB),
            appends_max: 16 * 1024,
            appends_bytes_max: ByteSize(64 * MIB),
            stream_appends_max: 256,
            append_deadline: Time::from_millis(10_000),
            append_deadline_max: Time::from_millis(60_000),
            producers_max: 4096,
            producer_appends_max: 256,
            read_bytes_max: ByteSize(256 * KIB),
            readers_max: 1024,
            connections_max: 1024,
            start_wait_max: Time::from_millis(60_000),
            receive_deadline: Time::from_millis(10_000),
            stall_deadline: Time::from_millis(15_000),
        }
    }
}

impl LimitSettings {
    /// Checks the bounds of every knob.
    ///
    /// # Errors
    /// The first one out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = |field, value, min, max| bounded(field, value, ByteSize(min), ByteSize(max));
        let times = |field, value| bounded(field, value, Time::from_millis(1), Time::from_millis(600_000));
        sizes("limits.recordBytesMax", self.record_bytes_max, 1, 32 * MIB)?;
        sizes("limits.keyBytesMax", self.key_bytes_max, 1, 32 * MIB)?;
        sizes("limits.headerNameBytesMax", self.header_name_bytes_max, 1, 65_535)?;
        sizes("limits.headerValueBytesMax", self.header_value_bytes_max, 1, 32 * MIB)?;
        sizes("limits.appendBytesMax", self.append_bytes_max, self.record_bytes_max.0 + 4 * KIB, 64 * MIB)?;
        sizes("limits.appendsBytesMax", self.appends_bytes_max, self.append_bytes_max.0, 4 * GIB - 1)?;
        sizes("limits.readBytesMax", self.read_bytes_max, 4 * KIB, 16 * MIB)?;
        times("limits.appendDeadline", self.append_deadline)?;
        times("limits.appendDeadlineMax", self.append_deadline_max)?;
        let patience = |field, value| bounded(field, value, Time::from_millis(100), Time::from_millis(600_000));
        patience("limits.receiveDeadline", self.receive_deadline)?;
        patience("limits.stallDeadline", self.stall_deadline)?;
        bounded("limits.appendRecordsMax", self.append_records_max, 1, 1_000_000)?;
        bounded("limits.appendsMax", self.appends_max, 1, 1_000_000)?;
        bounded("limits.streamAppendsMax", self.stream_appends_max, 1, 100_000)?;
        bounded("limits.producersMax", self.producers_max, 1, 10_000_000)?;
        bounded("limits.producerAppendsMax", self.producer_appends_max, 1, 10_000)?;
        bounded("limits.readersMax", self.readers_max, 1, 100_000)?;
        bounded("limits.startWaitMax", self.start_wait_max, Time::from_millis(0), Time::from_millis(600_000))?;
        bounded("limits.connectionsMax", self.connections_max, 8, 100_000)
    }

    /// For how many producers there is room, for the rules.
    pub fn to_producers(self) -> ProducerLimits {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let (room_for, appends_max) = (count(self.producers_max), count(self.producer_appends_max));
        let producers_max = room_for.saturating_mul(16).min(1 << 20).max(room_for);
        ProducerLimits { producers_max, appends_max, all_appends_max: room_for.saturating_mul(appends_max) }
    }
    /// The most that the request of an append may have: twice as much as one may have in the log, so that one that is too large is
    /// answered with the limit that it is over.
    pub fn append_request_bytes_max(&self) -> usize {
        self.append_bytes_max.length().saturating_mul(2).saturating_add(APPEND_SLACK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_bounds() {
        LimitSettings::default().validate().unwrap();
    }
}
