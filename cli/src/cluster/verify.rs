//! `zue verify`: whether all replicas hold the same, by reading from each of them what it holds. A node checks every record that it gives.

use std::process::ExitCode;

use futures::{Stream, StreamExt as _};
use serde::Serialize;
use zue_client::{Client, Error, ReadOptions, Reason, Record};

use crate::cluster::status::leader;
use crate::terminal::output::{Out, Output};
use crate::terminal::waiting::Waiting;

/// Lines of what is wrong that are printed; of the rest the number alone.
const FINDINGS_MAX: usize = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Only what is committed is compared, as far as each replica knows it. Of records with a key, some may be missing on some replicas where
log.compaction is on: each replica compacts for itself. They are counted, and are nothing wrong.

Exit codes: 0 all replicas hold the same, 1 they do not, or not all of them could be read, 2 wrong use.")]
pub(crate) struct Verify {
    /// The first offset [default: where each replica's log starts]
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// The offset at which to stop [default: the end of what is committed]
    #[arg(long, value_name = "OFFSET")]
    to: Option<u64>,
}

/// A replica, and what is compared of it.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    /// The first offset.
    from: u64,
    /// The end, exclusive: it is moved back to where a replica could not be read any more.
    to: u64,
    records: u64,
    /// Records with a key that others hold and it does not.
    compacted: u64,
    /// True if it gave all that it says it holds.
    whole: bool,
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    replica: String,
    /// The records, as offsets, the second one exclusive.
    from: Option<u64>,
    to: Option<u64>,
    what: String,
}

pub(crate) async fn run(
    (client, mut waiting): (Client, Waiting),
    asked: Verify,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let replicas = client.status().await;
    // What differs is told of the others beside the leader.
    let first = leader(&replicas).map(|leader| leader.name.clone());
    let mut comparison = Comparison::default();
    let mut readings = Vec::new();
    for replica in replicas {
        match replica.answer {
            Err(why) => comparison.unread(replica.name.unwrap_or(replica.address), why),
            Ok(answer) => {
                let from = asked.from.unwrap_or(0).max(answer.log_start);
                let to = asked.to.unwrap_or(u64::MAX).min(answer.commit_end).max(from);
                readings.push((answer.name, from, to));
            }
        }
    }
    readings.sort_by_key(|(name, ..)| (first.as_ref() != Some(name), name.clone()));
    let mut heads = Vec::new();
    for (name, from, to) in readings {
        heads.push(Head::new(&client, name.clone(), from));
        comparison.parts.push(Part { name, from, to, records: 0, compacted: 0, whole: true });
    }
    let mut at: Vec<Option<Record>> = vec![None; heads.len()];
    loop {
        for ((head, part), at) in heads.iter_mut().zip(&mut comparison.parts).zip(&mut at) {
            if at.is_none() && head.next < part.to {
                *at = waiting.on(head.read(&client, part, &mut comparison.findings), || true).await;
            }
        }
        if !comparison.step(&mut at) {
            break;
        }
    }
    waiting.goes_on();
    comparison.print(output)
}

/// The progress of reading a replica.
struct Head {
    name: String,
    records: Box<dyn Stream<Item = Result<Record, Error>> + Send + Unpin>,
    /// The first offset that has not been read.
    next: u64,
}

impl Head {
    fn new(client: &Client, name: String, from: u64) -> Self {
        let options = ReadOptions { from, replica: Some(name.clone()), ..ReadOptions::default() };
        Self { name, records: Box::new(client.read(options).records()), next: from }
    }

    /// The next record of what is compared; none at its end, which is nearer where the replica gives no more.
    async fn read(&mut self, client: &Client, part: &mut Part, findings: &mut Findings) -> Option<Record> {
        loop {
            let error = match self.records.next().await {
                Some(Ok(record)) => {
                    self.next = record.offset.saturating_add(1);
                    return (record.offset < part.to).then_some(record);
                }
                None => {
                    self.next = part.to;
                    return None;
                }
                Some(Err(error)) => error,
            };
            // What was trimmed meanwhile is not there to be compared.
            if let Some(log_start) = trimmed_to(&error).filter(|start| *start > self.next) {
                if part.records == 0 {
                    part.from = log_start.min(part.to);
                }
                *self = Self::new(client, self.name.clone(), log_start);
                if log_start < part.to {
                    continue;
                }
                return None;
            }
            let what = format!("it gives no record from {} on: {error}", self.next);
            findings.add(Finding { replica: self.name.clone(), from: Some(self.next), to: Some(part.to), what });
            (part.to, part.whole) = (self.next, false);
            return None;
        }
    }
}

fn trimmed_to(error: &Error) -> Option<u64> {
    match error {
        Error::Refused(refused) if refused.reason == Reason::OffsetOutOfRange => Some(refused.log_start),
        _ => None,
    }
}

/// The faults, no more of them than somebody reads.
#[derive(Debug, Default)]
struct Findings {
    first: Vec<Finding>,
    further: u64,
}

impl Findings {
    /// Takes note of one, together with the one before where they follow each other.
    fn add(&mut self, finding: Finding) {
        let follows = |last: &Finding| last.what == finding.what && last.to.is_some() && last.to == finding.from;
        let last = self.first.iter_mut().rfind(|last| last.replica == finding.replica);
        if let Some(last) = last.filter(|last| follows(last)) {
            last.to = finding.to;
        } else if self.first.len() < FINDINGS_MAX {
            self.first.push(finding);
        } else {
            self.further += 1;
        }
    }
}

/// A comparison and its result. Pure.
#[derive(Debug, Default)]
struct Comparison {
    parts: Vec<Part>,
    /// Replicas of which nothing was read.
    unread: usize,
    findings: Findings,
}

impl Comparison {
    fn unread(&mut self, replica: String, why: String) {
        self.unread += 1;
        self.findings.add(Finding { replica, from: None, to: None, what: format!("it does not answer: {why}") });
    }

    /// Compares what lies at the lowest offset of those that were read, one of each replica, and takes it away; false at the end.
    fn step(&mut self, at: &mut [Option<Record>]) -> bool {
        let Some(offset) = at.iter().flatten().map(|record| record.offset).min() else { return false };
        let mut model: Option<(&str, Record)> = None;
        let mut lacking = Vec::new();
        for (part, at) in self.parts.iter_mut().zip(at) {
            let Some(record) = at.take_if(|record| record.offset == offset) else {
                if (part.from..part.to).contains(&offset) {
                    lacking.push(part);
                }
                continue;
            };
            part.records += 1;
            match &model {
                None => model = Some((&part.name, record)),
                Some((_, same)) if *same == record => {}
                Some((name, other)) => {
                    let what = format!("it holds another record than {name}: {}", difference(other, &record));
                    let replica = part.name.clone();
                    self.findings.add(Finding { replica, from: Some(offset), to: Some(offset + 1), what });
                }
            }
        }
        let has_key = model.as_ref().is_some_and(|(_, record)| record.key.is_some());
        let holder = model.map_or_else(String::new, |(name, _)| name.to_owned());
        for part in lacking {
            if has_key {
                part.compacted += 1;
                continue;
            }
            let (replica, what) = (part.name.clone(), format!("it lacks what {holder} holds"));
            self.findings.add(Finding { replica, from: Some(offset), to: Some(offset + 1), what });
        }
        true
    }

    fn is_same(&self) -> bool {
        self.findings.first.is_empty() && !self.parts.is_empty()
    }

    fn print(&self, output: Output) -> anyhow::Result<ExitCode> {
        let mut out = Out::new();
        match output {
            Output::Json => {
                self.findings.first.iter().try_for_each(|finding| out.json(finding))?;
                self.parts.iter().try_for_each(|part| out.json(part))?;
            }
            Output::Table => self.lines().iter().try_for_each(|line| out.line(line.as_bytes()))?,
        }
        out.flush()?;
        if self.parts.is_empty() {
            zue_telemetry::say(format!("zue: no server answers; {}", crate::NO_SERVER));
        }
        Ok(if self.is_same() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn lines(&self) -> Vec<String> {
        let finding = |Finding { replica, from, to, what }: &Finding| match (from, to) {
            (Some(from), Some(to)) => format!("{replica}: {from}..{to}: {what}"),
            _ => format!("{replica}: {what}"),
        };
        let part = |Part { name, from, to, records, compacted, .. }: &Part| {
            let compacted = match compacted {
                0 => String::new(),
                count => format!("; {count} with a key are compacted away here and not everywhere"),
            };
            format!("{name}: {records} records from {from} to {to}{compacted}")
        };
        let mut lines: Vec<String> = self.findings.first.iter().map(finding).collect();
        if self.findings.further > 0 {
            lines.push(format!("and {} more", self.findings.further));
        }
        lines.extend(self.parts.iter().map(part));
        let all = self.parts.len() + self.unread;
        lines.push(match self.is_same() {
            true if all == 1 => "there is one replica, and it gives every record".to_owned(),
            true => format!("all {all} replicas hold the same"),
            false => "not all replicas were seen to hold the same".to_owned(),
        });
        lines
    }
}

/// The difference between two records at the same offset.
fn difference(one: &Record, other: &Record) -> String {
    if one.epoch != other.epoch {
        return format!("of epoch {}, not {}", other.epoch, one.epoch);
    }
    let parts = [
        ("timestamp", one.timestamp_ms == other.timestamp_ms),
        ("key", one.key == other.key),
        ("value", one.value == other.value),
        ("headers", one.headers == other.headers),
        ("producer", (&one.producer_id, one.sequence) == (&other.producer_id, other.sequence)),
    ];
    let differ: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(part, _)| *part).collect();
    format!("with another {}", differ.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, value: &str) -> Record {
        Record { offset, epoch: 1, value: value.to_owned().into(), ..Record::default() }
    }

    fn keyed(offset: u64) -> Record {
        Record { key: Some("k".into()), ..record(offset, "v") }
    }

    /// Compares logs, each of which starts at an offset and ends at another.
    fn compared(logs: &[(u64, u64, Vec<Record>)]) -> Comparison {
        let name = |n: usize| ["a", "b", "c"][n].to_owned();
        let part = |(n, (from, to, _)): (usize, &(u64, u64, Vec<Record>))| Part {
            name: name(n),
            from: *from,
            to: *to,
            records: 0,
            compacted: 0,
            whole: true,
        };
        let mut comparison = Comparison { parts: logs.iter().enumerate().map(part).collect(), ..Comparison::default() };
        let mut rest: Vec<_> = logs.iter().map(|(.., records)| records.clone().into_iter()).collect();
        let mut at: Vec<Option<Record>> = rest.iter_mut().map(Iterator::next).collect();
        while comparison.step(&mut at) {
            for (at, rest) in at.iter_mut().zip(&mut rest) {
                *at = at.take().or_else(|| rest.next());
            }
        }
        comparison
    }

    fn found(logs: &[(u64, u64, Vec<Record>)]) -> Vec<String> {
        let comparison = compared(logs);
        let lines = comparison.lines();
        lines[..lines.len() - logs.len() - 1].to_vec()
    }

    #[test]
    fn replicas_that_start_later_or_lag_hold_the_same_as_far_as_they_go() {
        let all: Vec<Record> = (0..9).map(|n| record(n, "v")).collect();
        let logs = [(0, 9, all.clone()), (3, 9, all[3..].to_vec()), (0, 5, all[..5].to_vec())];
        let comparison = compared(&logs);
        assert!(comparison.is_same(), "{comparison:?}");
        let counts: Vec<u64> = comparison.parts.iter().map(|part| part.records).collect();
        assert_eq!(counts, [9, 6, 5]);
        assert_eq!(comparison.lines().last().unwrap(), "all 3 replicas hold the same");
    }

    #[test]
    fn another_record_and_one_that_is_missing_are_named_and_neighbours_together() {
        let all: Vec<Record> = (0..6).map(|n| record(n, "v")).collect();
        let mut other = all.clone();
        other[1] = record(1, "w");
        other[2].epoch = 2;
        let short: Vec<Record> = all.iter().filter(|record| ![3, 4].contains(&record.offset)).cloned().collect();
        assert_eq!(
            found(&[(0, 6, all), (0, 6, other), (0, 6, short)]),
            [
                "b: 1..2: it holds another record than a: with another value",
                "b: 2..3: it holds another record than a: of epoch 2, not 1",
                "c: 3..5: it lacks what a holds",
            ]
        );
    }

    #[test]
    fn what_has_a_key_may_be_compacted_away_anywhere() {
        let logs = [(0, 3, vec![keyed(0), keyed(2)]), (0, 3, vec![keyed(1), keyed(2)])];
        let comparison = compared(&logs);
        assert!(comparison.is_same(), "{comparison:?}");
        assert_eq!(comparison.parts.iter().map(|part| part.compacted).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_replica_that_does_not_answer_is_not_taken_for_the_same() {
        let mut comparison = compared(&[(0, 1, vec![record(0, "v")])]);
        assert!(comparison.is_same());
        comparison.unread("b".to_owned(), "refused".to_owned());
        assert!(!comparison.is_same());
        assert_eq!(comparison.lines()[0], "b: it does not answer: refused");
        assert!(!Comparison::default().is_same(), "nobody answers");
    }

    #[test]
    fn of_many_findings_the_first_are_told_and_the_rest_counted() {
        let one: Vec<Record> = (0..600).map(|n| record(n, "v")).collect();
        let other = one.iter().map(|record| Record { epoch: record.offset, ..record.clone() }).collect();
        let comparison = compared(&[(0, 600, one), (0, 600, other)]);
        assert_eq!(comparison.findings.first.len(), FINDINGS_MAX);
        assert_eq!(comparison.findings.further, 599 - 100);
    }
}
