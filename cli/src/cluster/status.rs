//! `zue status`: a row for every replica, also for those that do not answer.

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;
use zue_client::{Client, DescribeResponse, ReplicaStatus};
use zue_controller::notices::Notice;

use crate::cluster::together;
use crate::terminal::output::{Out, Output, table, text_of};

const HEAD: [&str; 10] =
    ["NAME", "ROLE", "EPOCH", "ISR", "LOG-START", "LOG-END", "COMMIT", "LAG", "DURABILITY", "ADDRESS"];

/// The records of a replica, as far as they are known.
#[derive(Default, Serialize)]
struct Extent {
    log_start: Option<u64>,
    log_end: Option<u64>,
    commit_end: Option<u64>,
    /// The number of records that the leader has and this replica has not.
    lag_records: Option<u64>,
}

/// A replica, as it is shown. What is not known is absent.
#[derive(Serialize)]
struct Row {
    name: Option<String>,
    role: &'static str,
    epoch: Option<u64>,
    /// True if the leader counts it as in sync.
    in_sync: Option<bool>,
    #[serde(flatten)]
    log: Extent,
    durability: Option<String>,
    version: Option<String>,
    /// The one who appointed the leader.
    elected_by: Option<String>,
    /// True if it elects by itself where no controller does.
    stands_by: Option<bool>,
    address: String,
    problem: Option<String>,
}

pub(crate) async fn run(client: &Client, output: Output) -> anyhow::Result<ExitCode> {
    let replicas = client.status().await;
    let leader = leader(&replicas).cloned();
    let answers = replicas.iter().any(|replica| replica.answer.is_ok());
    let reach = leader.as_ref().map(Reach::of);
    let odd = together::look(&replicas, leader.as_ref().map(|leader| leader.name.as_str()));
    let rows = replicas.into_iter().zip(odd).map(|(replica, odd)| row(replica, leader.as_ref()).with(odd));
    let rows: Vec<Row> = rows.collect();
    let mut out = Out::new();
    match output {
        Output::Json => rows.iter().try_for_each(|row| out.json(row))?,
        Output::Table => {
            let head = HEAD.map(str::to_owned).to_vec();
            let cells: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
            table(&cells).iter().try_for_each(|line| out.line(line.as_bytes()))?;
            for row in &rows {
                if let Some(problem) = &row.problem {
                    out.line(format!("{}: {problem}", row.name.as_deref().unwrap_or(&row.address)).as_bytes())?;
                }
            }
            if let Some(by) = rows.iter().find_map(|row| row.elected_by.as_ref()) {
                out.line(format!("elected by: {}", text_of(by.as_bytes())).as_bytes())?;
            }
            if let Some(reach) = &reach {
                out.line(format!("quorum: {reach}").as_bytes())?;
            }
        }
    }
    out.flush()?;
    match reach {
        Some(reach) if reach.is_enough() => return Ok(ExitCode::SUCCESS),
        Some(reach) => zue_telemetry::say(format!("zue: appends are not committed: {reach}")),
        None if answers => zue_telemetry::say("zue: no replica that answers leads"),
        None => zue_telemetry::say(format!("zue: no server answers; {}", crate::NO_SERVER)),
    }
    Ok(ExitCode::FAILURE)
}

/// The voters that an append needs, and those that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reach {
    /// The number of voters that it must reach.
    pub(crate) quorum: u32,
    /// The number of voters that answer and can write.
    pub(crate) writing: u32,
    pub(crate) voters: usize,
}

impl Reach {
    /// The leader's own figures. A leader of an earlier version gives none: then a majority is needed, and the replicas in sync count.
    pub(crate) fn of(leader: &DescribeResponse) -> Self {
        let voters = leader.members.iter().filter(|member| member.voter).count();
        if leader.quorum > 0 {
            return Self { quorum: leader.quorum, writing: leader.in_reach, voters };
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self { quorum: count(voters / 2 + 1), writing: count(leader.isr.len()), voters }
    }

    fn is_enough(self) -> bool {
        self.writing >= self.quorum
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quorum, writing, voters } = self;
        write!(f, "{writing} of {voters} voters are in reach, {quorum} are needed")
    }
}

/// The newest one that says that it leads.
pub(crate) fn leader(replicas: &[ReplicaStatus]) -> Option<&DescribeResponse> {
    let answers = replicas.iter().filter_map(|replica| replica.answer.as_ref().ok());
    answers.filter(|answer| names_leader(answer, &answer.name)).max_by_key(|answer| answer.epoch)
}

fn names_leader(answer: &DescribeResponse, name: &str) -> bool {
    answer.leader.as_ref().is_some_and(|leader| leader.name == name)
}

fn row(replica: ReplicaStatus, leader: Option<&DescribeResponse>) -> Row {
    let in_sync = |name: &str| {
        leader.filter(|leader| !leader.isr.is_empty()).map(|leader| leader.isr.iter().any(|one| one == name))
    };
    let ReplicaStatus { name, address, answer } = replica;
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            let in_sync = name.as_deref().and_then(in_sync);
            return Row { name, role: "unreachable", address, in_sync, problem: Some(why), ..Row::default() };
        }
    };
    let end = |answer: &DescribeResponse| answer.log_end.max(answer.commit_end);
    let unreached = unreached(&answer.name, leader);
    let voter = leader.and_then(|leader| leader.members.iter().find(|member| member.name == answer.name));
    let role = match voter.map(|member| member.voter) {
        _ if leader.is_some_and(|leader| leader.name == answer.name) => "leader",
        _ if answer.leader.is_none() => "idle",
        Some(false) => "learner",
        // It follows by its own word; the leader that is known does not feed it.
        None if leader.is_some() => "idle",
        Some(true) | None => "follower",
    };
    Row {
        role,
        epoch: Some(answer.epoch),
        in_sync: in_sync(&answer.name),
        log: Extent {
            log_start: Some(answer.log_start),
            log_end: Some(end(&answer)),
            commit_end: Some(answer.commit_end),
            lag_records: leader.map(|leader| end(leader).saturating_sub(end(&answer))),
        },
        durability: Some(answer.durability).filter(|text| !text.is_empty()),
        version: Some(answer.version).filter(|text| !text.is_empty()),
        elected_by: Some(answer.elected_by).filter(|text| !text.is_empty()),
        stands_by: Some(answer.stands_by),
        problem: Some(answer.problem).filter(|text| !text.is_empty()).or(unreached),
        name: Some(answer.name),
        address,
    }
}

/// Why the leader does not reach it.
fn unreached(name: &str, leader: Option<&DescribeResponse>) -> Option<String> {
    let member = leader?.members.iter().find(|member| member.name == name && !member.problem.is_empty())?;
    Some(format!("{} does not reach it: {}", leader?.name, member.problem))
}

impl Default for Row {
    fn default() -> Self {
        Self {
            name: None,
            role: "unreachable",
            epoch: None,
            in_sync: None,
            log: Extent::default(),
            durability: None,
            version: None,
            elected_by: None,
            stands_by: None,
            address: String::new(),
            problem: None,
        }
    }
}

impl Row {
    /// The row, with a note on how it differs from the others.
    fn with(mut self, odd: Option<Notice>) -> Self {
        let problems: Vec<String> = self.problem.into_iter().chain(odd.map(|odd| odd.to_string())).collect();
        self.problem = Some(problems.join("; ")).filter(|problem| !problem.is_empty());
        self
    }

    fn cells(&self) -> Vec<String> {
        let text =
            |text: &Option<String>| text.as_ref().map_or_else(|| "-".to_owned(), |text| text_of(text.as_bytes()));
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let in_sync = self.in_sync.map_or("-", |in_sync| if in_sync { "yes" } else { "no" });
        vec![
            text(&self.name),
            self.role.to_owned(),
            number(self.epoch),
            in_sync.to_owned(),
            number(self.log.log_start),
            number(self.log.log_end),
            number(self.log.commit_end),
            number(self.log.lag_records),
            text(&self.durability),
            self.address.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use zue_proto::v1::{LeaderHint, MemberHint};

    use super::*;

    fn replica(name: &str, leader: Option<&str>, log_end: u64) -> ReplicaStatus {
        let member = |name: &str| MemberHint { name: name.to_owned(), voter: name != "c", ..Default::default() };
        let answer = DescribeResponse {
            name: name.to_owned(),
            leader: leader.map(|name| LeaderHint { name: name.to_owned(), ..Default::default() }),
            members: ["a", "b", "c"].map(member).to_vec(),
            log_end,
            isr: if leader == Some(name) { vec!["a".to_owned()] } else { Vec::new() },
            ..Default::default()
        };
        ReplicaStatus { name: Some(name.to_owned()), address: String::new(), answer: Ok(answer) }
    }

    #[test]
    fn why_the_leader_does_not_reach_a_replica_is_told_beside_it() {
        let mut leader = replica("a", Some("a"), 9).answer.unwrap();
        leader.members[1].problem = "no connection: the name b:1 is not resolved".to_owned();
        let told = |name: &str| row(replica(name, None, 0), Some(&leader)).problem;
        let why = "a does not reach it: no connection: the name b:1 is not resolved".to_owned();
        assert_eq!((told("b"), told("c")), (Some(why), None));
    }

    #[test]
    fn roles_lag_and_isr_are_as_the_leader_tells() {
        let down = ReplicaStatus { answer: Err("refused".to_owned()), ..replica("d", None, 0) };
        let replicas = [
            replica("a", Some("a"), 9),
            replica("b", Some("a"), 7),
            replica("c", Some("a"), 9),
            replica("b", None, 2),
            down,
        ];
        let leader = leader(&replicas).unwrap();
        let rows = replicas.iter().map(|replica| row(replica.clone(), Some(leader)));
        let shown: Vec<_> = rows.map(|row| (row.role, row.log.lag_records, row.in_sync)).collect();
        assert_eq!(
            shown,
            [
                ("leader", Some(0), Some(true)),
                ("follower", Some(2), Some(false)),
                ("learner", Some(0), Some(false)),
                ("idle", Some(7), Some(false)),
                ("unreachable", None, Some(false)),
            ]
        );
    }
}
