//! Counting. Knows no replica, only ends and numbers.

use alloc::vec::Vec;

/// The smallest number that is more than half of `count`.
pub const fn majority(count: usize) -> usize {
    count / 2 + 1
}

const _: () = assert!(majority(3) + majority(3) > 3 && majority(4) + majority(4) > 4, "two majorities need not meet");

/// Returns whether more than half of `all` satisfy `is_in`.
pub fn is_majority<T>(all: &[T], is_in: impl Fn(&T) -> bool) -> bool {
    all.iter().filter(|x| is_in(x)).count() >= majority(all.len())
}

/// The greatest value that `count` of the given ones have reached; `None` stands for one that has reached nothing.
pub fn reached_by<T: Ord + Copy>(values: impl Iterator<Item = Option<T>>, count: usize) -> Option<T> {
    let mut reached: Vec<T> = values.flatten().collect();
    reached.sort_unstable_by(|a, b| b.cmp(a));
    let value = reached.get(count.checked_sub(1)?).copied()?;
    debug_assert!(
        reached.iter().filter(|one| **one >= value).count() >= count,
        "fewer have reached it than were asked for"
    );
    Some(value)
}

/// The quorum to commit with: what is asked for, but never more than there are voters, nor less than a majority of them.
pub fn effective_quorum(voters: usize, wished: Option<u32>) -> u32 {
    let wished = wished.map_or(0, |quorum| usize::try_from(quorum).unwrap_or(usize::MAX));
    let quorum = wished.min(voters).max(majority(voters));
    assert!(quorum > voters / 2, "two quorums need not meet");
    assert!(voters == 0 || quorum <= voters, "a quorum that nobody can reach");
    u32::try_from(quorum).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_more_than_half() {
        assert_eq!([1, 2, 3, 4, 5].map(majority), [1, 2, 2, 3, 3]);
    }

    #[test]
    fn what_a_quorum_has_reached_is_the_quorum_th_largest() {
        let ends = [Some(7), None, Some(9), Some(3)];
        assert_eq!(reached_by(ends.into_iter(), 1), Some(9));
        assert_eq!(reached_by(ends.into_iter(), 2), Some(7));
        assert_eq!(reached_by(ends.into_iter(), 3), Some(3));
        assert_eq!(reached_by(ends.into_iter(), 4), None);
        assert_eq!(reached_by(ends.into_iter(), 0), None);
    }

    #[test]
    fn a_quorum_stays_between_the_majority_and_all_voters() {
        assert_eq!(effective_quorum(3, None), 2);
        assert_eq!(effective_quorum(3, Some(1)), 2);
        assert_eq!(effective_quorum(3, Some(3)), 3);
        assert_eq!(effective_quorum(3, Some(5)), 3);
    }
}
