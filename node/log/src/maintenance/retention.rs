//! Retention: from where on the log is to be kept. Whole sealed segments go, the oldest first; whoever asks trims.

use zue_core::{Aged, Offset};

use crate::disk::Disk;
use crate::error::ReadError;
use crate::read::reader::Reader;
use crate::segment::part::Part;

/// The part of a log that is kept. Without a bound nothing goes for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// The oldest segment goes while the others hold at least so many bytes.
    pub bytes: Option<u64>,
    /// A segment goes once its newest record is older, ms: as far as that is known, see [`Aged`].
    pub age_ms: Option<u64>,
}

/// A sealed segment: the offset at which its records end, and its bytes.
type Sealed = (Offset, u64);

impl Retention {
    /// The base of the first segment that is kept; `None` if all are. `newest_ms` tells the time of the newest record of a segment, or
    /// a later one, if any is known; it is asked of no segment behind the first that is kept.
    fn first_kept<E>(
        self,
        sealed: &[Sealed],
        active_bytes: u64,
        (commit_end, aged): (Offset, Aged),
        mut newest_ms: impl FnMut(usize) -> Result<Option<u64>, E>,
    ) -> Result<Option<Offset>, E> {
        let Self { bytes: bytes_min, age_ms: age_max } = self;
        let mut held = sealed.iter().fold(active_bytes, |held, (_, bytes)| held.saturating_add(*bytes));
        let mut first_kept = None;
        for (index, (end, bytes)) in sealed.iter().enumerate() {
            let rest = held.saturating_sub(*bytes);
            let goes = *end <= commit_end
                && (bytes_min.is_some_and(|min| rest >= min)
                    || match age_max {
                        Some(max) => aged.is_older(Offset(end.0.saturating_sub(1)), max, || newest_ms(index))?,
                        None => false,
                    });
            if !goes {
                break;
            }
            (held, first_kept) = (rest, Some(*end));
        }
        assert!(first_kept.is_none_or(|end| end <= commit_end), "what is not committed goes");
        Ok(first_kept)
    }
}

impl<D: Disk> Reader<D> {
    /// The number of bytes that its segments hold, those among them that are trimmed and still there.
    pub fn bytes(&self) -> u64 {
        self.view().parts().iter().fold(0, |held, part| held.saturating_add(part.bytes_end))
    }

    /// The start of the log by the retention, if anything is to go: at the end of a sealed segment, and not above `commit_end`.
    /// Reads of each segment at most its snapshot, once.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn retained_from(
        &self,
        retention: Retention,
        commit_end: Offset,
        aged: Aged,
    ) -> Result<Option<Offset>, ReadError> {
        let view = self.view();
        let active = view.active_part();
        let sealed: Vec<Sealed> = view.sealed.iter().map(|part| (part.end, part.bytes_end)).collect();
        // Times do not fall along the log: that of the record before a later segment will do where the next one's is damaged.
        let newest_ms = |index: usize| {
            let behind = view.sealed.iter().skip(index + 1).chain([&active]);
            behind.map(Part::time_before).find_map(Result::transpose).transpose()
        };
        retention.first_kept(&sealed, active.bytes_end, (commit_end, aged), newest_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of 100 bytes and 10 records each; the newest of each is as old as it says.
    fn kept(bytes: Option<u64>, age_ms: Option<u64>, commit_end: u64, ages: &[Option<u64>]) -> Option<u64> {
        let sealed: Vec<Sealed> = (1..).map(|n| (Offset(n * 10), 100)).take(ages.len()).collect();
        let newest_ms = |index: usize| Ok::<_, ()>(ages[index].map(|age| 10_000 - age));
        let at = (Offset(commit_end), Aged::by_timestamps(10_000));
        Retention { bytes, age_ms }.first_kept(&sealed, 50, at, newest_ms).unwrap().map(|offset| offset.0)
    }

    #[test]
    fn the_oldest_go_while_the_rest_holds_enough() {
        let ages = [Some(0); 3];
        for (bytes, expected) in [
            (None, None),
            (Some(u64::MAX), None),
            (Some(251), None),
            (Some(250), Some(10)),
            (Some(151), Some(10)),
            (Some(150), Some(20)),
            (Some(50), Some(30)),
            (Some(0), Some(30)),
        ] {
            assert_eq!(kept(bytes, None, 100, &ages), expected, "{bytes:?}");
        }
    }

    #[test]
    fn those_go_whose_newest_record_is_older_and_one_of_unknown_age_stays() {
        let ages = [Some(30), Some(20), Some(10)];
        for (age, expected) in [
            (None, None),
            (Some(u64::MAX), None),
            (Some(30), None),
            (Some(29), Some(10)),
            (Some(19), Some(20)),
            (Some(0), Some(30)),
        ] {
            assert_eq!(kept(None, age, 100, &ages), expected, "{age:?}");
        }
        assert_eq!(kept(None, Some(5), 100, &[Some(30), None, Some(10)]), Some(10));
        assert_eq!(kept(None, Some(5), 100, &[]), None);
    }

    #[test]
    fn what_was_seen_of_a_segments_age_counts_for_more_than_its_newest_timestamp() {
        let sealed: Vec<Sealed> = (1..=4).map(|n| (Offset(n * 10), 100)).collect();
        let retention = Retention { bytes: None, age_ms: Some(100) };
        let kept = |old_before, young_from, newest| {
            let aged = Aged { old_before: Offset(old_before), young_from: Offset(young_from), agreed_ms: 10_000 };
            retention.first_kept(&sealed, 0, (Offset(40), aged), |_| Ok::<_, ()>(newest)).unwrap().map(|at| at.0)
        };
        let (old, ahead) = (Some(0), Some(u64::MAX));
        for (old_before, young_from, newest, expected) in [
            (0, 40, ahead, None),
            (9, 40, ahead, None),
            (10, 40, ahead, Some(10)),
            (39, 40, ahead, Some(30)),
            (40, 40, None, Some(40)),
            (0, 40, old, Some(40)),
            (0, 39, old, Some(30)),
            (0, 9, old, None),
            (0, 0, old, None),
        ] {
            assert_eq!(kept(old_before, young_from, newest), expected, "{old_before} {young_from} {newest:?}");
        }
        assert_eq!(retention.first_kept(&sealed, 0, (Offset(40), Aged::unknown()), |_| Ok::<_, ()>(old)), Ok(None));
    }

    #[test]
    fn what_either_bound_lets_go_goes_and_nothing_above_the_commit_end() {
        let ages = [Some(30), Some(20), Some(10)];
        assert_eq!(kept(Some(250), Some(19), 100, &ages), Some(20));
        assert_eq!(kept(Some(50), Some(29), 100, &ages), Some(30));
        for (commit_end, expected) in [(0, None), (9, None), (10, Some(10)), (29, Some(20)), (30, Some(30))] {
            assert_eq!(kept(Some(0), None, commit_end, &ages), expected, "{commit_end}");
            assert_eq!(kept(None, Some(0), commit_end, &ages), expected, "{commit_end}");
        }
    }

    #[test]
    fn no_segment_behind_the_first_that_is_kept_is_looked_at() {
        let sealed: Vec<Sealed> = (1..=100).map(|n| (Offset(n * 10), 100)).collect();
        let mut asked = Vec::new();
        let newest_ms = |index| {
            asked.push(index);
            Ok::<_, ()>(Some(if index < 2 { 1 } else { 500 }))
        };
        let retention = Retention { bytes: None, age_ms: Some(700) };
        assert_eq!(
            retention.first_kept(&sealed, 0, (Offset(1000), Aged::by_timestamps(1000)), newest_ms),
            Ok(Some(Offset(20)))
        );
        assert_eq!(asked, [0, 1, 2]);
    }
}
