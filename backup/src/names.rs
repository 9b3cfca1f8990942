//! Names of objects in the store. A name says all that there is to know of an object but its bytes, so that a list of names is
//! enough to tell what is new.

use std::fmt;

use zue_core::{ClusterId, Offset, ReplicaId};

/// The folder of bytes of segments. Names are kept short: some stores put them into one file name.
pub(crate) const SEGMENTS: &str = "log";

/// Bytes of a segment, as a replica has them: from one position in its file to another.
#[derive(Clone, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct PartName {
    /// The cluster.
    pub cluster: ClusterId,
    /// Whose file it is.
    pub replica: ReplicaId,
    /// The offset of the segment's first record.
    pub base: Offset,
    /// The number of times that the segment had been written anew.
    pub generation: u64,
    /// The random number of the file.
    pub nonce: u64,
    /// The position of the first byte.
    pub from: u64,
    /// The position behind the last one.
    pub to: u64,
    /// Of the bytes, its first 16 bytes as 32 hexadecimal digits.
    pub sha256: String,
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, replica, base, generation, nonce, from, to, sha256 } = self;
        write!(f, "{}{base}-{generation}-{nonce:016x}-{from}-{to}-{sha256}.log", segments_of(*cluster, *replica))
    }
}

impl PartName {
    /// Reads the name of an object; `None` for one that is no part.
    pub fn parse(object: &str) -> Option<Self> {
        let mut folders = object.rsplit('/');
        let (name, replica, kind, cluster) = (folders.next()?, folders.next()?, folders.next()?, folders.next()?);
        let mut words = name.strip_suffix(".log")?.split('-');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (base, generation) = (Offset(number()?), number()?);
        let nonce = u64::from_str_radix(words.next()?, 16).ok()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let (from, to) = (number()?, number()?);
        let sha256 = words.next()?.to_owned();
        let (cluster, replica) = (ClusterId(id(cluster)?), ReplicaId(id(replica)?));
        let part = Self { cluster, replica, base, generation, nonce, from, to, sha256 };
        // One name has one way to be written.
        (kind == SEGMENTS && from < to && part.to_string() == object).then_some(part)
    }

    /// The length of the object.
    pub fn bytes(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// The prefix of the names of all parts of a replica.
pub(crate) fn segments_of(cluster: ClusterId, replica: ReplicaId) -> String {
    format!("{cluster}/{SEGMENTS}/{replica}/")
}

/// The prefix of the names of all manifests of a cluster.
pub(crate) fn manifests_of(cluster: ClusterId) -> String {
    format!("{cluster}/manifests/")
}

/// The name of a backup: when it was made, by whom, and what its manifest's SHA-256 begins with, so that no two are the same.
#[derive(Clone, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BackupId {
    /// The name of a backup made then, whose manifest has that SHA-256.
    pub fn new(made_ms: u64, replica: ReplicaId, sha256: &str) -> Self {
        let time = i64::try_from(made_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let time = time.map_or_else(|| made_ms.to_string(), |time| time.strftime("%Y%m%dT%H%M%S%3fZ").to_string());
        let who = replica.to_string();
        let start = |text: &str, count: usize| text.get(..count).unwrap_or(text).to_owned();
        Self(format!("{time}-{}-{}", start(&who, 8), start(sha256, 16)))
    }

    /// The object of its manifest.
    pub fn object(&self, cluster: ClusterId) -> String {
        format!("{}{self}.json", manifests_of(cluster))
    }

    /// Reads the name of an object; `None` for one that is no manifest.
    pub fn parse(object: &str) -> Option<(ClusterId, Self)> {
        let mut folders = object.rsplit('/');
        let (name, kind, cluster) = (folders.next()?, folders.next()?, folders.next()?);
        let own = Self(name.strip_suffix(".json")?.to_owned());
        let cluster = ClusterId(id(cluster)?);
        (kind == "manifests" && own.hash().is_some() && own.object(cluster) == object).then_some((cluster, own))
    }

    /// The first bytes of the SHA-256 of its manifest.
    pub fn hash(&self) -> Option<&str> {
        self.0.rsplit_once('-').map(|(_, hash)| hash).filter(|hash| hash.len() == 16)
    }
}

fn id(text: &str) -> Option<u128> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_nothing_else_is_one() {
        let part = PartName {
            cluster: ClusterId(0xc1),
            replica: ReplicaId(0xab),
            base: Offset(7),
            generation: 2,
            nonce: 0xfeed,
            from: 0,
            to: 300,
            sha256: "e3".repeat(16),
        };
        assert_eq!(PartName::parse(&part.to_string()), Some(part.clone()));
        for bad in [
            "",
            "x",
            "a/b/c/d",
            &part.to_string().replace("/log/", "/other/"),
            &part.to_string().replace("-0-300", "-00-300"),
        ] {
            assert_eq!(PartName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn backups_are_in_the_order_of_their_times() {
        let id = |ms| BackupId::new(ms, ReplicaId(5), &"0f".repeat(32));
        assert!(id(1_795_860_000_000) < id(1_795_860_000_001));
        let first = id(1_795_860_000_000);
        assert_eq!(first.to_string(), "20261128T100000000Z-00000000-0f0f0f0f0f0f0f0f");
        assert_eq!(BackupId::parse(&first.object(ClusterId(9))), Some((ClusterId(9), first)));
    }
}
