//! The manifest of a backup: all that it takes to make a log of what is in the store. JSON, so that it can be read without Zue.

use serde::{Deserialize, Serialize};
use zue_core::{ClusterId, Offset, ReplicaId};

use crate::error::Fault;

/// The version of the format that is written, and the greatest that is read.
const VERSION: u32 = 1;

/// The description of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Of the format.
    pub version: u32,
    /// The cluster, as 32 hexadecimal digits.
    pub cluster: String,
    /// Whose files these are.
    pub replica: String,
    /// When it was made, by the clock of who made it, ms since the Unix epoch.
    pub made_ms: u64,
    /// Why.
    pub kind: Kind,
    /// The backup that this replica had made before, if any: the chain.
    pub after: Option<String>,
    /// The start of the log: what lies before was trimmed.
    pub log_start: u64,
    /// The offset behind the last record; all before it was committed.
    pub end: u64,
    /// The time of the last record, ms since the Unix epoch; 0 if there is none.
    pub last_ms: u64,
    /// Up to here, records whose key was written again before here may be missing.
    pub compacted: u64,
    /// The epochs that began in the log, oldest first.
    pub epochs: Vec<EpochBegun>,
    /// The segments, oldest first; each goes on where the one before ends.
    pub segments: Vec<Segment>,
}

/// Why a backup was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// By a node, every interval.
    Continuous,
    /// Somebody asked for it: it stays until somebody removes it, or it is too old.
    OnDemand,
}

/// The start of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochBegun {
    /// The epoch.
    pub epoch: u64,
    /// The offset of its first record.
    pub start: u64,
}

/// A segment file, as much of it as was committed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// The offset of its first record, which names the file.
    pub base: u64,
    /// The offset behind its last record.
    pub end: u64,
    /// Its number among the segments of its replica.
    pub sequence: u64,
    /// The number of times that it had been written anew.
    pub generation: u64,
    /// The random number of the file.
    pub nonce: String,
    /// The length of the file.
    pub bytes: u64,
    /// The time of the last record before it, ms since the Unix epoch; 0 if there is none.
    pub before_ms: u64,
    /// Its bytes, one object behind the other.
    pub parts: Vec<Part>,
}

/// An object with bytes of a segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The position of its first byte in the file.
    pub from: u64,
    /// The position behind its last byte.
    pub to: u64,
    /// Of its bytes, its first 16 bytes as 32 hexadecimal digits.
    pub sha256: String,
    /// Its name in the store, below the address that the backup was made to.
    pub object: String,
}

impl Manifest {
    /// The version that this program writes.
    pub const VERSION: u32 = VERSION;

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Text and numbers alone: nothing of it can fail.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads and checks one.
    ///
    /// # Errors
    /// When it is none, of a later version, or contradicts itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } =
            serde_json::from_slice(bytes).map_err(|error| Fault::Manifest(error.to_string()))?;
        if version > VERSION {
            return Err(Fault::Later(version));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| Fault::Manifest(error.to_string()))?;
        manifest.check().map_err(Fault::Manifest)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        let mut at = self.segments.first().ok_or("it names no segment")?.base;
        for segment in &self.segments {
            let Segment { base, end, bytes, parts, .. } = segment;
            if *base != at || end < base {
                return Err(format!("segment {base} to {end} does not follow offset {at}"));
            }
            at = *end;
            let mut position = 0;
            for part in parts {
                if part.from != position || part.to <= part.from {
                    return Err(format!("segment {base}: bytes {} to {} do not follow {position}", part.from, part.to));
                }
                if !is_plain(&part.object) || part.sha256.len() != 32 {
                    return Err(format!("segment {base}: {} is no name of an object of ours", part.object));
                }
                position = part.to;
            }
            if position != *bytes {
                return Err(format!("segment {base} has {bytes} bytes, and its parts {position}"));
            }
        }
        if at != self.end || self.log_start > self.end {
            return Err(format!("it ends at {}, and its segments at {at}", self.end));
        }
        if self.cluster_id().is_none() || self.replica_id().is_none() {
            return Err("its cluster and its replica are not 32 hexadecimal digits each".to_owned());
        }
        Ok(())
    }

    /// The cluster.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        u128::from_str_radix(&self.cluster, 16).ok().map(ClusterId)
    }

    /// Whose files these are.
    pub fn replica_id(&self) -> Option<ReplicaId> {
        u128::from_str_radix(&self.replica, 16).ok().map(ReplicaId)
    }

    /// The first offset that a log made of it has.
    pub fn start(&self) -> Offset {
        Offset(self.log_start)
    }

    /// The bytes of all that it names.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The names of all objects that it needs.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().flat_map(|segment| &segment.parts).map(|part| part.object.as_str())
    }
}

/// Returns whether it is a name below the store's own: what a manifest says must not lead elsewhere.
fn is_plain(object: &str) -> bool {
    let is_word = |word: &str| {
        !matches!(word, "" | "." | "..")
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    object.split('/').all(is_word)
}
