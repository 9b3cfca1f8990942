//! Backups that may go, and objects that no backup needs. Pure: looks at manifests, names and times.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{Kind, Manifest};
use crate::names::BackupId;

/// The time for which an object stays that no backup needs: another may be about to be made that does.
pub const GRACE_MS: u64 = 24 * 3_600_000;
/// The time for which a continuous backup stays whatever a later one holds, so that a person sees the last ones.
const THIN_AFTER_MS: u64 = 3_600_000;

/// The number of backups that are kept. What neither bound names stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Keep {
    /// Backups that reach further back go, ms: all but those that it takes to give the log of that time.
    pub age_ms: Option<u64>,
    /// So many of the newest stay at most.
    pub count: Option<usize>,
    /// A continuous backup goes after an hour when a later one holds all that it does, byte for byte: nothing can be restored from the one
    /// that the other could not give.
    pub thin: bool,
}

/// The known content of a store.
#[derive(Clone, Debug, Default)]
pub struct StoreContent {
    /// The backups of a cluster, in the order of their names, which is that of their times.
    pub backups: BTreeMap<BackupId, Manifest>,
    /// The parts there are, and when each was put there, ms since the Unix epoch.
    pub parts: BTreeMap<String, u64>,
}

/// The objects that may be removed now: backups, to go first, and then objects that none of the others needs. Never all backups.
pub fn removable(known: &StoreContent, keep: Keep, now_ms: u64) -> (Vec<BackupId>, Vec<String>) {
    let all: Vec<(&BackupId, &Manifest)> = known.backups.iter().collect();
    let mut gone: BTreeSet<&BackupId> = BTreeSet::new();
    if let Some(age_ms) = keep.age_ms {
        let since = now_ms.saturating_sub(age_ms);
        // The one that was there at that time gives the log of it.
        let before = all.iter().rposition(|(_, manifest)| manifest.made_ms <= since).unwrap_or(0);
        gone.extend(all.iter().take(before).map(|(id, _)| *id));
    }
    if let Some(count) = keep.count {
        let over = all.len().saturating_sub(count.max(1));
        gone.extend(all.iter().take(over).map(|(id, _)| *id));
    }
    if keep.thin {
        for (at, (id, manifest)) in all.iter().enumerate() {
            let is_old = manifest.made_ms.saturating_add(THIN_AFTER_MS) < now_ms;
            let is_continuous = manifest.kind == Kind::Continuous;
            // The next one of the same replica: what it lacks, a later one lacks, too, unless a trim was taken back.
            let next = all.iter().skip(at + 1).find(|(_, later)| later.replica == manifest.replica);
            if is_old && is_continuous && next.is_some_and(|(_, later)| holds(later, manifest)) {
                gone.insert(id);
            }
        }
    }
    let needed: BTreeSet<&str> =
        all.iter().filter(|(id, _)| !gone.contains(id)).flat_map(|(_, manifest)| manifest.objects()).collect();
    let is_dead =
        |(name, put_ms): &(&String, &u64)| !needed.contains(name.as_str()) && put_ms.saturating_add(GRACE_MS) < now_ms;
    let parts = known.parts.iter().filter(is_dead).map(|(name, _)| name.clone()).collect();
    (gone.into_iter().cloned().collect(), parts)
}

/// Returns whether the later one can give every log that the earlier one can.
fn holds(later: &Manifest, earlier: &Manifest) -> bool {
    let file = |segment: &crate::manifest::Segment| (segment.base, segment.generation, segment.nonce.clone());
    let there: BTreeMap<_, u64> = later.segments.iter().map(|segment| (file(segment), segment.bytes)).collect();
    let is_there = |segment| there.get(&file(segment)).is_some_and(|bytes| *bytes >= segment.bytes);
    later.cluster == earlier.cluster
        && later.log_start == earlier.log_start
        && later.compacted == earlier.compacted
        && earlier.segments.iter().all(is_there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Part, Segment};
    use zue_core::ReplicaId;

    const HOUR: u64 = 3_600_000;

    /// A backup made then of a log of one segment; the part's name says how long it was.
    fn backup(made_ms: u64, bytes: u64) -> (BackupId, Manifest) {
        let part = Part { from: 0, to: bytes, sha256: "0".repeat(64), object: format!("part-{bytes}") };
        let segment = Segment {
            base: 0,
            end: bytes,
            sequence: 1,
            generation: 0,
            nonce: "9".to_owned(),
            bytes,
            before_ms: 0,
            parts: vec![part],
        };
        let manifest = Manifest {
            version: 1,
            cluster: "1".to_owned(),
            replica: "2".to_owned(),
            made_ms,
            kind: Kind::Continuous,
            after: None,
            log_start: 0,
            end: bytes,
            last_ms: 0,
            compacted: 0,
            epochs: Vec::new(),
            segments: vec![segment],
        };
        (BackupId::new(made_ms, ReplicaId(2), &format!("{bytes:064}")), manifest)
    }

    fn known(backups: impl IntoIterator<Item = (BackupId, Manifest)>) -> StoreContent {
        let backups: BTreeMap<_, _> = backups.into_iter().collect();
        let parts = backups.values().flat_map(|manifest| manifest.objects().map(|name| (name.to_owned(), 0))).collect();
        StoreContent { backups, parts }
    }

    /// How old the backups are that go, in hours, and how many objects.
    fn gone(known: &StoreContent, keep: Keep, now_ms: u64) -> (Vec<u64>, Vec<String>) {
        let (backups, parts) = removable(known, keep, now_ms);
        (backups.iter().map(|id| known.backups[id].made_ms / HOUR).collect(), parts)
    }

    #[test]
    fn a_backup_that_gives_the_log_of_the_oldest_time_that_is_kept_stays() {
        let known = known([backup(0, 10), backup(HOUR, 20), backup(2 * HOUR, 30)]);
        let keep = |hours| Keep { age_ms: Some(hours * HOUR), ..Keep::default() };
        assert_eq!(gone(&known, keep(10), 100 * HOUR).0, [0, 1]);
        assert_eq!(gone(&known, keep(99), 100 * HOUR).0, [0]);
        assert_eq!(gone(&known, keep(100), 100 * HOUR).0, [0; 0]);
        assert_eq!(gone(&known, Keep::default(), 100 * HOUR).0, [0; 0]);
    }

    #[test]
    fn so_many_stay_and_never_none() {
        let known = known([backup(0, 10), backup(HOUR, 20), backup(2 * HOUR, 30)]);
        let keep = |count| Keep { count: Some(count), ..Keep::default() };
        assert_eq!(gone(&known, keep(2), 100 * HOUR).0, [0]);
        assert_eq!(gone(&known, keep(0), 100 * HOUR).0, [0, 1]);
    }

    #[test]
    fn what_a_kept_backup_needs_stays_and_so_does_what_is_new() {
        let mut known = known([backup(0, 10), backup(HOUR, 20)]);
        known.parts.insert("new".to_owned(), 99 * HOUR);
        let keep = Keep { count: Some(1), ..Keep::default() };
        assert_eq!(gone(&known, keep, 100 * HOUR), (vec![0], vec!["part-10".to_owned()]));
        assert_eq!(gone(&known, Keep::default(), 100 * HOUR).1, Vec::<String>::new());
    }

    #[test]
    fn a_continuous_backup_goes_when_a_later_one_gives_all_that_it_does() {
        let thin = Keep { thin: true, ..Keep::default() };
        let grown = known([backup(0, 10), backup(HOUR, 20)]);
        assert_eq!(gone(&grown, thin, 5 * HOUR).0, [0]);
        assert_eq!(gone(&grown, thin, HOUR / 2).0, [0; 0], "it is not an hour old");
        let but = |change: fn(&mut Manifest)| {
            let (id, mut later) = backup(HOUR, 20);
            change(&mut later);
            gone(&known([backup(0, 10), (id, later)]), thin, 5 * HOUR).0
        };
        assert_eq!(but(|later| later.log_start = 1), [0; 0], "what was trimmed is in the first alone");
        assert_eq!(but(|later| later.compacted = 1), [0; 0]);
        assert_eq!(but(|later| later.replica = "3".to_owned()), [0; 0]);
        assert_eq!(but(|later| later.segments[0].generation = 1), [0; 0]);
        let (id, mut earlier) = backup(0, 10);
        earlier.kind = Kind::OnDemand;
        assert_eq!(gone(&known([(id, earlier), backup(HOUR, 20)]), thin, 5 * HOUR).0, [0; 0], "somebody asked for it");
    }
}
