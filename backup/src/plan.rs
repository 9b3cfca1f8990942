//! The parts of a log that are new to the store. Looks at names alone.

use std::collections::BTreeMap;
use std::ops::Range;

use zue_core::{ClusterId, Offset, ReplicaId};

use crate::names::PartName;

/// A segment as far as it is to be in the backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// The offset of its first record.
    pub base: Offset,
    /// The number of times that it was written anew.
    pub generation: u64,
    /// The random number of the file.
    pub nonce: u64,
    /// The number of its bytes.
    pub bytes: u64,
    /// Nothing is to come.
    pub is_sealed: bool,
}

/// The longest that an object is: one request takes it. A segment of the default length is one object.
pub const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// The work that a segment needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Objects of the store.
    pub there: Vec<PartName>,
    /// Bytes that are to become one object each. With what is there they are the segment, without gaps.
    pub uploads: Vec<Upload>,
}

/// The positions of the bytes that are to be uploaded.
pub type Upload = Range<u64>;

/// The work that each of the segments needs, given all names of whole objects in the store. A segment that is sealed becomes one object, or
/// as few as its length takes./// Of one that grows the new bytes do, with as many of those before them as keep the number of objects small: each is more than twice as
/// long as all behind it.
pub fn plan(owner: (ClusterId, ReplicaId), wants: &[Want], names: &[PartName]) -> Vec<Plan> {
    let mut known: BTreeMap<(Offset, u64, u64, u64), Vec<&PartName>> = BTreeMap::new();
    for name in names.iter().filter(|name| (name.cluster, name.replica) == owner) {
        known.entry((name.base, name.generation, name.nonce, name.from)).or_default().push(name);
    }
    let longest = |want: &Want, from: u64| {
        let names = known.get(&(want.base, want.generation, want.nonce, from))?.iter();
        names.filter(|name| name.to <= want.bytes).max_by_key(|name| (name.to, &name.sha256)).copied()
    };
    wants.iter().map(|want| of_segment(want, |from| longest(want, from))).collect()
}

fn of_segment<'a>(want: &Want, longest: impl Fn(u64) -> Option<&'a PartName>) -> Plan {
    let mut plan = Plan::default();
    if want.is_sealed {
        for range in ranges(0..want.bytes) {
            match longest(range.start).filter(|name| name.to == range.end) {
                Some(name) => plan.there.push(name.clone()),
                None => plan.uploads.push(range),
            }
        }
        return plan;
    }
    let mut at = 0;
    while let Some(name) = longest(at) {
        at = name.to;
        plan.there.push(name.clone());
    }
    if at == want.bytes {
        return plan;
    }
    let is_taken_in = |last: &mut PartName, at: u64| {
        last.bytes() / 2 <= want.bytes - at && want.bytes - last.from <= OBJECT_BYTES_MAX
    };
    while let Some(last) = plan.there.pop_if(|last| is_taken_in(last, at)) {
        at = last.from;
    }
    plan.uploads = ranges(at..want.bytes).collect();
    plan
}

fn ranges(all: Upload) -> impl Iterator<Item = Upload> {
    let behind = move |at: &u64| Some(at.saturating_add(OBJECT_BYTES_MAX)).filter(|next| *next < all.end);
    let starts = std::iter::successors(Some(all.start).filter(|start| *start < all.end), behind);
    starts.map(move |start| start..all.end.min(start.saturating_add(OBJECT_BYTES_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: (ClusterId, ReplicaId) = (ClusterId(1), ReplicaId(2));

    fn name(from: u64, to: u64) -> PartName {
        let (cluster, replica) = OWNER;
        PartName { cluster, replica, base: Offset(0), generation: 0, nonce: 9, from, to, sha256: "0".repeat(32) }
    }

    fn want(bytes: u64, is_sealed: bool) -> Want {
        Want { base: Offset(0), generation: 0, nonce: 9, bytes, is_sealed }
    }

    fn planned(want: Want, names: &[PartName]) -> (Vec<(u64, u64)>, Option<Upload>) {
        let mut plan = plan(OWNER, &[want], names).remove(0);
        assert!(plan.uploads.len() <= 1, "{plan:?}");
        (plan.there.iter().map(|name| (name.from, name.to)).collect(), plan.uploads.pop())
    }

    #[test]
    fn a_large_segment_is_several_objects_and_those_that_are_there_stay() {
        const MAX: u64 = OBJECT_BYTES_MAX;
        let plan_of = |is_sealed, names: &[PartName]| plan(OWNER, &[want(2 * MAX + 5, is_sealed)], names).remove(0);
        for is_sealed in [true, false] {
            assert_eq!(plan_of(is_sealed, &[]).uploads, [0..MAX, MAX..2 * MAX, 2 * MAX..2 * MAX + 5]);
        }
        let sealed = plan_of(true, &[name(MAX, 2 * MAX)]);
        assert_eq!((sealed.there, sealed.uploads), (vec![name(MAX, 2 * MAX)], vec![0..MAX, 2 * MAX..2 * MAX + 5]));
        let grown = plan_of(false, &[name(0, MAX), name(MAX, MAX + 7)]);
        let one = std::iter::once(MAX + 7..2 * MAX + 5).collect::<Vec<_>>();
        assert_eq!((grown.there.len(), grown.uploads), (2, one), "one object takes no more");
    }

    #[test]
    fn a_sealed_segment_is_one_object_and_uploaded_once() {
        assert_eq!(planned(want(100, true), &[]), (vec![], Some(0..100)));
        assert_eq!(planned(want(100, true), &[name(0, 60), name(60, 100)]), (vec![], Some(0..100)));
        assert_eq!(planned(want(100, true), &[name(0, 60), name(0, 100)]), (vec![(0, 100)], None));
    }

    #[test]
    fn of_a_segment_that_grows_only_what_is_new_is_uploaded() {
        assert_eq!(planned(want(1000, false), &[name(0, 900)]), (vec![(0, 900)], Some(900..1000)));
        assert_eq!(planned(want(900, false), &[name(0, 900)]), (vec![(0, 900)], None));
        // What lies behind is of another time: it is not looked at.
        assert_eq!(planned(want(800, false), &[name(0, 900)]), (vec![], Some(0..800)));
    }

    #[test]
    fn what_another_file_has_does_not_count() {
        let others = [
            PartName { nonce: 8, ..name(0, 100) },
            PartName { generation: 1, ..name(0, 100) },
            PartName { base: Offset(1), ..name(0, 100) },
            PartName { replica: ReplicaId(3), ..name(0, 100) },
            PartName { cluster: ClusterId(2), ..name(0, 100) },
        ];
        for other in others {
            assert_eq!(planned(want(100, true), std::slice::from_ref(&other)), (vec![], Some(0..100)), "{other}");
        }
    }

    #[test]
    fn a_segment_that_grows_for_long_has_few_objects_and_each_byte_is_uploaded_a_few_times() {
        let (mut names, mut uploaded, mut most) = (Vec::new(), 0, 0);
        for bytes in 1..=1_000 {
            let (there, upload) = planned(want(bytes, false), &names);
            let upload = upload.unwrap();
            uploaded += upload.end - upload.start;
            most = most.max(there.len() + 1);
            names.push(name(upload.start, upload.end));
        }
        assert!(most <= 11 && uploaded < 1_000 * 15, "{most} objects, {uploaded} uploaded");
    }
}
