//! Everything that clients were told, and whether it can all be true. Pure.
//!
//! Every record's value names its producer and its number with that producer, so that it is recognised wherever it is seen.

use std::collections::HashMap;

/// The number of contradictions that are told.
const PROBLEMS_MAX: usize = 20;

/// One record that a client wanted to append: the `number`th of `producer`. Used once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Value {
    /// As given by [`History::open`].
    pub producer: u32,
    /// Counted from 0.
    pub number: u32,
}

impl Value {
    /// As text, filled up to a length.
    pub fn encode(self, bytes: usize) -> Vec<u8> {
        let mut text = format!("{}:{}:", self.producer, self.number).into_bytes();
        text.resize(bytes.max(text.len()), b'.');
        text
    }

    /// Parses what [`Value::encode`] has made.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut words = text.split(|byte| *byte == b':');
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
        Some(Self { producer: number()?, number: number()? })
    }
}

/// A record as a replica gave it. The digest is of all its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeenRecord {
    /// Its value.
    pub value: Value,
    /// Of all its bytes.
    pub digest: u64,
}

/// The known fate of one record.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// The end of what was known to be committed before it was sent: it must stand behind that.
    floor: u64,
    acked: Option<u64>,
    /// It was said that it is not in the log and never will be.
    refused: bool,
    seen: Option<u64>,
}

/// The answers, in the order in which they came.
#[derive(Debug, Default)]
pub struct History {
    /// By producer and number.
    producers: Vec<Vec<Fate>>,
    log: HashMap<u64, SeenRecord>,
    /// A record before here was said to be committed.
    committed_end: u64,
    problems: Vec<String>,
    /// Records acknowledged.
    pub acked: u64,
    /// Records read.
    pub reads: u64,
    /// Ends that a linearizable read has reached.
    pub linearizable_reads: u64,
}

impl History {
    /// A producer whose records must be in the log in the order of their numbers.
    pub fn open(&mut self) -> u32 {
        self.producers.push(vec![]);
        u32::try_from(self.producers.len() - 1).unwrap_or(u32::MAX)
    }

    /// The producer's next record is about to be sent.
    pub fn begin(&mut self, producer: u32) -> Value {
        let floor = self.committed_end;
        let fates = self.fates(producer);
        let number = u32::try_from(fates.len()).unwrap_or(u32::MAX);
        fates.push(Fate { floor, ..Fate::default() });
        Value { producer, number }
    }

    fn fates(&mut self, producer: u32) -> &mut Vec<Fate> {
        let index = usize::try_from(producer).unwrap_or(usize::MAX);
        self.producers.get_mut(index).expect("the producer was opened")
    }

    fn fate(&mut self, value: Value) -> Option<&mut Fate> {
        let index = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        self.producers.get_mut(index(value.producer))?.get_mut(index(value.number))
    }

    fn problem(&mut self, what: String) {
        self.problems.push(what);
    }

    /// An append was acknowledged at an offset.
    pub fn acked(&mut self, value: Value, offset: u64) {
        self.acked += 1;
        self.committed(offset + 1);
        let Some(fate) = self.fate(value) else { return self.problem(format!("{value:?} is acknowledged, unasked")) };
        let before = fate.acked.replace(offset);
        if let Some(before) = before {
            self.problem(format!("{value:?} is acknowledged at {before} and at {offset}"));
        }
    }

    /// An append failed for good: it is not in the log and never will be.
    pub fn refused(&mut self, value: Value) {
        if let Some(fate) = self.fate(value) {
            fate.refused = true;
        }
    }

    /// A replica said that everything before here is committed.
    pub fn committed(&mut self, end: u64) {
        self.committed_end = self.committed_end.max(end);
    }

    /// A replica gave this record.
    pub fn read(&mut self, from: &str, offset: u64, seen: SeenRecord) {
        self.reads += 1;
        self.committed(offset + 1);
        match self.log.insert(offset, seen) {
            None => self.placed(offset, seen.value),
            Some(before) if before == seen => {}
            Some(before) => self.problem(format!("offset {offset} was {before:?}, and is {seen:?} on {from}")),
        }
    }

    /// A record was seen at an offset for the first time.
    fn placed(&mut self, offset: u64, value: Value) {
        let Some(fate) = self.fate(value) else { return self.problem(format!("{value:?} was read, unasked")) };
        let before = fate.seen.replace(offset);
        if let Some(before) = before {
            self.problem(format!("{value:?} stands at {before} and again at {offset}: doubled"));
        }
    }

    /// The least end that a linearizable read has to reach that begins now.
    pub fn floor(&self) -> u64 {
        self.committed_end
    }

    /// A linearizable read that began at this floor reached this end.
    pub fn linearizable(&mut self, floor: u64, end: u64) {
        self.linearizable_reads += 1;
        self.committed(end);
        if end < floor {
            self.problem(format!("a linearizable read ends at {end}; {floor} was known to be committed before: stale"));
        }
    }

    /// The contradictions in all of it, once the whole log was read up to `end`.
    pub fn finish(&mut self, end: u64) -> Vec<String> {
        if self.committed_end > end {
            self.problem(format!("{} records were committed, the log ends at {end}: lost", self.committed_end));
        }
        if let Some(hole) = (0..end).find(|offset| !self.log.contains_key(offset)) {
            self.problem(format!("nobody has given offset {hole}"));
        }
        let mut problems = vec![];
        for (producer, fates) in (0_u32..).zip(&self.producers) {
            let mut last = None;
            for (number, fate) in (0_u32..).zip(fates) {
                let value = Value { producer, number };
                problems.extend(fate.problem().map(|what| format!("{value:?} {what}")));
                if let (Some(last), Some(seen)) = (last, fate.seen)
                    && seen < last
                {
                    problems.push(format!("{value:?} stands at {seen}, behind an earlier one at {last}: reordered"));
                }
                last = fate.seen.or(last);
            }
        }
        problems.append(&mut self.problems);
        problems.truncate(PROBLEMS_MAX);
        problems
    }
}

impl Fate {
    fn problem(&self) -> Option<String> {
        match (self.acked, self.seen) {
            (Some(acked), None) => Some(format!("was acknowledged at {acked} and is lost")),
            (Some(acked), Some(seen)) if acked != seen => {
                Some(format!("was acknowledged at {acked} and stands at {seen}"))
            }
            (_, Some(seen)) if seen < self.floor => {
                Some(format!("stands at {seen}, and {} was known to be committed before it was sent", self.floor))
            }
            (_, Some(seen)) if self.refused => Some(format!("failed for good and stands at {seen}")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Producer 0 has appended three records, acknowledged at 0, 1 and 2; 1 has asked for one that failed.
    fn told() -> History {
        let mut history = History::default();
        let (a, b) = (history.open(), history.open());
        for offset in 0..3 {
            let value = history.begin(a);
            history.acked(value, offset);
        }
        let failed = history.begin(b);
        history.refused(failed);
        history
    }

    fn read(history: &mut History, log: &[(u64, u32, u32)]) {
        for (offset, producer, number) in log.iter().copied() {
            history.read("zue-0", offset, SeenRecord { value: Value { producer, number }, digest: 7 });
        }
    }

    fn verdict(log: &[(u64, u32, u32)], end: u64) -> String {
        let mut history = told();
        read(&mut history, log);
        history.finish(end).join("; ")
    }

    const WHOLE: [(u64, u32, u32); 3] = [(0, 0, 0), (1, 0, 1), (2, 0, 2)];

    #[test]
    fn a_log_that_holds_what_was_acknowledged_once_and_in_order_is_right() {
        assert_eq!(verdict(&WHOLE, 3), "");
        let mut history = told();
        read(&mut history, &WHOLE);
        read(&mut history, &WHOLE);
        let unanswered = history.begin(0);
        read(&mut history, &[(3, unanswered.producer, unanswered.number)]);
        assert_eq!(history.finish(4), Vec::<String>::new());
    }

    #[test]
    fn a_lost_a_doubled_a_moved_a_reordered_and_an_unasked_record_are_found() {
        for (log, end, found) in [
            (&[(0, 0, 0), (1, 0, 1)][..], 2, "acknowledged at 2 and is lost"),
            (&[(0, 0, 0), (1, 0, 1)], 2, "3 records were committed, the log ends at 2: lost"),
            (&[(0, 0, 0), (2, 0, 2)], 3, "nobody has given offset 1"),
            (&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 1)], 4, "stands at 1 and again at 3: doubled"),
            (&[(0, 0, 1), (1, 0, 0), (2, 0, 2)], 3, "was acknowledged at 1 and stands at 0"),
            (&[(0, 0, 1), (1, 0, 0), (2, 0, 2)], 3, "behind an earlier one at 1: reordered"),
            (&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 0)], 4, "failed for good and stands at 3"),
            (&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 5, 0)], 4, "was read, unasked"),
        ] {
            let verdict = verdict(log, end);
            assert!(verdict.contains(found), "{log:?}: {verdict:?} lacks {found:?}");
        }
    }

    #[test]
    fn replicas_that_differ_in_one_byte_are_found() {
        let mut history = told();
        read(&mut history, &WHOLE);
        history.read("zue-1", 1, SeenRecord { value: Value { producer: 0, number: 1 }, digest: 8 });
        assert!(history.finish(3).join("; ").contains("offset 1 was"), "another digest is another record");
    }

    #[test]
    fn a_linearizable_read_that_misses_what_anybody_was_told_before_is_stale() {
        let mut history = told();
        history.linearizable(history.floor(), 3);
        read(&mut history, &WHOLE);
        history.committed(5);
        let floor = history.floor();
        history.linearizable(floor, 4);
        history.linearizable(floor, 5);
        let stale: Vec<_> = history.finish(5).into_iter().filter(|what| what.contains("stale")).collect();
        assert_eq!(stale, ["a linearizable read ends at 4; 5 was known to be committed before: stale"]);
    }

    #[test]
    fn a_record_in_front_of_what_was_committed_before_it_was_sent_is_found() {
        let mut history = told();
        history.committed(5);
        let late = history.begin(0);
        read(&mut history, &[(0, 0, 0), (1, 0, 1), (2, 0, 2), (4, late.producer, late.number)]);
        let problems = history.finish(5).join("; ");
        assert!(problems.contains("stands at 4, and 5 was known to be committed"), "{problems}");
    }

    #[test]
    fn a_value_is_recognised_by_its_bytes() {
        let value = Value { producer: 12, number: 345 };
        assert_eq!((Value::parse(&value.encode(100)), value.encode(100).len()), (Some(value), 100));
        assert_eq!((Value::parse(b"x"), Value::parse(b"1:y:")), (None, None));
    }
}
