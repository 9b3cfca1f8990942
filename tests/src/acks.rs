//! Acknowledgements, and whether a log that is read back agrees. Pure.

use std::collections::HashMap;

/// Acknowledged appends: which value was said to be at which offset. Every value is used once.
#[derive(Clone, Debug, Default)]
pub struct Acks(HashMap<Vec<u8>, u64>);

impl Acks {
    /// Takes note of an acknowledgement.
    ///
    /// # Panics
    /// When the value was acknowledged before: the test must use every value once.
    pub fn note(&mut self, value: Vec<u8>, offset: u64) {
        let before = self.0.insert(value, offset);
        assert!(before.is_none(), "a value was acknowledged at {before:?} and at {offset}");
    }

    /// Takes note of all of another's.
    ///
    /// # Panics
    /// When a value is in both.
    pub fn add(&mut self, other: Self) {
        other.0.into_iter().for_each(|(value, offset)| self.note(value, offset));
    }

    /// Those that were said to be before an offset.
    #[must_use]
    pub fn before(&self, end: u64) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(_, offset)| **offset < end)
                .map(|(value, offset)| (value.clone(), *offset))
                .collect(),
        )
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults of a log read from offset 0 on: a gap, an acknowledged value that is missing or elsewhere, or any value
    /// that stands there twice. Empty when nothing is.
    pub fn check<'a>(&self, log: impl IntoIterator<Item = (u64, &'a [u8])>) -> Vec<String> {
        let mut problems = vec![];
        let mut found: HashMap<&[u8], u64> = HashMap::new();
        let mut expected = 0;
        for (offset, value) in log {
            if offset != expected {
                problems.push(format!("offset {offset} follows, {expected} was expected"));
            }
            expected = offset + 1;
            if let Some(before) = found.insert(value, offset) {
                problems.push(format!("{:?} stands at {before} and again at {offset}", String::from_utf8_lossy(value)));
            }
        }
        for (value, acked) in &self.0 {
            let name = String::from_utf8_lossy(value);
            match found.get(value.as_slice()) {
                None => problems.push(format!("{name:?}, acknowledged at {acked}, is lost")),
                Some(offset) if offset != acked => {
                    problems.push(format!("{name:?}, acknowledged at {acked}, stands at {offset}"));
                }
                Some(_) => {}
            }
        }
        problems.sort();
        problems.truncate(20);
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks() -> Acks {
        let mut acks = Acks::default();
        acks.note(b"a".to_vec(), 0);
        acks.note(b"b".to_vec(), 2);
        acks
    }

    fn problems(log: &[(u64, &str)]) -> Vec<String> {
        acks().check(log.iter().map(|(offset, value)| (*offset, value.as_bytes())))
    }

    #[test]
    fn a_log_that_holds_what_was_acknowledged_is_right_whatever_else_it_holds() {
        assert_eq!(problems(&[(0, "a"), (1, "x"), (2, "b"), (3, "y")]), Vec::<String>::new());
    }

    #[test]
    fn a_lost_a_moved_a_doubled_record_and_a_gap_are_named() {
        assert_eq!(problems(&[(0, "a"), (1, "x")]), [r#""b", acknowledged at 2, is lost"#]);
        assert_eq!(problems(&[(0, "a"), (1, "b")]), [r#""b", acknowledged at 2, stands at 1"#]);
        assert_eq!(problems(&[(0, "a"), (1, "x"), (2, "b"), (3, "x")]), [r#""x" stands at 1 and again at 3"#]);
        assert_eq!(problems(&[(0, "a"), (2, "b")]), ["offset 2 follows, 1 was expected"]);
    }
}
