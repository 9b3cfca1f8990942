//! Cells of a measurement: a way to use the log, the size of the records, and the nodes' durability. Pure.

use std::fmt;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// The way in which the log is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// One client, one append at a time
    Lat,
    /// 64 clients with connections of their own, each with one append at a time
    Clients64,
    /// 64 tasks on one client, each with one append at a time
    Tasks64,
    /// One appender of one client, as fast as it takes records
    Pipe,
    /// One client that reads from the first record to the last, again and again
    Read,
}

/// When a node takes a record for durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Durability {
    Sync,
    Os,
}

/// The sizes of values, as they are asked for and in bytes.
const SIZES: [(&str, usize); 2] = [("100B", 100), ("1KiB", 1024)];

/// One thing to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) bytes: usize,
    pub(crate) durability: Durability,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lat => "lat",
            Self::Clients64 => "clients64",
            Self::Tasks64 => "tasks64",
            Self::Pipe => "pipe",
            Self::Read => "read",
        }
    }

    /// The thing that its latencies are of.
    pub(crate) fn waits_for(self) -> &'static str {
        match self {
            Self::Lat | Self::Clients64 | Self::Tasks64 => "an append",
            Self::Pipe => "every 32nd record, from the push to the acknowledgement",
            Self::Read => "the next answer of a reading",
        }
    }
}

impl Durability {
    /// As a node's file says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sync => "Sync",
            Self::Os => "Os",
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = SIZES.iter().find(|(_, bytes)| *bytes == self.bytes).map_or("", |(name, _)| name);
        write!(f, "{} {size} {}", self.kind.name(), self.durability.name())
    }
}

/// All that there is to measure.
fn all() -> Vec<Cell> {
    let mut cells = vec![];
    for kind in Kind::value_variants() {
        for (_, bytes) in SIZES {
            for durability in Durability::value_variants() {
                cells.push(Cell { kind: *kind, bytes, durability: *durability });
            }
        }
    }
    cells
}

/// The cells that a filter names: words with commas between. Words of one sort are alternatives; of a sort that is not named
/// everything is meant.
pub(crate) fn select(filter: &str) -> Result<Vec<Cell>> {
    let (mut kinds, mut sizes, mut durabilities) = (vec![], vec![], vec![]);
    for word in filter.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let size = |(name, bytes): &&(&str, usize)| name.eq_ignore_ascii_case(word) || bytes.to_string() == word;
        if let Ok(kind) = Kind::from_str(word, true) {
            kinds.push(kind);
        } else if let Ok(durability) = Durability::from_str(word, true) {
            durabilities.push(durability);
        } else if let Some((_, bytes)) = SIZES.iter().find(size) {
            sizes.push(*bytes);
        } else {
            bail!("{word:?} is no cell: there are lat, clients64, tasks64, pipe and read; 100B and 1KiB; Sync and Os");
        }
    }
    let mut cells = all();
    cells.retain(|cell| {
        (kinds.is_empty() || kinds.contains(&cell.kind))
            && (sizes.is_empty() || sizes.contains(&cell.bytes))
            && (durabilities.is_empty() || durabilities.contains(&cell.durability))
    });
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(filter: &str) -> Vec<String> {
        select(filter).expect("it names cells").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_of_one_sort_are_alternatives_and_sorts_combine() {
        assert_eq!(names("").len(), 20);
        assert_eq!(names("lat,100B,Sync"), ["lat 100B Sync"]);
        assert_eq!(names("pipe, read,1024,os"), ["pipe 1KiB Os", "read 1KiB Os"]);
        assert_eq!(names("100"), names("100b"));
    }

    #[test]
    fn a_word_that_names_nothing_is_told() {
        let error = select("lat,200B").expect_err("there is no such size").to_string();
        assert!(error.starts_with("\"200B\" is no cell"), "{error}");
    }
}
